"""The label of one annotated picture."""

import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gss.data.annotations.coco import undeclared_segments
from gss.data.annotations.formats import Overlap
from gss.data.annotations.labelme import embedded_picture
from gss.data.annotations.notes import Notes
from gss.data.annotations.parsed import Picture
from gss.data.annotations.shapes import Shape, covered, vertices
from gss.data.classes import IGNORE, ids_dtype, ignore_index
from gss.data.images import Orientation
from gss.data.tiff import ORIENTATION
from gss.errors import DataError
from gss.files import sha256_file, sha256_json, write_atomic

_VERSION = 1  # raised when other labels are made of the same annotations
_KEY = "annotation"  # of the text in a label file that says what it was made of, and what it holds
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


class Options(NamedTuple):
    """How annotations are read.

    Args:
        format: a key of `FORMATS`.
        overlap: which of two shapes of different classes has a pixel: the last one, the smallest one, or it is a fault.
        background: class of what no shape covers, or `ignore`.
        line_width: pixels across of lines and points.
        classes: names by number, for formats that have none.
        orientation: what an EXIF orientation of pictures means where annotations do not say their size.
    """

    format: str
    overlap: Overlap
    background: str = IGNORE
    line_width: float = 10.0
    classes: tuple[str, ...] = ()
    orientation: Orientation = "apply"


class Work(NamedTuple):
    """A picture whose label is to be there.

    Args:
        image: its file; None: it is in the annotation file.
        label, copy: the files to make, the latter without extension, of the picture where it is in the annotation file.
    """

    picture: Picture
    image: Path | None
    label: Path
    copy: Path

    def shown(self) -> Path:
        """The file of the picture."""
        copies = (self.copy.with_name(self.copy.name + ending) for ending in _ENDINGS.values())
        return self.image or next((file for file in copies if file.is_file()), self.copy)


class Facts(NamedTuple):
    """What a label holds: pixels by class, ignored ones, shapes by class and by kind, and what to say of them; and a
    hash of what it was made of."""

    made_of: str
    pixels: list[int]
    ignored: int
    shapes: dict[str, int]
    kinds: dict[str, int]
    remarks: list[list[str]]


def make_label(options: Options, classes: Sequence[str], work: Work) -> tuple[bool, Facts | None, Notes]:
    """Make the label of a picture, and the file of one that is in its annotation alone, where they are not there.

    Returns:
        Whether a label was made, what it holds (None where it cannot be made), and what to say of it.
    """
    notes, picture = Notes(), work.picture
    try:
        size = _size(work, options.orientation, notes)
        if size is None:
            return False, None, notes
        made_of = _fingerprint(picture, size, options, classes)
        facts = _known(work.label, made_of)
        is_new = facts is None
        if facts is None:
            label, facts = _painted(picture, size, options, classes, made_of, notes)
            if notes.faults():
                return False, None, notes
            _write(work.label, label, facts)
        for what, case in facts.remarks:
            notes.remark(what, case)
        return is_new, facts, notes
    except (DataError, ValueError, TypeError, KeyError, OverflowError) as error:  # half a point, a word for a number
        reason = error.what if isinstance(error, DataError) else error
        notes.fault("pictures whose annotation cannot be used", f"{picture.names[0]}: {reason}")
        return False, None, notes


def _size(work: Work, orientation: Orientation, notes: Notes) -> tuple[int, int] | None:
    """Height and width of the label: as the annotation says, or those of the picture; None where these differ."""
    content: Any = work.image
    if work.image is None:
        data = embedded_picture(work.picture.file)
        content = io.BytesIO(data)
    try:
        with Image.open(content) as file:
            stored, turned = (file.height, file.width), (file.height, file.width)
            if file.getexif().get(ORIENTATION, 1) >= 5:
                turned = (file.width, file.height)
            kind = file.format
    except Exception as error:  # of damaged files Pillow raises what happens to happen
        raise DataError(f"the picture cannot be read: {error}") from error
    if work.image is None:
        copy = work.copy.with_name(work.copy.name + _ENDINGS[str(kind)])
        if not (copy.is_file() and copy.read_bytes() == data):
            write_atomic(copy, lambda file: file.write(data))
    declared = work.picture.size
    if declared is None:
        return stored if orientation == "stored" else turned
    if declared not in (stored, turned):
        sizes = f"{declared[0]}x{declared[1]}, the picture is {stored[0]}x{stored[1]}"
        notes.fault("sizes that are not those of the pictures (height x width)", f"{work.picture.names[0]}: {sizes}")
        return None
    return declared


