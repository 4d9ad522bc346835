"""What the values in labels mean: keys of the section `data`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gss.data.classes import IGNORE, ClassSpace, format_ids
from gss.errors import DataError
from gss.init.labels import Labels, plain
from gss.init.plan import Plan
from gss.init.tables import Colour, Table, without_numbers

_IGNORED = 255
_UNNAMED = 0.2  # share of the pixels up to which values that a table does not name are ignored
_DENSE = 64  # ids up to which gaps between those found are taken for classes that were not met


def decide_classes(plan: Plan, labels: Labels, tables: Sequence[Table], root: Path) -> None:
    """Set `classes` and what leads to them.

    Args:
        tables: those in the folder.

    Raises:
        DataError: labels that cannot be read or hold no classes, or what only their owner can say.
    """
    if labels.faults:
        todo = "write them again as PNG with a class in each pixel, or name other folders"
        raise DataError(f"labels that cannot be read: {labels.faults[0]}", where=root, todo=todo)
    if len(labels.kinds) > 1 and not _colours_tell(labels):
        raise DataError(
            f"{labels.kinds['ids']} labels hold ids and {labels.kinds['painted']} are painted",
            where=root,
            todo="name the folder of one kind: gss init NAME PHOTOGRAPHS LABELS",
        )
    if labels.kinds["painted"] and all(len({*colour[:3]}) == 1 for colour in labels.colours):
        tables = [*tables, *map(_as_grey, tables)]
    if labels.kinds["painted"] or _colours_tell(labels):
        _painted(plan, labels, tables, root)
    else:
        _ids(plan, labels, tables, root)


def add_shares(plan: Plan, labels: Labels, space: ClassSpace) -> None:
    """Say of each class which share of the pixels it has, and how many are ignored.

    Args:
        space: what has been decided.
    """
    if space.native is not None and space.native.are_painted:
        colours = _all_colours(labels)
        native = space.native.ids(np.array([[*colours]], np.uint8))[0]
        pixels = list(colours.values())
    else:
        native, pixels = np.array([*labels.pixels]), [*labels.pixels.values()]
    led = space.table()[native]
    counts = np.bincount(led, pixels, minlength=space.ignore_index + 1)
    total = sum(pixels)
    shares = [share(count, total) for count in counts[: space.num_classes]]
    if isinstance(plan.content["data"]["classes"], str):
        order = np.argsort(-counts[: space.num_classes], kind="stable")
        plan.reasons["data.classes"] += f": {', '.join(f'{space.names[k]} {shares[k]}' for k in order)}"
    else:
        plan.reasons |= {f"data.classes[{k}]": share for k, share in enumerate(shares)}
    if ignored := counts[space.ignore_index]:
        plan.reasons["data.classes"] = "; ".join(
            filter(None, (plan.reasons.get("data.classes"), f"{share(ignored, total)} of the pixels are ignored"))
        )


def explained(labels: Labels, table: Table) -> bool:
    """Whether a table names what the labels hold, but for a small share."""
    if labels.kinds["painted"]:
        pixels = labels.colours
        known = sum(count for colour, count in pixels.items() if _of(table, colour) is not None)
        return bool(table.colours) and known >= (1 - _UNNAMED) * sum(pixels.values())
    classes = {native: count for native, count in labels.pixels.items() if native != _IGNORED}
    named = table.names.keys() | (set() if table.has_ids else {len(table.names)})  # they may count from 1
    known = sum(count for native, count in classes.items() if native in named)
    return len(classes.keys() & named) > 1 and known >= (1 - _UNNAMED) * sum(classes.values())


def _of(table: Table, colour: Colour) -> int | None:
    """The id of an RGBA colour."""
    return table.colours.get(colour, table.colours.get(colour[:3]))


def _colours_tell(labels: Labels) -> bool:
    """Whether it is the palette's colours and not its indices that mean the same in all files."""
    return any(len(colours) > 1 for colours in labels.palettes.values())


def _best(labels: Labels, tables: Sequence[Table]) -> Table | None:
    """The table that names what the labels hold: the most of it, then one that can be used as it is."""

    def named(table: Table) -> tuple[int, int]:
        if labels.kinds["painted"]:
            known = sum(_of(table, colour) is not None for colour in labels.colours)
        else:
            known = len(labels.pixels.keys() & table.names.keys())
        return known, len(table.reads)

    return max((table for table in tables if explained(labels, table)), key=named, default=None)


