"""The systems that live here: a recipe is one of them, and each of its stages a row from which all else follows.

A row is all that is known of a stage without running it: slices, records, command line, resources, provenance, the
workflow's inputs and MLflow's runs come from it. What a recipe computes is named by `module:function` and imported when
it is called, so that commands that compute nothing load nothing.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gss.errors import ConfigError
from gss.layout import LABELS, MANIFEST, PREPARED, STATISTICS, SUMMARY, metrics

if TYPE_CHECKING:
    from gss.config.experiment import Experiment

# Where each recipe is declared, as `RECIPE`.
RECIPES = {
    "gss": "gss.recipes.gss.recipe",
    "pixel": "gss.recipes.pixel.recipe",
}


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe.

    Args:
        name: of its log, record, work folder and resources.
        text: what it does, for the command line's help.
        call: `module:function`, called with the run and, `in_processes`, the world.
        reads: dotted keys of the sections and values that influence it beyond its input files.
        verb: the words that call it; default: its name.
        version: raised when its results change for the same configuration: results made before are redone.
        in_processes: `gss launch` runs it in one or many processes, and it gains by GPUs.
        inputs: files of the results folder that it always reads.
        makes: files that it leaves there, in that order; `*` stands for a name.
        unread: keys inside of `reads` that do not.
        reads_for_reference: what it reads beside `reads` with `numerics: reference`.
        splits: of the data set, that it reads; none: the one that it is of.
        learns: those that all it makes depends on but what is in `figures`; default: all it reads.
        figures: the folder of its tables and pictures, for MLflow; its figures are shown under this name.
        title: what a report calls it; default: its name in words.
    """

    name: str
    text: str
    call: str
    reads: tuple[str, ...] = ()
    verb: str = ""
    version: int = 1
    in_processes: bool = False
    inputs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    reads_for_reference: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "val", "test")
    learns: tuple[str, ...] = ()
    figures: str = ""
    title: str = ""

    @property
    def trains(self) -> str:
        """Of a stage called by `gss train PART`, the part; else empty."""
        return self.verb.removeprefix("train ") if self.verb.startswith("train ") else ""

    @property
    def model(self) -> str | None:
        """The model file it makes."""
        return next((file for file in self.makes if file.endswith(".pth") and "*" not in file), None)


@dataclass(frozen=True)
class Recipe:
    """A system.

    Args:
        name: what `recipe` of an experiment says.
        experiment: the class of its experiments: the common sections and its own.
        stages: its rows, in the order of the chain.
        models: what is evaluated, by the name of its file (without `.pth`) and its title; the last one is what the
            chain is for.
        beside: files of the results folder that a model needs beside its own.
        publish: `module:function(run, model, output, ...)`, which writes a checkpoint of the published code.
        reported: files that its part of the report reads, and cannot do without.
        listed: figures worth a column in lists of runs, beside those of the final model.

    What is computed stands in modules of the recipe's folder, which `part` imports when they are needed:
        assemble   `read_beside(locate)`: the content of the files `beside`, from the function that finds them;
                   `build_segmenter(file, beside, protocol=, where=, device=)`: a `gss.evaluate.segmenter.Segmenter`;
                   `pack(file, beside, folder)` and `unpack(sizes, tensors)`: for an export as one folder;
                   `PROTOCOL`: what a model file says of its protocol beside the keys of `evaluation`;
        rehearse   `rehearse(run, space)`: builds the networks without their numbers, refuses what cannot be trained;
                   `largest(experiment, num_classes)`: its largest network, the key of its training, and the number of
                   model files it comes into; None where none trains; of one that trains, `learner(run, space, stage,
                   device)`: what a stage trains, of random weights, and `short(experiment)`: values by dotted key with
                   which every training has a few steps and nothing else takes long;
        benchmark  `learner(run, stage, world, watch)` and `segmenter(run, model, device, watch)` of random weights,
                   watched; `sections(experiment)`: what is measured beside trainings and models;
        report     `SECTIONS`, as `gss.report.page` has them, each with a template `report_NAME.html` beside it;
                   `checks(results)`: rows above those of the models; `ceiling(results, split)`: what no model of it
                   can exceed, or None; `facts(results)`: by term, a line each; `about(file)` and `network(file)`: a
                   sentence in Markdown and facts for the card of an exported model.
    """

    name: str
    experiment: "type[Experiment]"
    stages: tuple[Stage, ...]
    models: dict[str, str]
    beside: tuple[str, ...] = ()
    publish: str | None = None
    reported: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()

    @property
    def final(self) -> str:
        """The model that the chain is for."""
        return list(self.models)[-1]

    def part(self, name: str) -> ModuleType:
        """A module of the recipe's folder."""
        return importlib.import_module(f"{RECIPES[self.name].rpartition('.')[0]}.{name}")

    def stage(self, name: str) -> Stage:
        """The row of a stage.

        Raises:
            ConfigError: this recipe has none of this name.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        has = ", ".join(stage.name for stage in self.stages)
        raise ConfigError(f"recipe {self.name!r} has no stage {name!r}; it has {has}")


@cache
def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}", where="recipe")
    return importlib.import_module(RECIPES[name]).RECIPE


def recipes() -> Iterator[Recipe]:
    """All of them."""
    return map(find_recipe, RECIPES)


def recipe_of_model(model: str) -> Recipe:
    """The recipe whose chain makes a model.

    Raises:
        ConfigError: none does.
    """
    for recipe in recipes():
        if model in recipe.models:
            return recipe
    raise ConfigError(f"no recipe makes a model {model!r}; there are {', '.join(all_models())}")


def all_models() -> list[str]:
    """The models of all recipes."""
    return [model for recipe in recipes() for model in recipe.models]


def all_stages() -> dict[str, Stage]:
    """The stages of all recipes by name; of stages that several have, one."""
    return {stage.name: stage for recipe in recipes() for stage in recipe.stages}


def imported(call: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = call.partition(":")
    return getattr(importlib.import_module(module), function)


# Stages that every recipe has.
PREPARE = Stage(
    "prepare",
    "unpack a data set's archives where its folders are missing",
    "gss.stages.prepare:prepare",
    reads=("data.archives",),
    makes=(PREPARED,),
)
MAKE_LABELS = Stage(
    "labels",
    "make label files of annotation files",
    "gss.stages.labels:labels",
    reads=(
        "data.root",
        "data.splits",
        "data.annotations",
        "data.native_classes",
        "data.exif_orientation",
        "data.sources",
    ),
    makes=(LABELS,),
)
CHECK = Stage(
    "check",
    "scan a data set: pairs, ids, sizes; write the manifest",
    "gss.stages.check:check",
    reads=("data",),
    version=2,
    makes=(MANIFEST, STATISTICS),
    unread=("data.sampling",),
)

SUMMARISE = Stage(
    "summary",
    "sum up a model's figures on all sets of `evaluation.sets`",
    "gss.stages.evaluate:summarise",
    reads=("evaluation.sets",),
    makes=(SUMMARY,),
)


def evaluate(*reads: str, version: int = 1) -> Stage:
    """The row of the evaluation.

    Args:
        reads: keys beside `evaluation` and `numerics`.
    """
    return Stage(
        "evaluate",
        "measure a model on a split: metrics, tables, pictures",
        "gss.stages.evaluate:evaluate",
        reads=("evaluation", "numerics", *reads),
        version=version,
        in_processes=True,
        inputs=(MANIFEST,),
        splits=(),
        makes=(metrics("*", "*"),),
        unread=("evaluation.sets",),
    )
