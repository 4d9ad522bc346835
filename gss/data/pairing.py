"""Which image belongs to which label: by their names, without opening a file."""

import os
import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gss.config import list_file
from gss.config.schema import Source
from gss.data.cases import Cases, Fault
from gss.data.divide import Division
from gss.data.manifest import evenly_spaced
from gss.data.walk import IMAGE_SUFFIXES, OTHER_FORMATS, Walk, composed, on_disk, without_extension
from gss.errors import DataError

# In one folder without suffixes the more likely label of two files is this one.
_LABEL_LIKE = {".jpg": 0, ".jpeg": 0, ".webp": 1, ".bmp": 1, ".tif": 1, ".tiff": 1, ".png": 2}
_SEPARATORS = "_-. "
_LOOKED_AT = 1000  # names without partner from which suffixes are guessed


@dataclass(frozen=True)
class SplitFolders:
    """Where the images and labels of one split lie.

    Args:
        images, labels: folders, relative to the root of the data set or absolute; searched recursively. They may be
            one, or lie in each other.
        image_suffix, label_suffix: end of the file names before the extension, such as `_leftImg8bit`; it is
            cut off to find partners, and files that do not end so are passed over.
        count: number of images there must be; None: any.
        label_name: a regular expression, and what takes the place of what it finds in the name of an image (below its
            folder, without suffix and extension) in that of its label; None: names are equal.
        list: text file with the name of an image in each line, the only ones that count; None: all in the folders do.
        labelled_only: images without a label are passed over.
        divide: the folders hold other splits, too, and this one has a part of their pairs; None: all of them.
    """

    images: str
    labels: str
    image_suffix: str = ""
    label_suffix: str = ""
    count: int | None = None
    label_name: tuple[str, str] | None = None
    list: Path | None = None
    labelled_only: bool = False
    divide: Division | None = None


@dataclass(frozen=True)
class Files:
    """Files of one folder by their keys: the name without suffix and extension, in Unicode's composed form.

    Args:
        renamed: as `SplitFolders.label_name`: what makes the key of a name; None: it is one.
        extensions: of the files whose name follows from the key.
        odd: names of the others.
        passed_over: pictures that lack the suffix.
    """

    folder: str
    suffix: str
    renamed: tuple[str, str] | None = None
    extensions: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    passed_over: Cases = field(default_factory=Cases)

    def name(self, key: str) -> str:
        """A file relative to the root of the data set."""
        return self.folder + (self.odd.get(key) or f"{key}{self.suffix}{self.extensions[key]}")

    def key(self, name: str) -> str:
        """What a file is paired by, of its name without extension."""
        key = composed(name).removesuffix(self.suffix)
        return key if self.renamed is None else re.sub(*self.renamed, key)

    def add(self, inside: str, name: str) -> str | None:
        """Take a file in; or return the other one that has its key."""
        stem, extension = os.path.splitext(name)
        whole = inside + stem
        key = self.key(whole)
        if key in self.extensions:
            return self.name(key)
        self.extensions[key] = sys.intern(extension)
        if key + self.suffix != whole:
            self.odd[key] = inside + name
        return None


@dataclass(frozen=True)
class PairNames:
    """Names of image and label of each pair, made as they are asked for: they would take much memory."""

    keys: list[str]
    images: Files
    labels: Files

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((self.images.name(key), self.labels.name(key)) for key in self.keys)

    def some(self, most: int) -> "PairNames":
        """At most so many of them, evenly spaced."""
        return replace(self, keys=[self.keys[index] for index in evenly_spaced(len(self.keys), most)])


@dataclass(frozen=True)
class Listing:
    """The pairs of a split, what is wrong with its names, and how its folders were gone through.

    Args:
        reasons: why many partners are missing, a line each.
        faults: of single files.
        lacks_labels: whether images have none.
        told: what to say besides.
    """

    pairs: PairNames
    reasons: list[str]
    faults: list[Fault]
    walks: list[Walk]
    told: list[str] = field(default_factory=list)
    lacks_labels: bool = False

    def differently_spelled(self) -> Iterator[str]:
        """Images whose name has another Unicode form than that of their label."""
        images, labels = self.pairs.images, self.pairs.labels
        decomposed = ({key for key, name in of.odd.items() if name != composed(name)} for of in (images, labels))
        for key in sorted(set.symmetric_difference(*decomposed)):
            if key in images.extensions and key in labels.extensions:
                yield images.name(key)


