"""Segments whose classes MSeg changed: the published records of them, and the pixels of each.

Source: mseg-dataset/mseg-api, whose repository holds the records.
"""

import ast
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np
from PIL import Image, ImageDraw

import gss
from gss.data.images import read_image, read_native_label
from gss.data.mseg.raw import IGNORED, Table, class_names, panoptic_ids, read_polygons, relabelled_table
from gss.data.mseg.sets import RELABELLED, SETS, Part
from gss.data.native import some
from gss.errors import DataError

RECORDS, LISTS = "mseg-api/mseg/label_preparation/dataset_update_records.py", "mseg-api/mseg/relabeled_data"
GET_RECORDS = "git clone https://github.com/mseg-dataset/mseg-api"
INSTANCES = "ADE20K/ADE20K_2016_07_26"  # the full ADE20K, whose pictures `*_seg.png` have instances in blue
COUNTS = Path(gss.__file__).parent / "resources" / "mseg" / "relabel_counts.csv"
_VARIABLES = {  # of the published file of records
    "ade20k-150": "ade20k",
    "bdd": "bdd",
    "cityscapes-19": "cityscapes",
    "coco-panoptic-133": "cocop",
    "idd-39": "idd",
    "mapillary-public65": "mapillary",
    "sunrgbd-37": "sunrgbd",
}
_FEWEST_PIXELS = 10  # of an instance of ADE20K


class Segment(NamedTuple):
    """A segment of an image that was looked at, and its class before and after.

    Args:
        name: as the records have it.
        number: its id in the image.
    """

    name: str
    number: int
    before: str
    after: str


Records = Mapping[str, Mapping[str, Sequence[Segment]]]
"""By split and name of the label, in the order of the published files."""


def read_records(root: Path, name: str) -> Records:
    """The published records of a set.

    Args:
        root: folder of all sets.
        name: of the set before relabelling.

    Raises:
        DataError: the records are missing or damaged, name a class that is none, or a segment twice.
    """
    known = {*class_names(name + RELABELLED), "unlabeled"}
    records: dict[str, dict[str, list[Segment]]] = {split: {} for split in SETS[name].parts}
    seen, faults = set(), []
    for split, before, after, file in _groups(root / RECORDS, _VARIABLES[name]):
        if strange := [each for each in (before, after) if each not in known]:
            faults.append(f"{file}: {strange[0]!r} is no class of {name}{RELABELLED}")
        if split not in records:
            faults.append(f"{file}: of a split {split!r}; there are {', '.join(records)}")
            continue
        for line in _lines(root / LISTS / file):
            try:
                label, number = _place(name, Path(line).stem)
            except ValueError:
                faults.append(f"{file}: {line!r} names no segment of {name}")
                continue
            if (split, label, number) in seen:
                faults.append(f"{file}: {line!r} is there a second time")
            seen.add((split, label, number))
            records[split].setdefault(label, []).append(Segment(line, number, before, after))
    if faults:
        raise DataError(f"the records have {len(faults)} faults: {some(faults)}", where=root / LISTS, todo=_again())
    return records


def differences(name: str, records: Records) -> list[str]:
    """What is not as it was published in the number of segments by split, class before and class after."""
    rows = [row for row in csv.DictReader(COUNTS.read_text().splitlines()) if row["dataset"] == name]
    expected = {(row["split"], row["class_before"], row["class_after"]): int(row["n_segments"]) for row in rows}
    found = Counter(
        (split, segment.before, segment.after)
        for split, labels in records.items()
        for segments in labels.values()
        for segment in segments
    )
    return [
        f"{split}: {found[split, before, after]} segments from {before} to {after}, published: {count}"
        for (split, before, after), count in (expected | {each: 0 for each in found if each not in expected}).items()
        if found[split, before, after] != count
    ]


def _again() -> str:
    return f"get them again: {GET_RECORDS}"


