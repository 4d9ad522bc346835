"""What annotations leave to decide: which of two shapes is above, what lies outside of them, and the classes."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from gss.config.schema import OF_ANNOTATIONS
from gss.data.annotations.formats import Overlap
from gss.data.annotations.make import class_names
from gss.data.annotations.notes import Notes
from gss.data.annotations.paint import Options, Work, make_label
from gss.data.classes import IGNORE
from gss.data.manifest import evenly_spaced
from gss.data.native import NativeClasses
from gss.data.processes import in_order
from gss.errors import DataError
from gss.init.annotations import Annotations
from gss.init.classes import put_merged, share
from gss.init.plan import Plan
from gss.init.splits import put_splits
from gss.init.tables import is_void, without_numbers
from gss.progress import track
from gss.stages.labels import Annotated

_PAINTED = 100  # pictures
_DENSE = 0.75  # share of the pixels in shapes from which the rest is what nobody named, and no class
_GROUND = ("background", "_background_", "__background__", "bg")
_HIDDEN = 0.01  # share of the shapes that may be hidden before the order of the format is left
_ORDERS: tuple[Overlap, ...] = ("last", "smallest")
Result = TypeVar("Result")


class Decided(NamedTuple):
    """What was decided of annotations.

    Args:
        counts: pictures of each split.
        pairs: photographs, and labels that were made of some of them.
        made: the classes of these labels.
        seconds: that it takes to make the labels of all.
    """

    counts: dict[str, int]
    pairs: list[tuple[str, str]]
    made: Annotated
    seconds: float


class _Look(NamedTuple):
    """What one picture shows: pixels, those in shapes, those of another class in the other order, shapes without a
    pixel in each order, and what is wrong."""

    pixels: int
    covered: int
    disputed: int
    hidden: tuple[int, ...]
    notes: Notes


def decide_annotations(plan: Plan, chosen: Annotations, root: Path, workers: int) -> Decided:
    """Set `splits`, `annotations`, and the classes.

    Raises:
        DataError: what is wrong with annotations, as `gss labels` would say, or they are too few.
    """
    works, options = chosen.works, chosen.options()
    sample = [works[index] for index in evenly_spaced(len(works), _PAINTED)]
    looks = list(_each(partial(_look, options), sample, "looking at shapes", workers))
    _refuse_faults(chosen, looks, root)
    splits = {split: part.folders for split, part in chosen.parts.items()}
    counts = put_splits(plan, splits, {split: part.keys for split, part in chosen.parts.items()}, root)
    plan.put("data.annotations.format", options.format)
    _decide_order(plan, looks, options, sum(len(work.picture.shapes) for work in sample))
    drawn = Counter(shape.name for work in works for shape in work.picture.shapes)
    names = class_names(chosen.parsed, options)
    _decide_ground(plan, looks, names, drawn)
    if absent := sum(len(own.pictures) for own in chosen.parsed) - len(works):
        why = f"{absent} of {absent + len(works)} annotated pictures are not there"
        plan.put("data.annotations.missing", "skip", why)
    if options.classes:
        why = "nothing names the numbers: rename here, and the same in `classes`"
        plan.put("data.native_classes", list(names), "" if names[0] != "class_0" else why)
    decided = plan.content["data"]["annotations"]
    options = options._replace(**{key: decided[key] for key in ("overlap", "background") if key in decided})
    _decide_classes(plan, class_names(chosen.parsed, options), drawn, options.background)
    _tell_kinds(plan, works)
    names = class_names(chosen.parsed, options)
    began = time.perf_counter()
    for _ in _each(partial(make_label, options, names), sample, "making labels", workers):
        pass
    seconds = (time.perf_counter() - began) / len(sample) * len(works)
    made = Annotated(NativeClasses(dict(enumerate(names))), drawn, {})
    return Decided(counts, [(str(work.shown()), str(work.label)) for work in sample], made, seconds)


def _each(function: Callable[[Work], Result], sample: list[Work], title: str, workers: int) -> Iterator[Result]:
    """What a function makes of each picture."""
    items = ((work,) for work in sample)
    made = in_order(function, items, workers=workers, total=len(sample), key="cores of this process")
    return track(made, title, len(sample), "pictures")


def _look(options: Options, work: Work) -> _Look:
    """Paint a picture in both orders, each of its shapes as a class of its own."""
    shapes = work.picture.shapes
    numbers = [str(number) for number in range(len(shapes))]
    own = [replace(shape, name=number) for shape, number in zip(shapes, numbers, strict=True)]
    numbered = work._replace(picture=replace(work.picture, shapes=own))
    class_of = np.full(2**16, -1)
    class_of[: len(shapes)] = np.unique([shape.name for shape in shapes], return_inverse=True)[1]
    seen, hidden = [], []
    for order in _ORDERS:
        _, facts, notes = make_label(options._replace(overlap=order), numbers, numbered)
        if facts is None:
            return _Look(0, 0, 0, (0, 0), notes)
        with Image.open(work.label) as file:
            seen.append(class_of[np.asarray(file)])
        hidden.append(facts.pixels.count(0))
    one, other = seen
    return _Look(one.size, int((one >= 0).sum()), int((one != other).sum()), tuple(hidden), Notes())


def _refuse_faults(chosen: Annotations, looks: Sequence[_Look], root: Path) -> None:
    """Raise DataError where `gss labels` would stop."""
    notes = Notes()
    for own in (*(parsed.notes for parsed in chosen.parsed), *(look.notes for look in looks)):
        notes.take(own)
    if faults := notes.faults():
        what = "\n".join([f"{chosen.files.shown()} cannot be used:", *(f"    {fault}" for fault in faults)])
        raise DataError(what, where=root, todo="mend the files, or name others: gss init NAME PHOTOGRAPHS ANNOTATIONS")


def _decide_order(plan: Plan, looks: Sequence[_Look], options: Options, num_shapes: int) -> None:
    """Set `overlap` where it matters: the format's own, unless it hides many more shapes."""
    disputed = sum(look.disputed for look in looks)
    if not disputed:
        return
    last, smallest = (sum(look.hidden[k] for look in looks) for k in range(len(_ORDERS)))
    own, other = (smallest, last) if options.overlap == "smallest" else (last, smallest)
    order = options.overlap if own - other <= _HIDDEN * num_shapes else _ORDERS[options.overlap == "last"]
    depends = share(disputed, sum(look.pixels for look in looks))
    why = f"{depends} of the pixels depend on which of two shapes is above; of {num_shapes} shapes {last} are hidden "
    why += f"where the last one is, {smallest} where the smallest one is"
    plan.put("data.annotations.overlap", order, why)


