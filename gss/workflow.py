"""What the Snakemake rules ask: paths, targets, configuration slices and resources of an experiment.

Functions of `wildcards` take any object with the attribute `experiment`. No torch and no Snakemake is imported: the
rules load this module in every job.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gss import layout
from gss.cluster import gpus
from gss.config import (
    SEED_PATTERN,
    Cluster,
    Experiment,
    Resources,
    all_stages,
    class_file,
    data_folder,
    data_set_folder,
    find_recipe,
    is_shipped,
    list_experiments,
    load_cluster,
    load_experiment,
    load_project,
    prepared_file,
    run_parts,
    runs_of,
    seed_parts,
    tables_of,
    taxonomy_file,
)
from gss.config.schema import OF_ANNOTATIONS, EvaluationSet, Source
from gss.data.mseg.sets import PREPARED, RELABELLED, SETS, record_file, root_of
from gss.errors import ConfigError
from gss.files import sha256_file

Value = TypeVar("Value")
EXPERIMENT = f"[^/]+(?:{SEED_PATTERN})?"  # what an experiment is run by, as a pattern
# Snakemake's SLURM plugin runs two Snakemakes of its own inside the memory of every job.
NESTED_SNAKEMAKES_MB = 300


def prefer_this_python() -> None:
    """Let the `python` of the rules be the one that runs Snakemake, also where its environment is not activated."""
    own = str(Path(sys.executable).parent)
    found = os.environ.get("PATH", "").split(os.pathsep)
    if found[0] != own:
        os.environ["PATH"] = os.pathsep.join([own, *found])


def targets(wildcards: Any = None) -> list[str]:
    """Files that `snakemake all` makes: what config/config.yaml lists of experiments and comparisons.

    Args:
        wildcards: none; as a function of them it is asked only where `all` is.
    """
    project = load_project()
    pages = [f"results/comparisons/{name}/index.html" for name in project.comparisons]
    return [*(file for name in project.experiments for file in experiment_targets(name)), *pages]


def experiment_targets(name: str) -> list[str]:
    """The final files of one experiment, of each of its seeds; splits that its data set lacks are not evaluated."""
    runs = runs_of(name)
    pages = [f"results/{run}/{layout.REPORT}" for run in dict.fromkeys((*runs, name))]
    models = [f"results/{run}/{find_experiment(run).kind.final}.pth" for run in runs]
    return [*models, *(file for run in runs for file in _evaluations(run)), *pages]


def report_inputs(wildcards: Any) -> list[str]:
    """The figures that a report cannot do without."""
    reported = find_experiment(wildcards.experiment).kind.reported
    return [*_evaluations(wildcards.experiment), *(f"results/{wildcards.experiment}/{file}" for file in reported)]


def with_seeds() -> str:
    """Experiments with `seeds`, as a pattern."""
    return pattern({experiment for name, _ in readable() if (experiment := seed_parts(name)[0]) != name})


def without_seeds() -> str:
    """Experiments without `seeds` and each seed of those with them, as a pattern of what `/report` follows."""
    return f"(?!(?:{with_seeds()})/report){EXPERIMENT}"


def seeds_inputs(wildcards: Any) -> list[str]:
    """The figures of every seed of an experiment, and the pages that the common one leads to."""
    runs = runs_of(wildcards.experiment)
    return [
        *(file for name in runs for file in _evaluations(name)),
        *(f"results/{name}/{layout.REPORT}" for name in runs),
    ]


def _evaluations(name: str) -> list[str]:
    experiment = find_experiment(name)
    models, splits, sets = experiment.kind.models, experiment.evaluated, experiment.evaluation.sets
    files = [layout.metrics(model, split) for model in models for split in (*splits, *sets)]
    summaries = [layout.SUMMARY.replace("*", model) for model in models if sets]
    return [f"results/{name}/{file}" for file in (*files, *summaries)]


def evaluation_inputs(wildcards: Any) -> list[str]:
    """What an evaluation reads.

    Raises:
        ConfigError: of a split that the data set lacks; otherwise it would be noticed after the training.
    """
    experiment, split = find_experiment(wildcards.experiment), wildcards.split
    experiment.require_split(split, wildcards.experiment)
    manifest, _, taxonomy = layout.of_set(split)
    data = (manifest, taxonomy) if split in experiment.evaluation.sets else (layout.MANIFEST,)
    files = (f"{wildcards.model}.pth", *data, *experiment.kind.beside)
    return [f"results/{wildcards.experiment}/{file}" for file in files]


def summary_inputs(wildcards: Any) -> list[str]:
    """What the summary of a model's figures on test sets reads."""
    sets = find_experiment(wildcards.experiment).evaluation.sets
    return [f"results/{wildcards.experiment}/{layout.metrics(wildcards.model, name)}" for name in sets]


