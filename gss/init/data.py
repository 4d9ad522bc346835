"""The section `data`: what lies in some folders, and what it means.

Labels are pictures here. What makes pictures of annotation files comes before `decide_data`, which then finds them.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gss.config import class_file
from gss.config.schema import DataSet
from gss.data.classes import ClassSpace
from gss.data.images import inspect_image, label_size
from gss.data.manifest import evenly_spaced
from gss.errors import ConfigError, DataError
from gss.init import folders, labels, tables
from gss.init.classes import add_shares, decide_classes, explained
from gss.init.folders import Pairing, Pictures
from gss.init.labels import Labels
from gss.init.plan import Plan
from gss.init.splits import decide_splits, placed
from gss.init.tables import Table
from gss.stages.check import source_space
from gss.stages.run import class_space

_GLANCES = 8  # labels by which folders of labels are compared
_OPENED = 32  # photographs
_ANNOTATIONS = (".json", ".xml")


class Found(NamedTuple):
    """What the other decisions need of a data set.

    Args:
        root: its folder.
        space: its classes.
        counts: pairs of each split.
        pairs: names of image and label of those that were opened, below the root, and height and width of the label.
        seconds: that it took to read a pair.
    """

    root: Path
    space: ClassSpace
    counts: dict[str, int]
    pairs: list[tuple[str, str, tuple[int, int]]]
    seconds: float


def decide_data(plan: Plan, places: Sequence[Path], workers: int) -> Found:
    """Look at folders and set `data`.

    Args:
        places: the folder of a data set, or those of its parts.
        workers: processes that read labels.

    Raises:
        ConfigError: a folder is missing.
        DataError: nothing belongs together there, or what only the owner can say.
    """
    root, only = _root(places)
    pictures = folders.look(root, only)
    files = folders.small_files(pictures)
    found_tables = tables.find(files)
    pairings = folders.pairings(pictures)
    pairing = _chosen(plan, pictures, pairings, found_tables)
    lists = folders.lists(root, pairing, files) if "all" in pairing.splits else {}
    plan.put("data.root", placed(root))
    counts = decide_splits(plan, pairing, lists, root)
    images_and_labels = [names for listing in pairing.listings.values() for names in listing.pairs]
    began = time.perf_counter()
    read = labels.read([root / label for _, label in images_and_labels], workers=workers)
    seconds = (time.perf_counter() - began) / read.read
    decide_classes(plan, read, found_tables, root)
    add_shares(plan, read, space := _space(plan, root))
    opened, more = _open(plan, root, images_and_labels)
    _tell_rest(plan, pictures, pairings)
    return Found(root, space, counts, opened, seconds + more / workers)


def _space(plan: Plan, root: Path) -> ClassSpace:
    """The classes that were decided, as the check understands them."""
    data = DataSet.model_validate(plan.content["data"])
    table = class_file(data.classes, root) if isinstance(data.classes, str) else None
    return source_space(data, class_space(data, table), root, table, f"source {data.root!r}")


def _root(places: Sequence[Path]) -> tuple[Path, list[Path]]:
    """The folder that holds all places, and these."""
    only = [place.resolve() for place in places]
    for place in only:
        if not place.is_dir():
            what = "this is no folder" if place.exists() else "no such folder"
            raise ConfigError(what, where=place, todo="name that of a data set, or those of its parts")
    return Path(os.path.commonpath(only)), only


# ---- which labels


def _chosen(plan: Plan, pictures: Pictures, pairings: Sequence[Pairing], found_tables: list[Table]) -> Pairing:
    """The likeliest pairing.

    Raises:
        DataError: there is none, or several are as likely.
    """
    if not pairings:
        raise _nothing(pictures)
    if len(pairings) == 1:
        return pairings[0]
    scores = {index: _score(pictures.root, pairing, found_tables) for index, pairing in enumerate(pairings)}
    best, second = sorted(scores, key=lambda index: (scores[index], -index), reverse=True)[:2]
    chosen, others = pairings[best], [each for index, each in enumerate(pairings) if index != best]
    if scores[best] == scores[second]:
        raise _several(pictures.root, (chosen, pairings[second]))
    plan.notes.append(f"not taken: {'; '.join(each.shown() for each in others[:4])}. Named alone they are")
    return chosen


def _several(root: Path, likely: Sequence[Pairing]) -> DataError:
    """That pairings are as likely, and how to say which."""
    commands = []
    for pairing in likely:
        names = [name for folders in pairing.splits.values() for name in (folders.images, folders.labels)]
        commands.append(f"gss init NAME {' '.join(str(root / name) for name in dict.fromkeys(names))}")
    if len(set(commands)) == 1:
        kinds = "\n".join(f"    {pairing.shown()}" for pairing in likely)
        todo = "leave one kind there; masks of one class each are to be drawn into one label before"
        return DataError(f"labels of several kinds lie in one folder:\n{kinds}", where=root, todo=todo)
    shown = "\n".join(f"    {each.shown()}: {command}" for each, command in zip(likely, commands, strict=True))
    what = "several folders may be the photographs and their labels"
    return DataError(what, where=root, todo=f"say which:\n{shown}")


def _score(root: Path, pairing: Pairing, found_tables: list[Table]) -> tuple[bool, bool, int, bool]:
    """How likely these are the labels that are meant: a table names what they hold, they can be classes, their folder
    is called so, and they hold ids."""
    names = [label for listing in pairing.listings.values() for _, label in listing.pairs]
    read = Labels(len(names))
    for index in evenly_spaced(len(names), _GLANCES):
        read.add(labels.content(root / names[index]))
    can_be = not read.faults and 1 < max(len(read.pixels), len(read.colours)) < 1000
    is_named = can_be and any(explained(read, table) for table in found_tables)
    return is_named, can_be, pairing.likelihood(), not read.kinds["painted"]


def _nothing(pictures: Pictures) -> DataError:
    """Why no photographs and labels belong together."""
    root, groups = pictures.root, pictures.stems
    unread = ""
    if files := [f"{pictures.walk.others[kind]} *{kind}" for kind in _ANNOTATIONS if pictures.walk.others[kind]]:
        unread = f"annotation files ({', '.join(files)}) are not read: draw them as labels before; "
    if not groups:
        todo = f"{unread}name a folder with photographs and their labels, PNGs with a class in each pixel"
        return DataError("no pictures", where=root, todo=todo)
    kinds = {
        kind: [group for group in groups if (group in pictures.labels) == is_label]
        for kind, is_label in (("photographs", False), ("labels", True))
    }
    lines = [
        f"    {kind}: "
        + (", ".join(f"{'/'.join(group.folder) or '.'} ({groups[group][0]})" for group in found[:4]) or "none")
        for kind, found in kinds.items()
    ]
    advice = "name folders whose files have the same names, or such that differ by an ending or by one part; or write "
    advice += "the experiment by hand, with image_suffix and label_suffix or label_name (config/README.md)"
    if not kinds["labels"]:
        advice = f"{unread}labels are PNGs with a class in each pixel; name the folder that holds some"
    elif not kinds["photographs"]:
        advice = "everything looks like labels: say which is which, gss init NAME PHOTOGRAPHS LABELS"
    return DataError(
        "no photographs and labels that belong together by name:\n" + "\n".join(lines), where=root, todo=advice
    )


# ---- photographs


def _open(plan: Plan, root: Path, names: list[tuple[str, str]]) -> tuple[list[tuple[str, str, tuple[int, int]]], float]:
    """Open some photographs; set `exif_orientation` where they carry one. Returns them, and seconds for each."""
    began = time.perf_counter()
    opened, turned, fits = [], 0, []
    for index in evenly_spaced(len(names), _OPENED):
        image, label = names[index]
        (height, width), facts = inspect_image(root / image)
        found = label_size(root / label)
        lies = facts.orientation >= 5 and height != width
        if found != (height, width) and not (lies and found == (width, height)):
            raise DataError(
                f"the label has {found[1]} x {found[0]} pixels and its photograph {width} x {height}",
                where=root / label,
                todo="give each label the size of its photograph, without smoothing, or name other folders",
            )
        opened.append((image, label, found))
        turned += facts.orientation != 1
        if lies:
            fits.append(found == (height, width))
    seconds = (time.perf_counter() - began) / len(opened)
    if turned:
        stored = bool(fits) and not any(fits)
        why = f"{turned} of {len(opened)} photographs that were opened carry an EXIF orientation; "
        why += (
            f"labels have the size {'as stored' if stored else 'as viewers show them'}" if fits else "viewers turn them"
        )
        plan.put("data.exif_orientation", "stored" if stored else "apply", why)
    return opened, seconds


def _tell_rest(plan: Plan, pictures: Pictures, pairings: Sequence[Pairing]) -> None:
    """Note photographs that no label belongs to."""
    used = {
        folder
        for pairing in pairings
        for folders in pairing.splits.values()
        for folder in (folders.images, folders.labels)
    }
    rest = sorted(
        {
            "/".join(group.folder)
            for group in pictures.stems
            if group not in pictures.labels
            and not any(("/".join(group.folder) + "/").startswith(f"{folder}/") or folder == "." for folder in used)
        }
    )
    if rest:
        plan.notes.append(f"photographs without labels: {', '.join(rest[:4])}; `gss predict` reads them")
