"""Compares the label files of a data set with each other: do all of them mean the same by the same ids?

Ids that are no class are told from each file alone. Here is what no single file shows: half of the masks have the
object as 255 and half as 1, the labels of one split are shifted by one, the palettes of indexed files disagree.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gss.data.borders import Borders, smoothed
from gss.data.cases import Cases, together
from gss.data.classes import NATIVE_IDS, ClassSpace, Colour, format_ids
from gss.data.remap import format_map, propose_remap

_COLOURS_KEPT = 16  # of an id, in the palettes of many files: more prove no more
_FAR, _NEARER = 0.5, 0.25  # shares of the pixels, see `_shifted`


@dataclass
class SplitLabels:
    """What the labels of a split hold, of each file as much as is needed to compare it with others.

    Args:
        space: the class space.

    Attributes:
        files: number of labels.
        pixels: int64 [65536], of every native id.
        native_files: int64 [65536], labels that hold it.
        class_files: labels that hold a class, by class.
        unknown: labels with ids that are no class.
        ignored: labels of which everything is ignored.
        masks: labels of one class and `space.ignored_id`, 255 most often, by class.
        beside: labels with 255 beside two or more classes.
        whole: labels that hold a class, and 255 nowhere, by class.
        palettes: colours of native ids in indexed files.
        borders: of classes, in all labels.
    """

    space: ClassSpace
    files: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(NATIVE_IDS, np.int64))
    native_files: np.ndarray = field(default_factory=lambda: np.zeros(NATIVE_IDS, np.int64))
    class_files: np.ndarray = field(init=False)
    unknown: Cases = field(default_factory=Cases)
    ignored: Cases = field(default_factory=Cases)
    masks: dict[int, Cases] = field(default_factory=lambda: defaultdict(Cases))
    beside: Cases = field(default_factory=Cases)
    whole: dict[int, Cases] = field(default_factory=lambda: defaultdict(Cases))
    palettes: dict[int, dict[Colour, Cases]] = field(default_factory=dict)
    borders: Borders = field(default_factory=Borders)

    def __post_init__(self) -> None:
        self.class_files = np.zeros(self.space.num_classes, np.int64)
        self._table: list[int] = self.space.table().tolist()

    def add(
        self, name: str, ids: Sequence[int], counts: Sequence[int], colours: Sequence[int], borders: Sequence[int]
    ) -> None:
        """Count one label; the arguments are those of a `PairScan`."""
        self.files += 1
        for native, count in zip(ids, counts, strict=True):
            self.pixels[native] += count
            self.native_files[native] += 1
        targets = {self._table[native] for native in ids}
        ignored, ignored_id = self.space.ignore_index, self.space.ignored_id
        classes = targets - {-1, ignored}
        for label in classes:
            self.class_files[label] += 1
        if -1 in targets:
            self.unknown.add(name)
        if targets == {ignored}:
            self.ignored.add(name)
        if ignored_id not in ids:
            for label in classes:
                self.whole[label].add(name)
        elif len(classes) == 1:
            self.masks[min(classes)].add(name)
        elif classes:
            self.beside.add(name)
        self.borders.add(name, *borders)
        self._add_palette(name, ids, [(c >> 16, c >> 8 & 255, c & 255) for c in colours])

    def _add_palette(self, name: str, ids: Sequence[int], colours: Sequence[Colour]) -> None:
        classes = range(self.space.num_classes)
        known = [(n, colour) for n, colour in zip(ids, colours, strict=False) if self._table[n] in classes]
        if all(colour == (native,) * 3 for native, colour in known):
            return  # the ids as grey values: the file says no more than one without a palette
        if len({colour for _, colour in known}) < len({self._table[native] for native, _ in known}):
            return  # two classes in one colour: nobody has looked at these colours
        for native, colour in known:
            seen = self.palettes.setdefault(native, {})
            if colour in seen or len(seen) < _COLOURS_KEPT:
                seen.setdefault(colour, Cases()).add(name)


def compare(splits: Mapping[str, SplitLabels], *, is_part: bool = False) -> tuple[list[str], list[str]]:
    """Faults and warnings, a line each: what the labels say about each other and about the class table.

    Args:
        splits: one or more, with one class space. Labels are compared with those of `train`, or of the first one.
        is_part: they are those of one of several sources: classes that it lacks may be in others.
    """
    splits = {name: found for name, found in splits.items() if found.files}
    if not splits:
        return [], []
    space = next(iter(splits.values())).space
    pixels = sum((found.pixels for found in splits.values()), np.zeros(NATIVE_IDS, np.int64))
    if space.num_classes == 1:
        return [_one_class(pixels, space)], []
    palettes = _joined(splits.values())
    faults, warnings = _masks(splits, pixels, space)
    faults += _shifted(splits)
    known = _known_colours(palettes, space)
    proposal = propose_remap(pixels, space, known) if space.native is None else None
    smooth = smoothed({split: found.borders for split, found in splits.items()})
    if not faults:
        faults = _all_ignored(splits) + ([] if is_part else _one_to_learn(splits)) + _zero_is_a_class(pixels, space)
    if proposal:  # of ids that smoothing has made none should become a class
        faults.append((*smooth, proposal)[0] + _where_unknown(splits))
    else:
        warnings = smooth + warnings
    faults += _palettes(palettes, space)
    return faults, warnings + _ignored(splits) + ([] if is_part else _unseen(splits, pixels))


# ---- ids


def _one_class(pixels: np.ndarray, space: ClassSpace) -> str:
    found = {int(native) for native in np.flatnonzero(pixels)}
    zero = ", without reduce_zero_label" if space.reduce_zero_label else ""
    others = sorted(found - {0, 1, space.ignore_index})
    value = others[0] if others and space.ignore_index not in found else space.ignore_index
    where = "" if 1 not in found else f", where the object is {value} and not 1,"
    return (
        "one class cannot be learned against itself: whatever is predicted would be right. Name the background as well "
        f"and say which id is the object: classes: [background, {space.names[0]}]{zero}{where} with label_map: "
        f"{format_map({value: 1})}. Ids found: {format_ids(np.flatnonzero(pixels))}; {space.ignore_index} means ignored"
    )


def _masks(splits: Mapping[str, SplitLabels], pixels: np.ndarray, space: ClassSpace) -> tuple[list[str], list[str]]:
    """Masks whose object is 255, which means ignored (in spaces of more classes 65535, as everywhere below).

    Labels that hold one class and 255 are such masks unless something speaks against it: in other labels 255 stands
    beside two or more classes, or beside another one. A split of nothing else is asked about in any case.
    """
    classes = {label for found in splits.values() for label in found.masks}
    ignored = space.ignored_id
    if ignored in space.label_map or len(classes) != 1:
        return [], []
    (label,) = classes
    masks = together(found.masks[label] for found in splits.values() if label in found.masks)
    others = together(cases for found in splits.values() for k, cases in found.whole.items() if k != label)
    beside = together(found.beside for found in splits.values())
    alone = [split for split, found in splits.items() if found.masks and not np.delete(found.class_files, label).any()]
    ids = format_ids(np.flatnonzero((space.table() == label) & (pixels > 0)))
    like = f"{masks} hold only {ids} and {ignored}, like masks whose object is {ignored}"
    cure = _as_object(label, ids, space, others, beside)
    if not others and not beside:
        return [f"remap: {like}, but {ignored} means ignored: {cure}"], []
    if alone and len(alone) < len(splits):
        return [
            f"the labels of {' and '.join(alone)} follow another convention than the others: {like}, while "
            f"{together((others, beside))} hold other classes by their own ids. {ignored} means ignored: {cure}"
        ], []
    if not beside:
        return [
            f"the labels follow two conventions: {like}, and {others} hold other classes by their own ids. {ignored} "
            f"means ignored: {cure}"
        ], []
    if masks.count <= beside.count:
        return [], []
    return [], [
        f"{like}, more than the {beside.count} in which {ignored} stands beside several classes; it is read as "
        f"ignored, and {_as_ignored(space)} says that this is right"
    ]


def _as_ignored(space: ClassSpace) -> str:
    """The key that says what 255 means; the rules on it end there."""
    if space.native is not None:
        return f"a name for {space.ignored_id} in native_classes that becomes `ignore`"
    return f"label_map: {format_map({space.ignored_id: space.ignored_id})}"


def _as_object(label: int, ids: str, space: ClassSpace, others: Cases, beside: Cases) -> str:
    """What cures labels of one class and 255, by what other labels hold."""
    ignored = space.ignored_id
    if beside:
        remedy = f"if {ignored} is a class in the former, write them again with its id"
    elif space.native is not None:
        remedy = f"if {ignored} is a class give it a row in native_classes"
    elif space.num_classes > 2:
        remedy = f"if {ignored} is a class set label_map: {{{ignored}: its number}}"
    elif others or label == 0:
        remedy = f"if {ignored} is {space.names[1 - label]} set label_map: {format_map({ignored: 1 - label})}"
        remedy += ", which reads both" if others else ""
    else:
        remedy = f"if {ignored} is {space.names[1]} set label_map: {{{ids}: 0, {ignored}: 1}}"
    return f"{remedy}; if it is to be ignored in all of them, {_as_ignored(space)}"


def _shifted(splits: Mapping[str, SplitLabels]) -> list[str]:
    """Splits whose ids are shifted by one: their shares of the pixels fit those of the first split far better then."""
    first = "train" if "train" in splits else next(iter(splits))
    shares = {split: _shares(found) for split, found in splits.items()}
    faults = []
    for split, found in shares.items():
        far = _distance(shares[first], found)
        for step in (1, -1):
            moved = np.zeros_like(found)
            moved[max(step, 0) : len(found) + min(step, 0)] = found[max(-step, 0) : len(found) - max(step, 0)]
            if far > _FAR and _distance(shares[first], moved) < _NEARER * far and np.count_nonzero(moved) > 1:
                ids = {name: format_ids(np.flatnonzero(splits[name].pixels)) for name in (first, split)}
                faults.append(
                    f"the labels of {split} follow another convention than those of {first}, shifted by one: id k "
                    f"there has the share of pixels that id k {'+' if step > 0 else '-'} 1 has in {first} (ids "
                    f"{ids[split]} and {ids[first]}): write the labels of one of them again, no key reads both"
                )
    return faults


def _shares(labels: SplitLabels) -> np.ndarray:
    """float64 [65536]: share of every id, without 255."""
    pixels = labels.pixels.copy()
    pixels[labels.space.ignored_id] = 0
    return pixels / max(1, pixels.sum())


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels in which two distributions differ, 0..1."""
    return float(np.abs(one - other).sum() / 2)


