"""The evaluations to compare: found by name, read, and refused unless they are of the same images and classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gss import layout
from gss.compare.bootstrap import Counts
from gss.config import run_parts, seed_folders
from gss.config.schema import Evaluation as Protocol
from gss.data.classes import ids_dtype
from gss.data.manifest import Pairs
from gss.errors import DataError, GssError
from gss.results.reader import SPLITS, Evaluation, Results
from gss.text import flatten

UNCOMPARED = ("run", "published")  # sections of the configuration that change no result


@dataclass(frozen=True, eq=False)
class Compared:
    """What is compared under one name: a model of an experiment, of one with `seeds` those of all of them.

    Args:
        name: `EXPERIMENT/MODEL`.
        seeds: an evaluation of each seed; one without `seeds`.
    """

    name: str
    seeds: tuple["Evaluated", ...]

    @property
    def first(self) -> "Evaluated":
        """The one whose pictures are shown."""
        return self.seeds[0]

    @property
    def counts(self) -> list[Counts]:
        return [each.counts for each in self.seeds]

    def settings(self) -> dict[str, str]:
        """What of its configuration can change a result, by dotted key, as text; of several seeds all values."""
        each = [seed.settings() for seed in self.seeds]
        keys = dict.fromkeys(key for settings in each for key in settings)
        return {key: ", ".join(dict.fromkeys(_said(found[key]) for found in each if key in found)) for key in keys}


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One evaluation.

    Args:
        results: of its experiment.
        evaluation: of one model on one split.
        names: N class names.
        counts: per image and class, columns in the order of `names`.
        ids: uint8 [256] or uint16 [65536], id in its predictions -> place in `names`.
    """

    results: Results
    evaluation: Evaluation
    names: tuple[str, ...]
    counts: Counts
    ids: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.results.name}/{self.evaluation.model}"

    @property
    def split(self) -> str:
        return self.evaluation.split

    @property
    def again(self) -> str:
        """The command that makes this evaluation anew."""
        return f"gss evaluate {self.results.name} --model {self.evaluation.model} --split {self.split}"

    @cached_property
    def pairs(self) -> Pairs:
        """The images, at the data folder of today."""
        manifest, split = self.results.measured_on(self.split)
        return manifest.pairs(split)

    def settings(self) -> dict[str, Any]:
        """What of its configuration can change a result, by dotted key."""
        return {
            key: value for key, value in flatten(self.results.config).items() if key.split(".")[0] not in UNCOMPARED
        }


def read_runs(names: Sequence[str], split: str | None, results: Path) -> list[Compared]:
    """The evaluations named `EXPERIMENT[/MODEL]`, classes in the order of the first one's.

    An experiment with `seeds` stands for all of them, `EXPERIMENT/seed_N` for one.

    Args:
        split: or a set of `evaluation.sets`; None: `test`, or `val` where the first one was evaluated on that alone.
        results: folder of all results.

    Raises:
        GssError: fewer than two, one twice, one that was not evaluated, or other images or classes than the first's.
    """
    try:
        parted = [run_parts(name) for name in names]
    except ValueError as error:
        raise GssError(str(error)) from error
    folders = {
        name: [Results(folder) for folder in seed_folders(results / name) or [results / name]] for name, _ in parted
    }
    parted = [(name, model or folders[name][0].recipe.final) for name, model in parted]
    if len(parted) < 2 or len(set(parted)) < len(parted):
        raise GssError(
            f"two or more different runs are compared, not: {', '.join('/'.join(part) for part in parted)}",
            todo="name them EXPERIMENT or EXPERIMENT/MODEL, the baseline first: gss compare toy/gss_ff toy/gss_ft",
        )
    there = [found for model, found in folders[parted[0][0]][0].evaluations if model == parted[0][1]]
    split = split or (there or SPLITS)[0]
    first = _read(folders[parted[0][0]][0], parted[0][1], split)
    return [
        Compared(f"{name}/{model}", tuple(_matched(first, _read(seed, model, split)) for seed in folders[name]))
        for name, model in parted
    ]


