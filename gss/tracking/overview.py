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

from gss.config import Experiment
from gss.files import sha256_file
from gss.text import flatten, percent
from gss.tracking.journal import read_journal
from gss.tracking.store import sanitise

EVALUATED = re.compile(r"(evaluate_.+)_(?:val|test)")  # one run for the splits of a model
_TOLD = re.compile(r"palette|reconstruct|merge|import_gss_ft|evaluate_.+")  # stages whose journals are short
_HEADLINE = re.compile(r"/(?:mIoU|mAcc|aAcc)$")
_SHOWN = {"reconstruction/": "reconstruction", "gss_ff/": "GSS-FF", "gss_ft/": "GSS-FT"}
_FILES = ("*.json", "*.csv", "*.png")
_LONGEST = 7800  # characters of a description; MLflow keeps 8000 and cuts the rest without a word
# How the list of runs looks best, as MLflow's own button "Views" would store it.
VIEW = "gss-scores"
_COLUMNS = {
    "metrics.`test/mIoU`": 110,
    "metrics.`gss_ff/test/mIoU`": 145,
    "metrics.`reconstruction/test/mIoU`": 200,
    "metrics.`val/mIoU`": 110,
    "metrics.`gss_ff/val/mIoU`": 145,
    "tags.`classes`": 80,
    "tags.`backbone`": 170,
}


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


def tell(journals: Iterable[Path]) -> list[Told]:
    """The stages that stand for results, in order of their ends."""
    found = []
    for path in journals:
        if not _TOLD.match(path.parent.name):
            continue
        header, *events = read_journal(path) or [{}]
        if not events:
            continue
        told = Told(
            header["stage"],
            header["config_sha256"],
            header["experiment"],
            path.parents[1].name == "work",
            events[-1].get("end") == "finished",
            events[0]["t"],
            events[-1]["t"],
        )
        for event in events:
            told.params.update(event.get("params", {}))
            told.tags.update({name: str(value) for name, value in event.get("tags", {}).items()})
            told.points.extend(
                Point(name, float(value), event["t"], event["step"]) for name, value in event.get("m", {}).items()
            )
        found.append(told)
    return sorted(found, key=lambda told: told.last)


def behind(told: Sequence[Told], config: str) -> dict[str, Told]:
    """The stages behind a configuration's results, by name.

    A change of the configuration runs again only what depends on it; what was taken over are the last stages before
    the evaluation.
    """
    own = {stage.stage: stage for stage in told if stage.config.startswith(config)}
    evaluated = min((stage.first for stage in own.values() if stage.stage.startswith("evaluate_")), default=0)
    before = {
        stage.stage: stage for stage in told if stage.last < evaluated and not stage.stage.startswith("evaluate_")
    }
    return {**before, **own}


def figures(stages: Mapping[str, Told], names: dict[str, dict[str, str]], config: str) -> list[Point]:
    """All final figures: GSS-FT's under `gss_ft/`, the others under `gss_ff/` and `reconstruction/`.

    Args:
        names: given to metrics so far, by the keys of the runs.
    """
    found = []
    for name, stage in stages.items():
        run = EVALUATED.sub(r"\1", name)
        prefix = {"evaluate_gss_ft": "gss_ft/", "evaluate_gss_ff": "gss_ff/", "reconstruct": "reconstruction/"}.get(run)
        if prefix:
            known = names.setdefault(f"{config}/{run}", {})
            found += [
                point._replace(name=prefix + sanitise(point.name, known))
                for point in stage.points
                if point.name.startswith(("val/", "test/"))
            ]
    return found


def of_parent(points: Sequence[Point]) -> list[Point]:
    """Figures under the names the pipeline's run has them, GSS-FT's without a prefix.

    Of the reconstruction only the headline, of accuracies only means: MLflow compares runs in one table in the order
    of names, which for 150 classes is long enough.
    """
    return [
        point._replace(name=point.name.removeprefix("gss_ft/"))
        for point in points
        if _HEADLINE.search(point.name) or ("/iou/" in point.name and not point.name.startswith("reconstruction/"))
    ]


@dataclass(frozen=True)
class Results:
    """What lies in a results folder beside journals."""

    config: str  # hash of the configuration in config.yaml; empty: unknown
    settings: dict[str, Any]  # that can change a result, flat
    backbone: str
    report: tuple[str, str]  # hash of the configuration that report.html shows, and of its content

    @staticmethod
    def read(folder: Path) -> "Results":
        """The state of now; what is missing or not readable is left out."""
        experiment = None
        with contextlib.suppress(OSError, yaml.YAMLError, ValidationError):
            experiment = Experiment.model_validate(yaml.safe_load((folder / "config.yaml").read_text("utf-8")))
        report = ("", "")
        with contextlib.suppress(OSError):
            page = (folder / "report.html").read_bytes()
            named = re.search(rb'<meta name="config-sha256" content="([0-9a-f]+)">', page)
            report = (named[1].decode() if named else "", hashlib.sha256(page).hexdigest())
        if experiment is None:
            return Results("", {}, "", report)
        return Results(experiment.sha256, flatten(experiment.settings()), experiment.latent_prior.backbone.name, report)

    def files(self, folder: Path, stages: Mapping[str, Told], config: str) -> dict[str, str]:
        """Paths in the folder that belong to a configuration's results, with their SHA-256."""
        places = []
        for name, stage in stages.items():
            if stage.current and stage.finished:
                model, _, split = name.removeprefix("evaluate_").rpartition("_")
                places.append(
                    {"palette": "palette", "reconstruct": "reconstruction"}.get(name) or f"evaluation/{model}/{split}"
                )
        found = {path for place in places for pattern in _FILES for path in (folder / place).glob(pattern)}
        if self.config.startswith(config):
            found.add(folder / "config.yaml")
        hashes = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(found)}
        return hashes | ({"report.html": self.report[1]} if self.report[0].startswith(config) else {})


