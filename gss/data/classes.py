"""Class spaces: what the ids in label files mean."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from gss.data.native import NATIVE_IDS, NativeClasses
from gss.errors import ConfigError, DataError

IGNORE: Literal["ignore"] = "ignore"  # in a label_map: the id is ignored
MAX_CLASSES = NATIVE_IDS - 2  # the largest id is ignored, the one below marks unknown ids inside `to_classes`
_RUNS = 128  # of ids in a message, as many as 8 bits can have

Colour = tuple[int, int, int]


def ids_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Type of the class ids in arrays and files, ignored pixels included: 8 bits for up to 254 classes, else 16."""
    return np.uint8 if num_classes <= 254 else np.uint16


def ignore_index(num_classes: int) -> int:
    """The id of ignored pixels, the largest of its type: 255 for up to 254 classes, else 65535."""
    return int(np.iinfo(ids_dtype(num_classes)).max)


@dataclass(frozen=True)
class ClassSpace:
    """Names of the classes and the way from native ids (those in the files) to class ids.

    Args:
        names: name of class 0, 1, ...; at most 65534.
        colours: RGB colour of every class, 0..255, or None.
        reduce_zero_label: native 0 is ignored and native k is class k-1.
        label_map: native id -> class id, `ignore` or `ignore_index`; wins over every other rule.
        native: classes of their own that the files hold; then `label_map` is the only rule. None: those of `names`.

    Raises:
        ConfigError: no class, too many, names that are empty or given twice, a number of colours that differs, or a map
            that leads nowhere.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    reduce_zero_label: bool = False
    label_map: Mapping[int, int | Literal["ignore"]] = field(default_factory=dict)
    native: NativeClasses | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise ConfigError(f"{len(self.names)} classes; allowed are 1 to {MAX_CLASSES}")
        _require_distinct(self.names)
        if self.colours is not None and len(self.colours) != len(self.names):
            raise ConfigError(f"{len(self.names)} class names but {len(self.colours)} colours")
        targets = {*range(len(self.names)), IGNORE, self.ignore_index}
        for native, target in self.label_map.items():
            if not 0 <= native < NATIVE_IDS or target not in targets:
                raise ConfigError(
                    f"label_map sends id {native} to {target}",
                    where="label_map",
                    todo=f"ids in files are 0..{NATIVE_IDS - 1}, classes 0..{len(self.names) - 1}, "
                    f"{self.ignore_index} or {IGNORE} means ignored",
                )

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of the class ids in arrays."""
        return ids_dtype(self.num_classes)

    @property
    def ignore_index(self) -> int:
        """The class id of ignored pixels."""
        return ignore_index(self.num_classes)

    @property
    def ignored_id(self) -> int:
        """The native id that is ignored unless `label_map` says otherwise."""
        return self.ignore_index if self.native is None else ignore_index(max(self.native.names) + 1)

    def table(self) -> np.ndarray:
        """int32 [65536]: native id -> class id, `ignore_index` or -1 (unknown)."""
        table = np.full(NATIVE_IDS, -1, np.int32)
        if self.native is None:
            first = 1 if self.reduce_zero_label else 0
            table[first : first + self.num_classes] = np.arange(self.num_classes)
            table[:first] = self.ignore_index
        table[self.ignored_id] = self.ignore_index
        for native, target in self.label_map.items():
            table[native] = self.ignore_index if target == IGNORE else target
        return table

    @property
    def reached(self) -> list[int]:
        """The class ids that native ids lead to."""
        found = np.unique(self.table())
        return found[(found >= 0) & (found != self.ignore_index)].tolist()

    @cached_property
    def _lookup(self) -> np.ndarray:
        """[65536]: like `table`, the id below `ignore_index` for unknown ones."""
        table = self.table()
        return np.where(table < 0, self.ignore_index - 1, table).astype(self.dtype)

    def to_classes(self, native: np.ndarray) -> np.ndarray:
        """Class ids of a label as it stands in the file.

        Args:
            native: uint8 or uint16 [H, W].

        Returns:
            `dtype` [H, W], 0..N-1 or `ignore_index`.

        Raises:
            DataError: the label holds ids that are no class; the message names them.
        """
        label = cv2.LUT(native, self._lookup[: np.iinfo(native.dtype).max + 1])
        unknown = label == self.ignore_index - 1
        if unknown.any():
            raise DataError(
                f"label ids found: {format_ids(np.unique(native[unknown]))}; allowed: {self.allowed()}",
                todo="run the check stage: it lists all such files and proposes a label_map",
            )
        return label

    def require_names(self, names: Sequence[str], *, where: str | Path, todo: str) -> None:
        """Refuse a file that was made for other classes, or for these in another order: ids would change their meaning.

        Args:
            names: of the classes the file was made for.
            where: the file.

        Raises:
            DataError: names the first class that differs.
        """
        for index, (theirs, ours) in enumerate(zip_longest(names, self.names)):
            if theirs != ours:
                raise DataError(
                    f"made for other classes than those of the data set: class {index} is {_quoted(theirs)} there, "
                    f"{_quoted(ours)} here",
                    where=where,
                    todo=todo,
                )

    def allowed(self) -> str:
        """The native ids that mean something, as text for messages: '0..10, 255'."""
        return format_ids(np.flatnonzero(self.table() >= 0))

    def as_dict(self) -> dict:
        """JSON value with everything in it; `from_dict` reads it."""
        return {
            "names": list(self.names),
            "colours": None if self.colours is None else [list(colour) for colour in self.colours],
            "reduce_zero_label": self.reduce_zero_label,
            "label_map": {str(native): target for native, target in sorted(self.label_map.items())},
            **({} if self.native is None else {"native": self.native.as_dict()}),
        }

    @classmethod
    def from_dict(cls, content: Mapping) -> "ClassSpace":
        colours = content["colours"]
        return cls(
            names=tuple(content["names"]),
            colours=None if colours is None else tuple((r, g, b) for r, g, b in colours),
            reduce_zero_label=content["reduce_zero_label"],
            label_map={int(native): target for native, target in content["label_map"].items()},
            native=NativeClasses.from_dict(content["native"]) if "native" in content else None,
        )


