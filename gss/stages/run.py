"""One experiment's folder: where its files are, and how a stage opens its work folder and journal."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml

import gss
from gss.config import (
    Experiment,
    data_folder,
    data_set_folder,
    experiment_name,
    experiment_path,
    list_experiments,
    load_experiment,
    origins,
    require_data,
    shipped,
)
from gss.config.schema import OF_ANNOTATIONS, DataSet, Source
from gss.data.classes import ClassSpace, read_class_space
from gss.data.manifest import Manifest, read_manifest
from gss.errors import ConfigError, DataError
from gss.files import json_text, read_json, remove, sha256_file, sha256_json, write_error, write_text
from gss.layout import CONFIG, LABELS, MANIFEST, ORIGINS, WORK
from gss.results.journal import Journal
from gss.results.records import Made, as_made, made_sha256, of_split, record_file, write_record
from gss.results.work import open_work
from gss.stages.machine import git, machine_facts

if TYPE_CHECKING:
    from gss.train.distributed import World

RESULTS = Path("results")
E = TypeVar("E", bound=Experiment)


@dataclass(frozen=True)
class Run(Generic[E]):
    """An experiment and its results folder.

    Args:
        name: of the folder: the experiment's own, with other settings `<name>+<hash>`.
        experiment: its configuration.
        folder: `results/<name>`.
        now: what is stored as the configuration of all that was not made yet.
        workflow: with other settings, the folder of the experiment as its file describes it: what `folder` lacks is
            taken from there.
        micro_batches: of trainings by stage, into how many parts a process divides its share of a batch, where that is
            not what the experiment says.
    """

    name: str
    experiment: E
    folder: Path
    now: Made
    workflow: Path | None = None
    micro_batches: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def open(name: str, overrides: Iterable[str] = (), results: Path = RESULTS) -> "Run[Any]":
        """The run of an experiment given by name or YAML path; see `load_experiment` for errors.

        What is made with other settings than those of the experiment's file never stands where the workflow's results
        do, but in a folder of its own. Overrides that can change no result, such as `run.workers=0`, need none.

        Raises:
            ConfigError: the project has an experiment of the same name, whose results these would mix with.
        """
        path, overrides = experiment_path(name), list(overrides)
        bare = experiment_name(name)
        if results.absolute() == RESULTS.absolute() and experiment_name(path) in list_experiments():
            own = experiment_path(bare)
            if not own.samefile(path):
                raise ConfigError(
                    f"the results of {path} would mix with those of {own}: both are called {bare!r}",
                    where=results / bare,
                    todo="rename the file, or choose another folder: --results FOLDER",
                )
        filed, experiment = load_experiment(name), load_experiment(name, overrides)
        expected, given = ((config.sha256, *config.borrowed()) for config in (filed, experiment))
        if given == expected:
            return Run(bare, experiment, results / bare, Made(_dump(filed), origins(name, (), filed)))
        other = f"{bare}+{sha256_json(given)[:8]}"
        folder = results / other
        if os.environ.get("RANK", "0") == "0":
            print(f"other settings than those of {path}: the results are in {folder}", flush=True)
        now = Made(_dump(experiment), origins(name, overrides, experiment))
        return Run(other, experiment, folder, now, results / bare)

    def file(self, path: Path) -> Path:
        """A file that a stage reads; of other settings, the workflow's where they made none of their own.

        Of some pairs (`debug.images`) what is known of the data is their own.
        """
        is_theirs = self.workflow is not None and path.is_relative_to(self.folder) and not self._is_of_some_pairs(path)
        if self.workflow is not None and is_theirs and not path.exists():
            source = self.workflow / path.relative_to(self.folder)
            if source.is_file():
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)  # a link to a file that was moved away
                    with contextlib.suppress(FileExistsError):  # another process was faster
                        path.symlink_to(os.path.relpath(source, path.parent))
                except OSError as error:
                    raise write_error(path, error) from error
        return path

    def _is_of_some_pairs(self, path: Path) -> bool:
        return self.experiment.debug.images is not None and path.is_relative_to((self.folder / MANIFEST).parent)

    @property
    def results(self) -> Path:
        """The folder of all results; those of an experiment with seeds lie one folder deeper in it."""
        return self.folder.parents[self.name.count("/")]

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

    @property
    def class_table(self) -> Path | None:
        """The file that names the classes; None where the configuration does."""
        table = self.experiment.data.class_table
        # A shipped one needs no folder: a test set can be looked at where the training data are not.
        return (shipped("classes", table) or self.root / table) if table else None

    def declared_space(self) -> ClassSpace:
        """The class space that configuration and class table describe now."""
        return class_space(self.experiment.data, self.class_table, self.file(self.folder / LABELS))

    @cached_property
    def _checked(self) -> Manifest:
        """The pairs found by the check; the data may be gone."""
        return read_manifest(self.file(self.folder / MANIFEST))

    @cached_property
    def manifest(self) -> Manifest:
        """The pairs found by the check, at the data folder of today."""
        return self._checked.at(self.root, data_folder())

    def work(self, stage: str) -> Path:
        """Work folder of a stage: checkpoints and journal; never a declared output."""
        return self.folder / WORK / stage

    def inputs(self, *paths: Path, world: "World | None" = None) -> dict[str, str]:
        """SHA-256 of input files by their path inside the results folder; in the main process, which alone needs them.

        Raises:
            DataError: one is missing.
        """
        for path in paths:
            if not self.file(path).is_file():
                todo = f"make it with: snakemake {path}"
                if self._is_of_some_pairs(path):
                    todo = "call `gss check` with the same settings before, which looks at these pairs alone"
                raise DataError("an input of this stage is missing", where=path, todo=todo)
        if world is not None and not world.is_main:
            return {}
        return {os.path.relpath(path, self.folder): sha256_file(path) for path in paths}

    @contextlib.contextmanager
    def stage(
        self,
        stage: str,
        inputs: dict[str, str],
        *,
        world: "World | None" = None,
        name: str | None = None,
        rule: str | None = None,
        reads: str | None = None,
        split: str | None = None,
        looked_into: Iterable[Path] = (),
        noted: Mapping[str, Any] | None = None,
    ) -> Iterator[Journal | None]:
        """Work on a stage: its work folder is this configuration's, its journal is open and says how it ended.

        Content of another configuration or of other inputs is put aside before anyone reads it. The record of what the
        stage made before goes first, and the new one comes when all is written: where there is one, it is true.

        Args:
            inputs: SHA-256 of what the stage reads, by name; only the main process is asked for them.
            world: the processes that share the work; None: this one alone.
            name: of the work folder, where a stage has several.
            rule: name of the record, where several rules share a work folder.
            reads: the stage whose settings this one reads; default: its own.
            split: what it is of, where that may be one of `evaluation.sets`.
            looked_into: files of which `inputs` names only what was taken from them; the hashes of those that are
                there are recorded.
            noted: what else the record says.

        Yields:
            The journal; None in processes other than the main one.
        """
        work = self.work(name or stage)
        is_main = world is None or world.is_main
        settings = self.experiment.slice(reads or stage, split)
        if is_main:
            whole = {"stage": stage, "config": settings, "inputs": inputs}
            inputs, learned = self._of_splits(stage, inputs, split)
            # The whole manifest is what a work folder of before names.
            if message := open_work(work, {**whole, "inputs": learned}, older=whole):
                print(message, flush=True)
        if world is not None:
            world.barrier()
        if not is_main:
            yield None
            return
        rule = rule or work.name
        remove(record_file(self.folder, rule))
        made = self.made(stage)
        self.write_config(stage)
        header = {
            "experiment": self.name,
            "stage": work.name,
            "dataset": Path(self.experiment.data.root).name,
            "config_sha256": made_sha256(made, self.experiment),
        }
        with Journal(work / "journal.jsonl", header) as journal:
            journal.params(settings)
            read = {f"input {name}": digest for name, digest in inputs.items()}
            journal.tags(
                {**read, **environment(), **machine_facts(), "data": str(data_set_folder(self.experiment.data))}
            )
            yield journal
            inputs = {**inputs, **self.inputs(*(path for path in looked_into if self.file(path).is_file()))}
            machine = {} if world is None else {"machine": world.machine}
            provenance = self.provenance(stage, inputs, reads=reads, split=split)
            write_record(self.folder, rule, {**provenance, **machine, **(noted or {})})
            self.write_config(stage)

    def _of_splits(
        self, stage: str, inputs: dict[str, str], split: str | None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Inputs in which the manifest is named by those of its splits that the stage reads, and by those alone that it
        learns from: other splits may change."""
        if MANIFEST not in inputs:
            return inputs, inputs
        others = {name: digest for name, digest in inputs.items() if name != MANIFEST}
        reads, learns = (
            {of_split(name): self._checked.split_sha256(name) for name in names if name in self._checked.splits}
            for names in self.experiment.splits_of(stage, split)
        )
        return {**reads, **others}, {**learns, **others}

    def made(self, stage: str) -> Made:
        """The configuration of what a stage makes: before it, what is there was made with the values it says."""
        return as_made(self.folder, self._of_workflow(stage), before=stage)

    def write_config(self, stage: str) -> None:
        """Store the configuration that the results were made with, and the origin of its values, when they changed."""
        made = as_made(self.folder, self._of_workflow(stage))
        config = yaml.safe_dump(made.config, sort_keys=False)
        for name, text in {CONFIG: config, ORIGINS: json_text(made.origins)}.items():
            path = self.folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)

    def _of_workflow(self, stage: str) -> Made:
        """The configuration to store, of other settings with what was taken from the workflow's results."""
        return self.now if self.workflow is None else as_made(self.workflow, self.now, before=stage)

    def provenance(
        self, stage: str, inputs: dict[str, str], *, reads: str | None = None, split: str | None = None
    ) -> dict[str, Any]:
        """What a record or a model file says about where the results come from."""
        made = self.made(stage)
        return {
            "experiment": self.name,
            "stage": stage,
            "settings": self.experiment.slice(reads or stage, split),
            "inputs": inputs,
            "config": made.config,
            "config_sha256": made_sha256(made, self.experiment),
            "origins": made.origins,
            "environment": environment(),
        }


