"""The images where two runs differ most, and pictures of who is right where.

Letters: I images; H, W size of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gss.compare.runs import Evaluated
from gss.data.images import read_native_label
from gss.data.metrics import divide
from gss.errors import DataError
from gss.evaluate.pictures import paint_ids, picture_name

EACH_WAY = 3  # images in which the run gains most, and in which it loses most
SIDE = 560  # longest side of a picture in the page, pixels
ONLY_RUN, ONLY_BASELINE = (0, 90, 200), (235, 120, 0)  # loud: a difference is often a few pixels
NEITHER, IGNORED = (160, 166, 172), (255, 255, 255)
WHO = ("both", "only the run", "only the baseline", "neither")


@dataclass(frozen=True, eq=False)
class Shown:
    """One image of a comparison.

    Args:
        index: its place in the split.
        name: path of the photograph in the data set.
        baseline, run: share of its labelled pixels that each one has right.
        who: shares of the labelled pixels, in the order of WHO.
        pictures: heading and picture.
        classes: ids that occur in label or predictions.
    """

    index: int
    name: str
    baseline: float
    run: float
    who: tuple[float, ...]
    pictures: tuple[tuple[str, Image.Image], ...]
    classes: frozenset[int]


def right_shares(run: Evaluated) -> np.ndarray:
    """float64 [I]: share of an image's labelled pixels that are right; NaN where none is labelled."""
    right, labelled = run.counts.intersection.sum(1), run.counts.labelled.sum(1)
    return divide(right, labelled)


def most_different(baseline: Evaluated, run: Evaluated, count: int = EACH_WAY) -> list[int]:
    """Images in which the run has more pixels right than the baseline, the largest gain first, then the losses.

    Returns:
        At most `count` of each; none where both are right equally often.
    """
    gain = np.nan_to_num(right_shares(run) - right_shares(baseline))
    order = np.argsort(-gain, kind="stable")
    return [int(i) for i in order[:count] if gain[i] > 0] + [int(i) for i in order[::-1][:count] if gain[i] < 0]


def show(baseline: Evaluated, run: Evaluated, index: int, colours: np.ndarray) -> Shown:
    """Read an image, its label and both predictions, and paint them.

    Args:
        colours: uint8 [N, 3].

    Raises:
        GssError: a file is missing or is not the one that was evaluated.
    """
    pairs = baseline.pairs
    pair = pairs[index]
    image, label = pair.read_image(), pair.read_label()
    first, second = (_prediction(each, index, label) for each in (baseline, run))
    right_first, right_second, scored = first == label, second == label, label != pair.space.ignore_index
    who = [
        right_first & right_second,
        ~right_first & right_second,
        right_first & ~right_second,
        ~right_first & ~right_second,
    ]
    pictures = (
        ("image", image),
        ("label", paint_ids(label, colours)),
        ("who is right", _who_picture(image, who, scored)),
        (baseline.name, paint_ids(first, colours)),
        (run.name, paint_ids(second, colours)),
    )
    present = np.union1d(np.union1d(first, second), label)
    return Shown(
        index=index,
        name=pairs.rows[index]["image"],
        baseline=float(right_shares(baseline)[index]),
        run=float(right_shares(run)[index]),
        who=tuple(float(mask[scored].mean()) for mask in who),
        pictures=tuple((heading, _fit(pixels)) for heading, pixels in pictures),
        classes=frozenset(int(i) for i in present if i < len(baseline.names)),
    )


def _prediction(run: Evaluated, index: int, label: np.ndarray) -> np.ndarray:
    """[H, W], ids in the order of the baseline's classes."""
    source = run.pairs[index].image
    path = run.evaluation.folder / "predictions" / picture_name(index, source)
    if not path.parent.is_dir():
        raise DataError(f"{run.name} was evaluated before predictions were kept", where=path.parent, todo=run.again)
    ids = run.ids[read_native_label(path)]
    if ids.shape != label.shape:
        raise DataError(f"size {ids.shape} of the prediction, {label.shape} of the label", where=path, todo=run.again)
    right = np.bincount(label[(ids == label) & (label < len(run.names))], minlength=len(run.names))
    if not np.array_equal(right, run.counts.intersection[index]):
        raise DataError("the prediction or the label is not the one the figures are of", where=path, todo=run.again)
    return ids


def _who_picture(image: np.ndarray, who: Sequence[np.ndarray], scored: np.ndarray) -> np.ndarray:
    """The faded photograph where both are right, colours elsewhere."""
    faded = 200 + image.mean(axis=2, keepdims=True) * (45 / 255)  # [H, W, 1], 200..245
    picture = np.repeat(faded.astype(np.uint8), 3, axis=2)
    for mask, colour in zip(who[1:], (ONLY_RUN, ONLY_BASELINE, NEITHER), strict=True):
        picture[mask] = colour
    picture[~scored] = IGNORED
    return picture


def _fit(pixels: np.ndarray) -> Image.Image:
    """At most SIDE pixels wide and high; no colours are mixed."""
    picture = Image.fromarray(pixels)
    scale = min(1, SIDE / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.NEAREST)
