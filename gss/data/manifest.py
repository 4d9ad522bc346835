"""The manifest: every image and label of a data set with size and hash, a million of them where need be.

A data set has one source or several: folders whose labels lead to the same classes, each in its own way. Rows are kept
in a few flat arrays, some 140 bytes each and not 700 as dicts. Processes that read images share them with the one that
started them; they would copy a list of objects, by counting references.
"""

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from gss.data.classes import ClassSpace
from gss.data.images import Orientation, read_image, read_label
from gss.errors import DataError, GssError
from gss.files import json_text, write_atomic

BESIDE = "beside:"  # begins names of files that were made for a data set: they lie beside the manifest, not in the root
_DIGEST = 32  # bytes of a SHA-256
# The keys of a row below each other as `json_text` has them, by the encoder in C, which knows no indentation.
_ROW = json.JSONEncoder(ensure_ascii=False, separators=(",\n    ", ": "))


@dataclass(frozen=True)
class Pair:
    """An image, its label, the size of both, the classes that ids in the label lead to, what to do with an EXIF
    orientation of the image, and the number of its source among those of the split."""

    image: Path
    label: Path
    height: int
    width: int
    space: ClassSpace
    orientation: Orientation = "apply"
    source: int = 0

    def read_image(self) -> np.ndarray:
        """uint8 [H, W, 3], RGB; see `gss.data.images.read_image`."""
        return read_image(self.image, self.orientation)

    def read_label(self) -> np.ndarray:
        """Class ids or `ignore_index` [H, W], of the space's type; see `gss.data.images.read_label`."""
        return read_label(self.label, self.space)


@dataclass
class Rows:
    """The rows of one split, in the order of their names; each goes in and comes out as a JSON object."""

    names: bytearray = field(default_factory=bytearray)
    ends: array = field(default_factory=lambda: array("q", [0]))
    sizes: array = field(default_factory=lambda: array("i"))
    digests: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.sizes) // 2

    def append(self, row: Mapping[str, Any]) -> None:
        for kind in ("image", "label"):
            self.names += row[kind].encode()
            self.ends.append(len(self.names))
            self.digests += bytes.fromhex(row[f"{kind}_sha256"])
        self.sizes.extend((row["height"], row["width"]))

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        start, middle, end = self.ends[2 * index : 2 * index + 3]
        digests = self.hashes(index)
        return {
            "image": self.names[start:middle].decode(),
            "label": self.names[middle:end].decode(),
            "height": self.sizes[2 * index],
            "width": self.sizes[2 * index + 1],
            "image_sha256": digests[:_DIGEST].hex(),
            "label_sha256": digests[_DIGEST:].hex(),
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))

    def hashes(self, index: int) -> bytes:
        """SHA-256 of image and label, 64 bytes."""
        return bytes(self.digests[2 * _DIGEST * index : 2 * _DIGEST * (index + 1)])

    def extend(self, other: "Rows") -> None:
        """Add the rows of another one behind these."""
        shift = len(self.names)
        self.names += other.names
        self.ends.extend(shift + end for end in other.ends[1:])
        self.sizes.extend(other.sizes)
        self.digests += other.digests

    def part(self, start: int, stop: int) -> "Rows":
        """A copy of some rows."""
        ends = self.ends[2 * start : 2 * stop + 1]
        return Rows(
            self.names[ends[0] : ends[-1]],
            array("q", (end - ends[0] for end in ends)),
            self.sizes[2 * start : 2 * stop],
            self.digests[2 * _DIGEST * start : 2 * _DIGEST * stop],
        )


@dataclass(frozen=True)
class Source:
    """Where pairs come from, and how their files are read.

    Args:
        root: folder that names of files start from.
        space: the classes of the data set, and the way from the ids in these labels to them.
        orientation: what to do with an EXIF orientation of the images.
        counts: number of pairs by split.
        repeat: how often a pass of a training takes each of them.
        beside: folder of the manifest.
    """

    root: Path
    space: ClassSpace
    orientation: Orientation = "apply"
    counts: Mapping[str, int] = field(default_factory=dict)
    repeat: int = 1
    beside: Path = Path()

    def file(self, name: str) -> Path:
        """A file by its name in a row."""
        return self.beside / name.removeprefix(BESIDE) if name.startswith(BESIDE) else self.root / name


