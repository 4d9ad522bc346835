"""Looks at every file of a data set before anything trains, and writes down what is there."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from gss.cluster.exit import die_with
from gss.data.classes import ClassSpace, format_ids
from gss.data.images import read_image, read_native_label
from gss.data.manifest import Rows
from gss.data.record import PairScan, Record, stamp
from gss.data.remap import propose_remap
from gss.errors import DataError
from gss.files import sha256_file
from gss.progress import track

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_PAIRS_PER_PROCESS = 32  # fewer are scanned in this process: starting another one costs more
_CHUNK, _CHUNKS_AHEAD = 8, 4  # pairs given to a process at once, and chunks that wait for each
_Names = tuple[str, str]  # an image and its label, relative to the root


@dataclass(frozen=True)
class SplitFolders:
    """Where the images and labels of one split lie.

    Args:
        images, labels: folders, relative to the root of the data set or absolute; searched recursively.
        image_suffix, label_suffix: end of the file names before the extension, such as `_leftImg8bit`; it is
            cut off to find partners, and files that do not end so are passed over.
        count: number of images there must be; None: any.
    """

    images: str
    labels: str
    image_suffix: str = ""
    label_suffix: str = ""
    count: int | None = None


def scan(
    root: Path,
    splits: Mapping[str, SplitFolders],
    space: ClassSpace,
    *,
    workers: int = 1,
    quiet: bool = True,
    obtain: str | None = None,
    record: Path | None = None,
) -> tuple[dict, dict, list[str]]:
    """Pair, decode, hash and count every file of a data set.

    Args:
        root: folder of the data set.
        splits: name of the split -> its folders.
        workers: processes that read files; the result does not depend on it.
        quiet: without lines of progress.
        obtain: where the data can be had; part of the message when folders are missing.
        record: file that keeps what was found in each pair, so that an interrupted scan goes on, and one after mended
            faults looks at changed files only; None: none.

    Returns:
        manifest (what `write_manifest` writes), statistics (per split: images, sizes, native ids, class table,
        ignored pixels; warnings; faults) and faults: one line each, with file, values found and values
        allowed, empty when the data set is sound. The first line proposes a remap where the ids follow a
        known convention.

    Raises:
        DataError: folders are missing.
    """
    _require_folders(root, splits, obtain)
    faults: list[str] = []
    pairs: dict[str, _Pairs] = {}
    for split, folders in splits.items():
        pairs[split], split_faults = _find_pairs(root, split, folders)
        faults += split_faults
    tallies = {split: _Tally(space) for split in splits}
    total = sum(map(len, pairs.values()))
    with contextlib.closing(Record(record)) as kept:
        if len(kept) and not quiet:
            print(f"{len(kept)} pairs were looked at before; those that have not changed since are not read again")
        known = ((image, label, kept.find(image, label)) for found in pairs.values() for image, label in found)
        results = track(_scan_pairs(root, known, workers, total), "check", total, "pairs", quiet=quiet)
        names = ((split, *names) for split, found in pairs.items() for names in found)
        for result, (split, image, label) in zip(results, names, strict=True):
            kept.keep(image, label, result)
            faults += tallies[split].add(image, label, result)
    proposal = propose_remap(sum((tally.native for tally in tallies.values()), np.zeros(256, np.int64)), space)
    faults = [*([proposal] if proposal else []), *faults]
    manifest = {
        "version": 1,
        "root": str(root),
        "classes": space.as_dict(),
        "splits": {split: tally.rows for split, tally in tallies.items()},
    }
    statistics = {
        "version": 1,
        "splits": {split: tally.statistics() for split, tally in tallies.items()},
        "warnings": _leaks(tallies) + _unseen_classes(tallies),
        "faults": faults,
    }
    return manifest, statistics, faults


def fault_error(faults: Sequence[str], root: Path, *, limit: int = 20) -> DataError:
    """The error that reports the faults of a scan; lines beyond `limit` are counted."""
    lines = [f"  {fault}" for fault in faults[:limit]]
    if len(faults) > limit:
        lines.append(f"  ... and {len(faults) - limit} more")
    what = "\n".join([f"the data set has {len(faults)} fault{'s' * (len(faults) > 1)}:", *lines])
    return DataError(what, where=root, todo="mend the files, or the data section of the experiment, and run again")


# ---- pairs


def _require_folders(root: Path, splits: Mapping[str, SplitFolders], obtain: str | None) -> None:
    expected = [
        (f"{kind} of {split}", root / folder)
        for split, folders in splits.items()
        for kind, folder in (("images", folders.images), ("labels", folders.labels))
    ]
    missing = sum(not folder.is_dir() for _, folder in expected)
    if not missing:
        return
    lines = [f"    {name}: {folder}{'' if folder.is_dir() else '  (missing)'}" for name, folder in expected]
    todo = "\n".join(["put the data there, or set another root:", *lines])
    raise DataError(
        f"the data set is incomplete: {missing} of {len(expected)} folders are missing",
        where=root,
        todo=f"{todo}\n    the data: {obtain}" if obtain else todo,
    )


@dataclass(frozen=True)
class _Files:
    """Files of one folder: their extensions by the key, which is the name without `suffix` and extension."""

    folder: str
    suffix: str
    extensions: dict[str, str]

    def name(self, key: str) -> str:
        """A file relative to the root of the data set."""
        return f"{self.folder}{key}{self.suffix}{self.extensions[key]}"


@dataclass(frozen=True)
class _Pairs:
    """Names of image and label of each pair, made as they are asked for: they would take much memory."""

    keys: list[str]
    images: _Files
    labels: _Files

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[_Names]:
        return ((self.images.name(key), self.labels.name(key)) for key in self.keys)


def _find_pairs(root: Path, split: str, folders: SplitFolders) -> tuple[_Pairs, list[str]]:
    images, faults = _find_files(root, root / folders.images, folders.image_suffix)
    labels, label_faults = _find_files(root, root / folders.labels, folders.label_suffix)
    faults += label_faults
    keys = images.extensions.keys(), labels.extensions.keys()
    if not keys[0]:
        faults.append(
            f"split {split} is empty: no image (*{folders.image_suffix}{'|'.join(IMAGE_SUFFIXES)}) "
            f"in {_relative(root / folders.images, root)}"
        )
    elif folders.count not in (None, len(keys[0])):
        faults.append(
            f"split {split} has {len(keys[0])} images, expected {folders.count}: complete it, or change or remove "
            f"data.splits.{split}.count"
        )
    for key in sorted(keys[0] - keys[1]):
        expected = f"{folders.labels}/{key}{folders.label_suffix}.png"
        faults.append(f"{images.name(key)}: its label is missing, expected {expected}")
    for key in sorted(keys[1] - keys[0]):
        faults.append(f"{labels.name(key)}: its image is missing in {folders.images}")
    return _Pairs(sorted(keys[0] & keys[1]), images, labels), faults


def _find_files(root: Path, folder: Path, suffix: str) -> tuple[_Files, list[str]]:
    shown = _relative(folder, root)
    files = _Files("" if shown == "." else f"{shown}/", suffix, {})
    faults = []
    for path, folders, names in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(path, folder)
        below = "" if inside == "." else f"{inside}/"
        for name in sorted(names):
            stem, extension = os.path.splitext(name)
            if not _is_picture(name, stem, extension, suffix):
                continue
            key = below + stem.removesuffix(suffix)
            if key in files.extensions:
                first = os.path.basename(files.name(key))
                faults.append(f"{files.folder}{below}{name}: {first} has the same name; keep one of them")
            files.extensions.setdefault(key, sys.intern(extension))
    return files, faults


def is_picture(path: Path, suffix: str) -> bool:
    """Whether a file is an image or a label by its name: others in a folder are passed over."""
    return _is_picture(path.name, path.stem, path.suffix, suffix)


def _is_picture(name: str, stem: str, extension: str, suffix: str) -> bool:
    return extension.lower() in IMAGE_SUFFIXES and stem.endswith(suffix) and not name.startswith(".")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


# ---- one pair


def _scan_pair(root: Path, image: str, label: str, known: PairScan | None) -> PairScan:
    """What the files hold; what is known of them, if they have not changed since."""
    now = stamp(root, image, label)
    if known is not None and now == known.stamp:
        return known
    faults = []
    decoded: list[np.ndarray | None] = []
    hashes = []
    for name, read in ((image, read_image), (label, read_native_label)):
        try:
            decoded.append(read(root / name))
            hashes.append(sha256_file(root / name))
        except DataError as error:
            faults.append("; ".join(filter(None, (f"{name}: {error.what}", error.todo))))
            decoded.append(None)
            hashes.append("")
    image_size, label_size = (None if pixels is None else list(pixels.shape[:2]) for pixels in decoded)
    native = np.zeros(256, np.int64) if decoded[1] is None else np.bincount(decoded[1].ravel(), minlength=256)
    ids = np.flatnonzero(native)
    return PairScan(now, image_size, label_size, hashes[0], hashes[1], ids.tolist(), native[ids].tolist(), faults)


def _scan_chunk(root: Path, pairs: list[tuple[str, str, PairScan | None]]) -> list[PairScan]:
    return [_scan_pair(root, *pair) for pair in pairs]


def _scan_pairs(
    root: Path, pairs: Iterator[tuple[str, str, PairScan | None]], workers: int, total: int
) -> Iterator[PairScan]:
    """The scans in the order of the pairs, whatever the number of processes; few pairs are under way at a time."""
    chunks = iter(lambda: list(islice(pairs, _CHUNK)), [])
    workers = min(workers, total // _PAIRS_PER_PROCESS)
    if workers <= 1:
        for chunk in chunks:
            yield from _scan_chunk(root, chunk)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of OpenCV's threads
    fewer = f"give it more memory, or fewer processes: run.resources.check.threads (now {workers})"
    try:
        executor = ProcessPoolExecutor(workers, context, _prepare_worker, (os.getpid(),))
    except OSError as error:  # their locks lie in /dev/shm
        raise DataError(f"processes that read files cannot be started: {error.strerror}", todo=fewer) from error

    def begun(count: int) -> Iterator[Future[list[PairScan]]]:
        return (executor.submit(_scan_chunk, root, chunk) for chunk in islice(chunks, count))

    try:
        with executor:
            ahead = deque(begun(_CHUNKS_AHEAD * workers))
            while ahead:
                found = ahead.popleft().result()
                ahead.extend(begun(1))
                yield from found
    except BrokenProcessPool as error:
        what = "a process that reads files was ended from outside, most often because memory ran out"
        raise DataError(what, todo=fewer) from error


def _prepare_worker(parent: int) -> None:
    """One thread per process; it ends with the scan, however that ends."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