def _groups(path: Path, variable: str) -> Iterator[tuple[str, str, str, str]]:
    """Split, class before, class after and list of segments: calls in a file of Python, which is read and not run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        todo = f"they come with MSeg: {GET_RECORDS} {path.parents[2]}"
        raise DataError(
            f"the records of relabelled segments cannot be read: {reason}", where=path, todo=todo
        ) from error
    for node in tree.body:
        names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        if names == [f"{variable}_update_records"] and isinstance(node, ast.Assign):
            try:
                calls = cast(ast.List, node.value).elts
                groups = [[ast.literal_eval(value) for value in cast(ast.Call, call).args] for call in calls]
                found = [(split, before, after, file) for _, split, before, after, file in groups]
            except (AttributeError, ValueError) as error:
                what = f"{variable}_update_records is no list of calls with five texts each: {error}"
                raise DataError(what, where=path, todo=_again()) from error
            yield from found
            return
    raise DataError(f"no list {variable}_update_records", where=path, todo=_again())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"a list of segments cannot be read: {reason}", where=path, todo=_again()) from error


def _place(name: str, record: str) -> tuple[str, int]:
    """The name of a label below its folder, without ending, and the segment of it that a record names.

    Raises:
        ValueError: the record names none.
    """
    stem, _, number = record.rpartition("_")
    if name in ("cityscapes-19", "idd-39"):
        folder, _, stem = stem.removeprefix("seq").partition("_")
        stem = f"{folder}/{stem.removesuffix('_leftImg8bit')}"
    elif name == "mapillary-public65":
        stem = stem.removeprefix("mapillary_")
    elif name == "sunrgbd-37":
        stem = f"00{stem.removeprefix('img-')}"
    return stem, int(number)


# ---- pixels


def segment_file(root: Path, name: str, part: Part, label: str, instances: Mapping[str, Path]) -> Path:
    """The file that says where the segments of a label are, or belongs.

    Args:
        label: its name below its folder, without ending.
        instances: those of ADE20K, by the same.
    """
    found = SETS[name]
    folder = root / found.folder
    match found.segments:
        case "blue":
            return instances.get(label, root / INSTANCES / "images/**" / f"{label}_seg.png")
        case "panoptic":
            return folder / part.raw / f"{label}.png"
        case "instances":
            return folder / Path(part.raw).parent / "instances" / f"{label}.png"
        case "polygons":
            return folder / part.raw / f"{label}_gtFine_polygons.json"
        case _:
            return folder / part.semseg / f"{label}{found.ending}"


def find_instances(root: Path) -> dict[str, Path]:
    """The pictures of ADE20K's instances by the names of the images."""
    return {path.name.removesuffix("_seg.png"): path for path in sorted((root / INSTANCES).rglob("*_seg.png"))}


@dataclass(frozen=True)
class Relabelled:
    """From a label with the classes of a set to one with those after relabelling.

    Args:
        table: for whole classes.
        ids: of classes after relabelling, by their names.
    """

    table: Table
    ids: Mapping[str, int]
    segments: str | None
    is_strict: bool

    @classmethod
    def of(cls, name: str) -> "Relabelled":
        ids = {each: index for index, each in enumerate(class_names(name + RELABELLED))} | {"unlabeled": IGNORED}
        return cls(relabelled_table(name), ids, SETS[name].segments, SETS[name].is_strict)

    def read(self, path: Path, changes: tuple[Sequence[Segment], Path]) -> np.ndarray:
        """uint8 [H, W].

        Args:
            path: of the label before.
            changes: its segments in the order of their records, and the file that says where they are.

        Raises:
            DataError: a file cannot be read or is missing; a segment is missing, or has pixels of another class.
        """
        segments, file = changes
        before = read_native_label(path)
        label = self.table.of(before)
        if not segments:
            return label
        if not file.is_file():
            raise DataError(f"the file with segments of {path.name} is missing", where=file)
        pixels_of = self._pixels(file, before)
        for segment in segments:
            inside = pixels_of(segment.number)
            # A polygon may lie outside of the image, and changes nothing then, as published.
            fewest = {"blue": _FEWEST_PIXELS, "polygons": 0}.get(self.segments or "", 1)
            if inside.sum() < fewest:
                raise DataError(f"no segment {segment.number} ({segment.name}) in {file}")
            found = np.unique(label[inside])
            if self.is_strict and found.tolist() != [self.ids[segment.before]]:
                raise DataError(
                    f"segment {segment.number} ({segment.name}) has other classes than {segment.before}: ids "
                    f"{found.tolist()}, expected {self.ids[segment.before]}"
                )
            label[inside] = self.ids[segment.after]
        return label

    def _pixels(self, file: Path, before: np.ndarray) -> Callable[[int], np.ndarray]:
        """For the pixels, bool [H, W], of a segment."""
        if self.segments == "polygons":
            return lambda number: _polygon(file, number, before.shape)
        if self.segments == "semseg":
            numbers = before
        elif self.segments == "panoptic":
            numbers = panoptic_ids(file)
        elif self.segments == "instances":
            numbers = read_native_label(file)
        else:
            blue = np.ascontiguousarray(read_image(file, "stored")[..., 2])
            numbers = cv2.resize(blue, before.shape[::-1], interpolation=cv2.INTER_NEAREST)
        if numbers.shape != before.shape:
            raise DataError(f"another size, {numbers.shape}, than its label, {before.shape}", where=file)
        return lambda number: numbers == number


def _polygon(file: Path, number: int, size: tuple[int, ...]) -> np.ndarray:
    """bool [H, W]: the polygon of this number; nothing of one without a side.

    Raises:
        DataError: there is none of this number.
    """
    picture = Image.new("L", (size[1], size[0]))
    points = next((polygon.points for polygon in read_polygons(file).all if polygon.number == number), None)
    if points is None:
        raise DataError(f"no segment {number} in {file}")
    if len(points) > 1:
        ImageDraw.Draw(picture).polygon(points, outline=1, fill=1)  # one of no height is a line
    return np.asarray(picture) > 0