def default_colours(num_classes: int) -> np.ndarray:
    """uint8 [N, 3], RGB: a colour for each class of a data set that names none, by the colour map of PASCAL VOC.

    Its first colour, black, is that of ignored pixels and not given away.
    """
    labels = np.arange(1, num_classes + 1)
    colours = np.zeros((num_classes, 3), np.uint8)
    for bit in range(8):  # the lowest three bits of the label become the highest free bits of the channels
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def _require_distinct(names: Sequence[str]) -> None:
    """Raise ConfigError where a class has no name, or two have one."""
    for index, name in enumerate(names):
        if not name.strip():
            raise ConfigError(f"class {index} has no name", todo="give every class a name of its own")
        if (first := names.index(name)) < index:
            raise ConfigError(f"classes {first} and {index} are named {name!r}", todo="name every class differently")


def _quoted(name: str | None) -> str:
    return "none" if name is None else repr(name)


def format_ids(ids: np.ndarray) -> str:
    """Sorted ids as text, runs of three and more joined: '0..10, 12, 255'; of very many the first ones."""
    runs: list[list[int]] = []
    for value in (int(v) for v in ids):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    parts = [f"{a}..{b}" if b > a + 1 else ", ".join(map(str, range(a, b + 1))) for a, b in runs]
    left_out = sum(b - a + 1 for a, b in runs[_RUNS:])
    return ", ".join([*parts[:_RUNS], f"and {left_out} more"] if left_out else parts)


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...] | None]:
    """Read a class table.

    Args:
        path: CSV with the header `index,name` or `index,name,r,g,b`; indices 0, 1, 2, ... in order.

    Returns:
        Names, and RGB colours 0..255 or None.

    Raises:
        DataError: missing file, wrong header, a row that does not fit; the message names the row.
    """
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
    except OSError as error:
        todo = "name a CSV in the folder of the data set, or write the names themselves: classes: [background, road]"
        raise DataError(f"the class table cannot be read: {error.strerror}", where=path, todo=todo) from error
    except UnicodeDecodeError as error:
        raise DataError(f"the class table cannot be read: {error}", where=path, todo="save it as UTF-8") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if header not in (["index", "name"], ["index", "name", "r", "g", "b"]):
        raise DataError(
            f"header of the class table: {','.join(header) or 'nothing'}",
            where=path,
            todo="the first line is index,name or index,name,r,g,b",
        )
    parsed = [_class_row(row, index, len(header), path) for index, row in enumerate(rows[1:])]
    names = tuple(name for name, _ in parsed)
    if not names:
        raise DataError("no class", where=path)
    try:
        _require_distinct(names)
    except ConfigError as error:
        raise DataError(error.what, where=path, todo=error.todo) from error
    colours = tuple(colour for _, colour in parsed if colour is not None)
    return names, colours or None


def _class_row(row: list[str], index: int, width: int, path: Path) -> tuple[str, Colour | None]:
    try:
        numbers = [int(cell) for cell in (row[0], *row[2:])]
        fits = len(row) == width and numbers[0] == index and all(0 <= value <= 255 for value in numbers[1:])
    except (ValueError, IndexError):
        fits = False
    if not fits:
        raise DataError(
            f"row {','.join(row)} where index {index} is expected",
            where=f"{path}, line {index + 2}",
            todo="indices count 0, 1, 2, ... and colours are whole numbers 0..255",
        )
    return row[1].strip(), (numbers[1], numbers[2], numbers[3]) if width == 5 else None


def read_class_space(
    path: Path, *, reduce_zero_label: bool = False, label_map: Mapping[int, int | Literal["ignore"]] | None = None
) -> ClassSpace:
    """Class space of a table whose last rows may be void.

    Rows at the end whose id `label_map` ignores, and that nothing else is sent to, are no classes: a table that lists
    `11,Void` together with `label_map: {11: ignore}` has eleven classes.

    Raises:
        DataError, ConfigError: see `read_classes` and `ClassSpace`.
    """
    names, colours = read_classes(path)
    label_map = dict(label_map or {})
    count = len(names)
    targets = label_map.values()
    while count and label_map.get(count - 1) in (IGNORE, ignore_index(count - 1)) and count - 1 not in targets:
        count -= 1
    return ClassSpace(names[:count], colours and colours[:count], reduce_zero_label, label_map)
