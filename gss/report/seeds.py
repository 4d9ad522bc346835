"""`report.html` of an experiment with `seeds`: mean and spread of its runs, each of which has a page of its own."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gss.config import experiment_class, seed_parts
from gss.config.experiment import Experiment
from gss.errors import GssError
from gss.files import sha256_file, sha256_json, write_table, write_text
from gss.layout import CONFIG, REPORT, SEEDS, SEEDS_TABLE, SUMMARY, WORK
from gss.report.curves import overlaid
from gss.report.html import write_page
from gss.report.scores import class_colours, require_evaluations
from gss.report.summary import table as aligned
from gss.results.journal import Journal
from gss.results.reader import SPLITS, Results
from gss.results.records import write_record
from gss.results.work import open_work
from gss.text import flatten, percent

if TYPE_CHECKING:
    from pandas import DataFrame

HEADLINE = ("mIoU", "mAcc", "aAcc")
_ALL_SETS = "all sets"  # in the place of a split


def write_seeds(folder: Path, seeds: Sequence[Path]) -> str:
    """Write `report.html`, `seeds.csv` and `config.yaml` of all seeds, and a journal that brings their means to MLflow.

    Args:
        folder: `results/<experiment>`.
        seeds: results folders of its seeds, one or more.

    Returns:
        The headline figures as text, and where to look.

    Raises:
        GssError: no seed was evaluated, or a file cannot be written.
    """
    every = [Results(seed) for seed in seeds]
    runs = [run for run in every if run.evaluations]
    if not runs:
        require_evaluations(every[0])
    numbers = [seed_parts(run.name)[1] for run in runs]
    scores = spread(runs)
    config = {**runs[0].config, "seed": 0, "seeds": numbers}
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
    columns = ["split", "model", "figure", "mean", "std", *(f"seed_{number}" for number in numbers)]
    write_table(folder / SEEDS_TABLE, columns, ([*key, *row] for key, row in _rows(scores)))
    notes = [*_differing(runs), *_lacking(every), *(f"{run.name}: {note}" for run in runs for note in run.notes())]
    digest = _sha256(config)
    names = {key[0] for key in scores.index}
    splits = [
        *(split for split in SPLITS if split in names),
        *dict.fromkeys(name for run in runs for _, name in run.sets),
    ]
    own = [key[2] for key in scores.index if key[0] in SPLITS and key[2].startswith("iou/")]
    classes = list(dict.fromkeys(name.removeprefix("iou/") for name in own))
    write_page(
        folder / REPORT,
        "seeds.html",
        title=f"{folder.name}: {len(runs)} seeds",
        name=folder.name,
        config_sha256=digest,
        notes=notes,
        seeds=[f"seed_{number}" for number in numbers],
        models=runs[0].models,
        tables=[_table(scores, split, runs[0]) for split in splits],
        h_means={key[1]: values for key, values in _rows(scores) if key[0] == _ALL_SETS},
        colours=dict(zip(classes, class_colours(runs[0], len(classes)), strict=True)),
        curves=overlaid({run.folder.name: run for run in runs}),
    )
    inputs = {
        str(path.relative_to(folder)): sha256_file(path)
        for run in runs
        for path in [*_measured(run), run.folder / REPORT]
        if path.is_file()
    }
    _tell_mlflow(folder, runs[0], scores, {"seeds": ", ".join(map(str, numbers))}, digest, inputs)
    write_record(folder, "report", {"settings": {}, "inputs": inputs})
    return "\n".join([*_as_text(folder, scores, runs[0], notes), ""])


def _measured(run: Results) -> Iterator[Path]:
    """The files of its figures."""
    yield from (found.folder / "metrics.json" for found in (*run.evaluations.values(), *run.sets.values()))
    yield from (run.folder / SUMMARY.replace("*", model) for model in run.summaries)


def spread(runs: Sequence[Results]) -> "DataFrame":
    """Fractions by split or test set, model and figure: `mean`, `std` (n - 1), and each run.

    Figures are mIoU, mAcc, aAcc and `iou/CLASS`, and `h_mean` of all test sets.

    A figure that some runs lack has NaN there and is the mean of the others.
    """
    import pandas as pd

    found = {
        run.folder.name: {
            (split, model, name): value
            for (model, split), evaluation in {**run.evaluations, **run.sets}.items()
            for name, value in _figures(evaluation.metrics)
        }
        | {(_ALL_SETS, model, "h_mean"): summary["h_mean"] for model, summary in run.summaries.items()}
        for run in runs
    }
    table = pd.DataFrame(found, dtype="float64")
    keys = dict.fromkeys(key for each in found.values() for key in each)  # pandas sorts them otherwise
    table = table.reindex(pd.MultiIndex.from_tuples(list(keys)))
    values = table[list(found)]
    table.insert(0, "mean", values.mean(axis=1))
    table.insert(1, "std", values.std(axis=1))
    return table


def _figures(metrics: Any) -> Iterator[tuple[str, float | None]]:
    yield from ((name, metrics[name]) for name in HEADLINE)
    yield from ((f"iou/{name}", value) for name, value in metrics["IoU"].items())


def _rows(scores: "DataFrame") -> Iterator[tuple[tuple[str, str, str], list[float | None]]]:
    """Keys and values; None where there is no number."""
    for key, *values in scores.itertuples(name=None):
        yield key, [None if value != value else value for value in values]


def _table(scores: "DataFrame", split: str, run: Results) -> dict[str, Any]:
    """What the page shows of a split: of each model the headline figures, of each class the models' IoU."""
    rows = {key[1:]: values for key, values in _rows(scores) if key[0] == split}
    models = [model for model in run.models if any(key[0] == model for key in rows)]
    names = dict.fromkeys(name.removeprefix("iou/") for _, name in rows if name.startswith("iou/"))
    classes = {name: {model: rows.get((model, f"iou/{name}")) for model in models} for name in names}
    shown = {
        name: found for name, found in classes.items() if any(each and each[0] is not None for each in found.values())
    }
    return {
        "split": split,
        "headline": {model: {name: rows[model, name] for name in HEADLINE} for model in models},
        "classes": shown,
        "absent": len(classes) - len(shown),
    }


