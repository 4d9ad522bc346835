"""Making the labels of one of MSeg's sets, file by file, and the record of what they hold."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gss.data.classes import format_ids
from gss.data.images import read_native_label, write_png
from gss.data.mseg.raw import IGNORED, Raw, Segments, class_list, class_names, read_panoptic, taxonomy
from gss.data.mseg.relabel import (
    RECORDS,
    Records,
    Relabelled,
    differences,
    find_instances,
    read_records,
    segment_file,
)
from gss.data.mseg.sets import PREPARED, RELABELLED, SETS, Part, record_file
from gss.data.native import some
from gss.data.processes import in_order
from gss.errors import ConfigError, DataError
from gss.files import remove, sha256_file, write_json
from gss.progress import track

_SHOWN = 20  # faults in a message


@dataclass(frozen=True)
class Label:
    """A label that is to be there.

    Args:
        source: file that it is made of; None: it cannot be made.
        target: its file.
        segments: of a panoptic label those of the JSON; for relabelling see `Relabelled.read`.
    """

    source: Path | None
    target: Path
    segments: Any = None


Labels = Mapping[str, Mapping[str, Label]]
"""By split and name: below the folder of the split, without ending."""


def prepare(name: str, root: Path, workers: int) -> None:
    """Make the labels of a set that are not there yet, and write its record, `prepared/NAME.json`.

    Labels that are there and whole stay, also those that MSeg's own tools made: who was interrupted goes on. The record
    depends on labels and tables alone.

    Args:
        name: of the set; with `-relabeled` behind it of that with relabelled segments, which the former is made for.
        root: folder of all sets.
        workers: processes.

    Raises:
        ConfigError: no such set.
        DataError: raw labels are missing or damaged, hold ids or colours that are no class, or do not fit the records.
    """
    if name not in PREPARED:
        raise ConfigError(f"no set {name!r} of MSeg's; there are: {', '.join(PREPARED)}")
    base = name.removesuffix(RELABELLED)
    record = root / record_file(name)
    remove(record)
    content: dict[str, Any] = {"version": 1, "set": name, "labels": {}}
    maker: Raw | Relabelled
    if name == base:
        maker, labels = Raw.of(base), _of_raw(root, base)
    else:
        was_made = (root / record_file(base)).is_file()
        if _has_new(root, base) if was_made else not _are_there(root, base):
            prepare(base, root, workers)
        maker, records = Relabelled.of(base), _records(root, base)
        labels = _of_semseg(root, base, records)
        if records is not None:
            content["relabelled"] = _tell(base, records, labels)
    _require(root, name, labels)
    faults: list[str] = []
    for split, part in labels.items():
        found = _make_all(maker, name, split, list(part.values()), workers, faults)
        content["labels"][split] = {"published": SETS[base].parts[split].labels, **found}
    if faults:
        lines = [f"  {fault}" for fault in faults[:_SHOWN]]
        more = [f"  ... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        what = "\n".join([f"{len(faults)} labels of {name} cannot be made or used:", *lines, *more])
        raise DataError(what, where=root / SETS[base].folder, todo="mend these files, or get them again, and run again")
    lists = dict.fromkeys((SETS[base].raw_classes, base, name))
    content["tables"] = {path.name: sha256_file(path) for path in (taxonomy(), *map(class_list, lists))}
    write_json(record, content)


def _of_raw(root: Path, base: str) -> Labels:
    found, folder = SETS[base], root / SETS[base].folder
    labels: dict[str, dict[str, Label]] = {}
    for split, part in found.parts.items():
        raw, there = _raw_and_made(root, base, part)
        segments: Mapping[str, Segments] = {}
        if found.kind == "panoptic" and raw:
            segments = {Path(file).stem: each for file, each in read_panoptic(folder / f"{part.raw}.json").items()}
        labels[split] = {
            name: Label(raw.get(name), folder / part.semseg / f"{name}{found.ending}", segments.get(name, {}))
            for name in sorted({*raw, *there})
        }
    return labels


def _raw_and_made(root: Path, base: str, part: Part) -> tuple[dict[str, Path], dict[str, Path]]:
    """The raw labels of a split, and the labels of the set that are there, by their names."""
    found, folder = SETS[base], root / SETS[base].folder
    raw = {} if found.kind == "given" else _files(folder / part.raw, found.raw_ending, found.folders)
    return raw, _files(folder / part.semseg, found.ending, (found.folders[1], found.folders[1]))


def _has_new(root: Path, base: str) -> bool:
    """Whether there are raw labels of which none was made, as where they came after the record."""
    return any(
        raw.keys() - made for raw, made in (_raw_and_made(root, base, part) for part in SETS[base].parts.values())
    )


def _of_semseg(root: Path, base: str, records: Records | None) -> Labels:
    """Without records nothing can be made."""
    found, folder = SETS[base], root / SETS[base].folder
    instances = find_instances(root) if records is not None and found.segments == "blue" else {}
    labels: dict[str, dict[str, Label]] = {}
    for split, part in found.parts.items():
        semseg = {} if records is None else _files(folder / part.semseg, found.ending)
        labels[split] = {}
        for name in sorted({*semseg, *_files(folder / part.relabelled, found.ending)}):
            changes = () if records is None else records[split].get(name, ())
            file = segment_file(root, base, part, name, instances)
            target = folder / part.relabelled / f"{name}{found.ending}"
            labels[split][name] = Label(semseg.get(name), target, (changes, file))
    return labels


def _are_there(root: Path, base: str) -> bool:
    """Whether all splits have relabelled labels."""
    found = SETS[base]
    return all(_files(root / found.folder / part.relabelled, found.ending) for part in found.parts.values())


def _records(root: Path, base: str) -> Records | None:
    """None where there are none and all labels are relabelled already, as by MSeg's own tools."""
    if not (root / RECORDS).exists() and _are_there(root, base):
        print(f"{base}{RELABELLED}: the labels are there; nothing is made without {root / RECORDS}")
        return None
    return read_records(root, base)


