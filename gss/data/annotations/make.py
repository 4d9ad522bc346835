"""Making label files of annotation files."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from gss.data.annotations.formats import FORMATS
from gss.data.annotations.paint import Facts, Options, Work, make_label
from gss.data.annotations.parsed import Parsed, Picture
from gss.data.classes import IGNORE
from gss.data.manifest import evenly_spaced
from gss.data.pairing import SplitFolders
from gss.data.processes import in_order
from gss.data.walk import IMAGE_SUFFIXES, is_hidden, without_extension
from gss.errors import DataError
from gss.files import remove, sha256_json
from gss.progress import track

Missing = Literal["error", "skip"]
_SHOWN = 16  # pictures on a sheet
_WORKERS = "run.resources.labels.threads"


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


def make_labels(
    root: Path,
    splits: Mapping[str, SplitFolders],
    options: Options,
    folder: Path,
    *,
    title: str,
    workers: int,
    missing: Missing = "error",
    most: int | None = None,
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
        missing: pictures that are not there are a fault, or passed over.
        most: pictures of a split that get a label, evenly spaced, and ten times as many where they are divided
            afterwards; None: all.

    Returns:
        What was made.

    Raises:
        DataError: annotations that are missing, or what would be learned wrongly; equal faults are one line.
    """
    parsed = {split: read_annotations(root, folders, options, workers) for split, folders in splits.items()}
    classes = class_names(list(parsed.values()), options)
    found: dict[str, Any] = {}
    shown: dict[str, list[tuple[Path, Path]]] = {}
    faults: list[str] = []
    for split, folders in splits.items():
        notes, place = parsed[split].notes, folder / split
        work = list(labels_to_make(root, folders, parsed[split], place, missing)) if classes else []
        if most is not None:
            work = [work[index] for index in evenly_spaced(len(work), 10 * most if folders.divide else most)]
        paint = partial(make_label, options, classes)
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
        shown[split] = [(each.shown(), each.label) for each in few]
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

    def add(self, made: bool, facts: Facts | None) -> None:
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


def read_annotations(root: Path, folders: SplitFolders, options: Options, workers: int) -> Parsed:
    """What the annotation files of a split hold.

    Raises:
        DataError: there are none; what cannot be read is a fault among the notes.
    """
    place, ending = root / folders.labels, FORMATS[options.format].ending
    files = [(place, "")] if place.is_file() else list(annotation_files(place, ending))
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


def annotation_files(folder: Path, ending: str) -> Iterator[tuple[Path, str]]:
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


def class_names(parsed: Sequence[Parsed], options: Options) -> tuple[str, ...]:
    """The names of all ids in labels."""
    declared = [name for each in parsed for name in each.classes]
    drawn = {shape.name for each in parsed for picture in each.pictures for shape in picture.shapes}
    background = [] if options.background == IGNORE else [options.background]
    return tuple(dict.fromkeys([*declared, *sorted(drawn), *background]))


def labels_to_make(
    root: Path, folders: SplitFolders, parsed: Parsed, place: Path, missing: Missing = "error"
) -> Iterator[Work]:
    """The labels of a split, and their pictures; notes pictures that are missing, or annotated twice.

    Args:
        place: folder of the files to make.
    """
    images = root / folders.images
    found = [_find(images, picture.names) for picture in parsed.pictures]
    taken: dict[str, Picture] = {}
    for picture, image in zip(parsed.pictures, found, strict=True):
        # Pictures are files, or all of them come out of the annotations: those of a split lie in one folder.
        is_embedded = picture.is_embedded and None in found
        if image is None and not is_embedded:
            what = f"pictures that are missing in {folders.images}"
            if missing == "skip":
                parsed.notes.remark(f"{what}, passed over", picture.names[0])
            else:
                parsed.notes.fault(f"{what} (`annotations.missing: skip` passes them over)", picture.names[0])
            continue
        name = without_extension(image or picture.names[0])
        if (other := taken.setdefault(name, picture)) is not picture:
            parsed.notes.fault("pictures that are annotated twice", f"{picture.names[0]} ({other.names[0]})")
            continue
        label, copy = place / "labels" / f"{name}.png", place / "images" / name
        yield Work(picture, None if is_embedded or image is None else images / image, label, copy)


def _find(images: Path, names: Sequence[str]) -> str | None:
    """The file of a picture below a folder, which may be a part of what the annotations call it: `train/a.jpg` may be
    `a.jpg` there."""
    spellings = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names]  # macOS decomposes
    for name in dict.fromkeys((*names, *spellings)):
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


def _remove_strays(place: Path, work: Sequence[Work]) -> None:
    """Take away labels and pictures that other annotations were made into."""
    labels, copies = {each.label for each in work}, {each.copy for each in work if not each.image}
    for path in place.rglob("*.*"):
        if path.is_file() and path not in labels and path.with_suffix("") not in copies:
            remove(path)
