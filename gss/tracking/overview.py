"""What the run of a pipeline shows of its stages: figures, settings, a description, tables and pictures.

All is derived from journals and results files again whenever one of them changed, and what the store has already is
left alone: so it may break off anywhere, and what an earlier version left out is added.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from gss.config import Recipe, experiment_class, find_recipe, recipes
from gss.errors import ConfigError, GssError
from gss.files import read_json, sha256_file
from gss.layout import CONFIG, REPORT, SEEDS, SEEDS_TABLE, STATISTICS, WORK
from gss.results.journal import read_journal
from gss.text import flatten, percent
from gss.tracking.source import PACKAGES, source_tags
from gss.tracking.store import sanitise

EVALUATED = re.compile(r"(evaluate_.+)_[^_]+")  # one run for the splits and test sets of a model
_MEASURED = ("evaluate_", "summary_")
_HEADLINE = re.compile(r"/(?:mIoU|mAcc|aAcc|h_mean)(?:_std)?$")
_FILES = ("*.json", "*.csv", "*.png")
_LONGEST = 7800  # characters of a description; MLflow keeps 8000 and cuts the rest without a word
VIEW = "gss-scores"


class Point(NamedTuple):
    """A number of a stage."""

    name: str
    value: float
    time: int  # ms
    step: int


@dataclass(frozen=True)
class Told:
    """What the journal of a stage says, from its first to its last line."""

    stage: str
    config: str  # hash of the configuration
    experiment: str
    current: bool  # not put aside for another configuration or other inputs
    finished: bool
    first: int  # ms
    last: int
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)


def makes_final(recipe: Recipe, stage: str) -> bool:
    """Whether a stage makes the model that the chain is for."""
    final = [row.name for row in recipe.stages if row.model == f"{recipe.final}.pth"]
    return stage in (*final, f"import_{recipe.final}")


def tell(journals: Iterable[Path], recipe: Recipe) -> list[Told]:
    """The stages that stand for results, in order of their ends."""
    found = []
    shown = [row.name for row in recipe.stages if row.figures]
    for path in journals:
        name = path.parent.name
        if not (name in shown or name == SEEDS or name.startswith(_MEASURED) or makes_final(recipe, name)):
            continue
        header, *events = read_journal(path) or [{}]
        if not events:
            continue
        told = Told(
            header["stage"],
            header["config_sha256"],
            header["experiment"],
            path.parents[1].name == WORK,
            events[-1].get("end") == "finished",
            events[0]["t"],
            events[-1]["t"],
        )
        for event in events:
            told.params.update(event.get("params", {}))
            told.tags.update({name: str(value) for name, value in event.get("tags", {}).items() if name != PACKAGES})
            told.points.extend(
                Point(name, float(value), event["t"], event["step"]) for name, value in event.get("m", {}).items()
            )
        found.append(told)
    return sorted(found, key=lambda told: told.last)


def behind(told: Sequence[Told], config: str) -> dict[str, Told]:
    """The stages behind a configuration's results, by name.

    A change of the configuration runs again only what depends on it; what was taken over are the last stages before
    the evaluation, and of the same model and protocol what is measured on other splits and test sets.
    """
    own = {stage.stage: stage for stage in told if stage.config.startswith(config)}
    evaluated = min((stage.first for stage in own.values() if stage.stage.startswith("evaluate_")), default=0)
    before = {stage.stage: stage for stage in told if stage.last < evaluated and not stage.stage.startswith(_MEASURED)}
    measured = [stage for stage in told if stage.current and stage.stage.startswith("evaluate_")]
    same = [_measuring(stage) for stage in measured if own.get(stage.stage) is stage]
    before |= {stage.stage: stage for stage in measured if _measuring(stage) in same}
    return {**before, **own}


def _measuring(stage: Told) -> tuple[dict[str, Any], dict[str, str]]:
    """What an evaluation depends on beside what it is on: settings, and hashes of what is no data set."""
    settings = {key: value for key, value in stage.params.items() if not key.startswith("evaluation.sets")}
    inputs = {
        key: value
        for key, value in stage.tags.items()
        if key.startswith("input ") and not key.startswith("input data/")
    }
    return settings, inputs


def shown(recipe: Recipe) -> dict[str, str]:
    """Titles of what has figures, by the beginning of their names: checks first, then the models."""
    checks = {f"{row.figures}/": row.figures for row in recipe.stages if row.figures}
    return checks | {f"{model}/": title for model, title in recipe.models.items()}


def figures(stages: Mapping[str, Told], names: dict[str, dict[str, str]], config: str, recipe: Recipe) -> list[Point]:
    """All final figures, those of a model under its name, those of a check under its folder's.

    Args:
        names: given to metrics so far, by the keys of the runs.
    """
    found = []
    prefixes = {row.name: f"{row.figures}/" for row in recipe.stages if row.figures}
    prefixes |= {f"{what}{model}": f"{model}/" for model in recipe.models for what in _MEASURED}
    for name, stage in stages.items():
        run = EVALUATED.sub(r"\1", name)
        prefix = prefixes.get(run)
        if name == SEEDS:
            known = names.setdefault(f"{config}/{run}", {})
            found += [point._replace(name=sanitise(point.name, known)) for point in stage.points]
        if prefix:
            known = names.setdefault(f"{config}/{run}", {})
            found += [
                point._replace(name=prefix + sanitise(point.name, known))
                for point in stage.points
                if point.name.startswith(("val/", "test/"))
                or (name.startswith(_MEASURED) and _HEADLINE.search(f"/{point.name}"))
            ]
    return found


def of_parent(points: Sequence[Point], recipe: Recipe) -> list[Point]:
    """Figures under the names the pipeline's run has them, those of the final model without a prefix.

    Of checks only the headline, of accuracies only means: MLflow compares runs in one table in the order
    of names, which for 150 classes is long enough.
    """
    models = tuple(f"{model}/" for model in recipe.models)
    return [
        point._replace(name=point.name.removeprefix(f"{recipe.final}/"))
        for point in points
        if _HEADLINE.search(point.name) or ("/iou/" in point.name and point.name.startswith(models))
    ]


@dataclass(frozen=True)
class Results:
    """What lies in a results folder beside journals."""

    config: str  # hash of the configuration in config.yaml; empty: unknown
    settings: dict[str, Any]  # that can change a result, flat
    backbone: str
    recipe: str
    classes: int
    report: tuple[str, str]  # hash of the configuration that report.html shows, and of its content

    @staticmethod
    def read(folder: Path) -> "Results":
        """The state of now; what is missing or not readable is left out."""
        experiment, recipe = None, "gss"
        with contextlib.suppress(OSError, yaml.YAMLError, ValidationError, ConfigError, AttributeError):
            content = yaml.safe_load((folder / CONFIG).read_text("utf-8"))
            recipe = content.get("recipe", recipe)
            experiment = experiment_class(content).model_validate(content)
        report = ("", "")
        with contextlib.suppress(OSError):
            page = (folder / REPORT).read_bytes()
            named = re.search(rb'<meta name="config-sha256" content="([0-9a-f]+)">', page)
            report = (named[1].decode() if named else "", hashlib.sha256(page).hexdigest())
        classes = 0
        with contextlib.suppress(GssError, KeyError, TypeError):
            classes = len(read_json(folder / STATISTICS)["splits"]["train"]["classes"])
        if experiment is None:
            return Results("", {}, "", recipe, 0, report)
        return Results(experiment.sha256, flatten(experiment.settings()), experiment.encoder, recipe, classes, report)

    def files(self, folder: Path, stages: Mapping[str, Told], config: str) -> dict[str, str]:
        """Paths in the folder that belong to a configuration's results, with their SHA-256."""
        places = []
        folders = {row.name: row.figures for row in find_recipe(self.recipe).stages}
        for name, stage in stages.items():
            if stage.current and stage.finished and name != SEEDS:
                model, _, split = name.removeprefix("evaluate_").rpartition("_")
                summed = f"evaluation/{name.removeprefix('summary_')}" if name.startswith("summary_") else ""
                places.append(folders.get(name) or summed or f"evaluation/{model}/{split}")
        found = {path for place in places for pattern in _FILES for path in (folder / place).glob(pattern)}
        if self.config.startswith(config):
            found |= {path for file in (CONFIG, SEEDS_TABLE) if (path := folder / file).is_file()}
        hashes = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(found)}
        return hashes | ({REPORT: self.report[1]} if self.report[0].startswith(config) else {})


