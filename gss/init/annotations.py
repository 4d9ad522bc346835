"""Annotation files: which formats lie in a folder, and of which photographs.

A format is told by words in a file; what it holds is read once, by the readers that `gss labels` uses.
"""

import contextlib
import mmap
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gss.data.annotations.formats import FORMATS
from gss.data.annotations.make import labels_to_make, read_annotations
from gss.data.annotations.paint import Options, Work
from gss.data.annotations.parsed import Parsed
from gss.data.manifest import evenly_spaced
from gss.data.pairing import SplitFolders
from gss.data.walk import composed, without_extension
from gss.init.folders import PHOTOGRAPHS, Folder, Pictures, command, without_split
from gss.init.tables import Table

_OF_ONE_PICTURE = ("labelme", "labelme_xml", "yolo")  # formats with a file for each picture
_LOOKED_INTO = 1000  # files of a folder; names by which photographs are found
_HEAD = 2**16  # bytes
_NUMBERS = [f"class_{number}" for number in range(1000)]  # of YOLO, where nothing names them


_Groups = dict[tuple[str, Folder], dict[str, list[Folder]]]  # files by format and path without split, and by split


class Files(NamedTuple):
    """Annotation files that belong together.

    Args:
        format: a key of `FORMATS`.
        labels: by split, or `all`, the file, or the folder of files, below the root.
        names: of all files.
    """

    format: str
    labels: dict[str, str]
    names: tuple[str, ...]

    def shown(self) -> str:
        """As text for messages."""
        return f"{', '.join(self.labels.values())} ({self.format})"


class Part(NamedTuple):
    """A split.

    Args:
        folders: of photographs, and annotations.
        parsed: what these hold.
        work: the labels to make: of the pictures that are there.
        keys: what these are divided by.
    """

    folders: SplitFolders
    parsed: Parsed
    work: list[Work]
    keys: list[str]


@dataclass(frozen=True)
class Annotations:
    """Annotation files with the photographs that they are of.

    Args:
        parts: by split, or `all`.
    """

    files: Files
    parts: dict[str, Part]

    @property
    def parsed(self) -> list[Parsed]:
        """What the files of all splits hold."""
        return [part.parsed for part in self.parts.values()]

    @property
    def works(self) -> list[Work]:
        """The labels to make of all splits."""
        return [work for part in self.parts.values() for work in part.work]

    def size(self) -> tuple[int, int]:
        """Pictures that are there, and shapes in them."""
        return len(self.works), sum(len(work.picture.shapes) for work in self.works)

    def options(self) -> Options:
        """How they are read where nothing else is decided."""
        classes = self.parsed[0].classes if self.files.format == "yolo" else ()
        return Options(self.files.format, FORMATS[self.files.format].overlap, classes=tuple(classes))

    def command(self, root: Path) -> str:
        """The call that takes these alone."""
        return command(root, [part.folders for part in self.parts.values()])


# ---- which files


def format_of(path: Path) -> str:
    """The format of an annotation file by words in it, without parsing it; empty: it is none."""
    kind = path.suffix.lower()
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:  # ValueError: it is empty
        if kind == ".txt":
            return "yolo" if _is_yolo(file.read(2**20)) else ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:

            def has(*words: bytes, within: int = sys.maxsize) -> bool:
                return all(content.find(word, 0, within) >= 0 for word in words)

            if kind == ".xml" and has(b"<annotations"):
                return "cvat"
            if kind == ".xml":  # Pascal VOC has boxes alone
                return "labelme_xml" if has(b"<annotation") and not has(b"<bndbox") else ""
            if has(b'"shapes"', b'"points"', within=_HEAD):  # behind them may be a picture of some MB
                return "labelme"
            if has(b'"images"', b'"annotations"', b'"categories"'):
                return "coco_panoptic" if has(b'"segments_info"') else "coco"
            if has(b'"shapes"', b'"imagePath"'):
                return "labelme"
            if has(b'"name"', b'"labels"') and any(map(has, (b'"poly2d"', b'"rle"', b'"box2d"'))):
                return "scalabel"
    return ""