def _files(folder: Path, ending: str, inner: tuple[str, str] = ("", "")) -> dict[str, Path]:
    """The files with this ending in a folder and below it, by their names below it, without the ending.

    Args:
        inner: the folder that they lie in, whatever that one lies in, and what it is called in the names.
    """
    found = {}
    for place, _, names in os.walk(folder, followlinks=True):
        if inner[0] and os.path.basename(place) != inner[0]:
            continue
        inside = Path(os.path.relpath(place, folder))
        inside = inside.parent / inner[1] if inner[0] else inside
        for name in names:
            if name.endswith(ending) and not name.startswith("."):
                found[(inside / name.removesuffix(ending)).as_posix()] = Path(place, name)
    return found


def _require(root: Path, name: str, labels: Labels) -> None:
    """Raise DataError where a split has no label at all."""
    base = name.removesuffix(RELABELLED)
    found = SETS[base]
    missing = [found.parts[split] for split, part in labels.items() if not part]
    if missing:
        folders = [each.semseg if name != base or found.kind == "given" else each.raw for each in missing]
        lines = [f"    {root / found.folder / each}/**/*{_ending(name)}" for each in folders]
        raise DataError(
            f"the labels that {name} is made of are missing: {len(missing)} of {len(labels)} folders",
            where=root / found.folder,
            todo="\n".join(["put them there, unpacked:", *lines, f"    the data: {found.source}"]),
        )


def _ending(name: str) -> str:
    base = name.removesuffix(RELABELLED)
    return SETS[base].ending if name != base else SETS[base].raw_ending


# ---- the labels of a split


def _make_all(
    maker: Raw | Relabelled, name: str, split: str, labels: Sequence[Label], workers: int, faults: list[str]
) -> dict[str, Any]:
    """Make the labels of a split that are not there, and count what all hold; adds a line for each that cannot be."""
    names, published = class_names(name), SETS[name.removesuffix(RELABELLED)].parts[split].labels
    items = ((label.source, label.target, label.segments) for label in labels)
    make = partial(_make, maker, len(names))
    results = in_order(make, items, workers=workers, total=len(labels), key="--workers")
    pixels, made = np.zeros(IGNORED + 1, np.int64), 0
    for result in track(results, f"{name} {split}", len(labels), "labels"):
        if isinstance(result, str):
            faults.append(result)
        else:
            made += result[0]
            pixels += result[1]
    print(f"{name} {split}: {made} of {len(labels)} labels made", flush=True)
    if len(labels) != published:
        print(f"warning: {name} {split} has {len(labels)} labels, published are {published}", flush=True)
    return {
        "files": len(labels),
        "pixels": {each: int(pixels[index]) for index, each in enumerate(names) if pixels[index]},
        "ignored_pixels": int(pixels[IGNORED]),
    }


def _make(
    maker: Raw | Relabelled, num_classes: int, source: Path | None, target: Path, segments: Any
) -> tuple[bool, list[int]] | str:
    """Whether a label was made, and its pixels by id; or what is wrong with it."""
    try:
        label = _whole(target, num_classes, can_be_made=source is not None)
        made = label is None
        if label is None:
            assert source is not None
            label = maker.read(source, segments)
            write_png(target, label)
        return made, np.bincount(label.ravel(), minlength=IGNORED + 1).tolist()
    except DataError as error:
        return f"{error.where or source or target}: {error.what}"


def _whole(target: Path, num_classes: int, *, can_be_made: bool) -> np.ndarray | None:
    """A label that is there; None where it is to be made.

    Raises:
        DataError: it has ids that are no class, or is damaged and cannot be made.
    """
    if not target.exists():
        return None
    try:
        label = read_native_label(target)
    except DataError:
        if can_be_made:
            return None
        raise
    found = np.flatnonzero(np.bincount(label.ravel()))
    strange = found[(found >= num_classes) & (found != IGNORED)]
    if len(strange):
        pixels = int(np.isin(label, strange).sum())
        raise DataError(
            f"ids found that are no class: {format_ids(strange)} ({pixels} pixels); remove it to have it made again",
            where=target,
        )
    return label


def _tell(base: str, records: Records, labels: Labels) -> dict[str, Any]:
    """What the records say, and print in what they differ from those published, and from what is there."""
    if lines := differences(base, records):
        print(f"warning: the records of {base} are not those published: {some(lines)}")
    told = {}
    for split, of_label in records.items():
        known = labels.get(split, {})
        without = [segment.name for name, segments in of_label.items() if name not in known for segment in segments]
        if without:
            print(
                f"warning: {base} {split}: {len(without)} segments are of images that are not there, e.g. {without[0]}"
            )
        every = [segment for segments in of_label.values() for segment in segments]
        changed = sum(segment.before != segment.after for segment in every)
        told[split] = {"segments": len(every), "changed": changed, "without_label": len(without)}
    return told