def _all_ignored(splits: Mapping[str, SplitLabels]) -> list[str]:
    return [
        f"all {found.files} labels of {split} are ignored as a whole (ids {format_ids(np.flatnonzero(found.pixels))}), "
        f"e.g. {found.ignored.example}: if these ids are classes, say which in label_map"
        for split, found in splits.items()
        if found.ignored.count == found.files
    ]


def _one_to_learn(splits: Mapping[str, SplitLabels]) -> list[str]:
    train = splits.get("train")
    if not train or train.unknown or np.count_nonzero(train.class_files) != 1:
        return []
    only = train.space.names[int(np.flatnonzero(train.class_files)[0])]
    return [
        f"the labels of train hold one class only ({only}): nothing can be learned from them; ids found: "
        f"{format_ids(np.flatnonzero(train.pixels))}"
    ]


def _zero_is_a_class(pixels: np.ndarray, space: ClassSpace) -> list[str]:
    last = space.num_classes
    if not space.reduce_zero_label or space.label_map or pixels[last] or not pixels[:last].all():
        return []
    return [
        f"reduce_zero_label is set, but the ids are 0..{last - 1}, as they are without it: 0 "
        f"({100 * pixels[0] / pixels.sum():.2f} % of the pixels) would be ignored, and {last} ({space.names[-1]}) "
        f"never occurs: remove reduce_zero_label, or {space.names[-1]} from the classes"
    ]


