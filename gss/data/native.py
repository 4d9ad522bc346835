"""The classes of a source as its own label files have them: ids with names, or colours."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gss.errors import DataError, GssError
from gss.files import read_table

if TYPE_CHECKING:
    from pandas import DataFrame

NATIVE_IDS = 2**16  # label files have 8 or 16 bits
_SHOWN = 8  # classes or colours in a message
_CHANNELS = ("r", "g", "b", "a")


@dataclass(frozen=True)
class NativeClasses:
    """What the label files of a source hold.

    Args:
        names: id -> name of its class; several ids may have one.
        colours: RGB or RGBA, 0..255 -> id of its class, of which several colours may be one; None: the files hold ids.
    """

    names: Mapping[int, str]
    colours: Mapping[tuple[int, ...], int] | None = None

    @cached_property
    def _by_code(self) -> tuple[np.ndarray, np.ndarray]:
        """Colours as sorted uint32, and the id of each."""
        colours = self.colours or {}
        rgba = np.array([(*colour, 255)[:4] for colour in colours], np.uint8).reshape(-1, 4)
        codes, order = np.unique(rgba.view(np.uint32)[:, 0], return_index=True)
        ids = np.array(list(colours.values()), np.uint16)
        return codes, (ids if max(self.names) > 255 else ids.astype(np.uint8))[order]

    @property
    def are_painted(self) -> bool:
        """Whether the files hold colours."""
        return self.colours is not None

    @cached_property
    def code(self) -> int:
        """A number that changes with the colours or the ids they mean."""
        return zlib.crc32(json.dumps(self.as_dict()["colours"]).encode())

    def ids(self, rgba: np.ndarray) -> np.ndarray:
        """The ids that a painted label means.

        Args:
            rgba: uint8 [H, W, 4]; where `colours` are RGB, the last channel says nothing.

        Returns:
            uint8 or, where an id is above 255, uint16 [H, W].

        Raises:
            DataError: colours of no class; the message names them with their pixels.
        """
        codes, ids = self._by_code
        pixels = np.ascontiguousarray(rgba).view(np.uint32).ravel()
        if len(next(iter(self.colours or {}), ())) == 3:
            pixels = pixels | np.array([0, 0, 0, 255], np.uint8).view(np.uint32)[0]
        # Labels are runs of one colour: looked up is the first pixel of each.
        starts = np.concatenate(([0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1))
        runs, lengths = pixels[starts], np.diff(starts, append=len(pixels))
        places = np.minimum(np.searchsorted(codes, runs), len(codes) - 1)
        unknown = codes[places] != runs
        if unknown.any():
            raise self._unknown(runs[unknown], lengths[unknown])
        return np.repeat(ids[places], lengths).reshape(rgba.shape[:2])

    def _unknown(self, runs: np.ndarray, lengths: np.ndarray) -> DataError:
        channels = len(next(iter(self.colours or {}), _CHANNELS))
        codes, inverse = np.unique(runs, return_inverse=True)
        pixels = np.bincount(inverse, lengths).astype(int)
        found = [
            f"{tuple(codes[k : k + 1].view(np.uint8)[:channels].tolist())} ({pixels[k]} pixels)"
            for k in np.argsort(-pixels, kind="stable")
        ]
        return DataError(
            f"colours found that are no class: {some(found)}",
            todo="add them to the table of colours; where they are many, the label was resized smoothly or compressed",
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON value with everything in it; `from_dict` reads it."""
        return {
            "names": {str(native): name for native, name in self.names.items()},
            "colours": self.colours and [[*colour, native] for colour, native in self.colours.items()],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "NativeClasses":
        colours = content["colours"]
        return cls(
            {int(native): name for native, name in content["names"].items()},
            colours and {tuple(colour): native for *colour, native in colours},
        )


def painted_classes(colours: Mapping[str, Sequence[tuple[int, ...]]]) -> NativeClasses:
    """Classes that are painted, ids counted in their order.

    Args:
        colours: name -> its RGB or RGBA colours, 0..255.

    Raises:
        DataError: two classes of a colour, or RGB beside RGBA.
    """
    found: dict[tuple[int, ...], int] = {}
    names = list(colours)
    for native, (name, own) in enumerate(colours.items()):
        for colour in own:
            if found.setdefault(colour, native) != native:
                raise DataError(
                    f"the colour {colour} is that of {names[found[colour]]!r} and of {name!r}",
                    where="native_classes",
                    todo="one colour, one class",
                )
    if len({len(colour) for colour in found}) > 1:
        raise DataError("colours of three channels and of four", where="native_classes", todo="give all as many")
    return NativeClasses(dict(enumerate(names)), found)


def read_native_classes(path: Path, *, painted: bool) -> NativeClasses:
    """Read the classes that label files hold.

    Args:
        path: CSV. `index` (or `id`) and `name`, in any order and with gaps; `r,g,b` or `r,g,b,a`, of which a row may
            have none; other columns are passed over. Without an index, rows of one name are one class, and classes are
            counted in the order of their first rows.
        painted: whether the files hold colours; then there have to be some.

    Raises:
        DataError: missing file, wrong header, a row that does not fit, an index with two names, a colour with two
            indices; the message names the row.
    """
    table = read_csv(path, "the table of native classes")
    table.columns = [column.strip().lower() for column in table.columns]
    index = next((column for column in ("index", "id") if column in table), None)
    channels = [channel for channel in _CHANNELS if channel in table]
    has_colours = channels in (list(_CHANNELS[:3]), list(_CHANNELS))
    if "name" not in table or not (index or has_colours) or (painted and not has_colours):
        raise DataError(
            f"header of the table of native classes: {','.join(table.columns) or 'nothing'}",
            where=path,
            todo="name,r,g,b or name,r,g,b,a for labels that are painted; index,name for those that hold ids",
        )
    names: dict[int, str] = {}
    colours: dict[tuple[int, ...], int] = {}
    by_name: dict[str, int] = {}
    for number, row in enumerate(table.to_dict("records")):
        where, name = f"{path}, line {number + 2}", row["name"].strip()
        native = _number(row[index], NATIVE_IDS, where) if index else by_name.setdefault(name, len(by_name))
        if not name or names.setdefault(native, name) != name:
            what = f"index {native} is named {names[native]!r} and {name!r}" if name else f"index {native} has no name"
            raise DataError(what, where=where, todo="one index, one name")
        if has_colours and any(row[channel].strip() for channel in channels):
            colour = tuple(_number(row[channel], 256, where) for channel in channels)
            if colours.setdefault(colour, native) != native:
                raise DataError(
                    f"the colour {colour} is that of {names[colours[colour]]!r} and of {name!r}",
                    where=where,
                    todo="one colour, one class",
                )
    if not (colours if painted else names):
        raise DataError("no class" if not names else "no colour", where=path)
    return NativeClasses(names, colours if painted else None)


def _number(cell: str, end: int, where: str) -> int:
    if not cell.strip().isdecimal() or int(cell) >= end:
        raise DataError(f"{cell!r} where a whole number 0..{end - 1} is expected", where=where)
    return int(cell)


def read_csv(path: Path, what: str) -> "DataFrame":
    """A table of the user's, tab separated as `.tsv`; see `gss.files.read_table`.

    Args:
        what: what it is called in messages.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return read_table(path, separator="\t" if path.suffix.lower() == ".tsv" else ",")
    except (GssError, OSError) as error:
        reason = error.what if isinstance(error, GssError) else error.strerror
        raise DataError(f"{what} cannot be read: {reason}", where=path) from error


def some(names: Sequence[str]) -> str:
    """The first of several, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join([*names[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])