def description(points: Sequence[Point], recipe: Recipe, *, report: bool, model: str | None) -> str:
    """The figures as a page in Markdown, for the head of the run.

    Args:
        points: of `figures`.
        report: whether `report.html` is among the files.
        model: name and number of the registered model, `gss-camvid/3`.
    """
    latest = {point.name: point.value for point in sorted(points, key=lambda point: point.time)}
    found = {name.split("/")[1] for name in latest if name.count("/") > 1}
    splits = [*(split for split in ("test", "val") if split in found), *sorted(found - {"test", "val"})]
    if not splits:
        return ""
    lines = ["| percent | split | mIoU | mAcc | aAcc |", "|---|---|---|---|---|"]
    lines += [
        f"| {title} | {split} | "
        + " | ".join(_with_spread(latest, f"{prefix}{split}/{metric}") for metric in ("mIoU", "mAcc", "aAcc"))
        + " |"
        for split in splits
        for prefix, title in shown(recipe).items()
        if f"{prefix}{split}/mIoU" in latest
    ]
    lines += [
        f"| {title} | all sets | h_mean {_with_spread(latest, name)} | | |"
        for model, title in recipe.models.items()
        if (name := f"{model}/h_mean") in latest
    ]
    lines += ["", *_where_to_look(recipe, report=report, model=model), ""]
    return "\n".join([*lines, *_per_class(latest, recipe, splits[0], _LONGEST - len("\n".join(lines)))])


