"""The results of an experiment as a few lines of text, for the end of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.files import read_json

MODELS = {"gss_ff": "GSS-FF", "gss_ft": "GSS-FT"}


def summary(folder: Path) -> str:
    """Headline figures, per-class IoU of the test (or last) split, and where to look for more.

    Args:
        folder: `results/<experiment>`.

    Raises:
        GssError: nothing was evaluated there yet.
    """
    found = {
        (name, path.parent.name): read_json(path)
        for name in MODELS
        for path in sorted((folder / "evaluation" / name).glob("*/metrics.json"))
    }
    if not found:
        todo = f"name {folder.name} under `experiments` in config/config.yaml, then: snakemake all"
        raise GssError("nothing evaluated yet", where=folder, todo=todo)
    lines = [f"Results of {folder.name}", "", *headline(folder, found), ""]
    split = "test" if any(s == "test" for _, s in found) else next(s for _, s in found)
    lines += [f"IoU per class, {split}", "", *per_class({n: m for (n, s), m in found.items() if s == split}), ""]
    return "\n".join(lines + where_to_look(folder, split))


def headline(folder: Path, found: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """One row per model and split, and one per reconstruction check."""
    rows = [("", "split", "mIoU", "mAcc", "aAcc", "images")]
    checked = folder / "reconstruction" / "metrics.json"
    if checked.is_file():
        rows += [
            (f"reconstruction, stride {stride}", split, *_percent(m), str(m["images"]))
            for split, strides in read_json(checked)["splits"].items()
            for stride, m in strides.items()
        ]
    rows += [(MODELS[name], split, *_percent(m), str(m["images"])) for (name, split), m in found.items()]
    return table(rows)


def per_class(found: dict[str, dict[str, Any]]) -> list[str]:
    """One row per class, one column per model."""
    names = next(iter(found.values()))["IoU"]
    rows = [("class", *(MODELS[model] for model in found))]
    rows += [(name, *(_cell(metrics["IoU"][name]) for metrics in found.values())) for name in names]
    return table(rows)


def where_to_look(folder: Path, split: str) -> list[str]:
    """The files a reader wants next."""
    return [
        "Where to look",
        f"  pictures    {folder}/evaluation/gss_ft/{split}/pictures/",
        f"  tables      {folder}/evaluation/gss_ft/{split}/per_class.csv, metrics.json",
        f"  palette     {folder}/palette.csv, {folder}/reconstruction/",
        f"  model       {folder}/gss_ft.pth",
        "  curves      mlflow ui   (then open the address it prints; switch to 'Model training' at the top left)",
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


def _percent(metrics: dict[str, Any]) -> tuple[str, str, str]:
    return _cell(metrics["mIoU"]), _cell(metrics["mAcc"]), _cell(metrics["aAcc"])


def _cell(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"