def folders_of(source: Source) -> dict[str, SplitFolders]:
    """The folders of the splits of a source, as the configuration names them."""
    divide = source.divide
    division = None if divide is None else Division(divide.shares, divide.seed, divide.group)
    return {
        name: SplitFolders(
            split.images,
            split.labels,
            source.image_suffix,
            source.label_suffix,
            split.count,
            source.label_name,
            list_file(split.list) if split.list else None,
            divide=division if division and name in ("train", *division.shares) else None,
        )
        for name, split in source.splits.items()
    }


def spelled(root: Path, folders: SplitFolders) -> SplitFolders:
    """The same folders as the disk spells them."""
    return replace(folders, images=on_disk(root, folders.images), labels=on_disk(root, folders.labels))


def list_pairs(root: Path, split: str, splits: Mapping[str, SplitFolders]) -> Listing:
    """Find the pairs of a split.

    Args:
        splits: all of them: a folder of labels is no part of one of images that it lies in, and the other way round.

    Raises:
        DataError: a list of images that cannot be read, or there are too few pairs to divide.
    """
    listing, division = _list_all(root, split, splits), splits[split].divide
    return listing if division is None else _part(listing, split, division, root)


def _part(listing: Listing, split: str, division: Division, root: Path) -> Listing:
    """A split that is made of the pairs of its folders; what is wrong in these, and alone, stays with `train`."""
    try:
        parts = division.divide(listing.pairs.keys)
    except DataError as error:
        raise DataError(error.what, where=f"{error.where} of {root}", todo=error.todo) from error
    others = {key for other, keys in parts.items() if other != split for key in keys}
    own = {*parts[split]}

    def of_split(files: Files) -> Files:
        kept = files.extensions.keys() - others if split == "train" else own
        return replace(files, extensions={key: end for key, end in files.extensions.items() if key in kept})

    pairs = PairNames(parts[split], of_split(listing.pairs.images), of_split(listing.pairs.labels))
    return replace(listing, pairs=pairs) if split == "train" else Listing(pairs, [], [], [])


def _list_all(root: Path, split: str, splits: Mapping[str, SplitFolders]) -> Listing:
    """The pairs in the folders of a split."""
    folders = splits[split]
    images = Files(_prefix(root, folders.images), composed(folders.image_suffix), folders.label_name)
    labels = Files(_prefix(root, folders.labels), composed(folders.label_suffix))
    if folders.list is not None:
        return _listed(root, split, folders, images, labels, folders.list)
    image_walk = _walk(root, folders.images, {other.labels for other in splits.values()})
    if os.path.realpath(root / folders.images) == os.path.realpath(root / folders.labels):
        label_walk, walks = image_walk, [image_walk]
        faults = _sort_out(images, labels, list(image_walk))
    else:
        label_walk = _walk(root, folders.labels, {other.images for other in splits.values()})
        walks = [image_walk, label_walk]
        faults = [*_take(images, image_walk), *_take(labels, label_walk)]
    for walk in walks:
        faults += walk.faults
    found = len(images.extensions)
    endings = "|".join(IMAGE_SUFFIXES)
    nothing = f"no image (*{folders.image_suffix}{endings}) in {image_walk.name}"
    faults += _wrong_count(split, found, folders.count, nothing)
    no_label = sorted(images.extensions.keys() - labels.extensions.keys())
    no_image = sorted(labels.extensions.keys() - images.extensions.keys())
    told = []
    if folders.labelled_only and no_label:
        told = [
            f"{split}: {len(no_label)} images have no annotation and are passed over, e.g. {images.name(no_label[0])}"
        ]
        no_label = []
    reasons = _suffixes(no_label, no_image, folders)
    for key, files, walk in (("image_suffix", images, image_walk), ("label_suffix", labels, label_walk)):
        if not files.extensions and files.passed_over and files.suffix:
            reasons.append(f"no picture in {walk.name} ends in {files.suffix} ({key}): {files.passed_over} do not")
    if no_image or not found:
        reasons += _other_format(image_walk, [f"{key}{images.suffix}" for key in no_image], "images")
    if no_label:
        reasons += _other_format(label_walk, [f"{key}{labels.suffix}" for key in no_label], "labels")
    faults += [_no_label(images, key, folders) for key in no_label]
    faults += [Fault(labels.name(key), f"its image is missing in {folders.images}") for key in no_image]
    pairs = PairNames(sorted(images.extensions.keys() & labels.extensions.keys()), images, labels)
    return Listing(pairs, reasons, faults, walks, told, bool(no_label))


