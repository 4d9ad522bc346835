"""What `gss compare` does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gss.compare.bootstrap import bootstrap
from gss.compare.images import Shown, most_different, show
from gss.compare.runs import Evaluated, read_runs, warnings
from gss.compare.write import Comparison, as_text, write_comparison, write_tables
from gss.errors import GssError


def compare(names: Sequence[str], *, split: str | None, output: Path | None, results: Path) -> str:
    """Compare runs with the first one and write `index.html`, `summary.csv` and `per_class.csv`.

    Args:
        names: `EXPERIMENT[/MODEL]`, two or more.
        split: `test`, `val` or a set of `evaluation.sets`; None: `test`, or `val` where the first run has that alone.
        output: folder; None: one in `results/comparisons` named after the runs.
        results: folder of all results.

    Returns:
        The tables as text, and where the page is.

    Raises:
        GssError: see `read_runs`.
    """
    runs = read_runs(names, split, results)
    folder = output or results / "comparisons" / "_vs_".join(run.name.replace("/", ".") for run in runs)
    colours = _colours(runs[0].first)
    comparisons = [
        Comparison(runs[0], run, bootstrap(runs[0].counts, run.counts), _shown(runs[0].first, run.first, colours))
        for run in runs[1:]
    ]
    said = warnings(runs)
    write_tables(folder, comparisons)
    write_comparison(folder / "index.html", comparisons, said, colours)
    return f"{as_text(comparisons, said)}\n\nwritten: {folder}/index.html, summary.csv, per_class.csv"


def _colours(run: Evaluated) -> np.ndarray:
    """uint8 [N, 3], grey where the results say nothing of colours."""
    try:
        return run.results.colours_of(run.split)
    except GssError:
        return np.full((len(run.names), 3), 128, np.uint8)


def _shown(baseline: Evaluated, run: Evaluated, colours: np.ndarray) -> list[Shown] | GssError:
    """Pictures need the data set and the predictions, figures do not."""
    try:
        return [show(baseline, run, index, colours) for index in most_different(baseline, run)]
    except GssError as error:
        return error
