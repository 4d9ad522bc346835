"""Looks at every file of a data set before anything trains, and writes down what is there."""

import contextlib
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from gss.data.borders import count_borders
from gss.data.cases import Cases, Fault, summed
from gss.data.classes import ClassSpace, format_ids
from gss.data.conventions import SplitLabels, compare
from gss.data.images import PAINTED, ImageFacts, Orientation, inspect_image, inspect_label
from gss.data.manifest import Rows
from gss.data.native import NativeClasses
from gss.data.pairing import Listing, SplitFolders, list_pairs, spelled
from gss.data.photographs import SplitImages, judge
from gss.data.processes import in_order
from gss.data.propose import colour_table, lists
from gss.data.record import PairScan, Record, stamp
from gss.data.walk import composed, remarks
from gss.errors import DataError, shown
from gss.files import sha256_file
from gss.progress import track

_MOST_IDS = 4096  # in one label


def scan(
    root: Path,
    splits: Mapping[str, SplitFolders],
    space: ClassSpace,
    *,
    orientation: Orientation | None = None,
    workers: int = 1,
    quiet: bool = True,
    obtain: str | None = None,
    record: Path | None = None,
    is_part: bool = False,
    most: int | None = None,
) -> tuple[dict, dict, list[str]]:
    """Pair, decode, hash and count every file of a data set.

    Args:
        root: folder of the data set.
        splits: name of the split -> its folders.
        orientation: how images with an EXIF orientation are read; None: it is a fault that there are any.
        workers: processes that read files; the result does not depend on it.
        quiet: without lines of progress.
        obtain: where the data can be had; part of the message when folders are missing.
        record: file that keeps what was found in each pair, so that an interrupted scan goes on, and one after mended
            faults looks at changed files only; None: none.
        is_part: it is one of several sources: classes that it lacks may be in others.
        most: pairs of a split that are looked at, evenly spaced; what is to be said of all is left out then. None: all.

    Returns:
        manifest (what `write_manifest` writes), statistics (per split: images, sizes, native ids, class table,
        ignored pixels; warnings; faults, equal ones as one line) and all faults: one line each, with file, values found
        and values allowed, empty when the data set is sound. The first lines say what many files have in common, and
        the key that mends it where there is one.

    Raises:
        DataError: folders are missing, or there are too few pairs to divide.
    """
    splits = {split: spelled(root, folders) for split, folders in splits.items()}
    _require_folders(root, splits, obtain)
    listings = {split: list_pairs(root, split, splits) for split in splits}
    if most is not None:
        listings = {
            split: replace(listing, pairs=listing.pairs.some(most), told=[]) for split, listing in listings.items()
        }
    tallies = {split: _Tally(space, orientation) for split in splits}
    total = sum(len(listing.pairs) for listing in listings.values())
    with contextlib.closing(Record(record)) as kept:
        if len(kept) and not quiet:
            print(f"{len(kept)} pairs were looked at before; those that have not changed since are not read again")
        named = [(split, listing.pairs) for split, listing in listings.items()]
        known = ((image, label, kept.find(image, label)) for _, pairs in named for image, label in pairs)
        scan_one = partial(_scan_pair, root, space.native)
        scans = in_order(scan_one, known, workers=workers, total=total, key="run.resources.check.threads")
        results = track(scans, "check", total, "pairs", quiet=quiet)
        names = ((split, *names) for split, pairs in named for names in pairs)
        for result, (split, image, label) in zip(results, names, strict=True):
            kept.keep(image, label, result)
            tallies[split].add(image, label, result)
    label_faults, label_warnings = list[str](), list[str]()
    if most is None:  # a few labels say little of all
        label_faults, label_warnings = compare(
            {split: tally.labels for split, tally in tallies.items()}, is_part=is_part
        )
    image_faults, image_warnings = judge({split: tally.images for split, tally in tallies.items()}, orientation)
    reasons = [reason for listing in listings.values() for reason in listing.reasons]
    in_lists, same_files = lists(root, splits, listings)
    of_files = [fault for listing in listings.values() for fault in listing.faults]
    of_files += [fault for tally in tallies.values() for fault in tally.faults]
    painted = next((fault.name for fault in of_files if fault.kind == PAINTED), None)
    in_tables = [colour_table(root, painted)] if painted else []
    of_all = [*image_faults, *label_faults, *reasons, *in_lists, *filter(None, in_tables)]
    found = [Fault("", shown(text)) for text in dict.fromkeys(of_all)]
    found += [Fault(shown(name), shown(text), kind) for name, text, kind in dict.fromkeys(of_files)]
    manifest = {
        "version": 1,
        "root": str(root),
        "classes": space.as_dict(),
        **({"exif_orientation": orientation} if orientation == "stored" else {}),
        "splits": {split: tally.rows for split, tally in tallies.items()},
    }
    warnings = [*same_files, *_passed_over(listings.values()), *_similar_names(space), *image_warnings, *label_warnings]
    statistics = {
        "version": 1,
        "splits": {split: tally.statistics() for split, tally in tallies.items()},
        "warnings": [*repeated({split: tally.rows for split, tally in tallies.items()}), *map(shown, warnings)],
        "faults": list(summed(found)),
    }
    return manifest, statistics, list(map(str, found))