def _is_yolo(content: bytes) -> bool:
    """Whether each line has a whole number, and shares of width and height."""
    rows = [line.split() for line in content.splitlines() if line.strip()]
    return bool(rows) and all(
        len(row) > 4 and float(row[0]).is_integer() and all(-1 < float(value) < 2 for value in row[1:]) for row in rows
    )


def find(pictures: Pictures) -> tuple[list[Files], list[str]]:
    """Annotation files that may belong together, and why others do not."""
    formats = _formats(pictures)
    groups: _Groups = defaultdict(lambda: defaultdict(list))
    for file, name in formats.items():
        if not name:
            continue
        is_one = name in _OF_ONE_PICTURE
        pattern, split, depth = without_split(file[:-1] if is_one else (*file[:-1], Path(file[-1]).stem))
        groups[name, pattern[:depth] if is_one else pattern][split].append(file)
    besides = partial(_besides, pictures.root, formats)
    found, refused = [], []
    for (name, _), splits in _joined(groups, besides).items():
        is_file = name not in _OF_ONE_PICTURE and all(len(own) == 1 for own in splits.values())
        places = {split: own[0] if is_file else _folder(own) for split, own in splits.items()}
        labels = {split: "/".join(place) or "." for split, place in places.items()}
        files = Files(name, labels, tuple("/".join(file) for own in splits.values() for file in own))
        strange = [] if is_file else [file for split in splits for file in besides(name, places[split], splits[split])]
        if strange:
            refused.append(f"{files.shown()}: {'/'.join(strange[0])} is none of them: move it away")
        else:
            found.append(files)
    return found, refused


def _formats(pictures: Pictures) -> dict[Folder, str]:
    """The format of each file; of many in a folder, that of most which were looked into."""
    formats: dict[Folder, str] = {}
    for folder, names in pictures.texts.items():
        looked = [names[index] for index in evenly_spaced(len(names), _LOOKED_INTO)]
        known = {name: format_of(pictures.root.joinpath(*folder, name)) for name in looked}
        common = Counter(known.values()).most_common(1)[0][0]
        formats |= {(*folder, name): known.get(name, common) for name in names}
    return formats


def _joined(groups: _Groups, besides: Callable[..., list[Folder]]) -> _Groups:
    """The same with files of many pictures, and of no split, as one, where they are all that a folder has."""
    for name in FORMATS.keys() - set(_OF_ONE_PICTURE):
        alone = {key: of["all"][0] for key, of in groups.items() if key[0] == name and [*of] == ["all"]}
        if len(alone) > 1 and not besides(name, _folder(alone.values()), alone.values()):
            groups = {key: of for key, of in groups.items() if key not in alone}
            groups[name, ()] = {"all": [*alone.values()]}
    return groups


def _besides(
    root: Path, formats: Iterable[Folder], name: str, place: Folder, files: Collection[Folder]
) -> list[Folder]:
    """Files that `gss labels` would read in a folder besides some."""
    own, ending = {*files}, FORMATS[name].ending
    there = (file for file in formats if file[: len(place)] == place and file[-1].lower().endswith(ending))
    others = (file for file in there if file not in own and file[-1] != "classes.txt")
    # YOLO's files without a line are pictures without a shape.
    return [file for file in others if name != "yolo" or root.joinpath(*file).read_bytes().strip()]


def _folder(files: Iterable[Folder]) -> Folder:
    """The folder that holds some files."""
    return Path(os.path.commonpath([Path("/", *file[:-1]) for file in files])).parts[1:]


def panoptic_folders(found: Sequence[Files]) -> set[Folder]:
    """Folders whose pictures are a part of annotations."""
    places = (place for files in found if files.format == "coco_panoptic" for place in files.labels.values())
    return {Path(place).with_suffix("").parts for place in places}


# ---- of which photographs


