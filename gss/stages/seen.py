"""Whether the files of a data set are still those that the check saw, which Snakemake asks before anything runs."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gss.config import Experiment, data_folder, data_set_folder
from gss.config.schema import OF_ANNOTATIONS, Source
from gss.data.annotations.formats import FORMATS
from gss.data.annotations.make import annotation_files
from gss.data.manifest import BESIDE, Manifest, read_manifest
from gss.data.pairing import SplitFolders, folders_of
from gss.data.seen import are_same, changed, look
from gss.errors import GssError
from gss.files import read_json
from gss.layout import ANNOTATED, LABELS, MANIFEST, RELABELLED, labels_of_set, of_set
from gss.results.records import read_record
from gss.stages.labels import made_folders

Splits = tuple[tuple[str, SplitFolders], ...]


class _Place(NamedTuple):
    """The files of a source: its folder, its splits, and what else they are made of."""

    root: Path
    splits: dict[str, SplitFolders]
    beside: dict[str, list[str]]


def look_at(experiment: Experiment, folder: Path, name: str | None = None) -> dict[str, Any]:
    """What the files of a data set look like, by root, see `gss.data.seen.look`.

    Args:
        folder: of the results, in which labels of annotations may lie.
        name: of a set of `evaluation.sets`; None: the data set.
    """
    return {root: look(*place) for root, place in _places(experiment, folder, name).items()}


def changes(experiment: Experiment, folder: Path, seen: Mapping[str, Any], name: str | None = None) -> dict[str, str]:
    """By split whose files are others what there was and what there is, in words.

    Args:
        seen: what `look_at` found when the data set was checked.
    """
    found: dict[str, str] = {}
    for number, (root, (place, splits, beside)) in enumerate(_places(experiment, folder, name).items()):
        if root in seen:
            now = _looked(place, tuple(splits.items()), tuple((split, tuple(files)) for split, files in beside.items()))
            file = folder / (MANIFEST if name is None else of_set(name)[0])
            record = read_record(folder, "labels" if name is None else f"set_labels_{name}") or {"inputs": {}}
            hashes = {os.path.normpath(folder / made): digest for made, digest in record["inputs"].items()}
            found |= changed(seen[root], now, _is_touched(_Place(place, splits, beside), file, number, hashes))
    return found


@cache
def _looked(root: Path, splits: Splits, beside: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, Any]:
    """One look serves all experiments with the same data."""
    return look(root, dict(splits), dict(beside))


def _places(experiment: Experiment, folder: Path, name: str | None) -> dict[str, _Place]:
    data = experiment.data
    if name is None:
        sources: Sequence[tuple[str, Source]] = [(source.root, source) for source in (data, *data.sources)]
        labels = folder / LABELS
    else:
        own = experiment.evaluation.sets[name]
        others = [(f"{own.root}, {RELABELLED}", own.relabelled_source())] if own.relabelled else []
        sources, labels = [(own.root, own), *others], folder / labels_of_set(name)
    found = {}
    for number, (root, source) in enumerate(sources):
        place = data_set_folder(data) if source is data else data_folder() / source.root
        splits = folders_of(source)
        beside = {}
        if source.annotations:
            if not labels.is_file():
                continue
            made = read_json(labels)["sources"][root]["splits"]
            ending = FORMATS[source.annotations.format].ending
            beside = {split: _annotations(place, asked.labels, ending) for split, asked in splits.items()}
            if OF_ANNOTATIONS in (data.classes, getattr(source, "classes", None)):  # what one declares changes all
                beside = {split: [file for files in beside.values() for file in files] for split in splits}
            splits = made_folders(source, labels.parent / ANNOTATED / str(number), made)
        found[root] = _Place(place, splits, beside)
    return found


def _annotations(root: Path, labels: str, ending: str) -> list[str]:
    """The annotation files of a split, relative to the root."""
    if (root / labels).is_dir():
        return [os.path.relpath(path, root) for path, _ in annotation_files(root / labels, ending)]
    return [labels]


def _is_touched(place: _Place, file: Path, number: int, hashes: Mapping[str, str]) -> Callable[[str, int], bool]:
    """For `changed`: looks whether newer files of a source have the content that the manifest says.

    Args:
        file: the manifest.
        number: of the source.
        hashes: SHA-256 of annotation files by their paths.
    """

    def is_touched(split: str, newest: int) -> bool:
        try:
            digests = _digests(read_manifest(file), split, number)
            beside = place.beside.get(split, [])
            digests |= {name: hashes.get(os.path.normpath(place.root / name), "") for name in beside}
            return are_same(place.root, split, place.splits, newest, digests, beside)
        except (GssError, OSError):
            return False

    return is_touched


def _digests(manifest: Manifest, split: str, number: int) -> dict[str, str]:
    """SHA-256 of the files of a source by name."""
    counts = [source.counts.get(split, 0) for source in manifest.sources]
    start = sum(counts[:number])
    rows = (manifest.rows[split][index] for index in range(start, start + counts[number]))
    return {
        row[kind]: row[f"{kind}_sha256"]
        for row in rows
        for kind in ("image", "label")
        if not row[kind].startswith(BESIDE)
    }
