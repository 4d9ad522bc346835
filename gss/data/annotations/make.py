"""Making label files of annotation files."""

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gss.data.annotations.coco import undeclared_segments
from gss.data.annotations.formats import FORMATS, Overlap
from gss.data.annotations.labelme import embedded_picture
from gss.data.annotations.notes import Notes
from gss.data.annotations.parsed import Parsed, Picture
from gss.data.annotations.shapes import Shape, covered, vertices
from gss.data.classes import IGNORE, ids_dtype, ignore_index
from gss.data.images import Orientation
from gss.data.manifest import evenly_spaced
from gss.data.pairing import SplitFolders
from gss.data.processes import in_order
from gss.data.tiff import ORIENTATION
from gss.data.walk import IMAGE_SUFFIXES, is_hidden, without_extension
from gss.errors import DataError
from gss.files import remove, sha256_file, sha256_json, write_atomic
from gss.progress import track

_VERSION = 1  # raised when other labels are made of the same annotations
_KEY = "annotation"  # of the text in a label file that says what it was made of, and what it holds
_EMBEDDED = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
_SHOWN = 16  # pictures on a sheet
_WORKERS = "run.resources.labels.threads"


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


class Made(NamedTuple):
    """Label files.

    Args:
        classes: the names of their ids.
        splits: by split `files`, `shapes`, `pixels` (both by class), `ignored_pixels`, `kinds`, `made_of` (a
            hash), `remarks`, and whether pictures were `embedded`; JSON values only.
        shown: by split some pictures and their labels, evenly spaced.
    """

    classes: tuple[str, ...]
    splits: dict[str, Any]
    shown: dict[str, list[tuple[Path, Path]]]


class _Work(NamedTuple):
    """A picture whose label is to be there.

    Args:
        image: its file; None: it is in the annotation file.
        label, copy: the files to make, the latter without extension, of the picture where it is in the annotation file.
    """

    picture: Picture
    image: Path | None
    label: Path
    copy: Path


class _Facts(NamedTuple):
    """What a label holds: pixels by class, ignored ones, shapes by class and by kind, and what to say of them; and a
    hash of what it was made of."""

    made_of: str
    pixels: list[int]
    ignored: int
    shapes: dict[str, int]
    kinds: dict[str, int]
    remarks: list[list[str]]


def make_labels(
    root: Path, splits: Mapping[str, SplitFolders], options: Options, folder: Path, *, title: str, workers: int
) -> Made:
    """Make a label file of every annotated picture, `folder/SPLIT/labels/NAME.png`, that is not there yet.

    They hold ids of the classes: those that the annotation files declare in their order, else the names of all shapes,
    sorted; then that of the background, if it is a new one. A label says itself what it was made of: one that was made
    of the same stays, so that who was interrupted goes on. Pictures that are in annotation files alone become files in
    `folder/SPLIT/images`.

    Args:
        root: folder of the data set.
        splits: name -> folder of pictures, and annotations: a file, or a folder with files; where there is a list, the
            pictures that count.
        title: of lines of progress.
        workers: the most processes; labels do not depend on it.

    Returns:
        What was made.

    Raises:
        DataError: annotations that are missing, or what would be learned wrongly; equal faults are one line.
    """
    parsed = {split: _read(root, folders, options, workers) for split, folders in splits.items()}
    classes = _classes(list(parsed.values()), options)
    found: dict[str, Any] = {}
    shown: dict[str, list[tuple[Path, Path]]] = {}
    faults: list[str] = []
    for split, folders in splits.items():
        notes, place = parsed[split].notes, folder / split
        work = list(_plan(root, folders, parsed[split], place))
        paint = partial(_make, options, classes)
        results = in_order(paint, ((each,) for each in work), workers=workers, total=len(work), key=_WORKERS)
        total = _Total(classes)
        for made, facts, said in track(results, f"{title} {split}", len(work), "labels"):
            total.add(made, facts)
            notes.take(said)
        faults += [f"{split}: {line}" for line in notes.faults()]
        if not work and not notes.faults():
            faults.append(f"{split}: no annotated picture in {folders.labels}")
        _remove_strays(place, work)
        found[split] = {**total.as_dict(), "remarks": notes.remarks(), "embedded": any(not each.image for each in work)}
        few = [work[index] for index in evenly_spaced(len(work), _SHOWN)]
        shown[split] = [(each.image or _copy(each), each.label) for each in few]
        print(f"{title} {split}: {total.made} of {len(work)} labels made", flush=True)
    if faults:
        what = "\n".join([f"annotations of {title} cannot be used:", *(f"  {line}" for line in faults)])
        raise DataError(what, where=root, todo="mend the files, or the data section of the experiment, and run again")
    return Made(classes, found, shown)