def _as_grey(table: Table) -> Table:
    """A table of ids as one of their grey values, for ids that were saved in three channels."""
    colours: dict[Colour, int] = {(native, native, native): native for native in table.names if native <= _IGNORED}
    return Table(table.path, table.names, colours, table.has_ids, table.ignored)


def share(count: float, total: int) -> str:
    return f"{100 * count / total:.2f} %" if count else "none"


# ---- ids


def _ids(plan: Plan, labels: Labels, tables: Sequence[Table], root: Path) -> None:
    found = sorted(labels.pixels)
    seen = f"{labels.how_many} hold the ids {format_ids(np.array(found))}"
    if len(found) > 1000:
        raise DataError(
            f"{labels.how_many} hold {len(found)} different values: numbers of instances or measurements, no classes",
            where=root,
            todo="name the folder of labels with a class in each pixel: gss init NAME PHOTOGRAPHS LABELS",
        )
    if len(found) < 2:
        raise DataError(f"{seen}: one class cannot be learned", where=root, todo="name another folder of labels")
    table = _best(labels, tables)
    if table is not None and (table.has_ids or not _off_by_one(labels, table, root)):
        _ids_of_table(plan, labels, table, seen, root)
    elif table is not None:
        plan.put("data.classes", list(table.names.values()), f"names of {table.path.name}")
        plan.put("data.reduce_zero_label", True, f"{seen}: names count from 1, and 0 is ignored")
    elif _is_mask(labels):
        plan.put("data.classes", ["background", "object"], f"{seen}: masks of one object; rename it here")
        if _IGNORED in found:
            plan.put("data.label_map", {_IGNORED: 1}, "the object is 255 in files")
    else:
        _numbered(plan, labels, seen)


def _is_mask(labels: Labels) -> bool:
    """Masks of one object, 0 and 1 or 0 and 255, either of which may be in part of the files."""
    return (
        set(labels.pixels) <= {0, 1, _IGNORED}
        and frozenset((0, 1, _IGNORED)) not in labels.sets
        and (set(labels.pixels) != {1, _IGNORED})
    )


def _off_by_one(labels: Labels, table: Table, root: Path) -> bool:
    """Whether ids count from 1 where the table says none.

    Raises:
        DataError: there is one id more than names, which may be the first or the last.
    """
    count, found = len(table.names), set(labels.pixels) - {_IGNORED}
    if count not in found:
        return False
    if 0 in found:
        shares = [share(labels.pixels[k], sum(labels.pixels.values())) for k in (0, count)]
        raise DataError(
            f"the labels hold {count + 1} ids, 0..{count}, and {table.path.name} has {count} names: is 0 "
            f"({shares[0]} of the pixels) no class, or {count} ({shares[1]})?",
            where=table.path,
            todo="say which id each name has: a table classes.csv with the heading index,name",
        )
    return True


def _ids_of_table(plan: Plan, labels: Labels, table: Table, seen: str, root: Path) -> None:
    unnamed = sorted(set(labels.pixels) - table.names.keys() - {_IGNORED})
    name = table.path.relative_to(root).as_posix()
    why = f"{seen}; {name} names them"
    ignored = {native for native, own in table.names.items() if own in table.ignored}
    is_255_named = _IGNORED in table.names and _IGNORED not in ignored
    last = [*table.names][len(table.names) - len(ignored) :]
    if "classes" in table.reads and set(last) == ignored and not is_255_named:
        plan.put("data.classes", name, why)
        changes: dict[int, Any] = dict.fromkeys([*sorted(ignored), *unnamed], IGNORE)
    elif "native_classes" in table.reads and not unnamed:
        plan.put("data.native_classes", name, why)
        put_merged(plan, table.names.values(), table.ignored, {})
        return
    else:
        names = list(dict.fromkeys(own for own in table.names.values() if own not in table.ignored))
        plan.put("data.classes", names, why)
        led = {native: IGNORE if native in ignored else names.index(own) for native, own in table.names.items()}
        changes = {native: to for native, to in led.items() if native != to and (native, to) != (_IGNORED, IGNORE)}
        changes |= dict.fromkeys(unnamed, IGNORE)
    if changes:
        total = sum(labels.pixels.values())
        told = [f"{native} is {table.names[native]}" for native in ignored if native in changes]
        told += [f"{native} has no name ({share(labels.pixels[native], total)} of the pixels)" for native in unnamed]
        plan.put("data.label_map", changes, "; ".join(told) or f"ids as {name} numbers them")