def class_space(data: DataSet, table: Path | None, labels: Path | None = None) -> ClassSpace:
    """The class space that the section of a data set describes.

    Args:
        table: of its classes; None: the section names them, or the annotations do.
        labels: what was made of annotations; None: there are none.
    """
    if data.classes == OF_ANNOTATIONS:
        assert labels is not None
        return ClassSpace(tuple(read_json(labels)["sources"][data.root]["classes"]))
    if isinstance(data.classes, str):
        assert table is not None
        return read_class_space(table, reduce_zero_label=data.reduce_zero_label, label_map=data.label_map)
    return ClassSpace(data.classes, None, data.reduce_zero_label, data.label_map)


def source_folder(source: Source, what: str) -> Path:
    """Where a source lies, or an evaluation set.

    Raises:
        ConfigError: it is missing.
    """
    folders = sorted({folder for split in source.splits.values() for folder in (split.images, split.labels)})
    kind, todo = f"folder of the {what} {source.root!r}", f"expected in it: {', '.join(folders)}"
    return require_data(data_folder() / source.root, kind=kind, todo=todo)


def _dump(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(mode="json")


def environment() -> dict[str, str]:
    """Versions, host and git state a number was made with."""
    packages = {name: version(name) for name in ("torch", "timm", "numpy", "opencv-python-headless")}
    return {
        "gss": gss.__version__,
        "python": platform.python_version(),
        **packages,
        "host": platform.node(),
        "git": git("describe", "--always", "--dirty", "--abbrev=12") or "none",
        "command": " ".join(["gss", *sys.argv[1:]]),
    }
