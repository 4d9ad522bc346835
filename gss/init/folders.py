"""Which pictures are photographs and which are labels, which belong together, and which splits there are.

All names are looked at, and of a few files of each kind the content. What is found are the arguments of
`gss.data.pairing.list_pairs`, which tries it: the check pairs by the same function.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gss.data.annotations.formats import FORMATS
from gss.data.pairing import Listing, SplitFolders, list_pairs
from gss.data.walk import IMAGE_SUFFIXES, Walk
from gss.init.labels import looks_like_label

SPLITS = ("train", "val", "test")
ENDINGS = sorted({each.ending for each in FORMATS.values()})  # of annotation files
_LOOKED_INTO = 3  # files of a kind
_MANY_IN_RECORD = 10  # files
_MANY_FOLDERS = 30  # beside each other: one is looked into for all
_ENDING = re.compile(r"(?:[_\-. ][A-Za-z][A-Za-z0-9]*)+$")
_SPLIT = {"train": r"train(?:ing)?", "val": r"val(?:id(?:ation)?)?|dev", "test": r"test(?:ing)?"}
_BESIDE = r"(?:annot(?:ations?)?|images?|imgs?|labels?|masks?|set|data|list|split)?"
_SPLIT_WORD = {
    split: re.compile(rf"(?i)(?:{words})(?:[_\-. \d].*)?{_BESIDE}$|(?:.*[_\-. ])(?:{words})[_\-. ]?\d*$")
    for split, words in _SPLIT.items()
}
PHOTOGRAPHS = re.compile(r"(?i)^(?:images?|imgs?|photos?|jpegimages|rgb|pictures?|input|left.*)$")
_LIKELY = re.compile(r"(?i)label|mask|annot|semantic|segm|(?:^|_)gt|(?:^|_)seg|class|target|truth")
_UNLIKELY = re.compile(r"(?i)instance|depth|dispar|colou?r|rgb|panoptic|edge|preview|overlay|vis|(?:^|_)raw")

Folder = tuple[str, ...]
_Files = dict[Folder, list[tuple[str, str]]]  # stems and extensions, by folder


class Group(NamedTuple):
    """Pictures of a folder that are alike by name: by what they end in, such as `_mask` (mostly nothing), and form."""

    folder: Folder
    ending: str
    is_jpeg: bool


Place = tuple[Folder, Group]
Rule = tuple[str, str, None, tuple[str, str] | None]
"""Endings of image and label, no count, and `label_name`, as of `SplitFolders`."""


@dataclass(frozen=True)
class Pairing:
    """A way in which photographs and labels belong together.

    Args:
        splits: `all`, or names of splits, and the folders of each.
        listings: what `list_pairs` finds in them.
    """

    splits: dict[str, SplitFolders]
    listings: dict[str, Listing] = field(default_factory=dict)

    @property
    def one(self) -> SplitFolders:
        """The folders of the first split; endings and pattern are those of all."""
        return next(iter(self.splits.values()))

    @property
    def num_pairs(self) -> int:
        return sum(len(listing.pairs) for listing in self.listings.values())

    def shown(self) -> str:
        """As text for messages."""
        one = self.one
        ends = [f"*{end}" if end else "" for end in (one.image_suffix, one.label_suffix)]
        places = [os.path.join(*filter(None, pair)) for pair in zip((one.images, one.labels), ends, strict=True)]
        return f"{places[0]} with {places[1]} ({self.num_pairs} pairs)"

    def likelihood(self) -> int:
        """What the names of folders and endings say of the labels: the more the better."""
        words = f"{self.one.labels}/{self.one.label_suffix}".split("/")
        return sum(bool(_LIKELY.search(word)) for word in words[-3:]) - 2 * sum(
            bool(_UNLIKELY.search(word)) for word in words
        )


@dataclass(frozen=True)
class Pictures:
    """The pictures below a root.

    Args:
        root: the folder.
        only: folders and files that count, relative to it.
        stems: names without extension, by group; folders are those below the root.
        labels: groups that look like labels.
        texts: names of the files that may be annotations, by folder.
    """

    root: Path
    only: tuple[Path, ...]
    stems: dict[Group, list[str]]
    labels: set[Group]
    texts: dict[Folder, list[str]]

    def without(self, left_out: Collection[Folder]) -> "Pictures":
        """The same without the pictures in some folders."""
        kept = {group: stems for group, stems in self.stems.items() if group.folder not in left_out}
        return replace(self, stems=kept, labels=self.labels & kept.keys())


def look(root: Path, only: Sequence[Path]) -> Pictures:
    """Go through the names of all pictures and annotation files and look into a few pictures.

    Args:
        only: folders and annotation files below the root that count; where there are files, no other annotations do.
    """
    wanted = tuple(Path(os.path.relpath(folder, root)) for folder in only)
    print(f"looking at {root}", flush=True)
    extensions = (*IMAGE_SUFFIXES, *ENDINGS)
    named = {place for place in wanted if (root / place).is_file()}
    files: _Files = defaultdict(list)
    texts: dict[Folder, list[str]] = defaultdict(list)
    for inside, name in Walk(root, root.name, (), lambda inside: leads_to(inside, wanted), extensions):
        if any(Path(inside, name).is_relative_to(place) for place in wanted):
            folder = tuple(filter(None, inside.split("/")))
            stem, extension = os.path.splitext(name)
            if extension.lower() not in ENDINGS:
                files[folder].append((stem, extension))
            elif not named or Path(inside, name) in named:
                texts[folder].append(name)
    files = _without_records(root, files)
    siblings = Counter(folder[:-1] for folder in files)
    known: dict[Group, bool] = {}
    stems: dict[Group, list[str]] = {}
    labels = set()
    for folder, found in files.items():
        for (ending, is_jpeg), alike in _by_ending(found).items():
            group = Group(folder, ending, is_jpeg)
            kind = group if siblings[folder[:-1]] <= _MANY_FOLDERS else group._replace(folder=folder[:-1])
            if kind not in known:
                looked = {alike[k * (len(alike) - 1) // (_LOOKED_INTO - 1)] for k in range(_LOOKED_INTO)}
                paths = (root.joinpath(*folder, stem + extension) for stem, extension in sorted(looked))
                seen = set() if is_jpeg else set(map(looks_like_label, paths))
                known[kind] = True in seen and False not in seen
            stems[group] = [stem for stem, _ in alike]
            if known[kind]:
                labels.add(group)
    return _by_names(Pictures(root, wanted, stems, labels, texts))


def leads_to(inside: str | Path, wanted: Sequence[Path]) -> bool:
    """Whether a folder is in one of those that count, or has one of them in it."""
    return any(Path(inside).is_relative_to(folder) or folder.is_relative_to(inside) for folder in wanted)


def _without_records(root: Path, files: _Files) -> _Files:
    """Folders of one photograph and its label each, `a/image.png` and `a/mask.png`, as one folder of `a/image`, ..."""
    siblings: dict[Folder, list[Folder]] = defaultdict(list)
    for folder in files:
        siblings[folder[:-1]].append(folder)
    found = dict(files)
    for above, own in siblings.items():
        if above in files or len(own) < 2:
            continue
        kinds = Counter(frozenset(stem.removeprefix(folder[-1]) for stem, _ in files[folder]) for folder in own)
        kind, count = kinds.most_common(1)[0]
        if not 1 < len(kind) < _MANY_IN_RECORD or 2 * count <= len(own):
            continue
        looks: dict[str, set[bool | None]] = defaultdict(set)
        for folder in own[:_LOOKED_INTO]:
            for stem, extension in files[folder]:
                looks[stem.removeprefix(folder[-1])].add(looks_like_label(root.joinpath(*folder, stem + extension)))
        if {True} in looks.values() and {False} in looks.values():
            moved = ((folder[-1], picture) for folder in own for picture in found.pop(folder))
            found[above] = [(f"{name}/{stem}", extension) for name, (stem, extension) in moved]
    return found


def _by_names(pictures: Pictures) -> Pictures:
    """Where everything looks like labels, as drawings do, the names of folders say which are photographs; else those in
    the first of several folders that were named."""
    if pictures.stems.keys() - pictures.labels:
        return pictures
    photographs = {group for group in pictures.stems if any(map(PHOTOGRAPHS.match, group.folder))}
    if not photographs and len(pictures.only) > 1:
        photographs = {group for group in pictures.stems if Path(*group.folder).is_relative_to(pictures.only[0])}
    labels = pictures.labels - photographs
    return replace(pictures, labels=labels) if photographs and labels else pictures


def _by_ending(files: list[tuple[str, str]]) -> dict[tuple[str, bool], list[tuple[str, str]]]:
    """Files of a folder by what many of their names end in, and by whether they are JPEGs."""
    ends = {}
    for stem, _ in files:
        _, inside, name = stem.rpartition("/")
        ends[stem] = found[0] if (found := _ENDING.search(name)) else name if inside else ""
    counts = Counter(ends.values())
    groups: dict[tuple[str, bool], list[tuple[str, str]]] = defaultdict(list)
    for stem, extension in files:
        ending = ends[stem] if counts[ends[stem]] >= max(2, len(files) / 20) else ""
        groups[ending, extension.lower() in (".jpg", ".jpeg")].append((stem, extension))
    return groups


# ---- pairs


def command(root: Path, splits: Iterable[SplitFolders]) -> str:
    """The call that takes the photographs and labels of some splits alone."""
    names = [name for each in splits for name in (each.images, each.labels)]
    return f"gss init NAME {' '.join(str(root / name) for name in dict.fromkeys(names))}"


def pairings(pictures: Pictures) -> list[Pairing]:
    """The ways in which photographs and labels may belong together, by how many pairs there are."""
    photographs = [group for group in pictures.stems if group not in pictures.labels]
    places = _places(photographs, sorted(pictures.labels))
    found: list[Pairing] = []
    paired: set[Folder] = set()
    for rules in (_endings, _renamings):  # replaced within are only names that pair in no simpler way
        known = set(paired)
        for splits in places.values():
            image_place, label_place = next(iter(splits.values()))
            if any(image_place[1].folder[: len(folder)] == folder for folder in known):
                continue
            for rule in rules(pictures, image_place, label_place):
                if pairing := _tried(pictures.root, splits, rule):
                    found.append(pairing)
                    paired |= {folder for (folder, _), _ in splits.values()}
                    break
    return sorted(found, key=lambda pairing: -pairing.num_pairs)


def _tried(root: Path, splits: dict[str, tuple[Place, Place]], rule: Rule) -> Pairing | None:
    """What `list_pairs` finds; None: no pair."""
    folders = {
        split: SplitFolders("/".join(images) or ".", "/".join(labels) or ".", *rule)
        for split, ((images, _), (labels, _)) in sorted(splits.items(), key=lambda item: _order(item[0]))
    }
    listings = {split: list_pairs(root, split, folders) for split in folders}
    listings = {split: listing for split, listing in listings.items() if listing.pairs}
    return Pairing({split: folders[split] for split in listings}, listings) if listings else None


def _order(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else 0


def _places(photographs: list[Group], labels: list[Group]) -> dict[object, dict[str, tuple[Place, Place]]]:
    """Folders of photographs and labels that may belong together, by split, and those by what they are called apart
    from it."""
    by_last: dict[Folder, list[Group]] = defaultdict(list)
    by_parent: dict[Folder, list[Group]] = defaultdict(list)
    for group in labels:
        by_last[group.folder[-1:]].append(group)
        by_parent[group.folder[:-1]].append(group)
    found: dict[object, dict[str, tuple[Place, Place]]] = {}
    common = _common(sorted({group.folder for group in photographs} & {group.folder for group in labels}))
    for group in photographs:
        folder = group.folder
        few = labels if len(labels) <= _MANY_FOLDERS else []
        for other in dict.fromkeys([*by_last[folder[-1:]], *by_parent[folder[:-1]], *few]):
            least = common if other.folder == folder else 0
            images, image_pattern, split = _place(folder, other.folder, least)
            masks, label_pattern, other_split = _place(other.folder, folder, least)
            if split == other_split:
                key = (image_pattern, label_pattern, group.ending, other.ending)
                found.setdefault(key, {}).setdefault(split, ((images, group), (masks, other)))
    return found


def _place(folder: Folder, partner: Folder, least: int) -> tuple[Folder, Folder, str]:
    """The part of a folder's path that its partner does not have at its end or that names a split; the same with the
    split left out; the split.

    Args:
        least: parts that are kept.
    """
    tail = 0
    while tail < min(len(folder), len(partner)) and folder[-1 - tail] == partner[-1 - tail]:
        tail += 1
    pattern, split, depth = without_split(folder)
    kept = max(len(folder) - tail, depth, least)
    return folder[:kept], pattern[:kept], split


def without_split(words: Folder) -> tuple[Folder, str, int]:
    """The parts of a path with the split that one of them says left out; the split; how many parts there are up to this
    one."""
    split, place = next(((split, index) for index, word in enumerate(words) if (split := split_of(word))), ("all", -1))
    left = (re.sub(f"(?i){_SPLIT[split]}", "*", word) if k == place else word for k, word in enumerate(words))
    return tuple(left), split, place + 1


def split_of(word: str) -> str:
    """The split that the name of a folder or of a list says; empty: none."""
    found = [split for split, pattern in _SPLIT_WORD.items() if pattern.match(word)]
    return found[0] if len(found) == 1 else ""


def _endings(pictures: Pictures, image_place: Place, label_place: Place) -> Iterator[Rule]:
    """Endings of names that may pair without them."""
    images, labels = (_names(pictures, *place) for place in (image_place, label_place))
    ends = [("", "")]
    if (ending := image_place[1].ending) != (other := label_place[1].ending):
        ends.append((ending, other))
        ends = ends[image_place[0] == label_place[0] :]  # in one folder they are told apart by it
    for one, two in ends:
        if _share({name.removesuffix(one) for name in images}, {name.removesuffix(two) for name in labels}) > 0.5:
            yield one, two, None, None


def _renamings(pictures: Pictures, image_place: Place, label_place: Place) -> Iterator[Rule]:
    """What to replace within names."""
    images, labels = (_names(pictures, *place) for place in (image_place, label_place))
    for rule in _replacements(images, labels):
        if _share({re.sub(*rule, name) for name in images}, set(labels)) > 0.5:
            yield "", "", None, rule


def _names(pictures: Pictures, place: Folder, like: Group) -> list[str]:
    """Names below a folder, the folders between included, of groups like one."""
    return [
        "/".join((*group.folder[len(place) :], stem))
        for group, stems in pictures.stems.items()
        if group.folder[: len(place)] == place and group[1:] == like[1:]
        for stem in stems
    ]


def _share(images: set[str], labels: set[str]) -> float:
    return len(images & labels) / max(1, min(len(images), len(labels)))


def _replacements(images: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Replacements within names: of the one piece in which all photographs are alike, and all labels, and they differ
    from each other; and of what they begin with."""
    one, other = (_constant_pieces(names) for names in (images, labels))
    if one and len(one) == len(other):
        differ = [k for k, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
        if len(differ) == 1 and (found := one[differ[0]]) and (replaced := other[differ[0]]):
            (place,) = differ
            before, behind = (one[k] or "" if 0 <= k < len(one) else "" for k in (place - 1, place + 1))
            start = "^" if place == 0 else re.escape(before)
            yield f"{start}{re.escape(found)}{re.escape(behind)}", f"{before}{replaced}{behind}"
    starts = [re.sub(r"\d+$", "", names[0][: _common(names)]) for names in (images, labels)]
    if starts[0] != starts[1]:
        yield f"^{re.escape(starts[0])}", starts[1]


def _common(sequences: Sequence[Sequence[str]]) -> int:
    """How much of their beginnings is the same in all."""
    length = min(map(len, sequences), default=0)
    return next((k for k in range(length) if len({each[k] for each in sequences}) > 1), length)


def _constant_pieces(names: Iterable[str]) -> list[str | None]:
    """Pieces of names, letters, digits and signs apart, as far as they are the same in all; none where their number
    differs."""
    pieces = [re.findall(r"[^\W\d_]+|\d+|[\W_]", name) for name in names]
    if len({len(row) for row in pieces}) != 1:
        return []
    return [column[0] if len({*column}) == 1 else None for column in zip(*pieces, strict=True)]