def read(
    pictures: Pictures, found: Sequence[Files], tables: Sequence[Table], folder: Path, workers: int
) -> tuple[list[Annotations], list[str]]:
    """Read annotation files and find their photographs.

    Args:
        tables: of classes, for the numbers of YOLO.
        folder: of the labels to make.

    Returns:
        Those that have photographs, the most first, and why others are not taken.
    """
    photographs = [group for group in pictures.stems if group not in pictures.labels] or list(pictures.stems)
    folders: dict[str, list[Folder]] = defaultdict(list)
    for group in photographs:
        for stem in pictures.stems[group]:
            folders[composed(stem)].append(group.folder)
    taken, refused = [], []
    for number, files in enumerate(found):
        parsed = _parsed(pictures.root, files, tables, workers)
        own = _of_photographs(pictures.root, files, parsed, folders, folder / str(number))
        if own.size()[1]:
            taken.append(own)
        else:
            refused.append(f"{files.shown()}: {_why_not(own, parsed)}")
    return sorted(taken, key=Annotations.size, reverse=True), refused


def _parsed(root: Path, files: Files, tables: Sequence[Table], workers: int) -> dict[str, Parsed]:
    """What files hold, by split."""
    print(f"reading {files.shown()}", flush=True)
    classes: list[str] = []
    if files.format == "yolo":
        counted = [table for table in tables if sorted(table.names) == list(range(len(table.names)))]
        counted.sort(key=lambda table: table.path.suffix not in (".yaml", ".yml"))
        classes = [table.names[number] for table in counted[:1] for number in sorted(table.names)] or _NUMBERS
    options = Options(files.format, FORMATS[files.format].overlap, classes=tuple(classes))
    parsed = {
        split: read_annotations(root, SplitFolders("", place), options, workers)
        for split, place in files.labels.items()
    }
    if classes is _NUMBERS:
        drawn = {shape.name for own in parsed.values() for picture in own.pictures for shape in picture.shapes}
        for own in parsed.values():
            own.classes = _NUMBERS[: 1 + max(map(_NUMBERS.index, drawn), default=0)]
    return parsed


def _of_photographs(
    root: Path, files: Files, parsed: dict[str, Parsed], folders: Mapping[str, list[Folder]], folder: Path
) -> Annotations:
    """Annotations with the splits of which there are photographs; a `val` or `test` alone is all that there is."""
    parts = {}
    for (split, place), own in zip(files.labels.items(), parsed.values(), strict=True):
        within = place if (root / place).is_dir() else os.path.dirname(place) or "."  # pictures in the annotations
        splits = SplitFolders(_photographs(folders, own, split) or within, place)
        work = list(labels_to_make(root, splits, own, folder / split, "skip"))
        keys = sorted(composed(each.copy.relative_to(folder / split / "images").as_posix()) for each in work)
        if work:
            parts[split] = Part(splits, own, work, keys)
    if len(parts) == 1 and "train" not in parts:
        parts = dict(zip(["all"], parts.values(), strict=True))
    return Annotations(files, parts)


def _photographs(folders: Mapping[str, list[Folder]], parsed: Parsed, split: str) -> str:
    """The folder below which most pictures are found by the names in annotations, and no other split's; empty: none.

    Args:
        folders: of photographs, by their names without extension.
    """
    found: Counter[Folder] = Counter()
    for index in evenly_spaced(len(parsed.pictures), _LOOKED_INTO):
        places = set()
        for name in parsed.pictures[index].names:
            *above, last = name.replace("\\", "/").split("/")
            for folder in folders.get(composed(without_extension(last)), ()):
                same = 0  # the folders above may be a part of the name
                while folder[: len(folder) - same] and above[-1 - same :][:1] == [folder[-1 - same]]:
                    same += 1
                places |= {folder[: len(folder) - k] for k in range(same + 1)}
        found.update(place for place in places if split == "all" or without_split(place)[1] in ("all", split))

    def likely(place: Folder) -> tuple[int, bool, int]:
        return found[place], any(map(PHOTOGRAPHS.match, place)), len(place)

    place: Folder = max(found, key=likely, default=())
    return "/".join(place) or "." * bool(found)


def _why_not(own: Annotations, parsed: Mapping[str, Parsed]) -> str:
    """Why annotations cannot be taken."""
    names = [picture.names[0] for part in parsed.values() for picture in part.pictures]
    if faults := [fault for part in parsed.values() for fault in part.notes.faults()]:
        return faults[0]
    if names and not own.works:
        return f"none of its {len(names)} pictures is there, such as {names[0]}"
    return "; ".join(["no shape", *(remark for part in parsed.values() for remark in part.notes.remarks())])