class _Total:
    """Sums over the labels of a split."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.made = self.files = self.ignored = 0
        self.made_of: list[str] = []
        self.pixels = np.zeros(len(classes), np.int64)
        self.shapes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def add(self, made: bool, facts: _Facts | None) -> None:
        if facts is None:
            return
        self.made += made
        self.files += 1
        self.made_of.append(facts.made_of)
        self.ignored += facts.ignored
        self.pixels += facts.pixels
        self.shapes.update(facts.shapes)
        self.kinds.update(facts.kinds)

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "shapes": {name: self.shapes[name] for name in self.classes},
            "pixels": {name: int(pixels) for name, pixels in zip(self.classes, self.pixels, strict=True)},
            "ignored_pixels": self.ignored,
            "kinds": dict(sorted(self.kinds.items())),
            "made_of": sha256_json(self.made_of),
        }


# ---- what there is


def _read(root: Path, folders: SplitFolders, options: Options, workers: int) -> Parsed:
    """What the annotation files of a split hold."""
    place, ending = root / folders.labels, FORMATS[options.format].ending
    files = [(place, "")] if place.is_file() else list(_files(place, ending))
    if not files:
        what = (
            f"no annotations: no file, and no folder with files *{ending}" if place.exists() else "no such annotations"
        )
        raise DataError(
            what, where=place, todo=f"name a file of the format {options.format} in `labels`, or its folder"
        )
    read = partial(_parse, options.format, list(options.classes))
    whole = Parsed()
    for parsed in in_order(read, iter(files), workers=workers, total=len(files), key=_WORKERS):
        whole.classes += parsed.classes
        whole.pictures += parsed.pictures
        whole.notes.take(parsed.notes)
    if folders.list is not None:
        listed = _listed(folders.list, folders.images)
        whole.pictures = [each for each in whole.pictures if not listed.isdisjoint(map(without_extension, each.names))]
    return whole


def _files(folder: Path, ending: str) -> Iterator[tuple[Path, str]]:
    """The files with this ending in a folder and below it, and the folder that each lies in: `a/b/` or ``."""
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if not is_hidden(name))
        inside = Path(os.path.relpath(place, folder)).as_posix()
        for name in sorted(names):
            # labelImg writes the names of classes beside YOLO's files
            if name.lower().endswith(ending) and not name.startswith(".") and name != "classes.txt":
                yield Path(place, name), "" if inside == "." else f"{inside}/"


def _listed(path: Path, images: str) -> set[str]:
    """Names below the folder of images that a list has, without extension."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of images cannot be read: {error}", where=path) from error
    return {without_extension(line.split()[0]).removeprefix(f"{images}/") for line in lines if line.strip()}


def _parse(name: str, classes: list[str], path: Path, inside: str) -> Parsed:
    try:
        return FORMATS[name].read(path, inside, classes)
    except DataError as error:
        parsed = Parsed()
        parsed.notes.fault("files that cannot be read", "; ".join(filter(None, (f"{path}: {error.what}", error.todo))))
        return parsed


def _classes(parsed: Sequence[Parsed], options: Options) -> tuple[str, ...]:
    """The names of all ids in labels."""
    declared = [name for each in parsed for name in each.classes]
    drawn = {shape.name for each in parsed for picture in each.pictures for shape in picture.shapes}
    background = [] if options.background == IGNORE else [options.background]
    return tuple(dict.fromkeys([*declared, *sorted(drawn), *background]))