def description(points: Sequence[Point], *, report: bool, model: str | None) -> str:
    """The figures as a page in Markdown, for the head of the run.

    Args:
        points: of `figures`.
        report: whether `report.html` is among the files.
        model: name and number of the registered model, `gss-camvid/3`.
    """
    latest = {point.name: point.value for point in sorted(points, key=lambda point: point.time)}
    splits = sorted({name.split("/")[1] for name in latest}, key=("test", "val").index)
    if not splits:
        return ""
    lines = ["| percent | split | mIoU | mAcc | aAcc |", "|---|---|---|---|---|"]
    lines += [
        f"| {shown} | {split} | "
        + " | ".join(percent(latest.get(f"{prefix}{split}/{metric}"), 2) for metric in ("mIoU", "mAcc", "aAcc"))
        + " |"
        for split in splits
        for prefix, shown in _SHOWN.items()
        if f"{prefix}{split}/mIoU" in latest
    ]
    lines += ["", *_where_to_look(report=report, model=model), ""]
    return "\n".join([*lines, *_per_class(latest, splits[0], _LONGEST - len("\n".join(lines)))])


def _where_to_look(*, report: bool, model: str | None) -> list[str]:
    lines = [
        "**Artifacts**: "
        + ("`report.html` has everything on one page; " if report else "")
        + "tables and figures of each stage lie in `evaluation/` and `reconstruction/`.",
        "**Two pipelines**: tick both in the list of runs, *Compare*, section *Metrics*: `test/iou/` is GSS-FT, "
        "`gss_ff/test/iou/` GSS-FF.",
        "**Curves**: the runs below this one (`+` beside its name in the list).",
    ]
    if model:
        name, number = model.split("/")
        lines.append(f"**Model**: [{name}, version {number}](#/models/{name}/versions/{number}).")
    return [f"- {line}" for line in lines]


def _per_class(latest: Mapping[str, float], split: str, room: int) -> list[str]:
    """IoU of each class, the one that gains most from X^-1 first; those that gain and lose least where room lacks."""
    iou = {
        prefix: {
            name.removeprefix(f"{prefix}{split}/iou/"): value
            for name, value in latest.items()
            if name.startswith(f"{prefix}{split}/iou/")
        }
        for prefix in _SHOWN
    }
    final, first = iou["gss_ft/"], iou["gss_ff/"]
    gain = {name: final[name] - first[name] for name in final if name in first}
    order = sorted(dict.fromkeys([*final, *first]), key=lambda name: (-gain.get(name, 0), name))
    if not order:
        return []
    rows = {
        name: "| "
        + " | ".join(
            [
                name.replace("_", r"\_"),
                *(percent(iou[prefix].get(name), 2) for prefix in _SHOWN),
                f"{100 * gain[name]:+.2f}" if name in gain else "–",
            ]
        )
        + " |"
        for name in order
    }
    head = [
        f"**IoU per class, {split}**, percent; what X⁻¹ gains most comes first",
        "",
        f"| class | {' | '.join(_SHOWN.values())} | FT − FF |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(order, key=lambda name: abs(gain.get(name, 0))):
        if sum(len(line) + 1 for line in [*head, *rows.values()]) + 100 <= room:
            break
        del rows[name]
    cut = len(order) - len(rows)
    note = ["", f"{cut} classes with smaller differences are left out here; the report has all."] if cut else []
    return [*head, *rows.values(), *note]


def saved_view(created: int) -> str:
    """The view "Scores" of the list of runs: pipelines only, mIoU of GSS-FT, GSS-FF and reconstruction as columns.

    Args:
        created: ms.
    """
    state = {
        "searchFilter": 'tags.stage = "pipeline"',
        "selectedColumns": [*_COLUMNS],
        "columnOrder": [*_COLUMNS],
        "columnWidths": _COLUMNS,
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
    points = figures(stages, names, config)
    experiment = client.get_experiment(present.info.experiment_id)
    tags = {"dataset": experiment.name.removeprefix("gss/")}
    if "palette" in stages:
        count = {point.name: point.value for point in stages["palette"].points}.get("palette/num_classes", 0)
        tags["classes"] = str(int(count))
    settings: dict[str, Any] = {}
    if results.config.startswith(config):
        settings, tags["backbone"] = results.settings, results.backbone
    if text := description(points, report=results.report[0].startswith(config), model=model):
        tags["mlflow.note.content"] = text
    client.log_batch(
        run,
        [Metric(point.name, point.value, point.time, point.step) for point in of_parent(points)],
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