def other_files(name: str, set_name: str | None, seen: Mapping[str, Any]) -> dict[str, str]:
    """By split whose photographs or labels are others than when they were checked what there was and what there is.

    Args:
        name: of the experiment.
        set_name: the set of `evaluation.sets` that is meant; None: the data set.
        seen: what the record of the check says of them.
    """
    experiment = find_experiment(name)
    if not experiment.run.watch_data:
        return {}
    from gss.stages.seen import changes

    return changes(experiment, Path("results", name), seen, set_name)


def oracles(wildcards: Any) -> dict[str, str]:
    """For `params` of the summary: SHA-256 of the figures of oracles that are there, by their paths from the results of
    the experiment, as its record has them. As inputs they would be made, which trains a network."""
    experiment, folder = find_experiment(wildcards.experiment), Path("results", wildcards.experiment)
    return {
        os.path.relpath(path, folder): sha256_file(path)
        for found in experiment.evaluation.sets.values()
        if found.oracle
        for path in layout.all_metrics(Path("results", found.oracle), next(iter(found.splits)))
    }


def set_inputs(wildcards: Any) -> list[str]:
    """What the check of a test set waits for: its tables, and those of the model's classes.

    Raises:
        ConfigError: there is no such set.
    """
    found = _set(wildcards)
    root = data_folder() / found.root
    tables = [class_file(found.class_table, root)] if found.class_table else []
    sources = [found, *([found.relabelled_source()] if found.relabelled else [])]
    tables += [path for source in sources for path in tables_of(source, root)]
    tables += [taxonomy_file(found.model_taxonomy)] if found.model_taxonomy else []
    labels = [layout.labels_of_set(wildcards.split)] if found.annotations else []
    if find_experiment(wildcards.experiment).data.classes == OF_ANNOTATIONS:
        labels.append(layout.LABELS)
    labels = [f"results/{wildcards.experiment}/{file}" for file in labels]
    return list(dict.fromkeys([*_data_tables(wildcards), *_of_user(tables), *labels, *_records(found)]))


def _set(wildcards: Any) -> EvaluationSet:
    """The test set that is meant.

    Raises:
        ConfigError: there is none.
    """
    sets = find_experiment(wildcards.experiment).evaluation.sets
    if wildcards.split not in sets:
        there = ", ".join(sets) or "none"
        raise ConfigError(f"no set {wildcards.split!r}; there are: {there}", where="evaluation.sets")
    return sets[wildcards.split]


def labels_of_set() -> str:
    """What making the labels of a test set leaves, as a pattern."""
    return f"results/{{experiment}}/{layout.labels_of_set('{split}')}"


def set_makes() -> list[str]:
    """What the check of a test set leaves, as patterns."""
    return [f"results/{{experiment}}/{file}" for file in layout.of_set("{split}")]


def split_names() -> str:
    """What may be evaluated, as a pattern: splits, and the test sets of all experiments."""
    sets = {name for _, experiment in readable() for name in experiment.evaluation.sets}
    return pattern(["val", "test", *sorted(sets)])


def comparison_runs(wildcards: Any) -> list[str]:
    """The runs of a comparison, as config/config.yaml names them."""
    known = load_project().comparisons
    if wildcards.comparison not in known:
        raise ConfigError(
            f"no comparison {wildcards.comparison!r}; there are: {', '.join(known) or 'none'}",
            where="comparisons in config/config.yaml",
            todo="name its runs there",
        )
    return list(known[wildcards.comparison])


