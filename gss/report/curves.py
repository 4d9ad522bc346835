"""The section of the report with training curves, drawn as SVG from the journals."""

from collections.abc import Iterable, Mapping
from typing import Any

from gss.config import Recipe
from gss.errors import GssError
from gss.layout import WORK
from gss.results.reader import Results

POINTS = 240  # of a curve; of longer ones, the lowest and highest of every stretch
WIDTH, HEIGHT = 300, 110  # of a panel, SVG units
OF_CLASSES = "val/iou/"  # curves of single classes stand apart: there may be hundreds
ORDER = ("loss", "acc", "miou", "tokens", "lr", "grad", "img_per_s", "data_wait", "memory")

OVERLAID = ("train/loss", "val/mIoU")  # what the curves of several seeds are compared by

Point = tuple[float, float]


def curves(results: Results) -> list[dict[str, Any]]:
    """The panels of each stage that trained; of the IoU of single classes in `classes`, in the order of the classes.

    Raises:
        GssError: no journal holds a curve; says why.
    """
    found, recipe = [], results.recipe
    for stage, events in results.journals.items():
        panels = [_panel(name, points) for name, points in _series(events).items() if len(points) > 1]
        classes = [panel for panel in panels if panel["name"].startswith(OF_CLASSES)]
        others = sorted((panel for panel in panels if panel not in classes), key=lambda panel: _rank(panel["name"]))
        if panels:
            found.append({"stage": stage, "title": _title(recipe, stage), "panels": others, "classes": classes})
    if found:
        return found
    first = next(iter(recipe.experiment.trainings), "")  # of the network that everything else is behind
    if imported := results.setting(f"{first}.checkpoint"):
        raise GssError(f"nothing was trained here: the model was imported from {imported}, which holds no curves")
    if results.journals:
        raise GssError("no training has written figures yet", where=results.folder / WORK)
    raise GssError(
        "the journals are gone",
        where=results.folder / WORK,
        todo="nothing: the folder may be deleted when the results stand; MLflow still has the curves",
    )


def overlaid(runs: Mapping[str, Results]) -> list[dict[str, Any]]:
    """The curves of what a training is judged by, of several runs in one panel: loss and mIoU, by stage.

    Args:
        runs: of one experiment, by the name that a panel has for them.
    """
    found: dict[str, dict[str, dict[str, list[Point]]]] = {}  # stage -> metric -> run
    for run, results in runs.items():
        for stage, events in results.journals.items():
            for name, points in _series(events).items():
                if len(points) > 1 and name.endswith(OVERLAID):
                    found.setdefault(stage, {}).setdefault(name, {})[run] = points
    recipe = next(iter(runs.values())).recipe
    return [
        {"title": _title(recipe, stage), "panels": [_overlay(name, metrics[name]) for name in sorted(metrics)]}
        for stage, metrics in found.items()
    ]


def _title(recipe: Recipe, stage: str) -> str:
    titles = {row.name: row.title for row in recipe.stages if row.title}
    return titles.get(stage, stage.replace("_", " ").capitalize())


def _series(events: list[dict[str, Any]]) -> dict[str, list[Point]]:
    """Metric -> points in the order of their steps; of a step that was repeated, the last value."""
    series: dict[str, dict[float, float]] = {}
    for event in events:
        for name, value in event.get("m", {}).items():
            if isinstance(value, int | float) and abs(value) < float("inf"):  # NaN fails, too
                series.setdefault(name, {})[event["step"]] = value
    return {name: sorted(points.items()) for name, points in series.items()}


def _rank(name: str) -> tuple[int, str]:
    short = name.rpartition("/")[2].lower()
    return next((place for place, word in enumerate(ORDER) if word in short), len(ORDER)), name


def _panel(name: str, points: list[Point]) -> dict[str, Any]:
    drawn = _overlay(name, {name: points})
    return {
        **drawn,
        "path": drawn["paths"][name],
        "points": ";".join(f"{x:g},{y:.5g}" for x, y in _thinned(points)),
        "last": f"{points[-1][1]:.4g}",
    }


def _overlay(name: str, curves: Mapping[str, list[Point]]) -> dict[str, Any]:
    """A panel with several curves on the same axes."""
    every = [point for points in curves.values() for point in points]
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*every, strict=True))
    width, rise = (x1 - x0) or 1.0, (y1 - y0) or 1.0

    def path(points: list[Point]) -> str:
        shown = [((x - x0) / width * WIDTH, (1 - (y - y0) / rise) * HEIGHT) for x, y in _thinned(points)]
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)

    return {
        "name": name,
        "short": name.removeprefix("train/").removeprefix(OF_CLASSES),
        "paths": {run: path(points) for run, points in curves.items()},
        "low": f"{y0:.4g}",
        "high": f"{y1:.4g}",
        "first": f"{x0:g}",
        "steps": f"{x1:g}",
    }


def _thinned(points: list[Point]) -> Iterable[Point]:
    """At most about `POINTS` of them, with every extreme."""
    if len(points) <= POINTS:
        return points
    stretch = -(-2 * len(points) // POINTS)
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [points[0], *(point for point in kept if point not in (points[0], points[-1])), points[-1]]