def _fingerprint(picture: Picture, size: tuple[int, int], options: Options, classes: Sequence[str]) -> str:
    """A hash of all that a label depends on."""
    files = {shape.values["path"] for shape in picture.shapes if shape.kind == "mask" and "path" in shape.values}
    shapes = [[shape.name, shape.kind, shape.values, shape.layer] for shape in picture.shapes]
    hashes = [sha256_file(Path(path)) for path in sorted(files) if os.path.isfile(path)]
    how = [options.overlap, options.background, options.line_width, picture.is_relative]
    named = [os.path.basename(path) for path in sorted(files)]
    text = json.dumps(shapes)
    for path in files:
        text = text.replace(json.dumps(path), json.dumps(os.path.basename(path)))  # the folder may move
    return sha256_json([_VERSION, size, how, list(classes), text, named, hashes])


def _known(path: Path, made_of: str) -> Facts | None:
    """What a label that is there holds; None where it was made of something else."""
    try:
        with Image.open(path) as file:
            facts = Facts(**json.loads(getattr(file, "text", {})[_KEY]))
        return facts if facts.made_of == made_of else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, label: np.ndarray, facts: Facts) -> None:
    text = PngInfo()
    text.add_text(_KEY, json.dumps(facts._asdict(), separators=(",", ":")))
    write_atomic(path, lambda file: Image.fromarray(label).save(file, "PNG", pnginfo=text, compress_level=4))


def _painted(
    picture: Picture, size: tuple[int, int], options: Options, classes: Sequence[str], made_of: str, notes: Notes
) -> tuple[np.ndarray, Facts]:
    """A label, [H, W] of the classes' type, and what it holds; notes the faults of its shapes."""
    if strange := undeclared_segments(picture):
        notes.fault("segments that the JSON does not name", f"{picture.names[0]}: {strange[0]}")
    remarks: list[list[str]] = []
    ids, ignored = {name: index for index, name in enumerate(classes)}, ignore_index(len(classes))
    ground = ignored if options.background == IGNORE else ids[options.background]
    label = np.full(size, ground, ids_dtype(len(classes)))
    is_drawn = np.zeros(size, bool)
    found = []
    for shape in _scaled(picture, size):
        corners, case = vertices(shape), picture.about(shape)
        if len(corners) and (corners.min() < 0 or (corners > size[::-1]).any()):
            remarks.append(["shapes that reach outside of their picture, clipped", case])
        area = covered(shape, size, options.line_width)
        if not area.mask.any():
            remarks.append(["shapes that cover no pixel's centre", case])
        found.append((shape, area))
    if options.overlap == "smallest":
        found.sort(key=lambda each: -np.count_nonzero(each[1].mask))
    else:
        found.sort(key=lambda each: each[0].layer)
    for shape, (mask, top, left) in found:
        window = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        if options.overlap == "error":
            both = mask & is_drawn[window] & (label[window] != ids[shape.name])
            if both.any():
                other = classes[int(label[window][both][0])]
                pixels = f"{shape.name} over {other}, {np.count_nonzero(both)} pixels"
                notes.fault("overlaps of shapes of two classes", f"{picture.names[0]}: {pixels}")
        label[window][mask] = ids[shape.name]
        is_drawn[window] |= mask
    counts = np.bincount(label.ravel(), minlength=ignored + 1)
    shapes = Counter(shape.name for shape in picture.shapes)
    kinds = Counter[str](shape.kind for shape in picture.shapes)
    of_classes = counts[: len(classes)].tolist()
    return label, Facts(made_of, of_classes, int(counts[ignored]), dict(shapes), dict(kinds), remarks)


def _scaled(picture: Picture, size: tuple[int, int]) -> list[Shape]:
    """The shapes in pixels."""
    if not picture.is_relative:
        return picture.shapes
    sides = size[::-1]
    return [
        Shape(each.name, each.kind, [[value * sides[k % 2] for k, value in enumerate(ring)] for ring in each.values])
        for each in picture.shapes
    ]