# ---- sums


class _Tally:
    """Rows of the manifest and counts of one split."""

    def __init__(self, space: ClassSpace) -> None:
        self.space = space
        self.table: list[int] = space.table().tolist()
        self.rows = Rows()
        self.native = np.zeros(256, np.int64)
        self.native_files = np.zeros(256, np.int64)
        self.class_images = np.zeros(space.num_classes, np.int64)
        self.sizes: Counter[str] = Counter()

    def add(self, image: str, label: str, result: PairScan) -> list[str]:
        """Count one pair; returns its faults."""
        faults = list(result.faults)
        for native, count in zip(result.ids, result.counts, strict=True):
            self.native[native] += count
            self.native_files[native] += 1
        for index in {self.table[native] for native in result.ids}:
            if 0 <= index < self.space.num_classes:
                self.class_images[index] += 1
        unknown = [place for place, native in enumerate(result.ids) if self.table[native] < 0]
        if unknown:
            ids = format_ids(np.array([result.ids[place] for place in unknown]))
            count = sum(result.counts[place] for place in unknown)
            faults.append(
                f"{label}: ids found that are no class: {ids} ({count} pixels); "
                f"allowed: {self.space.allowed()}"
            )
        if result.image_size is None or result.label_size is None:
            return faults
        height, width = result.image_size
        self.sizes[f"{height}x{width}"] += 1
        if result.label_size != result.image_size:
            found = "{}x{}".format(*result.label_size)
            faults.append(f"{label}: the label is {found}, its image {image} is {height}x{width} (height x width)")
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
        return faults

    def statistics(self) -> dict:
        table = np.array(self.table)
        pixels = np.zeros(256, np.int64)
        np.add.at(pixels, table[table >= 0], self.native[table >= 0])
        unknown = np.flatnonzero((self.native > 0) & (table < 0))
        return {
            "images": len(self.rows),
            "sizes": dict(sorted(self.sizes.items())),
            "pixels": int(self.native.sum()),
            "ignored_pixels": int(self.native[table == 255].sum()),
            "native_ids": {str(native): int(self.native[native]) for native in np.flatnonzero(self.native)},
            "unknown_ids": {
                str(native): {"pixels": int(self.native[native]), "files": int(self.native_files[native])}
                for native in unknown
            },
            "classes": [
                {"index": index, "name": name, "pixels": int(pixels[index]), "images": int(self.class_images[index])}
                for index, name in enumerate(self.space.names)
            ],
        }