def _with_spread(latest: Mapping[str, float], name: str) -> str:
    std = latest.get(f"{name}_std")
    return percent(latest.get(name), 2) + ("" if std is None else f" ± {percent(std, 2)}")


def _where_to_look(recipe: Recipe, *, report: bool, model: str | None) -> list[str]:
    names = [
        f"`{'' if name == recipe.final else f'{name}/'}test/iou/` is {title}" for name, title in recipe.models.items()
    ]
    lines = [
        "**Artifacts**: "
        + ("`report.html` has everything on one page; " if report else "")
        + "tables and figures of each stage lie in folders of its name.",
        f"**Two pipelines**: tick both in the list of runs, *Compare*, section *Metrics*: {', '.join(names[::-1])}.",
        "**Curves**: the runs below this one (`+` beside its name in the list).",
    ]
    if model:
        name, number = model.split("/")
        lines.append(f"**Model**: [{name}, version {number}](#/models/{name}/versions/{number}).")
    return [f"- {line}" for line in lines]


def _per_class(latest: Mapping[str, float], recipe: Recipe, split: str, room: int) -> list[str]:
    """IoU of each class, what the last model gains most in first; without those that gain least where room lacks."""
    iou: dict[str, dict[str, float]] = {
        prefix: {
            name.removeprefix(f"{prefix}{split}/iou/"): value
            for name, value in latest.items()
            if name.startswith(f"{prefix}{split}/iou/")
        }
        for prefix in shown(recipe)
    }
    titles = {prefix: title for prefix, title in shown(recipe).items() if iou[prefix]}
    models = [f"{model}/" for model in recipe.models]
    final, first = iou[models[-1]], iou[models[0]]
    compared = len(models) > 1
    gain = {name: final[name] - first[name] for name in final if name in first} if compared else {}
    order = sorted(dict.fromkeys([*final, *first]), key=lambda name: (-gain.get(name, 0), name))
    if not order:
        return []
    rows = {
        name: "| "
        + " | ".join(
            [
                name.replace("_", r"\_"),
                *(percent(iou[prefix].get(name), 2) for prefix in titles),
                *([f"{100 * gain[name]:+.2f}" if name in gain else "–"] if compared else []),
            ]
        )
        + " |"
        for name in order
    }
    names = [title.removeprefix("GSS-") for title in recipe.models.values()]
    difference = f"{names[-1]} − {names[0]}"
    head = [
        f"**IoU per class, {split}**, percent" + ("; what gains most comes first" if compared else ""),
        "",
        "| " + " | ".join(["class", *titles.values(), *([difference] if compared else [])]) + " |",
        "|---" * (1 + len(titles) + compared) + "|",
    ]
    for name in sorted(order, key=lambda name: abs(gain.get(name, 0))):
        if sum(len(line) + 1 for line in [*head, *rows.values()]) + 100 <= room:
            break
        del rows[name]
    cut = len(order) - len(rows)
    note = ["", f"{cut} classes with smaller differences are left out here; the report has all."] if cut else []
    return [*head, *rows.values(), *note]