def fault_error(count: int, faults: Sequence[str], root: Path, *, limit: int = 20) -> DataError:
    """The error that reports the faults of a scan.

    Args:
        count: their number.
        faults: equal ones as one line; lines beyond `limit` are counted.
    """
    lines = [f"  {fault}" for fault in faults[:limit]]
    if len(faults) > limit:
        lines.append(f"  ... and {len(faults) - limit} other kinds")
    what = "\n".join([f"the data set has {count} fault{'s' * (count > 1)}:", *lines])
    return DataError(what, where=root, todo="mend the files, or the data section of the experiment, and run again")


def _require_folders(root: Path, splits: Mapping[str, SplitFolders], obtain: str | None) -> None:
    expected = [
        (f"{kind} of {split}", root / folder)
        for split, folders in splits.items()
        for kind, folder in (("images", folders.images), ("labels", folders.labels))
    ]
    states = [_state(folder) for _, folder in expected]
    missing = sum(map(bool, states))
    if not missing:
        return
    lines = [f"    {name}: {folder}{state}" for (name, folder), state in zip(expected, states, strict=True)]
    todo = "\n".join(["put the data there, or set another root:", *lines])
    raise DataError(
        f"the data set is incomplete: {missing} of {len(expected)} folders are missing or cannot be read",
        where=root,
        todo=f"{todo}\n    the data: {obtain}" if obtain else todo,
    )


def _state(folder: Path) -> str:
    """Why a folder cannot be looked into."""
    try:
        return "" if stat.S_ISDIR(folder.stat().st_mode) else "  (no folder)"
    except FileNotFoundError:
        return "  (missing)"
    except OSError as error:
        return f"  ({error.strerror})"


# ---- one pair


def _scan_pair(
    root: Path, native_classes: NativeClasses | None, image: str, label: str, known: PairScan | None
) -> PairScan:
    """What the files hold; what is known of them, if neither they nor the table of colours have changed since."""
    painted = native_classes if native_classes and native_classes.are_painted else None
    now = [*stamp(root, image, label), *([painted.code] if painted else [])]
    if known is not None and now == known.stamp:
        return known
    faults: list[Fault] = []
    image_size = label_size = None
    image_facts, ids, counts, colours, borders = (list[int]() for _ in range(5))
    hashes = {image: "", label: ""}
    with _noting(faults, image):
        size, facts = inspect_image(root / image)
        image_size, image_facts = list(size), list(facts)
        hashes[image] = sha256_file(root / image)
    with _noting(faults, label):
        native, palette = inspect_label(root / label, native_classes)
        pixels = np.bincount(native.ravel())
        found = np.flatnonzero(pixels)
        if len(found) > _MOST_IDS:
            values = f"{len(found)} values from {found[0]} to {found[-1]}"
            raise DataError(f"{values}: measurements, as of depth, and no ids")
        label_size, ids, counts = list(native.shape), found.tolist(), pixels[found].tolist()
        borders = [0, 0] if painted else list(count_borders(native))  # a smoothed colour is that of no class
        if palette is not None:
            colours = (palette[found].astype(np.int64) @ (1 << 16, 1 << 8, 1)).tolist()
        hashes[label] = sha256_file(root / label)
    return PairScan(
        now, image_size, label_size, hashes[image], hashes[label], image_facts, ids, counts, colours, borders, faults
    )


@contextlib.contextmanager
def _noting(faults: list[Fault], name: str) -> Iterator[None]:
    """Add what is wrong with a file."""
    try:
        yield
    except DataError as error:
        faults.append(Fault(name, "; ".join(filter(None, (error.what, error.todo))), error.todo or ""))


# ---- sums


