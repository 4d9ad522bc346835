"""What lies in the results folder of an experiment, read when it is asked for."""

import contextlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gss import layout
from gss.config import (
    Data,
    Published,
    Recipe,
    data_folder,
    data_set_folder,
    experiment_class,
    find_recipe,
    folder_name,
    load_experiment,
)
from gss.data.classes import default_colours
from gss.data.manifest import Manifest, read_manifest
from gss.data.metrics import Absent, Counted, Scores, divide, scores
from gss.errors import ConfigError, GssError
from gss.files import read_json, read_table, sha256_file
from gss.layout import CONFIG, MANIFEST, ORIGINS, WORK
from gss.results.journal import read_journal
from gss.results.records import Made, as_made, model_metadata
from gss.text import flatten

SPLITS = ("test", "val")  # in the order in which pages show them


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one split, or on a test set with classes of its own.

    Args:
        metrics: `metrics.json`.
        folder: where it lies, with `confusion.npz` and `predictions/`.
    """

    model: str
    split: str
    metrics: Mapping[str, Any]
    folder: Path

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """int64 `confusion` [label, prediction]; `intersection`, `predicted`, `labelled` [image, class].

        Raises:
            GssError: missing or damaged file.
        """
        path = self.folder / "confusion.npz"
        try:
            with np.load(path) as arrays:
                return {name: arrays[name] for name in ("confusion", "intersection", "predicted", "labelled")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            todo = f"measure again: snakemake -R evaluate -- {self.folder}/metrics.json"
            raise GssError(f"counts cannot be read: {error}", where=path, todo=todo) from error

    @cached_property
    def scores(self) -> Scores:
        return scores(self.counts["confusion"], self.absent, self.counted)

    @property
    def absent(self) -> Absent:
        """What a class that is nowhere is in means."""
        return self.metrics["protocol"].get("absent", "nan")

    @property
    def counted(self) -> Counted:
        """The classes that are in means."""
        counted = self.metrics["protocol"].get("counted")
        return None if counted is None else frozenset(list(self.metrics["IoU"]).index(name) for name in counted)

    @cached_property
    def image_iou(self) -> np.ndarray:
        """float64 [image, class], NaN where a class is neither in the label nor in the prediction of the image."""
        either = self.counts["labelled"] + self.counts["predicted"] - self.counts["intersection"]
        return divide(self.counts["intersection"], either)

    def image_miou(self, index: int) -> float | None:
        """Mean IoU over the classes of one image; None when nothing of it is labelled."""
        values = self.image_iou[index]
        return float(np.nanmean(values)) if (~np.isnan(values)).any() else None


@dataclass(frozen=True)
class Results:
    """The results folder of an experiment. Reading a file that is missing or damaged raises GssError.

    Args:
        folder: `results/<experiment>`.
    """

    folder: Path

    @property
    def name(self) -> str:
        return folder_name(self.folder)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the results."""
        return find_recipe(self.setting("recipe", "gss"))

    @property
    def models(self) -> dict[str, str]:
        """Models by name, and their titles, in the order in which pages show them."""
        return self.recipe.models

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, every value, as the results were made with it."""
        return self._made.config

    @property
    def origins(self) -> dict[str, str] | None:
        """Where each value comes from; None when the results are older than this record."""
        return self._made.origins or None

    @cached_property
    def _made(self) -> Made:
        """What is stored, with the values that models and records say."""
        path = self.folder / CONFIG
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise GssError("no stage has run yet", where=path, todo=f"snakemake {self.folder}/report.html") from error
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            raise GssError(f"not readable as YAML: {error}", where=path) from error
        if not isinstance(config, dict):
            raise GssError("not a configuration", where=path, todo="run any stage again: it writes this file")
        origins = self.folder / ORIGINS
        return as_made(self.folder, Made(config, read_json(origins) if origins.is_file() else {}))

    @cached_property
    def edited(self) -> dict[str, tuple[Any, Any]]:
        """Settings that the experiment's file has changed since, by dotted key: as made, and now."""
        try:
            now = flatten(load_experiment(self.name).settings())
            made = flatten(experiment_class(self.config).model_validate(self.config).settings())
        except (GssError, ValueError):  # no experiment of this project any more, or results of another version
            return {}
        return {key: (made.get(key), now.get(key)) for key in {**made, **now} if made.get(key) != now.get(key)}

    def notes(self) -> list[str]:
        """What a reader of figures has to know first: files that are not those the figures were measured with."""
        notes = []
        if self.edited:
            changes = "; ".join(f"{key} was {_said(made)}, is {_said(now)}" for key, (made, now) in self.edited.items())
            notes.append(
                f"The configuration was edited since these results were made ({changes}). Shown is what they were made "
                f"with; to make them anew: snakemake {self.folder}/report.html"
            )
        for (model, split), found in {**self.evaluations, **self.sets}.items():
            path = self.folder / f"{model}.pth"
            again = f"to measure again: snakemake -R evaluate -- {found.folder}/metrics.json"
            if path.is_file() and self.sha256(path.name) != found.metrics["model"]["sha256"]:
                notes.append(
                    f"The figures of {self.models[model]} on {split} are those of another {path.name}; {again}"
                )
            with contextlib.suppress(GssError):
                if not self.is_of_today(found):
                    notes.append(
                        f"The data set was checked anew since {self.models[model]} was measured on {split}, and is "
                        f"another one; {again}"
                    )
        return notes

    def sha256(self, file: str) -> str:
        """Hash of a file, by its path inside the folder; worked out once."""
        if file not in self._hashes:
            self._hashes[file] = sha256_file(self.folder / file)
        return self._hashes[file]

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {}

    def setting(self, key: str, default: Any = None) -> Any:
        """The value at a dotted key of the configuration, where both exist."""
        try:
            value: Any = self.config
            for part in key.split("."):
                value = value[part]
            return value
        except (GssError, KeyError, TypeError):
            return default

    @cached_property
    def published(self) -> Published:
        """Scores to expect: those of the experiment's file today, else those the results were made with."""
        try:
            return load_experiment(self.name).published
        except ConfigError:
            with contextlib.suppress(ValueError):  # written by another version
                section = self.recipe.experiment.model_fields["published"].annotation
                assert section is not None
                return section.model_validate(self.setting("published", {}))
            return Published()

    @cached_property
    def evaluations(self) -> dict[tuple[str, str], Evaluation]:
        """By model and split, in the order in which they are shown; those that were made."""
        found = {}
        for split in SPLITS:
            for model in self.models:
                folder = self.folder / layout.evaluation(model, split)
                if (folder / "metrics.json").is_file():
                    found[model, split] = Evaluation(model, split, read_json(folder / "metrics.json"), folder)
        return found

    @cached_property
    def sets(self) -> dict[tuple[str, str], Evaluation]:
        """By model and name, in the order of the configuration: evaluations on test sets with classes of their own."""
        found = {}
        order = list(self.setting("evaluation.sets", ()))
        for model in self.models:
            names = {path.parent.name for path in self.folder.glob(layout.metrics(model, "*"))} - {*SPLITS}
            for name in sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)):
                folder = self.folder / layout.evaluation(model, name)
                found[model, name] = Evaluation(model, name, read_json(folder / "metrics.json"), folder)
        return found

    @property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """By model, what sums up its figures on the test sets, where that was made."""
        paths = {model: self.folder / layout.SUMMARY.replace("*", model) for model in self.models}
        return {model: read_json(path) for model, path in paths.items() if path.is_file()}

    @property
    def splits(self) -> list[str]:
        """Splits with an evaluation."""
        return list(dict.fromkeys(split for _, split in self.evaluations))

    @property
    def expected(self) -> list[tuple[str, str]]:
        """Model and split of the evaluations that the configuration asks for."""
        wanted = set(self.setting("evaluation.splits", ())) & set(self.setting("data.splits", ()))
        return [(model, split) for split in SPLITS for model in self.models if split in wanted]

    def of_split(self, split: str) -> dict[str, Evaluation]:
        """The evaluations of a split by model."""
        return {model: found for (model, where), found in self.evaluations.items() if where == split}

    @cached_property
    def manifest(self) -> Manifest:
        """The pairs, at the data folder of today."""
        found = read_manifest(self.folder / MANIFEST)
        root = self.setting("data.root")
        if root is None:
            return found
        where = Data.model_construct(root=root, generate=self.setting("data.generate"))  # other keys may be of old
        return found.at(data_set_folder(where), data_folder())

    def measured_on(self, split: str) -> tuple[Manifest, str]:
        """The manifest that a split or a test set is in, and what it is called there; the data folder is today's."""
        if split in SPLITS:
            return self.manifest, split
        found = read_manifest(self.folder / layout.of_set(split)[0])
        return found.at(data_folder() / found.root, data_folder()), found.splits[0]

    def is_of_today(self, found: "Evaluation") -> bool:
        """Whether the images and labels of the split are still those that were measured.

        Raises:
            GssError: see `read_manifest`.
        """
        (manifest, split), data = self.measured_on(found.split), found.metrics["data"]
        if "split_sha256" in data:
            return manifest.split_sha256(split) == data["split_sha256"]
        return manifest.sha256 == data["manifest_sha256"]  # measured by an earlier version

    def colours_of(self, split: str) -> np.ndarray:
        """uint8 [N, 3] of the classes of a split or a test set.

        Raises:
            GssError: see `colours` and `read_manifest`.
        """
        if split in SPLITS:
            return self.colours[1]
        space = self.measured_on(split)[0].space
        return np.array(space.colours or default_colours(space.num_classes), np.uint8)

    @cached_property
    def palette(self) -> dict[str, list[int]]:
        """Colours of maskiges by class, the ignored pixels' last; empty where the recipe has none."""
        path = self.folder / "palette.csv"
        if not path.is_file():
            return {}
        return {row["name"]: [int(row[channel]) for channel in "rgb"] for _, row in read_table(path).iterrows()}

    @cached_property
    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """Events of each stage, in the order of their beginning; empty after `work/` was deleted."""
        found = {path.parent.name: read_journal(path) for path in (self.folder / WORK).glob("*/journal.jsonl")}
        begun = {stage: events for stage, events in found.items() if len(events) > 1}
        return dict(sorted(begun.items(), key=lambda item: item[1][1]["t"]))

    @cached_property
    def colours(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the classes that the figures are of, and the colours uint8 [N, 3] that show them.

        The models say them; where these are gone, the data set, then the palette.

        Raises:
            GssError: nothing says what colour a class has: it was named anew since.
        """
        known: dict[str, Sequence[int]] = dict(self.palette)
        with contextlib.suppress(GssError):
            known |= dict(zip(self.manifest.space.names, self.manifest.space.colours or (), strict=False))
        for model in self.models:
            said = self.model_metadata.get(f"{model}.pth", {})
            known |= dict(zip(said.get("classes", ()), said.get("colours") or (), strict=False))
        evaluated = next(iter(self.evaluations.values()), None)
        names = tuple(evaluated.metrics["IoU"]) if evaluated else self.manifest.space.names
        if strange := [name for name in names if name not in known]:
            raise GssError(
                f"no colour is known of {', '.join(map(repr, strange))}: the classes were named anew since",
                where=self.folder,
                todo=f"snakemake {self.folder}/report.html",
            )
        return names, np.array([known[name] for name in names], np.uint8).reshape(-1, 3)

    @cached_property
    def model_metadata(self) -> dict[str, dict[str, Any]]:
        """What the files of models and tokenizers say of themselves, by path inside the folder."""
        found = {}
        for path in sorted([*self.folder.glob("*.pth"), *self.folder.glob("*/*.pth")]):
            found[str(path.relative_to(self.folder))] = model_metadata(path)
        for path in sorted([*self.folder.glob("*.safetensors"), *self.folder.glob("*/*.safetensors")]):
            found[str(path.relative_to(self.folder))] = _read_safetensors_metadata(path)
        return {path: metadata for path, metadata in found.items() if metadata}


def _read_safetensors_metadata(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return json.loads(header["__metadata__"]["gss"])
    except (OSError, ValueError, KeyError, OverflowError, MemoryError):
        return {}


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