def _leaks(tallies: Mapping[str, _Tally]) -> list[str]:
    """Warnings about images whose very bytes stand in more than one split."""
    # Hashes begin with 64 bits that few rows share by chance: only those that do are looked at.
    starts = {split: np.frombuffer(tally.rows.digests, np.uint64)[::8] for split, tally in tallies.items()}
    values, splits = np.unique(np.concatenate([np.unique(start) for start in starts.values()]), return_counts=True)
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for split, start in starts.items():
        for index in np.flatnonzero(np.isin(start, values[splits > 1])):
            row = tallies[split].rows[int(index)]
            owners[row["image_sha256"]].setdefault(split, row["image"])
    shared: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for images in owners.values():
        if len(images) > 1:
            shared[tuple(images)].append(images)
    return [
        f"{len(cases)} images are in {' and '.join(names)} at once, e.g. {' = '.join(cases[0].values())}"
        for names, cases in shared.items()
    ]


def _unseen_classes(tallies: Mapping[str, _Tally]) -> list[str]:
    warnings = []
    for split, tally in tallies.items():
        unseen = [name for name, images in zip(tally.space.names, tally.class_images, strict=True) if not images]
        if unseen:
            warnings.append(f"classes that never occur in {split}: {', '.join(unseen)}")
    return warnings