def _decide_ground(plan: Plan, looks: Sequence[_Look], names: Sequence[str], drawn: Mapping[str, int]) -> None:
    """Set `background`."""
    pixels, covered = (sum(column) for column in zip(*(look[:2] for look in looks), strict=True))
    why = f"shapes cover {share(covered, pixels)} of the pixels in {len(looks)} pictures: "
    if covered >= _DENSE * pixels and sum(not is_void(name) for name in drawn) > 1:
        plan.put("data.annotations.background", IGNORE, f"{why}the rest is what nobody named")
    else:
        ground = next((name for name in names if name.lower() in _GROUND), "background")
        plan.put("data.annotations.background", ground, f"{why}the rest is a class, too, or it would not be learned")


def _decide_classes(plan: Plan, names: Sequence[str], drawn: Mapping[str, int], ground: str) -> None:
    """Set `classes`, and `mapping` where some are none, or one."""
    natives = [name for name in names if name in drawn or name == ground]
    ignored, merged = set(filter(is_void, natives)), without_numbers(natives)
    unused = [name for name in names if name not in natives]
    if not (ignored or merged or unused):
        plan.put("data.classes", OF_ANNOTATIONS, "all that they have")
        return
    put_merged(plan, natives, ignored, merged)
    if unused:
        some = f"{', '.join(unused[:4])}{', ...' * (len(unused) > 4)}"
        plan.reasons["data.classes"] += f"; left out, as they have no shape: {some} ({len(unused)})"


def _tell_kinds(plan: Plan, works: Sequence[Work]) -> None:
    """Note shapes that are no outlines."""
    kinds = Counter(shape.kind for work in works for shape in work.picture.shapes)
    if kinds["box"]:
        plan.notes.append(f"{kinds['box']} of {kinds.total()} shapes are boxes: all inside is learned as their class")
    if lines := kinds["line"] + kinds["point"]:
        plan.notes.append(f"{lines} of {kinds.total()} shapes are lines or points: annotations.line_width decides")
