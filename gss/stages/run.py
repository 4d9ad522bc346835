"""One experiment's folder: where its files are, and how a stage opens its work folder and journal."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import gss
from gss.config import (
    Experiment,
    Stage,
    data_set_folder,
    experiment_name,
    experiment_path,
    list_experiments,
    load_experiment,
    origins,
    require_data,
)
from gss.data.classes import ClassSpace, read_class_space
from gss.data.manifest import Manifest, read_manifest
from gss.errors import ConfigError, DataError
from gss.files import json_text, sha256_file, write_text
from gss.tracking.journal import Journal
from gss.tracking.work import open_work

if TYPE_CHECKING:
    from gss.train.distributed import World

RESULTS = Path("results")


@dataclass(frozen=True)
class Run:
    """An experiment and its results folder.

    Args:
        name: name of the experiment.
        experiment: its configuration.
        folder: `results/<name>`.
        origins: where each value of the configuration comes from.
    """

    name: str
    experiment: Experiment
    folder: Path
    origins: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def open(name: str, overrides: Iterable[str] = (), results: Path = RESULTS) -> "Run":
        """The run of an experiment given by name or YAML path; see `load_experiment` for errors.

        Raises:
            ConfigError: the project has an experiment of the same name, whose results these would mix with.
        """
        path, overrides = experiment_path(name), list(overrides)
        bare = experiment_name(path)
        if results.absolute() == RESULTS.absolute() and bare in list_experiments():
            own = experiment_path(bare)
            if not own.samefile(path):
                raise ConfigError(
                    f"the results of {path} would mix with those of {own}: both are called {bare!r}",
                    where=results / bare,
                    todo="rename the file, or choose another folder: --results FOLDER",
                )
        experiment = load_experiment(path, overrides)
        return Run(bare, experiment, results / bare, origins(path, overrides, experiment))

    @cached_property
    def root(self) -> Path:
        """The data set's folder.

        Raises:
            ConfigError: it is missing; names every folder expected in it and how to get the data.
        """
        data = self.experiment.data
        folders = sorted({folder for split in data.splits.values() for folder in (split.images, split.labels)})
        expected = f"expected in it: {', '.join(folders)}"
        return require_data(
            data_set_folder(data),
            kind=f"data set folder of experiment {self.name!r}",
            todo=f"{expected}. {data.obtain}".strip(),
        )

    @property
    def space(self) -> ClassSpace:
        """Class names, colours and the map from native ids, as they were when the data set was checked."""
        return self.manifest.space

    def declared_space(self) -> ClassSpace:
        """The class space that configuration and class table describe now."""
        data = self.experiment.data
        if not isinstance(data.classes, str):
            return ClassSpace(data.classes, None, data.reduce_zero_label, data.label_map)
        shipped = Path(gss.__file__).parent / "resources" / "classes" / f"{data.classes}.csv"
        table = shipped if shipped.is_file() else self.root / data.classes
        return read_class_space(table, reduce_zero_label=data.reduce_zero_label, label_map=data.label_map)

    @cached_property
    def manifest(self) -> Manifest:
        """The pairs found by the check, at the data folder of today."""
        return replace(read_manifest(self.folder / "data" / "manifest.json"), root=self.root)

    def work(self, stage: str) -> Path:
        """Work folder of a stage: checkpoints and journal; never a declared output."""
        return self.folder / "work" / stage

    def inputs(self, *paths: Path) -> dict[str, str]:
        """SHA-256 of input files by their path inside the results folder.

        Raises:
            DataError: one is missing.
        """
        for path in paths:
            if not path.is_file():
                raise DataError("an input of this stage is missing", where=path, todo=f"make it with: snakemake {path}")
        return {os.path.relpath(path, self.folder): sha256_file(path) for path in paths}

    @contextlib.contextmanager
    def stage(
        self, stage: Stage, inputs: dict[str, str], *, world: "World | None" = None, name: str | None = None
    ) -> Iterator[Journal | None]:
        """Work on a stage: its work folder is this configuration's, its journal is open and says how it ended.

        Content of another configuration or of other inputs is put aside before anyone reads it.

        Args:
            inputs: SHA-256 of what the stage reads, by name.
            world: the processes that share the work; None: this one alone.
            name: of the work folder, where a stage has several.

        Yields:
            The journal; None in processes other than the main one.
        """
        work = self.work(name or stage)
        is_main = world is None or world.is_main
        message = (
            open_work(work, {"stage": stage, "config": self.experiment.slice(stage), "inputs": inputs})
            if is_main
            else None
        )
        if message:
            print(message, flush=True)
        if world is not None:
            world.barrier()
        journal = self._journal(stage, work, inputs) if is_main else None
        if journal is None:
            yield None
        else:
            with journal:
                yield journal

    def _journal(self, stage: Stage, work: Path, inputs: dict[str, str]) -> Journal:
        self.write_config()
        journal = Journal(
            work / "journal.jsonl",
            {
                "experiment": self.name,
                "stage": work.name,
                "dataset": Path(self.experiment.data.root).name,
                "config_sha256": self.experiment.sha256,
            },
        )
        journal.params(self.experiment.slice(stage))
        journal.tags({**{f"input {name}": digest for name, digest in inputs.items()}, **environment()})
        return journal

    def write_config(self) -> None:
        """Store the resolved configuration and the origin of its values beside the results, when they changed."""
        config = yaml.safe_dump(self.experiment.model_dump(mode="json", by_alias=True), sort_keys=False)
        for name, text in {"config.yaml": config, "config_origins.json": json_text(self.origins)}.items():
            path = self.folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)

    def provenance(self, stage: Stage, inputs: dict[str, str]) -> dict[str, Any]:
        """What a model file says about where it comes from."""
        return {
            "experiment": self.name,
            "stage": stage,
            "inputs": inputs,
            "config": self.experiment.model_dump(mode="json", by_alias=True),
            "config_sha256": self.experiment.sha256,
            "environment": environment(),
        }

    def check_split(self, split: str) -> None:
        """Raise DataError unless the data set has this split."""
        if split not in self.experiment.data.splits:
            known = ", ".join(self.experiment.data.splits)
            raise DataError(
                f"the data set of {self.name!r} has no split {split!r}; it has {known}",
                where=f"data.splits of {self.name}",
                todo="name its folders there",
            )


def environment() -> dict[str, str]:
    """Versions, host and git state a number was made with."""
    packages = {name: version(name) for name in ("torch", "timm", "numpy", "opencv-python-headless")}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    git = ""
    with contextlib.suppress(OSError):  # no git on this machine
        folder = Path(gss.__file__).parent
        git = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False).stdout.strip()
    return {
        "gss": gss.__version__,
        "python": platform.python_version(),
        **packages,
        "host": platform.node(),
        "git": git or "none",
        "command": " ".join(["gss", *sys.argv[1:]]),
    }