def comparison_split(wildcards: Any) -> str:
    """The split a comparison is made on: the first of `test` and `val` that every experiment in it evaluates."""
    runs = {name: find_experiment(name).evaluated for name, _ in _compared(wildcards)}
    common = [split for split in ("test", "val") if all(split in evaluated for evaluated in runs.values())]
    if not common:
        raise ConfigError(
            "the experiments evaluate no split in common: "
            + ", ".join(f"{name} {', '.join(evaluated)}" for name, evaluated in runs.items()),
            where=f"comparison {wildcards.comparison!r} in config/config.yaml",
            todo="add the split to evaluation.splits, or compare others",
        )
    return common[0]


def comparison_inputs(wildcards: Any) -> list[str]:
    """The evaluations that a comparison reads."""
    compared = _compared(wildcards)
    folders = [f"results/{name}/evaluation/{model or find_experiment(name).kind.final}/" for name, model in compared]
    files = ("metrics.json", "confusion.npz")
    return [f"{folder}{comparison_split(wildcards)}/{file}" for folder in folders for file in files]


def _compared(wildcards: Any) -> list[tuple[str, str]]:
    """Names and models of what is compared, of experiments with `seeds` every one."""
    runs = map(run_parts, comparison_runs(wildcards))
    return [(name, model) for experiment, model in runs for name in runs_of(experiment)]


def config_slice(stage: str) -> Callable[[Any], dict[str, Any]]:
    """For `params`: what of the configuration influences a stage, so that no other change runs it again."""
    return lambda wildcards: find_experiment(wildcards.experiment).slice(stage, getattr(wildcards, "split", None))