def warnings(compared: Sequence[Compared]) -> list[str]:
    """What makes the others no fair match for the first: another protocol, or the same model."""
    runs = [each for run in compared for each in run.seeds]
    first, *others = [run.evaluation.metrics for run in runs]
    found = []
    for run, other in zip(runs[1:], others, strict=True):
        mine, theirs = ({"protocol": "gss", **flatten(found["protocol"])} for found in (first, other))
        own = _own_keys(runs[0]) | _own_keys(run)
        changed = [
            f"{key} {_said(mine.get(key))} → {_said(theirs.get(key))}"
            for key in dict.fromkeys((*mine, *theirs))
            if mine.get(key) != theirs.get(key) and key in mine and key in theirs and key not in own
        ]
        if changed:
            found.append(f"{run.name} was evaluated by another protocol than {runs[0].name}: {', '.join(changed)}.")
        if first["model"]["sha256"] == other["model"]["sha256"]:
            found.append(f"{run.name} and {runs[0].name} are the same model file.")
    return found + [f"{run.results.name}: {note}" for run in runs for note in run.results.notes()]


def _own_keys(run: Evaluated) -> set[str]:
    """Keys of the protocol that only some models of a recipe have."""
    section = run.results.recipe.experiment.model_fields["evaluation"].annotation
    assert section is not None
    return {*section.model_fields} - {*Protocol.model_fields}


def changed_settings(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Dotted keys whose values differ, with the value of every run as text."""
    settings = [run.settings() for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [(key, [each.get(key, "–") for each in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _said(value: Any) -> str:
    """One line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()


def _read(results: Results, model: str, split: str) -> Evaluated:
    measured = {**results.evaluations, **results.sets}
    evaluation = measured.get((model, split))
    if evaluation is None:
        path = results.folder / layout.metrics(model, split)
        there = ", ".join(f"{found} on {where}" for found, where in measured)
        raise DataError(
            f"{results.name}/{model} was not evaluated on {split}; of {results.name} there is: {there or 'nothing'}",
            where=path,
            todo=f"snakemake {path}",
        )
    read = [evaluation.counts[name].astype(np.int64) for name in ("intersection", "predicted", "labelled")]
    counts = Counts(read[0], read[1], read[2], evaluation.absent, evaluation.counted)
    names = tuple(evaluation.metrics["IoU"])
    dtype = ids_dtype(len(names))
    return Evaluated(results, evaluation, names, counts, np.arange(np.iinfo(dtype).max + 1, dtype=dtype))


def _matched(first: Evaluated, other: Evaluated) -> Evaluated:
    """The other run with the classes in the order of the first one's."""
    _require_same_classes(first, other)
    _require_same_images(first, other)
    order = [other.names.index(name) for name in first.names]
    found = other.counts
    columns = Counts(
        found.intersection[:, order],
        found.predicted[:, order],
        found.labelled[:, order],
        found.absent,
        None if found.counted is None else frozenset(order.index(index) for index in found.counted),
    )
    if not np.array_equal(columns.labelled, first.counts.labelled):
        image, label = np.argwhere(columns.labelled != first.counts.labelled)[0]
        pixels = [counts.labelled[image, label] for counts in (first.counts, columns)]
        raise DataError(
            f"{other.name} and {first.name} read the same label files differently: image {image} has {pixels[1]} "
            f"against {pixels[0]} pixels of class {first.names[label]!r}",
            where="data.label_map, reduce_zero_label, mapping and taxonomy of the two experiments",
            todo="compare runs whose labels mean the same",
        )
    ids = other.ids.copy()
    ids[order] = np.arange(len(order))
    return replace(other, names=first.names, counts=columns, ids=ids)


def _require_same_classes(first: Evaluated, other: Evaluated) -> None:
    mine, theirs = set(first.names), set(other.names)
    if mine != theirs:
        raise DataError(
            f"{other.name} and {first.name} have different classes: "
            f"only {other.name} has {_some(theirs - mine)}; only {first.name} has {_some(mine - theirs)}",
            where=f"{other.evaluation.folder}/metrics.json, {first.evaluation.folder}/metrics.json",
            todo="compare runs of one data set",
        )


def _require_same_images(first: Evaluated, other: Evaluated) -> None:
    """Same images and label files in the same order; what else the data sets hold does not matter."""
    if first.evaluation.metrics["data"] == other.evaluation.metrics["data"]:
        return
    for run in (first, other):
        if not run.results.is_of_today(run.evaluation):
            raise DataError(
                f"the data set was checked anew after {run.name} was evaluated",
                where=run.results.folder,
                todo=run.again,
            )
    mine, theirs = (
        [rows.hashes(index) for index in range(len(rows))] for rows in (run.pairs.rows for run in (first, other))
    )
    if mine != theirs:
        raise DataError(
            f"{other.name} and {first.name} were evaluated on different images: {len(theirs)} and {len(mine)}, of "
            f"which {len(set(mine) & set(theirs))} are the same",
            where=f"{first.split} of {other.results.folder} and {first.results.folder}",
            todo="compare runs of one data set",
        )


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return (f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown) or "nothing"