@dataclass(frozen=True)
class Pairs(Sequence[Pair]):
    """The pairs of a split: those of one source after the other, each in the order of their names.

    Args:
        sources: those that have pairs in the split.
        ends: the number of the last row of each source, plus one.
    """

    rows: Rows
    sources: Sequence[Source]
    ends: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]  # nobody wants slices
        row, place = self.rows[index], range(len(self))[index]
        number = bisect_right(self.ends, place)
        source = self.sources[number]
        image, label = source.file(row["image"]), source.file(row["label"])
        return Pair(image, label, row["height"], row["width"], source.space, source.orientation, number)

    def repeated(self) -> Sequence[Pair]:
        """One pass of a training: the pairs of each source in a row, as often as it says."""
        return Repeated(self) if any(source.repeat > 1 for source in self.sources) else self


class Repeated(Sequence[Pair]):
    """Pairs, those of each source one time after the other.

    Source: RepeatDataset of the published code, which shuffles what it makes.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self._starts = [0, *pairs.ends[:-1]]
        self._counts = [end - start for start, end in zip(self._starts, pairs.ends, strict=True)]
        each = zip(pairs.sources, self._counts, strict=True)
        self._ends = list(accumulate(source.repeat * count for source, count in each))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]  # nobody wants slices
        place = range(len(self))[index]
        source = bisect_right(self._ends, place)
        inside = place - (self._ends[source - 1] if source else 0)
        return self.pairs[self._starts[source] + inside % self._counts[source]]


@dataclass(frozen=True)
class Manifest:
    """What the check found: sources, and pairs per split.

    Args:
        sources: at least one; all of the same classes.
        sha256: of the manifest file.
        rows: of each split, those of one source after the other.
    """

    sources: tuple[Source, ...]
    sha256: str
    rows: Mapping[str, Rows]

    @property
    def space(self) -> ClassSpace:
        """The classes; what ids in labels mean says the source of a pair."""
        return self.sources[0].space

    @property
    def root(self) -> Path:
        """Folder of the first source."""
        return self.sources[0].root

    def at(self, root: Path, others: Path) -> "Manifest":
        """The same pairs with the files where they are today.

        Args:
            root: folder of the first source.
            others: folder that those of the others start from.
        """
        first, *rest = self.sources
        moved = [replace(source, root=others / source.root) for source in rest]
        return replace(self, sources=(replace(first, root=root), *moved))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.rows)

    def split_sha256(self, split: str) -> str:
        """The hash of all that a reader of one split sees: its rows and how they are read; the other splits, and where
        the files lie, may change.

        Raises:
            DataError: no such split.
        """
        pairs = self.pairs(split)
        read = [
            [source.space.as_dict(), source.orientation, source.repeat, source.counts[split]]
            for source in pairs.sources
        ]
        digest = hashlib.sha256(json_text(read).encode())
        for part in (pairs.rows.names, pairs.rows.ends, pairs.rows.sizes, pairs.rows.digests):
            digest.update(memoryview(part))
        return digest.hexdigest()

    def pairs(self, split: str) -> Pairs:
        """The pairs of a split.

        Raises:
            DataError: no such split.
        """
        if split not in self.rows:
            raise DataError(f"no split '{split}'; there are {', '.join(self.splits)}", where="manifest")
        sources = [source for source in self.sources if source.counts.get(split)]
        return Pairs(self.rows[split], sources, list(accumulate(source.counts[split] for source in sources)))


def evenly_spaced(num_images: int, count: int) -> list[int]:
    """Ascending, distinct indices of some images of a split: the middle of each of `count` equal parts."""
    count = min(count, num_images)
    return [(2 * index + 1) * num_images // (2 * count) for index in range(count)]


def read_manifest(path: Path) -> Manifest:
    """Read the manifest that the check stage wrote.

    Raises:
        GssError: missing or damaged file.
    """
    rows = Rows()

    def take(value: dict[str, Any]) -> dict[str, Any] | None:
        """Every object of the file as soon as it is read: rows are put away, in their place stays a None."""
        if "image_sha256" not in value:
            return value
        rows.append(value)
        return None

    try:
        data = path.read_bytes()
        sha256, text = hashlib.sha256(data).hexdigest(), data.decode()
        del data
        content = json.loads(text, object_hook=take)
        ends = list(accumulate(map(len, content["splits"].values()), initial=0))
        if ends[-1] != len(rows):
            raise ValueError(f"{ends[-1] - len(rows)} rows have no SHA-256")
        parts = {split: rows.part(*ends[place : place + 2]) for place, split in enumerate(content["splits"])}
        beside = path.resolve().parent  # of a link to what others made, that of their files
        sources = tuple(_source(each, beside) for each in content.get("sources") or [_only_source(content, parts)])
        if any(sum(source.counts.get(split, 0) for source in sources) != len(part) for split, part in parts.items()):
            raise ValueError("the sources do not add up to the rows")
        return Manifest(sources, sha256, parts)
    except FileNotFoundError as error:
        raise GssError("file not found", where=path, todo="run the stage that writes it") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        todo = "move it away and check the data set again: gss check EXPERIMENT"
        raise GssError(f"cannot be read as a manifest: {error}", where=path, todo=todo) from error


def _only_source(content: Mapping[str, Any], rows: Mapping[str, Rows]) -> dict[str, Any]:
    """The source of a manifest that names no `sources`: it has one."""
    one = {key: content[key] for key in ("root", "classes", "exif_orientation") if key in content}
    return {**one, "pairs": {split: len(part) for split, part in rows.items()}}


def _source(content: Mapping[str, Any], beside: Path) -> Source:
    space, orientation = ClassSpace.from_dict(content["classes"]), content.get("exif_orientation", "apply")
    return Source(Path(content["root"]), space, orientation, content["pairs"], content.get("repeat", 1), beside)


def named_beside(rows: Rows, root: Path, folder: Path) -> Rows:
    """The same rows, in which files that lie in the folder of the manifest are named as such.

    Args:
        root: folder that names start from.
        folder: of the manifest.
    """
    renamed = Rows()
    for row in rows:
        for kind in ("image", "label"):
            path = (root / row[kind]).absolute()
            if path.is_relative_to(folder.absolute()):
                row[kind] = BESIDE + path.relative_to(folder.absolute()).as_posix()
        renamed.append(row)
    return renamed


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `gss.data.check.scan` found, byte for byte as `write_json` writes it with lists of dicts for rows."""
    write_atomic(path, lambda file: file.writelines(_encoded(content)))


def manifest_sha256(content: Mapping[str, Any]) -> str:
    """The hash of the file that `write_manifest` makes."""
    digest = hashlib.sha256()
    for piece in _encoded(content):
        digest.update(piece)
    return digest.hexdigest()


def _encoded(content: Mapping[str, Any]) -> Iterator[bytes]:
    """The file, row by row: as one text with one object per row it would take gigabytes."""
    before, _, after = json_text({**content, "splits": {}}).rpartition("{}")
    yield before.encode()
    for place, (split, rows) in enumerate(content["splits"].items()):
        yield f"{',' if place else '{'}\n  {json.dumps(split, ensure_ascii=False)}: [".encode()
        for number, row in enumerate(rows):
            yield f"{',' if number else ''}\n   {{\n    {_ROW.encode(row)[1:-1]}\n   }}".encode()
        yield b"\n  ]" if len(rows) else b"]"
    yield f"\n }}{after}".encode()
