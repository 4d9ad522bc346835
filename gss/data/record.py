"""What a scan has found so far, on disk: an interrupted one goes on, and one after a repair reads what was repaired."""

import json
import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gss.data.cases import Fault
from gss.files import write_error


class PairScan(NamedTuple):
    """What the files of one pair hold; JSON values only.

    Args:
        stamp: size and time of change of both files before they were read, see `stamp`, and how the label was read.
        image_size, label_size: [height, width], EXIF orientation applied; None where the file cannot be decoded.
        image_sha256, label_sha256: of the files.
        image_facts: a `gss.data.images.ImageFacts`; empty where the image cannot be decoded.
        ids, counts: native ids of the label and the pixels of each.
        colours: 0xRRGGBB of each of the ids in the palette of an indexed label; else empty.
        borders: of classes, see `gss.data.borders.count_borders`.
        faults: each a `gss.data.cases.Fault`.
    """

    stamp: list[int]
    image_size: list[int] | None
    label_size: list[int] | None
    image_sha256: str
    label_sha256: str
    image_facts: list[int]
    ids: list[int]
    counts: list[int]
    colours: list[int]
    borders: list[int]
    faults: list[Fault]


def stamp(root: Path, image: str, label: str) -> list[int]:
    """Size in bytes and time of change (which nobody can set back) of both files; empty where one is missing."""
    try:
        states = [os.stat(root / name) for name in (image, label)]
    except OSError:
        return []
    return [number for state in states for number in (state.st_size, state.st_ctime_ns)]


class Record:
    """Sound pairs by their names, one line each in a file that is only appended to; the last line of a pair counts.

    Args:
        path: of the file; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._places: dict[int, int] = {}  # hash of the names -> where the line begins: names would take much memory
        self._old: BinaryIO | None = None
        self._new: BinaryIO | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._new, self._old = path.open("ab"), path.open("rb")
        except OSError as error:
            raise write_error(path, error) from error
        self._path, place = path, 0
        for line in self._old:
            read = _read(line)
            if read is not None:
                self._places[hash(read[0])] = place
            place += len(line)
        if place:
            self._new.write(b"\n")  # the last line may be cut off

    def __len__(self) -> int:
        return len(self._places)

    def find(self, image: str, label: str) -> PairScan | None:
        """What was found in a pair before."""
        place = self._places.get(hash((image, label)))
        if place is None or self._old is None:
            return None
        self._old.seek(place)
        read = _read(self._old.readline())
        return read[1] if read is not None and read[0] == (image, label) else None

    def keep(self, image: str, label: str, found: PairScan) -> None:
        """Remember what was found in a pair without faults."""
        if self._new is None or found.faults or self.find(image, label) == found:
            return
        try:
            self._new.write(json.dumps([image, label, *found], separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise write_error(self._path, error) from error

    def close(self) -> None:
        for file in (self._old, self._new):
            if file is not None:
                file.close()


def _read(line: bytes) -> tuple[tuple[str, str], PairScan] | None:
    """Names and content of a line; None for one that was cut off or is of another version."""
    try:
        image, label, *values = json.loads(line)
        return (image, label), PairScan(*values)
    except (ValueError, TypeError):
        return None
