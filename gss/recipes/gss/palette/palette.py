"""One colour per class and one for ignored pixels, and the file that holds them."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gss.errors import ConfigError
from gss.files import write_table
from gss.recipes.gss.palette.maximal import squared_distances

HEADER = ["index", "name", "r", "g", "b"]
IGNORE = "ignore"


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours of the classes and of ignored pixels.

    Args:
        colours: int64 [N+1,3] RGB, 0..255; rows 0..N-1 are the classes, row N is the ignore colour.
        names: class names, N of them.

    Raises:
        ConfigError: another number of rows, a value outside 0..255, or two equal rows.
    """

    colours: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.colours.shape != (self.num_classes + 1, 3):
            raise ConfigError(
                f"a palette of {self.num_classes} classes has {self.num_classes + 1} rows of r,g,b; "
                f"this one is {' x '.join(map(str, self.colours.shape))}",
                todo="add the colour of ignored pixels as the last row",
            )
        for name, colour in zip((*self.names, IGNORE), self.colours.tolist(), strict=True):
            if min(colour) < 0 or max(colour) > 255:
                raise ConfigError(f"colour {_rgb(colour)} of {name!r} is outside 0..255", todo="mend this row")
        self._check_distinct()

    def _check_distinct(self) -> None:
        seen: dict[tuple[int, ...], int] = {}
        for row, colour in enumerate(map(tuple, self.colours.tolist())):
            first = seen.setdefault(colour, row)
            if first != row:
                raise ConfigError(
                    f"rows {first} ({self._name(first)}) and {row} ({self._name(row)}) have the same colour "
                    f"{_rgb(colour)}, so their pixels could not be told apart",
                    todo="give one of them another colour",
                )

    def _name(self, row: int) -> str:
        return (*self.names, IGNORE)[row]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def quality(self) -> dict[str, Any]:
        """Distances between the colours, in 8-bit RGB units.

        Returns:
            `d_min` (smallest pairwise distance), `d_min_sq`, `nearest_mean` (mean distance to the nearest
            other colour) and `closest` (names of the closest pair) over all N+1 rows; the same with the prefix
            `classes_` without the ignore row. None where there is no pair.

        Source: the measures of the published palettes' comparison, d_min and nn.
        """
        whole, classes = self._distances(self.num_classes + 1), self._distances(self.num_classes)
        without = {f"classes_{key}": value for key, value in classes.items()}
        return {"num_classes": self.num_classes, **whole, **without}

    def _distances(self, rows: int) -> dict[str, Any]:
        if rows < 2:
            return {"d_min": None, "d_min_sq": None, "nearest_mean": None, "closest": None}
        squared = squared_distances(self.colours[:rows])
        first, second = divmod(int(squared.argmin()), rows)
        smallest = int(squared.min())
        return {
            "d_min": smallest**0.5,
            "d_min_sq": smallest,
            "nearest_mean": float(np.sqrt(squared.min(axis=1)).mean()),
            "closest": [self._name(first), self._name(second)],
        }


def write_palette(path: Path, palette: Palette) -> None:
    """Write `palette.csv`: `index,name,r,g,b`, one row per class, last row named `ignore`."""
    rows = enumerate(zip((*palette.names, IGNORE), palette.colours.tolist(), strict=True))
    write_table(path, HEADER, ((index, name, *colour) for index, (name, colour) in rows))


def read_palette(path: Path) -> Palette:
    """Read `palette.csv`, see `write_palette`.

    Raises:
        ConfigError: the file is missing, or its header, its indices, its last row or its colours are wrong.
    """
    rows = read_rows(path, HEADER)
    if rows[-1][1] != IGNORE:
        raise ConfigError(
            f"the last of {len(rows)} rows is named {rows[-1][1]!r} instead of {IGNORE!r}: "
            "a palette of N classes has N+1 rows",
            where=path,
            todo=f"append the colour of ignored pixels, for example {len(rows)},{IGNORE},0,0,0",
        )
    names = tuple(row[1] for row in rows[:-1])
    return checked_palette(np.array([row[2:] for row in rows], np.int64), names, where=path)


def read_rows(path: Path, header: list[str]) -> list[list[Any]]:
    """Rows of a CSV file with the given header; every column but `name` is an integer.

    Raises:
        ConfigError: missing file, other header, no row, text where a number is due, or an index out of order.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        todo = "run the stage that writes it, or mend palette.file"
        raise ConfigError(f"the palette cannot be read: {error}", where=path, todo=todo) from error
    if not found or found[0] != header:
        first = ",".join(found[0]) if found else ""
        what = f"the header is {first!r} instead of {','.join(header)!r}"
        raise ConfigError(what, where=path, todo="make this the first line")
    rows = [_row(path, header, line, cells) for line, cells in enumerate(found[1:], start=2) if cells]
    if not rows:
        todo = "add one row per class and one for ignore"
        raise ConfigError("no row below the header", where=path, todo=todo)
    for index, row in enumerate(rows):
        if row[0] != index:
            todo = "number the rows 0, 1, 2, ..."
            raise ConfigError(f"row {index} has index {row[0]}", where=path, todo=todo)
    return rows


def _row(path: Path, header: list[str], line: int, cells: list[str]) -> list[Any]:
    try:
        return [cell if column == "name" else int(cell) for column, cell in zip(header, cells, strict=True)]
    except ValueError as error:
        what = f"{','.join(cells)!r} is not {','.join(header)}"
        raise ConfigError(what, where=f"{path}, line {line}", todo="mend this line") from error


def checked_palette(colours: np.ndarray, names: tuple[str, ...], *, where: str | Path) -> Palette:
    """A palette whose faults are reported with the place they stand in."""
    try:
        return Palette(colours, names)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, todo=error.todo) from error


def _rgb(colour: Any) -> str:
    return "({},{},{})".format(*colour)
