"""The section of the report with pictures: photograph, label, prediction, error, uncertainty, maskige over each other.

Class ids travel as they are, compressed; the page paints them, so that it knows the class under the pointer.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gss.data.images import read_native_label
from gss.data.manifest import Pair, evenly_spaced
from gss.errors import GssError
from gss.evaluate.pictures import picture_name
from gss.report.html import image_uri
from gss.report.scores import packed, require_evaluations
from gss.results.reader import Evaluation, Results

EVENLY, EXTREME = 6, 4  # images evenly spaced, and best and worst ones
SIDE = 560  # longest side, pixels; larger images are made smaller
BUDGET = 3_000_000  # bytes of all pictures of a page; those beyond are left out, and the page says so


def layers(results: Results) -> dict[str, Any]:
    """Pictures of every split as a JSON value for report.js, and what is missing of them.

    Raises:
        GssError: nothing was evaluated, or there is neither a prediction nor a data set to show.
    """
    require_evaluations(results)
    for found in results.evaluations.values():
        if found.metrics["data"]["manifest_sha256"] != results.manifest.sha256:
            raise GssError(
                f"the data set was checked anew since {results.models[found.model]} was measured on {found.split}, and "
                "is another one: which picture is which is not known any more",
                where=found.folder,
                todo=f"snakemake -R evaluate -- {found.folder}/metrics.json",
            )
    names, colours = results.colours
    notes = [f"The data set is not at {results.manifest.root}: photographs and labels are left out."]
    has_data = results.manifest.root.is_dir()
    notes = [] if has_data else notes
    notes += _without_predictions(results)
    pictures: list[dict[str, Any]] = []
    size, left_out = 0, 0
    for split in results.splits:
        for index, reasons in _choice(results, split).items():
            picture = _picture(results, split, index, has_data)
            size += _bytes(picture)
            if not picture["photo"] and not picture["label"] and not picture["predictions"]:
                continue
            if size > BUDGET and pictures:
                left_out += 1
                continue
            pictures.append({**picture, "reasons": reasons})
    if left_out:
        notes.append(f"{left_out} more pictures are left out to keep this page small.")
    if not pictures:
        raise GssError(" ".join(notes), todo="set GSS_DATA to the folder of the data sets, or evaluate again")
    return {
        "notes": notes,
        "page": {
            "names": names,
            "colours": colours.tolist(),
            "palette": [*results.palette.values()],
            "models": {
                model: title
                for model, title in results.models.items()
                if any(model == m for m, _ in results.evaluations)
            },
            "pictures": pictures,
        },
    }


def _without_predictions(results: Results) -> list[str]:
    lacking = [found for found in results.evaluations.values() if not any((found.folder / "predictions").glob("*.png"))]
    if not lacking:
        return []
    files = " ".join(f"{found.folder}/metrics.json" for found in lacking)
    which = ", ".join(f"{results.models[found.model]} on {found.split}" for found in lacking)
    return [f"No predictions are kept of {which}. To make them: snakemake -R evaluate -- {files}"]


def _choice(results: Results, split: str) -> dict[int, list[str]]:
    """Images to show and why: the worst, the best, and some evenly spaced, by the last model's mIoU per image."""
    evaluation = list(results.of_split(split).values())[-1]
    total = len(evaluation.counts["labelled"])
    order = sorted(
        (index for index in range(total) if evaluation.image_miou(index) is not None),
        key=lambda index: (evaluation.image_miou(index), index),
    )
    chosen: dict[int, list[str]] = {}
    # The drawn ones first: of them the predicted maskige is kept.
    drawn = evenly_spaced(total, results.setting("evaluation.pictures", EVENLY))
    spaced = [drawn[i] for i in evenly_spaced(len(drawn), EVENLY)] if drawn else evenly_spaced(total, EVENLY)
    named = [("worst", order[:EXTREME]), ("best", order[::-1][:EXTREME]), ("evenly spaced", spaced)]
    for group in itertools.zip_longest(*([(reason, index) for index in some] for reason, some in named)):
        for reason, index in filter(None, group):
            chosen.setdefault(index, []).append(reason)
    return chosen


