"""Masks of shapes that are no outlines: lengths of runs, and pictures.

`pycocotools` reads runs as text, too, and takes those that do not fill their mask or are cut off; what else is here it
does not read.
"""

import base64
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from gss.data.mseg.raw import panoptic_ids
from gss.errors import DataError

Size = tuple[int, int]


def of_runs(counts: str | Sequence[int], size: Sequence[int], *, order: Literal["F", "C"] = "F") -> np.ndarray:
    """The mask that lengths of runs mean.

    Args:
        counts: lengths of runs, in turn outside and inside, the first outside; or COCO's text of these.
        size: height and width of the mask.
        order: whether runs go down the columns (`F`, COCO) or along the rows (`C`, CVAT).

    Returns:
        bool [height, width].

    Raises:
        DataError: the runs do not add up to the size.

    Source:
        The mask API of COCO; the format "CVAT for images 1.1".
    """
    height, width = (int(side) for side in size)
    lengths = np.asarray(lengths_of(counts) if isinstance(counts, str) else counts, np.int64)
    if lengths.sum() != height * width or (lengths < 0).any():
        raise DataError(f"runs of {lengths.sum()} pixels in a mask of {height}x{width}")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return inside.reshape((height, width), order=order)


def lengths_of(text: str) -> list[int]:
    """The lengths that COCO's text means: numbers of 6-bit letters from `0` on, the lowest five bits first, the sixth
    says that more follow; signed, and from the fourth on what is to be added to the last but one.

    Raises:
        DataError: a letter that is none of these, or the last number is cut off.
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise DataError(f"{letter!r} in the text of a mask")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError("the text of a mask is cut off")
    return lengths


def of_base64(text: str) -> np.ndarray:
    """The mask of a picture within a text file, as LabelMe has them: bool [h, w].

    Raises:
        DataError: it is no picture.
    """
    try:
        return _opaque(Image.open(io.BytesIO(base64.b64decode(text))))
    except Exception as error:  # of damaged files Pillow raises what happens to happen
        raise DataError(f"the mask cannot be decoded: {error}") from error


def of_file(path: str) -> np.ndarray:
    """The mask of a picture in a file of its own, as LabelMe 3 has them: bool [h, w].

    Raises:
        DataError: there is none, or it is no picture.
    """
    try:
        with Image.open(path) as file:
            return _opaque(file)
    except Exception as error:
        raise DataError(f"the mask {Path(path).name} cannot be read: {error}") from error


def of_segment(path: str, segment: int) -> np.ndarray:
    """The pixels of one segment of a panoptic PNG: bool [H, W].

    Raises:
        DataError: there is no such file, or it is no picture.
    """
    found: np.ndarray = _segments(path) == segment
    return found


def segments_of(path: str) -> set[int]:
    """The segments of a panoptic PNG; 0 is none.

    Raises:
        DataError: there is no such file, or it is no picture.
    """
    return {int(segment) for segment in np.unique(_segments(path))} - {0}


@lru_cache(1)  # all segments of a picture are asked for one after the other
def _segments(path: str) -> np.ndarray:
    return panoptic_ids(Path(path))


def _opaque(picture: Image.Image) -> np.ndarray:
    """Where a picture has transparency, what is not transparent; else what is not black."""
    if picture.mode in ("RGBA", "LA", "PA"):
        return np.asarray(picture.getchannel("A")) > 0
    found: np.ndarray = np.asarray(picture) > 0
    return found if found.ndim == 2 else np.asarray(found.any(2))


READERS: dict[str, Callable[..., np.ndarray]] = {
    "runs": of_runs,
    "base64": of_base64,
    "file": of_file,
    "segment": of_segment,
}


def read_mask(values: dict[str, Any], picture: Size) -> tuple[np.ndarray, int, int]:
    """A mask, and where its upper left pixel is in the picture.

    Args:
        values: of a `Shape` of kind `mask`: `how`, a key of `READERS`; the arguments of that function; and `top` and
            `left`, or None of a mask of the whole picture.
        picture: height and width.

    Raises:
        DataError: a mask that is damaged, of another size than the picture, or leaves it.
    """
    given = {key: value for key, value in values.items() if key not in ("how", "top", "left")}
    mask = READERS[values["how"]](**given)
    top, left = values.get("top"), values.get("left")
    height, width = mask.shape
    if top is None or left is None:
        if (height, width) != picture:
            raise DataError(f"a mask of {height}x{width} in a picture of {picture[0]}x{picture[1]} (height x width)")
        return mask, 0, 0
    if top < 0 or left < 0 or top + height > picture[0] or left + width > picture[1]:
        raise DataError(f"a mask of {height}x{width} at row {top}, column {left} leaves the picture")
    return mask, top, left