def _numbered(plan: Plan, labels: Labels, seen: str) -> None:
    """Classes that nothing names."""
    found = sorted(set(labels.pixels) - {_IGNORED})
    is_dense = found[-1] < _DENSE and 2 * len(found) > found[-1]
    natives = list(range(found[-1] + 1)) if is_dense else found
    ignored = f"; {_IGNORED} is ignored" if _IGNORED in labels.pixels else ""
    names = [f"class_{native}" for native in natives]
    plan.put("data.classes", names, f"{seen}, and nothing names them: rename here{ignored}")
    if not is_dense:
        led = {native: label for label, native in enumerate(natives) if native != label}
        plan.put("data.label_map", led, "ids in files have gaps: each is led to its class")


# ---- colours


def _painted(plan: Plan, labels: Labels, tables: Sequence[Table], root: Path) -> None:
    pixels = _all_colours(labels)
    total = sum(pixels.values())
    found = sorted(pixels, key=lambda colour: (-pixels[colour], colour))
    why = f"{labels.how_many} are painted, in {len(found)} colours"
    rare = sum(pixels[colour] < 1e-4 * total / len(found) for colour in found)
    table = _best(labels, tables)
    if table is None and len(found) > 256:
        raise DataError(
            f"{why}, {rare} of them hardly anywhere: resized smoothly, compressed, or numbers of instances",
            where=root,
            todo="write them again, or put a table of the colours of the classes there: classes.csv, name,r,g,b",
        )
    plan.put("data.encoding", "colours", why)
    if table is None:
        short = plain(found)
        names = _names_of_colours(found, pixels)
        plan.put(
            "data.native_classes",
            {name: list(short[colour]) for name, colour in zip(names, found, strict=True)},
            "nothing names the colours: rename here, and the same in `classes`",
        )
        plan.put("data.classes", names)
        return
    name = table.path.relative_to(root).as_posix()
    unnamed = [colour for colour in found if _of(table, colour) is None]
    merged = without_numbers(table.names.values())
    whole = not (unnamed or merged or table.ignored)
    if "classes" in table.reads and whole:
        plan.put("data.classes", name, f"the colours of {name}")
        return
    if "native_classes" in table.reads and not unnamed:
        plan.put("data.native_classes", name, f"the colours of {name}")
    else:
        native: dict[str, list[list[int]]] = {}
        for colour, index in table.colours.items():
            native.setdefault(table.names[index], []).append(list(colour))
        channels = len(next(iter(table.colours)))
        if unnamed:
            native["unnamed"] = [list(colour[:channels]) for colour in unnamed]
        shown = {own: colours[0] if len(colours) == 1 else colours for own, colours in native.items()}
        plan.put("data.native_classes", shown, f"the colours of {name}" + (", which lacks some" if unnamed else ""))
    ignored = {*table.ignored, *(["unnamed"] if unnamed else [])}
    put_merged(plan, [*table.names.values(), *(["unnamed"] if unnamed else [])], ignored, merged)
    if unnamed:
        count = sum(pixels[colour] for colour in unnamed)
        plan.notes.append(
            f"{len(unnamed)} colours that {name} lacks are ignored: {share(count, total)} of the pixels, "
            f"e.g. {unnamed[0][:3]}"
        )


def _all_colours(labels: Labels) -> dict[Colour, int]:
    """Pixels of each colour, of indexed files by their palettes as far as indices have one colour."""
    pixels = dict(labels.colours)
    for native, colours in labels.palettes.items():
        for colour in colours:
            pixels[colour] = pixels.get(colour, 0) + labels.pixels[native] // len(colours)
    return pixels


def _names_of_colours(found: Sequence[Colour], pixels: Mapping[Colour, int]) -> list[str]:
    if len(found) == 2 and {colour[:3] for colour in found} == {(0, 0, 0), (255, 255, 255)}:
        return ["background" if colour[:3] == (0, 0, 0) else "object" for colour in found]
    return [f"class_{k}" for k in range(len(found))]


# ---- both


def put_merged(plan: Plan, natives: Iterable[str], ignored: Iterable[str], merged: Mapping[str, str]) -> None:
    """Classes of native ones, of which some are ignored or one class together."""
    natives = list(dict.fromkeys(natives))
    ignored = set(ignored)
    classes = list(dict.fromkeys(merged.get(own, own) for own in natives if own not in ignored))
    plan.put("data.classes", classes, "all of them" + (" but those that are ignored" if ignored else ""))
    mapping = {own: IGNORE if own in ignored else merged[own] for own in natives if own in ignored or own in merged}
    if mapping:
        told = ["no classes by their names or train ids"] if ignored else []
        told += ["numbers of one class"] if merged else []
        plan.put("data.mapping", mapping, "; ".join(told))