def _picture(results: Results, split: str, index: int, has_data: bool) -> dict[str, Any]:
    pair = results.manifest.pairs(split)[index]
    height, width = _shown_size(pair)
    file = picture_name(index, pair.image)
    models = results.of_split(split)
    photo, label = _from_data(pair, (height, width)) if has_data else ("", "")
    return {
        "split": split,
        "index": index,
        "name": pair.image.name,
        "height": height,
        "width": width,
        "shrunk": (height, width) != (pair.height, pair.width),
        "mIoU": {model: found.image_miou(index) for model, found in models.items()},
        "classes": _classes(models, index),
        "photo": photo,
        "label": label,
        "predictions": dict(_predictions(models, file, (height, width))),
        "uncertainties": dict(_uncertainties(models, file, (height, width))),
        "maskige": _of_any(models, "maskiges", file, (height, width)),
        "token_uncertainty": _of_any(models, "uncertainty_of_tokens", file, (height, width)),
    }


def _from_data(pair: Pair, size: tuple[int, int]) -> tuple[str, str]:
    """Photograph and label for the page; empty where a file cannot be read."""
    photo = label = ""
    try:
        image = cv2.resize(pair.read_image(), size[::-1], interpolation=cv2.INTER_AREA)
        photo = image_uri(image, format="WEBP", quality=72, method=5)
        label = packed(_nearest(pair.read_label(), size))
    except GssError:  # the manifest's file is gone or another one: show what is left
        pass
    return photo, label


def _predictions(models: dict[str, Evaluation], file: str, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for model, found in models.items():
        path = found.folder / "predictions" / file
        if path.is_file():
            yield model, packed(_nearest(read_native_label(path), size))


def _uncertainties(models: dict[str, Evaluation], file: str, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for model, found in models.items():
        path = found.folder / "uncertainties" / file
        if path.is_file():
            yield model, _small(path, size)


def _of_any(models: dict[str, Evaluation], folder: str, file: str, size: tuple[int, int]) -> str:
    """What a latent prior shows, where it was kept: that of any model, since all have the same one."""
    paths = [found.folder / folder / file for found in models.values()]
    return next((_small(path, size) for path in paths if path.is_file()), "")


def _small(path: Path, size: tuple[int, int]) -> str:
    with Image.open(path) as picture:
        shown = picture.convert("RGB").resize(size[::-1], Image.Resampling.BOX)
    return image_uri(shown, format="WEBP", quality=70, method=5)


def _shown_size(pair: Pair) -> tuple[int, int]:
    factor = min(1.0, SIDE / max(pair.height, pair.width))
    return max(1, round(pair.height * factor)), max(1, round(pair.width * factor))


def _nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The ids at the middle of each shown pixel."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, ids.shape, strict=True))
    return ids[np.ix_(rows, columns)]


def _classes(models: dict[str, Evaluation], index: int) -> list[list[Any]]:
    """[class, labelled pixels, {model: IoU in this image}] of the classes in label or predictions, largest first."""
    some = next(iter(models.values()))
    labelled = some.counts["labelled"][index]
    present = labelled + sum(found.counts["predicted"][index] for found in models.values())
    rows = []
    for label in np.flatnonzero(present).tolist():
        iou = {model: float(found.image_iou[index, label]) for model, found in models.items()}
        rows.append([label, int(labelled[label]), {m: None if np.isnan(v) else round(v, 4) for m, v in iou.items()}])
    return sorted(rows, key=lambda row: -row[1])


def _bytes(picture: dict[str, Any]) -> int:
    several = (picture["token_uncertainty"], *picture["predictions"].values(), *picture["uncertainties"].values())
    return sum(map(len, (picture["photo"], picture["label"], picture["maskige"], *several)))