def _plan(root: Path, folders: SplitFolders, parsed: Parsed, place: Path) -> Iterator[_Work]:
    """The labels of a split, and their pictures; notes pictures that are missing, or annotated twice."""
    images = root / folders.images
    found = [_find(images, picture.names) for picture in parsed.pictures]
    taken: dict[str, Picture] = {}
    for picture, image in zip(parsed.pictures, found, strict=True):
        # Pictures are files, or all of them come out of the annotations: those of a split lie in one folder.
        is_embedded = picture.is_embedded and None in found
        if image is None and not is_embedded:
            what = f"pictures that are missing in {folders.images}"
            parsed.notes.fault(f"{what} (`list: FILE.txt` names those that count)", picture.names[0])
            continue
        name = without_extension(image or picture.names[0])
        if (other := taken.setdefault(name, picture)) is not picture:
            parsed.notes.fault("pictures that are annotated twice", f"{picture.names[0]} ({other.names[0]})")
            continue
        label, copy = place / "labels" / f"{name}.png", place / "images" / name
        yield _Work(picture, None if is_embedded or image is None else images / image, label, copy)


def _find(images: Path, names: Sequence[str]) -> str | None:
    """The file of a picture below a folder, which may be a part of what the annotations call it: `train/a.jpg` may be
    `a.jpg` there."""
    for name in names:
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")] or [name]
        endings = (
            ("",) if parts[-1].lower().endswith(IMAGE_SUFFIXES) else (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
        )
        for first in range(len(parts)):
            inside = "/".join(parts[first:])
            for ending in endings:
                if os.path.isfile(images / f"{inside}{ending}"):
                    return f"{inside}{ending}"
    return None


def _copy(work: _Work) -> Path:
    """The file of a picture that was in the annotation file."""
    files = (work.copy.with_name(work.copy.name + ending) for ending in _EMBEDDED.values())
    return next((file for file in files if file.is_file()), work.copy)


def _remove_strays(place: Path, work: Sequence[_Work]) -> None:
    """Take away labels and pictures that other annotations were made into."""
    labels, copies = {each.label for each in work}, {each.copy for each in work if not each.image}
    for path in place.rglob("*.*"):
        if path.is_file() and path not in labels and path.with_suffix("") not in copies:
            remove(path)


# ---- one label


def _make(options: Options, classes: Sequence[str], work: _Work) -> tuple[bool, _Facts | None, Notes]:
    """Whether a label was made, what it holds (None where it cannot be made), and what to say of it."""
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


def _size(work: _Work, orientation: Orientation, notes: Notes) -> tuple[int, int] | None:
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
        copy = work.copy.with_name(work.copy.name + _EMBEDDED[str(kind)])
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


def _known(path: Path, made_of: str) -> _Facts | None:
    """What a label that is there holds; None where it was made of something else."""
    try:
        with Image.open(path) as file:
            facts = _Facts(**json.loads(getattr(file, "text", {})[_KEY]))
        return facts if facts.made_of == made_of else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, label: np.ndarray, facts: _Facts) -> None:
    text = PngInfo()
    text.add_text(_KEY, json.dumps(facts._asdict(), separators=(",", ":")))
    write_atomic(path, lambda file: Image.fromarray(label).save(file, "PNG", pnginfo=text, compress_level=4))


def _painted(
    picture: Picture, size: tuple[int, int], options: Options, classes: Sequence[str], made_of: str, notes: Notes
) -> tuple[np.ndarray, _Facts]:
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
    return label, _Facts(made_of, of_classes, int(counts[ignored]), dict(shapes), dict(kinds), remarks)


def _scaled(picture: Picture, size: tuple[int, int]) -> list[Shape]:
    """The shapes in pixels."""
    if not picture.is_relative:
        return picture.shapes
    sides = size[::-1]
    return [
        Shape(each.name, each.kind, [[value * sides[k % 2] for k, value in enumerate(ring)] for ring in each.values])
        for each in picture.shapes
    ]