class _Tally:
    """Rows of the manifest, counts and faults of one split."""

    def __init__(self, space: ClassSpace, orientation: Orientation | None) -> None:
        self.space, self.orientation = space, orientation
        self.table: list[int] = space.table().tolist()
        self.rows = Rows()
        self.images, self.labels = SplitImages(), SplitLabels(space)
        self.sizes: Counter[str] = Counter()
        self.faults: list[Fault] = []

    def add(self, image: str, label: str, result: PairScan) -> None:
        """Count one pair."""
        self.faults += result.faults
        if result.label_size is not None:
            self._add_label(label, result)
        if result.image_size is None:
            return
        facts = ImageFacts(*result.image_facts)
        self.images.add(image, facts)
        if result.label_size is None:
            return
        height, width = result.image_size
        if by_quarter := facts.orientation >= 5 and height != width:
            self.images.fits["apply"] += result.label_size == [height, width]
            self.images.fits["stored"] += result.label_size == [width, height]
            if self.orientation == "stored":
                height, width = width, height
        self.sizes[f"{height}x{width}"] += 1
        if result.label_size != [height, width]:
            found = "{}x{}".format(*result.label_size)
            fault = f"the label is {found}, its image {image} is {height}x{width} (height x width)"
            if by_quarter and result.label_size == [width, height]:
                when = "before" if self.orientation == "stored" else "after"
                fault += f", {when} its EXIF orientation {facts.orientation} turns it: see data.exif_orientation"
            self.faults.append(Fault(label, fault, f"size, turned {by_quarter}"))
        self.rows.append(
            {
                "image": image,
                "label": label,
                "height": height,
                "width": width,
                "image_sha256": result.image_sha256,
                "label_sha256": result.label_sha256,
            }
        )

    def _add_label(self, label: str, result: PairScan) -> None:
        self.labels.add(label, result.ids, result.counts, result.colours, result.borders)
        unknown = [place for place, native in enumerate(result.ids) if self.table[native] < 0]
        if unknown:
            ids = format_ids(np.array([result.ids[place] for place in unknown]))
            count = sum(result.counts[place] for place in unknown)
            what = f"ids found that are no class: {ids} ({count} pixels); allowed: {self.space.allowed()}"
            self.faults.append(Fault(label, what, f"no class: {ids}"))

    def statistics(self) -> dict:
        table, native = np.array(self.table), self.labels.pixels
        is_class = (table >= 0) & (table < self.space.num_classes)
        pixels = np.zeros(self.space.num_classes, np.int64)
        np.add.at(pixels, table[is_class], native[is_class])
        unknown = np.flatnonzero((native > 0) & (table < 0))
        return {
            "images": len(self.rows),
            "sizes": dict(sorted(self.sizes.items())),
            "pixels": int(native.sum()),
            "ignored_pixels": int(native[table == self.space.ignore_index].sum()),
            "native_ids": {str(found): int(native[found]) for found in np.flatnonzero(native)},
            "unknown_ids": {
                str(found): {"pixels": int(native[found]), "files": int(self.labels.native_files[found])}
                for found in unknown
            },
            "classes": [
                {"index": k, "name": name, "pixels": int(pixels[k]), "images": int(self.labels.class_files[k])}
                for k, name in enumerate(self.space.names)
            ],
        }


def repeated(splits: Mapping[str, Rows]) -> list[str]:
    """Warnings about images whose very bytes stand in more than one split, or more than once in one."""
    # Hashes begin with 64 bits that few rows share by chance: only those that do are looked at.
    starts = {split: np.frombuffer(rows.digests, np.uint64)[::8] for split, rows in splits.items()}
    values, counts = np.unique(np.concatenate(list(starts.values())), return_counts=True)
    owners: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for split, start in starts.items():
        for index in np.flatnonzero(np.isin(start, values[counts > 1])):
            row = splits[split][int(index)]
            owners[row["image_sha256"]][split].append((row["image"], row["label_sha256"]))
    shared: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    twice: dict[str, list[list[tuple[str, str]]]] = defaultdict(list)
    for images in owners.values():
        if len(images) > 1:
            shared[tuple(images)].append([files[0][0] for files in images.values()])
        for split, files in images.items():
            if len(files) > 1:
                twice[split].append(files)
    lines = [
        f"{len(cases)} images are in {' and '.join(names)} at once, e.g. {' = '.join(cases[0])}"
        for names, cases in shared.items()
    ]
    for split, cases in twice.items():
        differ = [files for files in cases if len({label for _, label in files}) > 1]
        other = f", {len(differ)} of them with different labels" if differ else ""
        example = " = ".join(image for image, _ in (differ or cases)[0][:2])
        lines.append(f"{len(cases)} images of {split} are there more than once{other}, e.g. {example}")
    return list(map(shown, lines))


def in_both(rows: Rows, others: Rows) -> list[str]:
    """Names of the images in `rows` whose very bytes stand in `others`, too."""
    mine, theirs = (np.frombuffer(each.digests, np.uint64)[::8] for each in (rows, others))  # see `repeated`
    known = {others[int(index)]["image_sha256"] for index in np.flatnonzero(np.isin(theirs, mine))}
    found = (rows[int(index)] for index in np.flatnonzero(np.isin(mine, theirs)))
    return [row["image"] for row in found if row["image_sha256"] in known]


def _passed_over(listings: Iterable[Listing]) -> list[str]:
    """Warnings about what was not counted, and about names that only look alike."""
    listings = list(listings)
    lines = remarks([walk for listing in listings for walk in listing.walks])
    lines += [line for listing in listings for line in listing.told]
    forms = Cases()
    for listing in listings:
        for name in listing.differently_spelled():
            forms.add(name)
    if forms:
        lines.append(f"names of image and label in different Unicode forms, paired all the same: {forms}")
    return lines


def _similar_names(space: ClassSpace) -> list[str]:
    """Warnings about classes whose names differ by blanks, case or Unicode form only."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in space.names:
        alike["".join(composed(name).casefold().split())].append(repr(name))
    similar = (", ".join(names) for names in alike.values() if len(names) > 1)
    return [f"classes that only blanks or case tell apart: {names}" for names in similar]
