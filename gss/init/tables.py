"""Class tables in a folder, in the forms in which people write them."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gss.data.classes import NATIVE_IDS, read_classes
from gss.data.native import read_csv, read_native_classes
from gss.errors import DataError

Colour = tuple[int, ...]
_VOID = re.compile(
    r"(?i)^(?:void|ignored?|unlabel+ed|unknown|undefined|unclassified|no[ _-]?(?:data|label)|don'?t[ _-]?care)\b"
    r"|\(ignored?\)"
)
_TRAIN_IDS = ("trainid", "train_id")
_INDEX, _NAME = (
    ("index", "id", "idx", "value", "label_id", "class_id"),
    ("name", "class", "class_name", "label", "category"),
)
_NUMBER = re.compile(r"^(.*?\D)[ _-]*(\d+)$")
_PLAIN = re.compile(r"(?i)class|label|name|categor")
_GENERIC = ("class", "label", "category", "object", "instance", "zone", "region")


@dataclass(frozen=True)
class Table:
    """A table of classes.

    Args:
        path: its file.
        names: name of each id.
        colours: id of each colour, RGB or RGBA; none where it has no colours.
        has_ids: whether it says them; else they count its rows.
        ignored: names that are no classes.
        reads: `classes` or `native_classes`, the keys that may name the file as it is.
    """

    path: Path
    names: Mapping[int, str]
    colours: Mapping[Colour, int] = field(default_factory=dict)
    has_ids: bool = True
    ignored: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()


def find(files: Iterable[Path]) -> list[Table]:
    """The tables among some files."""
    return [table for path in files if (table := _read(path)) is not None]


def is_void(name: str) -> bool:
    """Whether a class is none by its name."""
    return bool(_VOID.search(name))


def without_numbers(names: Iterable[str]) -> dict[str, str]:
    """Names of one class that differ in a number behind it -> the name without it, as of `Car 1` to `Car 4`."""
    names = list(dict.fromkeys(names))
    found: dict[str, list[str]] = {}
    for name in names:
        if (match := _NUMBER.match(name)) and match[1].strip(" _-").lower() not in _GENERIC:
            found.setdefault(match[1].strip(" _-"), []).append(name)
    several = {base: own for base, own in found.items() if len(own) > 1 and base not in names}
    return {name: base for base, own in several.items() for name in own}


def _read(path: Path) -> Table | None:
    reader = _READERS.get(path.suffix.lower())
    try:
        return reader(path) if reader else None
    except (DataError, OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return None  # it is something else


def _csv(path: Path) -> Table | None:
    cells = read_csv(path, "a table")
    columns = {column.strip().lower(): column for column in cells.columns}
    name = next((columns[key] for key in _NAME if key in columns), None)
    index = next((columns[key] for key in _INDEX if key in columns), None)
    channels = [columns[key] for key in ("r", "g", "b", "a") if key in columns]
    if name is None or not (index or len(channels) >= 3):
        return None
    names: dict[int, str] = {}
    colours: dict[Colour, int] = {}
    ignored = set()
    by_name: dict[str, int] = {}
    train_id = next((columns[key] for key in _TRAIN_IDS if key in columns), None)
    for row in cells.to_dict("records"):
        own = row[name].strip()
        native = int(row[index]) if index else by_name.setdefault(own, len(by_name))
        if names.setdefault(native, own) != own or not 0 <= native < NATIVE_IDS or not own:
            return None
        if len(channels) >= 3 and any(row[channel].strip() for channel in channels):
            colours[tuple(int(row[channel]) for channel in channels)] = native
        if is_void(own) or (train_id and row[train_id].strip() in ("255", "-1")):
            ignored.add(own)
    reads = {key for key, reads in (("native_classes", _is_native), ("classes", _is_classes)) if reads(path)}
    return Table(path, names, colours, index is not None, frozenset(ignored), frozenset(reads)) if names else None


def _is_native(path: Path) -> bool:
    read_native_classes(path, painted=False)
    return True


def _is_classes(path: Path) -> bool:
    try:
        read_classes(path)
    except DataError:
        return False
    return True


def _json(path: Path) -> Table | None:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        content = next((content[key] for key in ("labels", "classes", "categories") if key in content), content)
    if isinstance(content, dict):
        return _of_rows(path, [_entry(key, value) for key, value in content.items()])
    return _of_rows(path, [_item(item) for item in content])


def _yaml(path: Path) -> Table | None:
    """YOLO's `names`: a list, or a mapping of ids."""
    names = yaml.safe_load(path.read_text(encoding="utf-8-sig"))["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    return Table(path, {int(native): str(name) for native, name in names.items()})


Row = tuple[int | None, str, Colour | None]


def _entry(key: str, value: Any) -> Row:
    """An entry of a mapping: colour, id or name to any other of these."""
    for one, other in ((key, value), (value, key)):
        if isinstance(one, str) and (colour := _hex(one)) and isinstance(other, str):
            return None, other, colour
        if isinstance(one, list) and len(one) in (3, 4) and isinstance(other, str):
            return None, other, tuple(map(int, one))
        if isinstance(other, str) and (isinstance(one, int) or (isinstance(one, str) and one.isdecimal())):
            return int(one), other, None
    raise ValueError(key)


def _item(item: Any) -> Row:
    if isinstance(item, str):
        return None, item, None
    lower = {str(key).lower(): value for key, value in item.items()}
    name = next(str(lower[key]) for key in ("readable", *_NAME) if key in lower)
    native = next((int(lower[key]) for key in _INDEX if key in lower), None)
    colour = lower.get("color", lower.get("colour"))
    return native, name, (_hex(colour) if isinstance(colour, str) else colour and tuple(map(int, colour)))


def _txt(path: Path) -> Table | None:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    rows: list[Row] = []
    for line in lines:
        if match := re.fullmatch(
            r"(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\S.*)", line
        ):  # `64 128 64  Animal`
            rows.append((None, match[4].strip(), tuple(int(match[k]) for k in (1, 2, 3))))
        elif match := re.fullmatch(r"([^:]+):(\d+),(\d+),(\d+):.*", line):  # CVAT's `car:255,0,0::`
            rows.append((None, match[1], tuple(int(match[k]) for k in (2, 3, 4))))
        elif match := re.fullmatch(r"(\d+)\s*[:,;\s]\s*(.*[^\W\d_].*)", line):  # `0: unlabeled`, not `000012 -1`
            rows.append((int(match[1]), match[2].strip(), None))
        elif _PLAIN.search(path.stem) and len(line) < 60:
            rows.append((None, line, None))
        else:
            return None
    return _of_rows(path, rows)


def _of_rows(path: Path, rows: list[Row]) -> Table | None:
    """A table of ids, names and colours; where no row says an id they are counted, of equal names once."""
    has_ids = all(native is not None for native, _, _ in rows)
    if not rows or (not has_ids and any(native is not None for native, _, _ in rows)):
        return None
    by_name: dict[str, int] = {}
    names: dict[int, str] = {}
    colours: dict[Colour, int] = {}
    for native, name, colour in rows:
        own = native if native is not None else by_name.setdefault(name, len(by_name))
        if names.setdefault(own, name) != name or not 0 <= own < NATIVE_IDS:
            return None
        if colour:
            colours[colour] = own
    return Table(path, names, colours, has_ids, frozenset(filter(is_void, names.values())))


def _hex(text: str) -> Colour | None:
    """The colour of `#ff8000`."""
    match = re.fullmatch(r"#([0-9a-fA-F]{6})", text)
    return tuple(bytes.fromhex(match[1])) if match else None


_READERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".txt": _txt,
    ".names": _txt,
    ".yaml": _yaml,
    ".yml": _yaml,
}
