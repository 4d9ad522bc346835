"""The section `data`: what lies in some folders, and what it means.

Of annotations labels are made of some pictures; from then on these are labels like any others.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gss.config import class_file
from gss.config.schema import OF_ANNOTATIONS, DataSet
from gss.data.classes import ClassSpace
from gss.data.images import inspect_image, label_size
from gss.data.manifest import evenly_spaced
from gss.errors import ConfigError, DataError
from gss.init import annotations, folders, labels, tables, texts
from gss.init.annotations import Annotations, Files
from gss.init.classes import add_shares, decide_classes, explained
from gss.init.folders import Pairing, Pictures
from gss.init.labels import Labels
from gss.init.plan import Plan
from gss.init.shapes import decide_annotations
from gss.init.splits import decide_splits, placed
from gss.init.tables import Table
from gss.stages.check import source_space
from gss.stages.labels import Annotated
from gss.stages.run import class_space

_GLANCES = 8  # labels by which folders of labels are compared
_OPENED = 32  # photographs


class Found(NamedTuple):
    """What the other decisions need of a data set.

    Args:
        root: its folder.
        space: its classes.
        counts: pairs of each split.
        pairs: names of image and label of those that were opened, below the root, and height and width of the label.
        seconds: that it took to read a pair.
        making: seconds that it takes to make all labels of annotations; 0: there are none.
    """

    root: Path
    space: ClassSpace
    counts: dict[str, int]
    pairs: list[tuple[str, str, tuple[int, int]]]
    seconds: float
    making: float = 0.0


def decide_data(plan: Plan, places: Sequence[Path], folder: Path, workers: int) -> Found:
    """Look at folders and set `data`.

    Args:
        places: the folder of a data set, or those of its parts, or annotation files.
        folder: in which labels of annotations are made, of some pictures.
        workers: processes that read labels.

    Raises:
        ConfigError: a folder is missing.
        DataError: nothing belongs together there, or what only the owner can say.
    """
    root, only = _root(places)
    pictures = folders.look(root, only)
    files, refused = annotations.find(pictures)
    pictures = pictures.without(annotations.panoptic_folders(files))
    pairings = folders.pairings(pictures) if all(place.is_dir() for place in only) else []
    small = texts.small_files(pictures, {root / name for own in files for name in own.names})
    found_tables = tables.find(small)
    plan.put("data.root", placed(root))
    # Pictures of instances, and those to be looked at, are no labels where there are annotations.
    has_labels = any(pairing.likelihood() >= 0 for pairing in pairings)
    taken, reasons = annotations.read(pictures, [] if has_labels else files, found_tables, folder, workers)
    if taken:
        counts, names, made, making = decide_annotations(plan, _most(plan, taken, root), root, workers)
    elif pairings:
        pairing = _chosen(plan, pictures, pairings, found_tables)
        _tell_annotations(plan, root, pairing, files)
        lists = texts.lists(root, pairing, small) if "all" in pairing.splits else {}
        counts, made, making = decide_splits(plan, pairing, lists, root), None, 0.0
        names = [pair for listing in pairing.listings.values() for pair in listing.pairs]
    else:
        raise _nothing(pictures, refused + reasons)
    began = time.perf_counter()
    read = labels.read([root / label for _, label in names], workers=workers)
    seconds = (time.perf_counter() - began) / read.read
    if made is None:
        decide_classes(plan, read, found_tables, root)
    add_shares(plan, read, space := _space(plan, root, made))
    opened, more = _open(plan, root, names)
    _tell_rest(plan, pictures, pairings)
    return Found(root, space, counts, opened, seconds + more / workers, making)


def _space(plan: Plan, root: Path, made: Annotated | None) -> ClassSpace:
    """The classes that were decided, as the check understands them."""
    data = DataSet.model_validate(plan.content["data"])
    table = class_file(data.class_table, root) if data.class_table else None
    if made and data.classes == OF_ANNOTATIONS:
        declared = ClassSpace(tuple(made.classes.names.values()))
    else:
        declared = class_space(data, table)
    return source_space(data, declared, root, table, f"source {data.root!r}", made)


def _root(places: Sequence[Path]) -> tuple[Path, list[Path]]:
    """The folder that holds all places, and these."""
    only = [place.resolve() for place in places]
    for place in only:
        if not (place.is_dir() or (place.is_file() and place.suffix.lower() in folders.ENDINGS)):
            what = "this is no folder, and no annotation file" if place.exists() else "no such folder"
            raise ConfigError(what, where=place, todo="name that of a data set, or those of its parts")
    return Path(os.path.commonpath([place if place.is_dir() else place.parent for place in only])), only


# ---- which labels


def _chosen(plan: Plan, pictures: Pictures, pairings: Sequence[Pairing], found_tables: list[Table]) -> Pairing:
    """The likeliest pairing.

    Raises:
        DataError: several are as likely.
    """
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
    commands = [folders.command(root, pairing.splits.values()) for pairing in likely]
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


def _most(plan: Plan, taken: Sequence[Annotations], root: Path) -> Annotations:
    """The annotations of the most pictures, which come first.

    Raises:
        DataError: others are of as many.
    """
    best, *others = taken
    commands = [f"{own.files.shown()}: {own.command(root)}" for own in taken]
    if others and others[0].size() == best.size():
        what = "several annotations have as many shapes in as many pictures"
        raise DataError(what, where=root, todo="\n    ".join(["say which:", *commands]))
    if others:
        plan.notes.append(f"not taken: {'; '.join(commands[1:])}")
    return best


def _tell_annotations(plan: Plan, root: Path, pairing: Pairing, files: Sequence[Files]) -> None:
    """Note annotation files that lie there besides, and how they are taken."""
    for own in files[:4]:
        splits = [replace(pairing.one, labels=place) for place in own.labels.values()]
        taken = {folder for each in splits for folder in (each.images, each.labels)}
        has_labels = any(
            Path(pairing.one.labels).is_relative_to(folder) for folder in taken if (root / folder).is_dir()
        )
        how = "written by hand (docs/how-to/annotations.md)" if has_labels else folders.command(root, splits)
        plan.notes.append(f"labels are taken, and not the annotations {own.shown()}: {how}")


def _nothing(pictures: Pictures, refused: Sequence[str]) -> DataError:
    """Why no photographs and labels belong together.

    Args:
        refused: why annotations are not taken.
    """
    root, groups = pictures.root, pictures.stems
    if refused:
        what = "\n".join(["annotation files that cannot be taken:", *(f"    {reason}" for reason in refused)])
        return DataError(what, where=root, todo="name the folder of their photographs, too, or mend them")
    kinds = Counter(os.path.splitext(name)[1] for names in pictures.texts.values() for name in names)
    shown = ", ".join(f"{count} *{kind}" for kind, count in sorted(kinds.items()))
    unread = f"{shown} are no annotations in a format that is read (docs/how-to/annotations.md); " if shown else ""
    if not groups:
        todo = f"{unread}name a folder with photographs and their labels, PNGs with a class in each pixel"
        return DataError("no pictures", where=root, todo=todo)
    found = {
        kind: [group for group in groups if (group in pictures.labels) == is_label]
        for kind, is_label in (("photographs", False), ("labels", True))
    }
    lines = [
        f"    {kind}: "
        + (", ".join(f"{'/'.join(group.folder) or '.'} ({groups[group][0]})" for group in own[:4]) or "none")
        for kind, own in found.items()
    ]
    advice = "name folders whose files have the same names, or such that differ by an ending or by one part; or write "
    advice += "the experiment by hand, with image_suffix and label_suffix or label_name (config/README.md)"
    if not found["labels"]:
        advice = f"{unread}labels are PNGs with a class in each pixel; name the folder that holds some"
    elif not found["photographs"]:
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
    used = {each[kind] for each in plan.content["data"]["splits"].values() for kind in ("images", "labels")}
    used |= {
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
