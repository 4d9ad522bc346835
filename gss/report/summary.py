"""The results of an experiment as a few lines of text, for the end of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gss.report.sets import oracle_of
from gss.results.reader import Results
from gss.text import percent


def summary(folder: Path, page: Path) -> str:
    """Headline figures beside published ones, per-class IoU of the test (or last) split, and where to look for more.

    Args:
        folder: `results/<experiment>`.
        page: the report.
    """
    results = Results(folder)
    lines = [f"Results of {results.name}", ""]
    if not results.evaluations and not results.sets:
        todo = f"name {results.name} under `experiments` in config/config.yaml, then: snakemake all"
        return "\n".join([*lines, f"  nothing evaluated yet; {todo}", "", f"  {page} holds what there is"])
    lines += [line for note in results.notes() for line in (f"note: {note}", "")]
    if results.evaluations:
        lines += [*headline(results), ""]
    if results.sets:
        lines += [*test_sets(results), ""]
    if results.evaluations:
        lines += [f"IoU per class, {results.splits[0]}", "", *per_class(results, results.splits[0]), ""]
    measured = results.splits[0] if results.evaluations else next(iter(results.sets))[1]
    return "\n".join(lines + where_to_look(results, page, measured))


def headline(results: Results) -> list[str]:
    """One row per model and split, and one per check of the recipe; published figures where some are known."""
    published = results.published
    rows: list[tuple[str, ...]] = [("", "split", "mIoU", "mAcc", "aAcc", "images", "published mIoU", "mAcc")]
    checks = results.recipe.part("report").checks(results)
    rows += [(name, split, *_figures(found), "-", "-") for name, split, found in checks]
    for model, name in results.models.items():
        for split in sorted(results.splits):
            found = results.evaluations.get((model, split))
            if found is None:
                continue
            expected: Mapping[Any, float] = getattr(published, model, {}) if published.split == split else {}
            rows.append((name, split, *_figures(found.metrics), *map(_cell, map(expected.get, ("mIoU", "mAcc")))))
    known = any(row[6] != "-" for row in rows[1:])
    return table(rows if known else [row[:6] for row in rows])


def test_sets(results: Results) -> list[str]:
    """One row per model and test set with classes of its own, and the harmonic mean of each model."""
    rows: list[tuple[str, ...]] = [("test sets", "", "mIoU", "mAcc", "aAcc", "images")]
    rows += [(results.models[model], name, *_figures(found.metrics)) for (model, name), found in results.sets.items()]
    oracles = {name: oracle_of(results, name) for _, name in results.sets}
    rows += [("oracle", name, _cell(oracle["mIoU"]), "", "", "") for name, oracle in oracles.items() if oracle]
    for model, found in results.summaries.items():
        rows.append((results.models[model], "h_mean", _cell(found["h_mean"]), "", "", ""))
    return table(rows)


def per_class(results: Results, split: str) -> list[str]:
    """One row per class that labels or predictions have, one column per model."""
    found = {model: evaluation.metrics["IoU"] for model, evaluation in results.of_split(split).items()}
    names = list(next(iter(found.values())))
    met = [name for name in names if any(iou[name] is not None for iou in found.values())]
    rows = [("class", *(results.models[model] for model in found))]
    rows += [(name, *(_cell(iou[name]) for iou in found.values())) for name in met]
    unmet = [f"  and {len(names) - len(met)} classes in no label and no prediction"] if len(met) < len(names) else []
    return [*table(rows), *unmet]


def where_to_look(results: Results, page: Path, split: str) -> list[str]:
    """The files a reader wants next."""
    folder, final = results.folder, results.recipe.final
    return [
        "Where to look",
        f"  report      {page}   (everything on one page; open it in a browser)",
        f"  tables      {folder}/evaluation/{final}/{split}/per_class.csv, metrics.json",
        f"  model       {folder}/{final}.pth",
        "  runs        mlflow ui   (then open the address it prints; switch to 'Model training' at the top left)",
    ]


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells as aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _figures(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(_cell(metrics[key]) for key in ("mIoU", "mAcc", "aAcc")), str(metrics["images"]))


def _cell(fraction: float | None) -> str:
    return percent(fraction, 2, nothing="-")