def _where_unknown(splits: Mapping[str, SplitLabels]) -> str:
    holders = [split for split, found in splits.items() if found.unknown]
    unknown, files = together(splits[split].unknown for split in holders), sum(f.files for f in splits.values())
    if unknown.count == files:
        return ""
    only = f", only in {' and '.join(holders)}" if len(holders) < len(splits) else ""
    return f". They are in {unknown.count} of {files} labels{only}: look whether these follow another convention"


def _ignored(splits: Mapping[str, SplitLabels]) -> list[str]:
    return [
        f"{found.ignored.count} of {found.files} labels of {split} are ignored as a whole, e.g. {found.ignored.example}"
        for split, found in splits.items()
        if 0 < found.ignored.count < found.files
    ]


def _unseen(splits: Mapping[str, SplitLabels], pixels: np.ndarray) -> list[str]:
    lines = []
    for split, found in splits.items():
        unseen = np.flatnonzero(found.class_files == 0)
        if len(unseen):
            lines.append(f"classes that never occur in {split}: {', '.join(found.space.names[k] for k in unseen)}")
    space, seen = found.space, np.sum([found.class_files for found in splits.values()], axis=0) > 0
    (*_, last), ignored = space.names, space.ignored_id
    in_place_of_last = (
        space.native is None and space.num_classes > 2 and seen[:-1].all() and not seen[-1] and pixels[ignored] > 0
    )
    if in_place_of_last and ignored not in space.label_map:
        lines.append(
            f"{last} never occurs, and {ignored} is read as ignored: if {ignored} is {last} set label_map: "
            f"{format_map({ignored: space.num_classes - 1})}; {_as_ignored(space)} says that it is not"
        )
    return lines