def _wrong_count(split: str, found: int, count: int | None, nothing: str) -> list[Fault]:
    """What is wrong with the number of images.

    Args:
        nothing: what to say of none.
    """
    if not found:
        return [Fault("", f"split {split} is empty: {nothing}")]
    if count in (None, found):
        return []
    mend = f"complete it, or change or remove data.splits.{split}.count"
    return [Fault("", f"split {split} has {found} images, expected {count}: {mend}")]


def _no_label(images: Files, key: str, folders: SplitFolders) -> Fault:
    expected = f"{folders.labels}/{key}{folders.label_suffix}.png"
    return Fault(images.name(key), f"its label is missing, expected {expected}", f"no label in {folders.labels}")


# ---- pairs that a list names


def _listed(root: Path, split: str, folders: SplitFolders, images: Files, labels: Files, path: Path) -> Listing:
    """The pairs of a list, without a look at what else lies in the folders."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        todo = "name a text file with an image in each line, relative to GSS_DATA, or a shipped list"
        raise DataError(f"the list of images of {split} cannot be read: {reason}", where=path, todo=todo) from error
    names = Counter(listed_name(line.split()[0], images) for line in lines if line.strip())
    faults: list[Fault] = []
    pairs = []
    for name in names:
        file = _picture(root, f"{images.folder}{name}{images.suffix}", IMAGE_SUFFIXES)
        if file is None:
            faults.append(Fault(f"{images.folder}{name}{images.suffix}", f"the image is missing; {path.name} lists it"))
            continue
        if other := images.add("", file.removeprefix(images.folder)):
            faults.append(_same(file, other, "has the same label by label_name"))
            continue
        key = images.key(name + images.suffix)
        label = _picture(root, f"{labels.folder}{key}{labels.suffix}", sorted(IMAGE_SUFFIXES, key=_png_first))
        if label is None or label == file:
            faults.append(_no_label(images, key, folders))
        elif labels.add("", label.removeprefix(labels.folder)) is None:
            pairs.append(key)
    faults += _wrong_count(split, len(images.extensions), folders.count, f"no image that {path.name} lists is there")
    twice = [name for name, count in names.items() if count > 1]
    told = [f"{path.name} lists {len(twice)} images more than once, e.g. {twice[0]}: each counts once"] if twice else []
    return Listing(PairNames(sorted(pairs), images, labels), [], faults, [], told)


def listed_name(line: str, images: Files) -> str:
    """The name of an image below its folder, without suffix and extension, however a list writes it."""
    return without_extension(line).removeprefix(images.folder).removesuffix(images.suffix)


def _picture(root: Path, stem: str, extensions: Iterable[str]) -> str | None:
    """The file with this name, relative to the root, and the first of the extensions that there is."""
    files = (f"{stem}{form}" for extension in extensions for form in (extension, extension.upper()))
    return next((file for file in files if os.path.exists(root / file)), None)


def _png_first(extension: str) -> int:
    return -_LABEL_LIKE[extension]


def _prefix(root: Path, folder: str) -> str:
    name = _relative(root, folder)
    return "" if name == "." else f"{name}/"


def _relative(root: Path, folder: str) -> str:
    path = root / folder
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _walk(root: Path, folder: str, others: Collection[str]) -> Walk:
    real = os.path.realpath(root / folder)
    leave_out = {os.path.realpath(root / other) for other in others} - {real}
    return Walk(root / folder, _relative(root, folder), leave_out)


def _take(files: Files, pictures: Iterable[tuple[str, str]], not_ending: str | None = None) -> list[Fault]:
    """Add the files that have the suffix, and not that of the other kind; returns those that cannot be."""
    faults: list[Fault] = []
    for inside, name in pictures:
        stem = composed(os.path.splitext(name)[0])
        if not stem.endswith(files.suffix) or (not_ending is not None and stem.endswith(not_ending)):
            files.passed_over.add(name)
            continue
        place = f"{files.folder}{inside}{name}"
        if not _is_utf8(place):
            todo = "rename it, e.g. with convmv -r -f latin1 -t utf8 --notest"
            faults.append(Fault(place, f"the name is not UTF-8; {todo}"))
        elif other := files.add(inside, name):
            same = os.path.splitext(os.path.basename(other))[0] == os.path.splitext(name)[0]
            form = "" if same else " in another Unicode form"
            what = f"has the same name{form}" if files.renamed is None else "has the same label by label_name"
            faults.append(_same(place, other, what))
    return faults


def _same(name: str, other: str, what: str) -> Fault:
    return Fault(name, f"{os.path.basename(other)} {what}; keep one of them", what)


def _sort_out(images: Files, labels: Files, pictures: list[tuple[str, str]]) -> list[Fault]:
    """Tell images and labels in one folder apart: by their suffixes, else by their formats."""
    if images.suffix != labels.suffix:
        # A name that ends in both has the longer one: `a_mask` is no image although it ends in nothing.
        longer = len(labels.suffix) > len(images.suffix)
        return [
            *_take(images, pictures, labels.suffix if longer else None),
            *_take(labels, pictures, None if longer else images.suffix),
        ]
    faults: list[Fault] = []
    found: dict[str, list[tuple[str, str]]] = {}
    for inside, name in pictures:
        found.setdefault(composed(inside + os.path.splitext(name)[0]), []).append((inside, name))
    for same in found.values():
        same.sort(key=lambda file: _LABEL_LIKE[os.path.splitext(file[1])[1].lower()])
        ranks = [_LABEL_LIKE[os.path.splitext(name)[1].lower()] for _, name in same]
        if len(same) == 2 and ranks[0] < ranks[1]:
            faults += _take(images, same[:1]) + _take(labels, same[1:])
        elif len(same) == 1 and same[0][1].endswith(images.suffix):
            what = (
                "no other file of this name: a pair is two, such as a.jpg and a.png, or a.jpg and a_mask.png with "
                "label_suffix: _mask"
            )
            faults.append(Fault(images.folder + "".join(same[0]), what))
        elif len(same) > 1:
            names = ", ".join(images.folder + "".join(file) for file in same)
            what = "image and label cannot be told apart: give the labels an ending, see label_suffix"
            faults.append(Fault(names, what))
    return faults


def _is_utf8(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


# ---- why partners are missing


def _suffixes(images: list[str], labels: list[str], folders: SplitFolders) -> list[str]:
    """The keys that pair images without label and labels without image, where their names differ by their ends."""
    ends: Counter[tuple[str, str]] = Counter()
    for image in images[:_LOOKED_AT]:
        place = bisect_left(labels, image)
        common = max((_common(image, label) for label in labels[max(0, place - 1) : place + 1]), key=len, default="")
        first = bisect_left(labels, common)
        near = [label for label in labels[first : first + 8] if label.startswith(common)]
        stem = common.rstrip(_SEPARATORS)
        if os.path.basename(stem):
            ends.update((image[len(stem) :], label[len(stem) :]) for label in near)
    best = [pair for pair, count in ends.most_common(4) if count > 1 and 2 * count > len(images[:_LOOKED_AT])]
    if not best:
        return []
    lines = [
        ", ".join(
            f"{key}: {end + own}"
            for key, end, own in zip(
                ("image_suffix", "label_suffix"), pair, (folders.image_suffix, folders.label_suffix), strict=True
            )
            if end
        )
        for pair in best
    ]
    return [f"names of images and labels differ by their ends: set {' or '.join(lines)} in the section data"]


def _common(one: str, other: str) -> str:
    """What two names begin with."""
    return one[: next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(min(one, other)))]


def _other_format(walk: Walk, missing: list[str], kind: str) -> list[str]:
    """The format of most files that are missing, if they are there in one that is not read.

    Args:
        missing: their names without extension; none where all are missing.
    """
    for extension, count in walk.others.most_common():
        there = [name for name in missing[:_LOOKED_AT] if os.path.exists(walk.folder / f"{name}{extension}")]
        is_most = 2 * len(there) > len(missing[:_LOOKED_AT])
        if (extension and is_most) or (not missing and extension.lower() in OTHER_FORMATS):
            files, form = f"{count} file{'s' * (count > 1)} *{extension}", "PNG" if kind == "labels" else "JPEG or PNG"
            return [f"{walk.name} holds {files}, a format that is not read: save {kind} as {form}"]
    return []