class Requests:
    """For `threads` and `resources`: what the stages ask for, by the experiments and the profile's cluster block.

    How many GPUs there are is not asked here: the machine that runs a stage knows (`gss launch`).

    Args:
        config: Snakemake's, with the block `cluster` of the profile in use; without it all runs on this machine.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._cluster = load_cluster(config) if config.get("cluster") else None
        self._fitted = cache(self._fit)  # Snakemake asks for each of a job's resources several times

    def _fit(self, name: str, stage: str) -> Resources:
        experiment = find_experiment(name)
        asked = experiment.resources(stage)
        if self._cluster is not None:
            return self._cluster.fit(asked, stage)
        gains = all_stages()[stage].in_processes or asked.gpus != "auto"
        return asked if gains else asked.model_copy(update={"gpus": 0})

    def threads(self, stage: str) -> Callable[[Any], int]:
        """The cores of a stage, on each node; bounded by those of this machine, see `resources`."""
        return self._asked(stage, lambda asked: asked.threads)

    def resources(self, stage: str) -> dict[str, Callable[[Any], int | str]]:
        """What a stage asks for; a change of it runs nothing again.

        `nodes`, `divided`, and per node `processes` and `devices` are read by the shell lines. `accel` is 1 for a stage
        that uses the GPUs of this machine: the default profile lets one run at a time. The others are SLURM's.
        """
        asked = {name: self._asked(stage, value) for name, value in self._values().items()}
        return {**asked, "divided": lambda wildcards: find_experiment(wildcards.experiment).divided(stage) or 0}

    def labels(self) -> dict[str, int | str]:
        """What making the labels of a data set asks for, which is of no experiment."""
        asked = Resources(threads=16, memory_mb=16000, minutes=1440, gpus=0)
        if self._cluster is not None:
            asked = self._cluster.fit(asked, "mseg_labels")
        return {name: value(asked) for name, value in self._values().items()}

    def _values(self) -> dict[str, Callable[[Resources], int | str]]:
        cluster = self._cluster or Cluster()
        values: dict[str, Callable[[Resources], int | str]] = {
            "mem_mb": lambda asked: asked.memory_mb + NESTED_SNAKEMAKES_MB,
            "runtime": lambda asked: asked.minutes,
            "nodes": lambda asked: asked.nodes,
            "tasks": lambda asked: asked.nodes,
            "cpus_per_task": lambda asked: asked.threads,  # Snakemake bounds `threads` by its own cores
            "tasks_per_gpu": lambda asked: 0,  # otherwise SLURM multiplies the tasks by the GPUs
            "gres": lambda asked: f"gpu:{asked.gpus}" if asked.gpus not in ("auto", 0) else "",
            "processes": lambda asked: asked.processes or ("auto" if asked.gpus else 1),
            "devices": lambda asked: asked.gpus,
            "accel": lambda asked: int(self._cluster is None and _uses_gpus(asked) and not gpus.hidden()),
        }
        if cluster.partition or cluster.gpu_partition:
            values["slurm_partition"] = lambda asked: (asked.gpus and cluster.gpu_partition) or cluster.partition or ""
        if cluster.account:
            values["slurm_account"] = lambda asked: cluster.account or ""
        return values

    def environment(self, stage: str) -> Callable[[Any], str]:
        """For `conda`: the environment of a stage, by whether it uses GPUs."""
        return self._asked(stage, lambda asked: f"../envs/{'gpu' if _uses_gpus(asked) else 'cpu'}.yaml")

    def _asked(self, stage: str, value: Callable[[Resources], Value]) -> Callable[[Any], Value]:
        def function(wildcards: Any) -> Value:
            try:
                return value(self._fitted(wildcards.experiment, stage))
            except ValueError as error:
                where = f"run.resources of {wildcards.experiment}, or the profile's config.cluster"
                raise ConfigError(str(error), where=where, todo="ask for a multiple, or mend gpus_per_node") from error

        return function


def _uses_gpus(asked: Resources) -> bool:
    return gpus.present() if asked.gpus == "auto" else asked.gpus > 0


def inputs(stage: str, recipe: str | None = None) -> list[str]:
    """Files of the results that a stage always reads, as patterns.

    Args:
        recipe: whose stage, where several have one of this name that reads other files.
    """
    row = find_recipe(recipe).stage(stage) if recipe else all_stages()[stage]
    return [f"results/{{experiment}}/{file}" for file in row.inputs]


def makes(stage: str) -> list[str]:
    """Files of the results that a stage leaves, as patterns."""
    return [f"results/{{experiment}}/{file}" for file in all_stages()[stage].makes]


def training_inputs(stage: str) -> Callable[[Any], list[str]]:
    """What a training reads where it is asked to: `class_balance` the counts of classes, `start_from` a model, which is
    made first where it is one of an experiment."""

    def function(wildcards: Any) -> list[str]:
        experiment = find_experiment(wildcards.experiment)
        section = experiment.trainings[stage].removesuffix(".training")
        counts = [f"results/{wildcards.experiment}/{layout.STATISTICS}"]
        start = experiment.at(section).start_from
        balance = experiment.at(f"{section}.training").class_balance
        return [*(counts if balance else []), *([user_file(Path(start))] if start and start.endswith(".pth") else [])]

    return function


def launch(command: str, *, work: str) -> str:
    """For `shell`: a verb in one or many processes on one or many machines.

    Args:
        command: the verb with its arguments.
        work: name of its work folder.
    """
    return (
        "python -m gss launch --nodes {resources.nodes} --nproc {resources.processes} --gpus {resources.devices} "
        "--cpus {resources.cpus_per_task} --divided {resources.divided} "
        f"--work results/{{wildcards.experiment:q}}/{layout.WORK}/{work} --log {{log:q}} -- {command} >> {{log:q}} 2>&1"
    )


def importing(part: str) -> str:
    """Experiments that import a part, a section with `checkpoint`, instead of training it, as a pattern."""
    return pattern(
        name for name, experiment in readable() if getattr(getattr(experiment, part, None), "checkpoint", None)
    )


def data_inputs(wildcards: Any) -> list[str]:
    """What the check waits for: tables of classes and taxonomies, where there are some, unpacked archives, and labels
    that are made.

    Folders of photographs are no inputs: a dry run works without them, and the verb says what is missing.
    """
    data = find_experiment(wildcards.experiment).data
    labels = [f"results/{wildcards.experiment}/{layout.LABELS}"] if data.annotated else []
    return [*_data_tables(wildcards), *labels, *(each for source in (data, *data.sources) for each in _records(source))]


def annotations(wildcards: Any) -> list[str]:
    """What making labels of annotations waits for: tables and unpacked archives. These themselves are looked at like
    photographs, see `other_files`.

    Raises:
        ConfigError: there are none.
    """
    name = getattr(wildcards, "split", None)
    experiment = find_experiment(wildcards.experiment)
    if not (experiment.data.annotated if name is None else _set(wildcards).annotations):
        raise ConfigError(f"no `annotations` to make labels of: {wildcards.experiment}", where=name or "data")
    if name is None:
        return _data_tables(wildcards)
    found = _set(wildcards)
    return _of_user(tables_of(found, data_folder() / found.root))


def _data_tables(wildcards: Any) -> list[str]:
    data = find_experiment(wildcards.experiment).data
    if data.generate:
        return [user_file(data_set_folder(data) / "classes.csv")]
    tables = [class_file(data.class_table, data_set_folder(data))] if data.class_table else []
    for source in (data, *data.sources):
        tables += tables_of(source, data_folder() / source.root)
    prepared = [f"results/{wildcards.experiment}/{layout.PREPARED}"] if data.archives else []
    return prepared + _of_user(tables)


def _records(source: Source) -> list[str]:
    """The record of a source's labels, where they are made."""
    record = prepared_file(source)
    return [] if record is None else [user_file(record)]