# ---- palettes


def _joined(labels: Iterable[SplitLabels]) -> dict[int, dict[Colour, Cases]]:
    joined: dict[int, dict[Colour, Cases]] = {}
    for found in labels:
        for native, seen in found.palettes.items():
            into = joined.setdefault(native, {})
            for colour, cases in seen.items():
                into[colour] = together((into.get(colour, Cases()), cases))
    return dict(sorted(joined.items()))


def _known_colours(palettes: Mapping[int, Mapping[Colour, Cases]], space: ClassSpace) -> dict[int, Colour]:
    """Colours of classes by the class table, else by the palettes."""
    if space.colours:
        return dict(enumerate(space.colours))
    table = space.table().tolist()
    return {table[native]: next(iter(seen)) for native, seen in palettes.items()}


def _palettes(palettes: Mapping[int, Mapping[Colour, Cases]], space: ClassSpace) -> list[str]:
    """What is wrong where palettes give an index another meaning than it has by itself."""
    faults = _disagreeing(palettes, space)
    if not faults:
        colours = {native: next(iter(seen)) for native, seen in palettes.items()}
        wrong = {} if space.native else _other_class(colours, space) or _other_id(colours, space)
        faults = [f"{line}, e.g. in {next(iter(palettes[native].values())).example}" for native, line in wrong.items()]
    cure = (
        "Labels are read by their indices: if these are right, write the files again without palette (8-bit "
        "grayscale); if the colours are, with encoding: colours, see `Labels as colours` in docs/how-to/check.md"
    )
    return [f"{fault}. {cure}" for fault in faults[:1]]


def _disagreeing(palettes: Mapping[int, Mapping[Colour, Cases]], space: ClassSpace) -> list[str]:
    """An index in two colours, or a colour at the indices of two classes."""
    table = space.table().tolist()
    indices: dict[Colour, list[int]] = defaultdict(list)
    for native, seen in palettes.items():
        if len(seen) > 1:
            (one, first), (other, second), *_ = seen.items()
            return [f"the palettes of indexed labels disagree: index {native} is {one} in {first}, {other} in {second}"]
        indices[next(iter(seen))].append(native)
    for colour, natives in indices.items():
        if len({table[native] for native in natives}) > 1:
            found = ", ".join(f"index {native} in {palettes[native][colour]}" for native in natives)
            return [f"the palettes of indexed labels disagree: {colour} is {found}"]
    return []


def _other_class(colours: Mapping[int, Colour], space: ClassSpace) -> dict[int, str]:
    """Indices whose colour is that of another class in the class table.

    A palette that has nothing to do with the table may share some colours with it, but hardly most of them.
    """
    classes: dict[Colour, set[int]] = defaultdict(set)
    for label, colour in enumerate(space.colours or ()):
        classes[colour].add(label)
    known = [native for native, colour in colours.items() if colour in classes]
    if len(colours) < 2 or 2 * len(known) <= len(colours):
        return {}
    table, names = space.table().tolist(), space.names
    return {
        native: f"the palettes of indexed labels contradict the class table: index {native} ({names[table[native]]}) "
        f"has the colour {colours[native]} of {names[min(classes[colours[native]])]}"
        for native in known
        if table[native] not in classes[colours[native]]
    }


def _other_id(colours: Mapping[int, Colour], space: ClassSpace) -> dict[int, str]:
    """Indices whose colour is the grey value of another id, where all are of some: converted grayscale labels."""
    table = space.table().tolist()
    classes = range(space.num_classes)
    if not all(len({*colour}) == 1 and table[colour[0]] in classes for colour in colours.values()):
        return {}
    return {
        native: f"the palettes of indexed labels are grey, as of converted grayscale labels, but index {native} has "
        f"the grey value {colour[0]}, another id"
        for native, colour in colours.items()
        if native != colour[0]
    }