def saved_view(created: int) -> str:
    """The view "Scores" of the list of runs, as MLflow's own button "Views" would store it: pipelines only, and as
    columns the mIoU of the final models, what recipes list, and what tells the runs apart.

    Args:
        created: ms.
    """
    figures = ("test/mIoU", "test/mIoU_std", "val/mIoU", *(figure for recipe in recipes() for figure in recipe.listed))
    widths = {f"metrics.`{figure}`": 65 + 5 * len(figure) for figure in figures}
    widths |= {"tags.`recipe`": 80, "tags.`classes`": 80, "tags.`backbone`": 170}
    state = {
        "searchFilter": 'tags.stage = "pipeline"',
        "selectedColumns": [*widths],
        "columnOrder": [*widths],
        "columnWidths": widths,
    }
    return json.dumps({"name": "Scores", "createdAt": created, "updatedAt": created, "state": json.dumps(state)})


def show(
    client: Any,
    run: str,
    config: str,
    stages: Mapping[str, Told],
    results: Results,
    names: dict[str, dict[str, str]],
    model: str | None,
) -> None:
    """Give a pipeline's run the figures, settings, tags and description that it lacks.

    Args:
        client: of the store.
        run: its id.
        config: first digits of its configuration's hash.
        stages: of `behind`.
        results: what lies in its folder.
        names: given to metrics and parameters so far, by the keys of the runs; new ones are added.
        model: see `description`.
    """
    from mlflow.entities import Metric, Param, RunTag

    present, known = client.get_run(run), names.setdefault(config, {})
    recipe = find_recipe(results.recipe)
    points = figures(stages, names, config, recipe)
    experiment = client.get_experiment(present.info.experiment_id)
    tags = {"dataset": experiment.name.removeprefix("gss/")}
    settings: dict[str, Any] = {}
    if results.config.startswith(config):
        settings = results.settings
        tags |= {"backbone": results.backbone, "recipe": results.recipe}
        tags |= {"classes": str(results.classes)} if results.classes else {}
    tags |= source_tags(told[-1].tags if (told := list(stages.values())) else {}) | {"mlflow.source.name": "Snakefile"}
    if text := description(points, recipe, report=results.report[0].startswith(config), model=model):
        tags["mlflow.note.content"] = text
    client.log_batch(
        run,
        [Metric(point.name, point.value, point.time, point.step) for point in of_parent(points, recipe)],
        [
            Param(key, str(value))
            for name, value in settings.items()
            if (key := sanitise(name, known)) not in present.data.params
        ],  # MLflow refuses to change one
        [RunTag(key, value) for key, value in tags.items() if present.data.tags.get(key) != value],
    )
    if f"mlflow.sharedViewState.{VIEW}" not in experiment.tags:
        client.set_experiment_tag(
            experiment.experiment_id, f"mlflow.sharedViewState.{VIEW}", saved_view(experiment.creation_time)
        )