def mseg_folders() -> str:
    """Folders in which labels of MSeg's sets are made, as a pattern: those that experiments name."""
    data = [experiment.data for _, experiment in readable()]
    sets = [each for _, experiment in readable() for each in experiment.evaluation.sets.values()]
    sources = [*data, *(source for each in data for source in each.sources), *sets]
    roots = {root_of(record) for source in sources if (record := prepared_file(source))}
    return pattern(str(root) for root in roots if root)


def mseg_inputs(wildcards: Any) -> list[str]:
    """What labels with relabelled segments wait for: the record of those they are made of, where these can be made."""
    base, folder = wildcards.set.removesuffix(RELABELLED), Path(wildcards.folder)
    raw = [folder / SETS[base].folder / (part.raw or part.semseg) for part in SETS[base].parts.values()]
    is_first = base == wildcards.set or not all(path.is_dir() for path in raw)
    return [] if is_first else [str(folder / record_file(base))]


def mseg_sets() -> str:
    """MSeg's sets whose labels can be made, as a pattern."""
    return pattern(PREPARED)


def _of_user(tables: Iterable[Path]) -> list[str]:
    """Those that are there and do not come with the project, as inputs of a rule."""
    return [user_file(table) for table in dict.fromkeys(tables) if table.is_file() and not is_shipped(table)]


def user_file(path: Path) -> str:
    """A file of the user's as an input of a rule."""
    if "{" in str(path) or "}" in str(path):
        raise ConfigError("Snakemake takes braces in a path for a wildcard", where=path, todo="rename the folder")
    return str(path)


def generated_folders() -> str:
    """Folders of the data sets that the project makes, as a pattern: no other folder is ever written to."""
    return pattern(str(data_set_folder(experiment.data)) for _, experiment in readable() if experiment.data.generate)


def readable() -> Iterator[tuple[str, Experiment]]:
    """The experiments whose files can be read, by the names they are run by: another one stops those who ask for it,
    and nobody else."""
    for experiment in list_experiments():
        with contextlib.suppress(ConfigError):
            yield from ((name, find_experiment(name)) for name in runs_of(experiment))


def pattern(texts: Iterable[str]) -> str:
    """For `wildcard_constraints`: any of the texts. Snakemake takes braces for those of a wildcard."""
    escaped = (re.escape(text).replace("{", "x7b").replace("}", "x7d") for text in texts)
    return "|".join(escaped) or "(?!)"  # the latter matches nothing


@cache
def find_experiment(name: str) -> Experiment:
    """The experiment of a name, read once."""
    return load_experiment(name)