def _differing(runs: Sequence[Results]) -> Iterator[str]:
    """What else than the seed the runs were made with; a key that an earlier version did not know has its default."""
    settings = [{key: value for key, value in flatten(_complete(run.config)).items() if _counts(key)} for run in runs]
    for run, other in zip(runs[1:], settings[1:], strict=True):
        keys = [key for key in {**settings[0], **other} if settings[0].get(key) != other.get(key)]
        if keys:
            changes = ", ".join(f"{key} {settings[0].get(key)} → {other.get(key)}" for key in keys)
            yield f"{run.name} was made with other settings than {runs[0].name}: {changes}"


def _counts(key: str) -> bool:
    return key not in ("seed", "base") and key.split(".")[0] not in ("run", "published", "seeds")


def _lacking(every: Sequence[Results]) -> Iterator[str]:
    wanted = list(dict.fromkeys(key for run in every for key in run.evaluations))
    for run in every:
        if missing := [f"{model} on {split}" for model, split in wanted if (model, split) not in run.evaluations]:
            yield f"{run.name} lacks {', '.join(missing)}; to make it: snakemake {run.folder}/report.html"


def _experiment(config: dict[str, Any]) -> Experiment | None:
    """What a stored configuration says; None: this version does not understand it."""
    try:
        return experiment_class(config).model_validate(config)
    except (GssError, ValueError):
        return None


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    known = _experiment(config)
    return known.model_dump(mode="json") if known else config


def _sha256(config: dict[str, Any]) -> str:
    """Hash of what can change a result, as `gss.tracking.overview` works it out; of another version's, of all."""
    known = _experiment(config)
    return known.sha256 if known else sha256_json(config)


def _tell_mlflow(
    folder: Path, run: Results, scores: "DataFrame", tags: dict[str, str], digest: str, inputs: dict[str, str]
) -> None:
    """Write the means, and spreads as `..._std`, into a journal: they are delivered as those of a stage."""
    work = folder / WORK / SEEDS
    if message := open_work(work, {"stage": SEEDS, "config": {"sha256": digest}, "inputs": inputs}):
        print(message, flush=True)
    header = {
        "experiment": folder.name,
        "stage": SEEDS,
        "dataset": Path(str(run.setting("data.root"))).name,
        "config_sha256": digest,
    }
    with Journal(work / "journal.jsonl", header) as journal:
        figures: dict[str, float] = {}
        for (split, model, name), (mean, std, *_) in _rows(scores):
            if split not in SPLITS and name.startswith("iou/"):
                continue
            figure = f"{model}/{name}" if split == _ALL_SETS else f"{model}/{split}/{name}"
            known = {figure: mean, f"{figure}_std": None if name.startswith("iou/") else std}
            figures |= {key: value for key, value in known.items() if value is not None}
        journal.tags({**tags, **{f"input {name}": digest for name, digest in inputs.items()}})
        journal.figures(figures)


def _as_text(folder: Path, scores: "DataFrame", run: Results, notes: Sequence[str]) -> Iterator[str]:
    seeds = list(scores.columns[2:])
    yield f"Results of {folder.name}, mean ± standard deviation over {len(seeds)} seeds"
    yield ""
    for note in notes:
        yield from (f"note: {note}", "")
    rows: list[tuple[str, ...]] = [("", "split", *HEADLINE, *(f"mIoU {seed}" for seed in seeds))]
    tables = [_table(scores, split, run) for split in sorted({key[0] for key in scores.index} - {_ALL_SETS})]
    for table in tables:
        for model, figures in table["headline"].items():
            cells = (f"{percent(mean, 2)} ± {percent(std, 2)}" for mean, std, *_ in figures.values())
            each = (percent(value, 2) for value in figures["mIoU"][2:])
            rows.append((run.models[model], table["split"], *cells, *each))
    for (split, model, _), (mean, std, *values) in _rows(scores):
        if split == _ALL_SETS:
            each = (percent(value, 2) for value in values)
            rows.append((run.models[model], "h_mean", f"{percent(mean, 2)} ± {percent(std, 2)}", "", "", *each))
    yield from aligned(rows)
    yield from ("", "Where to look", f"  report      {folder}/report.html   (of all seeds; it leads to that of each)")
    yield f"  table       {folder}/seeds.csv"
