"""Looks at every file of a data set before anything trains, and writes down what is there."""

import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from gss.data.classes import ClassSpace, format_ids
from gss.data.images import read_image, read_native_label
from gss.data.remap import propose_remap
from gss.errors import DataError
from gss.files import read_json, sha256_file
from gss.progress import track

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_PAIRS_PER_PROCESS = 32  # fewer are scanned in this process: starting another one costs more


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


@dataclass(frozen=True)
class Pair:
    """An image, its label, and the size of both."""

    image: Path
    label: Path
    height: int
    width: int


@dataclass(frozen=True)
class Manifest:
    """What the check found: class space and pairs per split.

    Args:
        root: folder that the paths in `content` start from.
        space: the class space the labels were checked against.
        sha256: of the manifest file.
        content: the manifest as JSON value.
    """

    root: Path
    space: ClassSpace
    sha256: str
    content: dict

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.content["splits"])

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split in the order of their names.

        Raises:
            DataError: no such split.
        """
        if split not in self.content["splits"]:
            raise DataError(f"no split '{split}'; there are {', '.join(self.splits)}", where="manifest")
        return [
            Pair(self.root / row["image"], self.root / row["label"], row["height"], row["width"])
            for row in self.content["splits"][split]
        ]


def read_manifest(path: Path) -> Manifest:
    """Read the manifest that the check stage wrote.

    Raises:
        GssError: missing or damaged file.
    """
    content = read_json(path)
    return Manifest(Path(content["root"]), ClassSpace.from_dict(content["classes"]), sha256_file(path), content)


def scan(
    root: Path,
    splits: Mapping[str, SplitFolders],
    space: ClassSpace,
    *,
    workers: int = 1,
    quiet: bool = True,
    obtain: str | None = None,
) -> tuple[dict, dict, list[str]]:
    """Pair, decode, hash and count every file of a data set.

    Args:
        root: folder of the data set.
        splits: name of the split -> its folders.
        workers: processes that read files; the result does not depend on it.
        quiet: without lines of progress.
        obtain: where the data can be had; part of the message when folders are missing.

    Returns:
        manifest (what `read_manifest` reads), statistics (per split: images, sizes, native ids, class table,
        ignored pixels; warnings; faults) and faults: one line each, with file, values found and values
        allowed, empty when the data set is sound. The first line proposes a remap where the ids follow a
        known convention.

    Raises:
        DataError: folders are missing.
    """
    _require_folders(root, splits, obtain)
    faults: list[str] = []
    tasks: list[tuple[str, Path, Path]] = []
    for split, folders in splits.items():
        pairs, split_faults = _find_pairs(root, split, folders)
        tasks += [(split, image, label) for image, label in pairs]
        faults += split_faults
    tallies = {split: _Tally(space) for split in splits}
    files = [(image, label) for _, image, label in tasks]
    results = track(_scan_pairs(root, files, workers), "check", len(files), "pairs", quiet=quiet)
    for (split, image, label), result in zip(tasks, results, strict=True):
        faults += tallies[split].add(_relative(image, root), _relative(label, root), result)
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


def _find_pairs(root: Path, split: str, folders: SplitFolders) -> tuple[list[tuple[Path, Path]], list[str]]:
    images, faults = _find_files(root, root / folders.images, folders.image_suffix)
    labels, label_faults = _find_files(root, root / folders.labels, folders.label_suffix)
    faults += label_faults
    if not images:
        faults.append(
            f"split {split} is empty: no image (*{folders.image_suffix}{'|'.join(IMAGE_SUFFIXES)}) "
            f"in {_relative(root / folders.images, root)}"
        )
    elif folders.count not in (None, len(images)):
        faults.append(
            f"split {split} has {len(images)} images, expected {folders.count}: complete it, or change or remove "
            f"data.splits.{split}.count"
        )
    for key in sorted(images.keys() - labels.keys()):
        expected = f"{folders.labels}/{key}{folders.label_suffix}.png"
        faults.append(f"{_relative(images[key], root)}: its label is missing, expected {expected}")
    for key in sorted(labels.keys() - images.keys()):
        faults.append(f"{_relative(labels[key], root)}: its image is missing in {folders.images}")
    return [(images[key], labels[key]) for key in sorted(images.keys() & labels.keys())], faults


def _find_files(root: Path, folder: Path, suffix: str) -> tuple[dict[str, Path], list[str]]:
    """Files by their name relative to `folder` without suffix and extension."""
    files: dict[str, Path] = {}
    faults = []
    for path in sorted(folder.rglob("*")):
        if not is_picture(path, suffix):
            continue
        key = path.relative_to(folder).with_suffix("").as_posix().removesuffix(suffix)
        if key in files:
            faults.append(f"{_relative(path, root)}: {files[key].name} has the same name; keep one of them")
        files.setdefault(key, path)
    return files, faults


def is_picture(path: Path, suffix: str) -> bool:
    """Whether a file is an image or a label by its name: others in a folder are passed over."""
    return (
        path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(suffix) and not path.name.startswith(".")
    )


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


# ---- one pair


@dataclass(frozen=True)
class _PairScan:
    image_size: tuple[int, ...] | None  # (height, width); None where the file cannot be decoded
    label_size: tuple[int, ...] | None
    image_sha256: str
    label_sha256: str
    native: np.ndarray  # int64 [256], pixels of every native id
    faults: list[str]


def _scan_pair(root: Path, files: tuple[Path, Path]) -> _PairScan:
    faults = []
    decoded: list[np.ndarray | None] = []
    hashes = []
    for path, read in zip(files, (read_image, read_native_label), strict=True):
        try:
            decoded.append(read(path))
            hashes.append(sha256_file(path))
        except DataError as error:
            faults.append("; ".join(filter(None, (f"{_relative(path, root)}: {error.what}", error.todo))))
            decoded.append(None)
            hashes.append("")
    image, label = decoded
    native = np.zeros(256, np.int64) if label is None else np.bincount(label.ravel(), minlength=256)
    return _PairScan(
        image_size=None if image is None else image.shape[:2],
        label_size=None if label is None else label.shape,
        image_sha256=hashes[0],
        label_sha256=hashes[1],
        native=native,
        faults=faults,
    )


def _scan_pairs(root: Path, files: list[tuple[Path, Path]], workers: int) -> Iterator[_PairScan]:
    """The scans in the order of `files`, whatever the number of processes."""
    scan_pair = partial(_scan_pair, root)
    workers = min(workers, len(files) // _PAIRS_PER_PROCESS)
    if workers <= 1:
        yield from map(scan_pair, files)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of OpenCV's threads
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as executor:
        yield from executor.map(scan_pair, files, chunksize=8)


# ---- sums


class _Tally:
    """Rows of the manifest and counts of one split."""

    def __init__(self, space: ClassSpace) -> None:
        self.space = space
        self.table = space.table()
        self.rows: list[dict] = []
        self.native = np.zeros(256, np.int64)
        self.native_files = np.zeros(256, np.int64)
        self.class_images = np.zeros(space.num_classes, np.int64)
        self.sizes: Counter[str] = Counter()

    def add(self, image: str, label: str, result: _PairScan) -> list[str]:
        """Count one pair; returns its faults."""
        faults = list(result.faults)
        self.native += result.native
        self.native_files += result.native > 0
        self.class_images += self._per_class(result.native) > 0
        unknown = np.flatnonzero((result.native > 0) & (self.table < 0))
        if len(unknown):
            count = int(result.native[unknown].sum())
            faults.append(
                f"{label}: ids found that are no class: {format_ids(unknown)} ({count} pixels); "
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

    def _per_class(self, native: np.ndarray) -> np.ndarray:
        pixels = np.zeros(256, np.int64)
        np.add.at(pixels, self.table[self.table >= 0], native[self.table >= 0])
        return pixels[: self.space.num_classes]

    def statistics(self) -> dict:
        pixels = self._per_class(self.native)
        unknown = np.flatnonzero((self.native > 0) & (self.table < 0))
        return {
            "images": len(self.rows),
            "sizes": dict(sorted(self.sizes.items())),
            "pixels": int(self.native.sum()),
            "ignored_pixels": int(self.native[self.table == 255].sum()),
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
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for split, tally in tallies.items():
        for row in tally.rows:
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
