"""An experiment: the sections that all recipes have, and what of them influences which stage."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import model_validator

from gss.config.names import Name
from gss.config.recipe import Recipe, find_recipe
from gss.config.schema import Augment, Data, Debug, Evaluation, Published, Resources, Run, Section, Seed
from gss.errors import ConfigError
from gss.files import sha256_json


class NamedFile(NamedTuple):
    """A file that an experiment reads beside its data set: what it is, its key, and what to do without it."""

    what: str
    key: str
    path: Path
    todo: str


class Job(NamedTuple):
    """What Snakemake runs as one job.

    Args:
        name: of its log, its record and its benchmark.
        stage: whose settings it reads.
        split: of an evaluation, or of the labels and the check of a test set.
        until: of a training in segments, the step this one ends at.
    """

    name: str
    stage: str
    split: str | None = None
    until: int | None = None

    @property
    def work(self) -> str:
        """Its work folder, which the segments of a training share."""
        return self.name if self.until is None else self.stage


class Experiment(Section):
    recipe: str = "gss"
    """The system; it decides which sections there are beside the common ones."""
    base: Name | None = None
    """Another experiment of this folder, whose values are taken where none are given here; lists are replaced as a
    whole, a section that is null here (`evaluation: {sets: null}`) is left out. Of one with another recipe only the
    sections that both have, without `run.resources`."""
    data: Data
    """The data set."""
    augment: Augment
    """Random changes of the training images."""
    evaluation: Evaluation = Evaluation()
    """The protocol of the final figures."""
    seed: Seed = 0
    """Seed of sampling, augmentation and initialisation."""
    seeds: tuple[Seed, ...] = ()
    """Several of them: the experiment is run once with each, under the name and in the folder `NAME/seed_N`; its own
    report has mean and spread."""
    numerics: Literal["default", "reference"] = "default"
    """`reference` keeps what the published code does where this project does better, see docs/deviations.md."""
    reference: dict[str, Any] = {}
    """Sections whose values replace those above with `numerics: reference`."""
    published: Published = Published()
    """Scores to expect, shown beside those achieved. Changes no result."""
    run: Run = Run()
    """How to run. Nothing here changes a result but the number of processes: each draws its own dropout, and BatchNorm
    sees what is computed at once: on CPUs the images of its own process, on fewer GPUs than `run.resources` names those
    of a micro-batch."""
    debug: Debug = Debug()
    """To look for faults. Said on the command line alone, so that what it makes has a folder of its own and is never
    taken for a result."""

    trainings: ClassVar[dict[str, str]] = {}
    """Stages that train a network on images -> the dotted key of the section that says how."""
    backbone: ClassVar[str | None] = None
    """Dotted key of the image encoder's section."""
    unpublished: ClassVar[tuple[str, ...]] = ("bf16", "fp16")
    """Values of `precision` that no training of `numerics: reference` has."""
    narrower: ClassVar[dict[str, str]] = {}
    """Stages that need less memory with a smaller number at a dotted key, which makes another network."""
    without_effect: ClassVar[tuple[str, ...]] = ("data.obtain", "data.archives", "evaluation.splits")
    """Dotted keys that change no result."""
    unhashed: ClassVar[tuple[str, ...]] = ("summary", "labels")
    """Stages that came after results were made: where none of what they read is set, the hash of everything is still
    that of before."""
    idle_keys: ClassVar[tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...]] = (
        ("`evaluation.mode: whole`", lambda e: e.evaluation.mode == "whole", ("evaluation.crop", "evaluation.stride")),
    )
    """What takes the effect from keys, in words; whether it is so; the keys."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` has one twice: {list(self.seeds)}")
        if self.seeds and self.seed:
            raise ValueError(f"`seed: {self.seed}` stands beside `seeds: {list(self.seeds)}`: remove one of them")
        return self

    @model_validator(mode="after")
    def _reference_is_not_rounded(self) -> Self:
        if self.numerics == "reference":
            for key in self.trainings.values():
                if (precision := self.at(key).precision) in self.unpublished:
                    raise ValueError(f"`numerics: reference` trains in fp32; remove `{key}.precision: {precision}`")
        return self

    @model_validator(mode="after")
    def _tasks_are_apart(self) -> Self:
        for key in self.trainings.values():
            if (multitask := self.at(key).multitask) != "none" and not self.data.balanced:
                raise ValueError(f"`{key}.multitask: {multitask}` weighs sources: it needs `data.sampling: balanced`")
        return self

    @model_validator(mode="after")
    def _something_is_evaluated(self) -> Self:
        if not set(self.evaluation.splits) & set(self.data.splits):
            raise ValueError(
                f"evaluation.splits are {list(self.evaluation.splits)}, data.splits {list(self.data.splits)}: "
                "nothing would be evaluated"
            )
        return self

    @model_validator(mode="after")
    def _validation_has_images(self) -> Self:
        for key in self.trainings.values():
            if self.at(key).validate_every and "val" not in self.data.splits:
                raise ValueError(f"`{key}.validate_every` measures on `val`, which data.splits lacks")
        return self

    @model_validator(mode="after")
    def _stages_are_of_the_recipe(self) -> Self:
        known = [stage.name for stage in self.kind.stages]
        if strange := [name for name in self.run.resources if name not in known]:
            raise ValueError(f"run.resources.{strange[0]}: recipe {self.recipe!r} has {', '.join(known)}")
        return self

    @property
    def kind(self) -> Recipe:
        """The recipe itself."""
        return find_recipe(self.recipe)

    def at(self, key: str) -> Any:
        """The section or value at a dotted key."""
        value: Any = self
        for name in key.split("."):
            value = getattr(value, name)
        return value

    @property
    def trained(self) -> dict[str, str]:
        """Stages that train here -> the dotted key of the section that says how."""
        return self.trainings

    @property
    def encoder(self) -> str:
        """Name of the image encoder; `none` without one."""
        return self.at(f"{self.backbone}.name") if self.backbone else "none"

    def borrowed(self) -> tuple[str | None, ...]:
        """Other experiments whose results it takes; what they made is known by its hashes, so they are in no slice."""
        return ()

    def jobs(self) -> Iterator[Job]:
        """The jobs behind its models and figures, in the order of the chain; the report comes after them."""
        for row in self.kind.stages:
            if row.name == "prepare":
                yield from [Job("prepare", "prepare")] if self.data.archives else []
            elif row.name == "labels":
                yield from [Job("labels", "labels")] if self.data.annotated else []
                sets = self.evaluation.sets
                yield from (Job(f"set_labels_{name}", "labels", name) for name in sets if sets[name].annotations)
            elif row.name == "check":
                yield Job("check", "check")
                yield from (Job(f"set_{name}", "check", name) for name in self.evaluation.sets)
            elif row.name == "evaluate":
                splits = (*self.evaluated, *self.evaluation.sets)
                yield from (
                    Job(f"evaluate_{model}_{split}", "evaluate", split)
                    for model in self.kind.models
                    for split in splits
                )
            elif row.name == "summary":
                yield from (Job(f"summary_{model}", "summary") for model in self.kind.models if self.evaluation.sets)
            elif row.model and getattr(getattr(self, row.name, None), "checkpoint", None):
                yield Job(f"import_{Path(row.model).stem}", row.name)
            elif row.makes:
                yield from self._segments(row.name)

    def _segments(self, stage: str) -> Iterator[Job]:
        """The jobs of a stage of the recipe's own: several where a training writes models on the way."""
        yield Job(stage, stage)

    def named_files(self) -> Iterator[NamedFile]:
        """What it reads beside its data set."""
        yield from ()

    def downloads(self) -> Iterator[tuple[str, str, str]]:
        """What it fetches from a network: what, which, and the address."""
        yield from ()

    @property
    def idle(self) -> dict[str, list[str]]:
        """What takes the effect from keys that are set -> these keys; a change of them runs nothing again."""
        given = self._set()
        found = {
            cause: [key for key in keys if drop(given, key)] for cause, is_so, keys in self.idle_keys if is_so(self)
        }
        return {cause: keys for cause, keys in found.items() if keys}

    def _set(self) -> dict[str, Any]:
        """The values that are no defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def evaluated(self) -> list[Literal["val", "test"]]:
        """Those of `evaluation.splits` that the data set has."""
        return [split for split in self.evaluation.splits if split in self.data.splits]

    @property
    def last_split(self) -> Literal["val", "test"]:
        """What is measured where nobody names a split: `test`, or `val` where there is no other."""
        return "test" if "test" in self.data.splits else "val"

    def require_split(self, split: str, name: str) -> None:
        """Raise ConfigError unless the data set has this split, or there is an evaluation set of the name.

        Args:
            name: of the experiment.
        """
        if split not in (*self.data.splits, *self.evaluation.sets):
            sets = f"; evaluation.sets: {', '.join(self.evaluation.sets)}" if self.evaluation.sets else ""
            raise ConfigError(
                f"the data set of {name!r} has no split {split!r}; it has {', '.join(self.data.splits)}{sets}",
                where=f"data.splits of {name}",
                todo="name its folders there, or evaluate another split",
            )

    def resources(self, stage: str) -> Resources:
        return self.run.resources.get(stage, Resources())

    def divided(self, stage: str) -> int | None:
        """What the processes of a stage divide evenly among them; None: any number of processes will do."""
        if stage not in self.trained:
            return None
        training = self.at(self.trained[stage])
        # Where the number of GPUs is named, `accumulation` follows from how many there are.
        return training.batch_size if self.made_for(stage) else training.batch_size // training.accumulation

    def made_for(self, stage: str) -> int | None:
        """The number of GPUs that a stage is made for, over all nodes; None: any."""
        asked = self.resources(stage)
        return None if asked.gpus in ("auto", 0) else asked.nodes * (asked.processes or int(asked.gpus))

    def protocol(self) -> dict[str, Any]:
        """How an evaluation of this configuration predicts, as a model file says it: what its figures will be of."""
        beside = {"splits", "pictures", "sets"}
        if self.evaluation.protocol == "gss":
            beside |= {"protocol", "base_sizes", "scales"}
        return self.evaluation.model_dump(mode="json", exclude=beside)

    def slice(self, stage: str, split: str | None = None) -> dict[str, Any]:
        """What influences a stage beyond its input files: the configured values without defaults.

        The rules take it as their `params`, so that a change re-runs just what depends on it.

        Args:
            split: what a check or an evaluation is of, where it may be one of `evaluation.sets`.
        """
        if split in self.evaluation.sets:
            return self._slice_of_set(stage, split)
        row, dumped = self.kind.stage(stage), self._set()
        for key in row.unread:
            drop(dumped, key)
        for keys in (*self.idle.values(), [key for key in self.without_effect if key not in row.reads]):
            for key in keys:
                drop(dumped, key)
        self._drop_measured(dumped)
        self._narrow(dumped, stage)
        content: dict[str, Any] = {"version": row.version, **self._debugged()}
        if stage == "labels" and not self.data.annotated:
            return content  # nothing is made
        reads = row.reads + (row.reads_for_reference if self.numerics == "reference" else ())
        if stage in self.trainings and self.at(self.trainings[stage]).keep == "best":  # chosen by this protocol
            beside = ("splits", "pictures", "sets")
            reads += tuple(f"evaluation.{key}" for key in type(self.evaluation).model_fields if key not in beside)
        for path in reads:
            value: Any = dumped
            for key in path.split("."):
                value = value.get(key, {})
            content[path] = value
        return {key: value for key, value in content.items() if value != {}}

    def _slice_of_set(self, stage: str, name: str) -> dict[str, Any]:
        """Of an evaluation set: its check reads its files, into files; the evaluation what it makes of predictions."""
        given = self.evaluation.sets[name].model_dump(mode="json", exclude_defaults=True, exclude={"oracle"})
        measured = {key: given.pop(key) for key in ("prediction", "absent", "counted") if key in given}
        if stage == "evaluate":
            return {**self.slice(stage), **({f"evaluation.sets.{name}": measured} if measured else {})}
        known = self.data.model_dump(mode="json", include={"classes", "label_map"}, exclude_defaults=True)
        version = {"version": self.kind.stage(stage).version, **self._debugged()}
        return {**version, "data": known, f"evaluation.sets.{name}": given}

    def _debugged(self) -> dict[str, Any]:
        """What of `debug` is set, of which everything depends."""
        debug = self.debug.model_dump(mode="json", exclude_defaults=True)
        return {"debug": debug} if debug else {}

    def _narrow(self, dumped: dict[str, Any], stage: str) -> None:
        """Take out what of the values that are set does not influence a stage although it reads their section."""

    def _drop_measured(self, dumped: dict[str, Any]) -> None:
        """Take out what only decides which figures a training writes of itself."""
        for key in self.trainings.values():
            if self.at(key).keep == "last":
                found = [drop(dumped, f"{key}.{name}") for name in _MEASURED]
                section, _, training = key.rpartition(".")
                if any(found) and not dumped[section][training]:
                    drop(dumped, key)

    def splits_of(self, stage: str, split: str | None = None) -> tuple[list[str], list[str]]:
        """Splits of the data set that a stage reads, where there are such, and those that all it makes depends on but
        its figures.

        Args:
            split: what it is of, where it may be of one.
        """
        row = self.kind.stage(stage)
        best = stage in self.trainings and self.at(self.trainings[stage]).keep == "best"  # chosen by what `val` has
        reads = [*(row.splits or (split or "",)), *(("val",) if best else ())]
        learns = [*row.learns, *(("val",) if best else ())] if row.learns else reads
        return reads, learns

    def settings(self) -> dict[str, Any]:
        """Everything that can change a result, with the values of defaults: what runs are compared by."""
        dumped = self.model_dump(mode="json")
        for key in self.without_effect:
            section, _, name = key.partition(".")
            dumped[section].pop(name)
        self._drop_measured(dumped)
        sections = {path.split(".")[0] for stage in self.kind.stages for path in stage.reads}
        return {key: value for key, value in dumped.items() if key in sections} | self._debugged()

    @property
    def sha256(self) -> str:
        """Hash of everything that can change a result."""
        found = {stage.name: self.slice(stage.name) for stage in self.kind.stages}
        slices: dict[str, Any] = {
            name: part for name, part in found.items() if name not in self.unhashed or part.keys() != {"version"}
        }
        return sha256_json({**slices, "seeds": self.seeds} if self.seeds else slices)


_MEASURED = ("validate_every", "validate_images")  # of a training: they decide about its result with `keep: best` alone


def drop(content: dict[str, Any], key: str) -> bool:
    """Take a dotted key out; whether it was there."""
    *sections, last = key.split(".")
    for section in sections:
        content = content.get(section, {})
    return content.pop(last, None) is not None
