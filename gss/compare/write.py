"""What a comparison leaves behind: a page, two tables, and lines for the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gss.compare.bootstrap import HEADLINE, LEVEL, RESAMPLES, SEED, Differences, mean_figures, spread
from gss.compare.images import Shown, right_shares
from gss.compare.runs import Compared, changed_settings
from gss.errors import GssError
from gss.files import write_table
from gss.report.html import image_uri, write_page
from gss.report.summary import table
from gss.text import css, percent, shorten

FEW_IMAGES = 10  # a class in fewer images than this has no interval to rely on, see docs/how-to/compare.md
TERMINAL_CLASSES, NAME_LETTERS = 20, 32
CALIBRATION = {"ECE": "ECE", "errors_in_most_uncertain_tenth": "errors in the most uncertain tenth"}
COLUMNS = (
    "baseline",
    "run",
    "name",
    "baseline_value",
    "run_value",
    "difference",
    "low",
    "high",
    "other_sign",
    "baseline_spread",
    "run_spread",
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run against the baseline.

    Args:
        shown: the images where they differ most; or why they cannot be shown.
    """

    baseline: Compared
    run: Compared
    differences: Differences
    shown: list[Shown] | GssError

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per figure: the headline ones, then the classes by size of their difference.

        Keys: those of COLUMNS, and `is_clear`; classes also have `id`, `pixels` and `images`, of the labels.
        """
        runs, found = (self.baseline.counts, self.run.counts), self.differences
        columns = (*map(mean_figures, runs), found.value, found.low, found.high, found.other_sign, *map(spread, runs))
        labelled = self.run.first.counts.labelled
        rows: list[dict[str, Any]] = []
        for place, (name, *numbers) in enumerate(zip((*HEADLINE, *self.run.first.names), *columns, strict=True)):
            row = dict(zip(COLUMNS, (self.baseline.name, self.run.name, name, *map(_number, numbers)), strict=True))
            row["is_clear"] = bool(found.clear[place])
            if place >= len(HEADLINE):
                pixels = labelled[:, place - len(HEADLINE)]
                row |= {"id": place - len(HEADLINE), "pixels": int(pixels.sum()), "images": int((pixels > 0).sum())}
            rows.append(row)
        classes = sorted(rows[len(HEADLINE) :], key=lambda row: -abs(row["difference"] or 0))
        return rows[: len(HEADLINE)] + classes


def calibration(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """How far the probabilities of runs can be trusted: a row for each figure of `gss.data.reliability` that all have.

    There is no interval of the differences: evaluations keep no counts of probabilities by image.

    Returns:
        rows with `name`, and `values` of the runs, each the mean over its seeds and their standard deviation or None.
    """
    rows = []
    for key, name in CALIBRATION.items():
        found = [[seed.evaluation.metrics.get(key) for seed in run.seeds] for run in runs]
        if not any(None in values for values in found):
            each = [np.array(values, dtype=float) for values in found]
            spread = [values.std(ddof=1) if len(values) > 1 else None for values in each]
            rows.append({"name": name, "values": [(a.mean(), b) for a, b in zip(each, spread, strict=True)]})
    return rows


def write_tables(folder: Path, comparisons: Sequence[Comparison]) -> None:
    """`summary.csv` (mIoU, mAcc, aAcc) and `per_class.csv` (IoU): fractions, an empty cell where there is none.

    Of a run with several seeds, values are means over them and spreads the standard deviations.
    """
    rows = [row for comparison in comparisons for row in comparison.rows()]
    classes = ("class" if name == "name" else name for name in COLUMNS)
    keys = (*COLUMNS, "pixels", "images")
    write_table(folder / "summary.csv", COLUMNS, ([row[key] for key in COLUMNS] for row in rows if "id" not in row))
    of_classes = ([row[key] for key in keys] for row in rows if "id" in row)
    write_table(folder / "per_class.csv", (*classes, "pixels", "images"), of_classes)


def as_text(comparisons: Sequence[Comparison], warnings: Sequence[str]) -> str:
    """The tables for a terminal, in percent and percentage points."""
    lines = [f"warning: {warning}" for warning in warnings]
    for comparison in comparisons:
        baseline, run = comparison.baseline, comparison.run
        images = len(run.first.counts.labelled)
        lines += ["", f"{run.name} against {baseline.name}, {run.first.split}, {images} images", ""]
        rows = comparison.rows()
        headline, classes = rows[: len(HEADLINE)], rows[len(HEADLINE) :]
        heading = (baseline.name, run.name, "difference", f"{LEVEL:.0%} interval", "other sign")
        lines += [*table([("", *heading), *map(_cells, headline)]), ""]
        if sure := calibration([baseline, run]):
            lines += [*table([("", *heading[:3]), *map(_calibration_cells, sure)]), ""]
        shown = [(*_cells(row), str(row["pixels"]), str(row["images"])) for row in classes[:TERMINAL_CLASSES]]
        lines += table([("IoU", *heading, "pixels", "images"), *shown])
        if len(classes) > len(shown):
            lines.append(f"  and {len(classes) - len(shown)} classes with smaller differences")
    note = "* the interval lies on one side of zero. It is over the choice of images, not over seeds of the training."
    if any(len(run.seeds) > 1 for comparison in comparisons for run in (comparison.baseline, comparison.run)):
        note += "\n± standard deviation over seeds, of which the mean is shown."
    return "\n".join([*lines, "", note])


def write_comparison(
    path: Path, comparisons: Sequence[Comparison], warnings: Sequence[str], colours: np.ndarray
) -> None:
    """The page.

    Args:
        colours: uint8 [N, 3] of the classes.
    """
    baseline = comparisons[0].baseline
    runs = [baseline, *(comparison.run for comparison in comparisons)]
    try:
        settings: list[tuple[str, list[str]]] | GssError = changed_settings(runs)
    except GssError as error:
        settings = error
    write_page(
        path,
        "compare.html",
        title=f"{', '.join(run.name for run in runs[1:])} against {baseline.name}",
        split=baseline.first.split,
        runs=[run.name for run in runs],
        seeds={run.name: len(run.seeds) for run in runs if len(run.seeds) > 1},
        warnings=warnings,
        calibration=calibration(runs),
        headline=[(run.name, _headline(comparisons, number)) for number, run in enumerate(runs)],
        sections=[_section(comparison, colours) for comparison in comparisons],
        settings=settings,
        settings_error=isinstance(settings, GssError),
        num_images=len(baseline.first.counts.labelled),
        num_classes=len(baseline.first.names),
        resamples=RESAMPLES,
        seed=SEED,
        level=f"{LEVEL:.0%}".replace("%", " %"),
        few=FEW_IMAGES,
    )


def _headline(comparisons: Sequence[Comparison], number: int) -> list[dict[str, Any]]:
    """Value and spread of a run, and how it differs from the baseline, of which it is the first."""
    rows = comparisons[max(number - 1, 0)].rows()[: len(HEADLINE)]
    side = "run" if number else "baseline"
    return [{**row, "value": row[f"{side}_value"], "spread": row[f"{side}_spread"]} for row in rows]


def _section(comparison: Comparison, colours: np.ndarray) -> dict[str, Any]:
    classes = comparison.rows()[len(HEADLINE) :]
    known = [row for row in classes if row["low"] is not None]
    steady = [row for row in known if row["images"] >= FEW_IMAGES] or known  # a rare class must not flatten all others
    scale = max([1e-4, *(max(abs(row["low"]), abs(row["high"]), abs(row["difference"])) for row in steady)])
    for row in classes:
        row["colour"], row["places"] = css(colours[row["id"]]), None
        if row["low"] is not None:
            low, high, value = (min(max((row[key] / scale + 1) * 50, 0), 100) for key in ("low", "high", "difference"))
            row["places"] = {"low": low, "width": high - low, "value": value}
    shown = comparison.shown
    right = [right_shares(run.first) for run in (comparison.baseline, comparison.run)]
    gain = np.nan_to_num(right[1] - right[0])
    return {
        "baseline": comparison.baseline.name,
        "run": comparison.run.name,
        "shown": [run.first.name for run in (comparison.baseline, comparison.run)],
        "classes": classes,
        "num_clear": sum(row["is_clear"] for row in classes),
        "scale": scale,
        "gains": int((gain > 0).sum()),
        "losses": int((gain < 0).sum()),
        "images": [] if isinstance(shown, GssError) else [_image(each) for each in shown],
        "legend": _legend(comparison.run.first.names, colours, shown),
        "missing": shown if isinstance(shown, GssError) else None,
    }


def _image(shown: Shown) -> dict[str, Any]:
    pictures = [
        (heading, image_uri(picture, format="JPEG", quality=80) if heading == "image" else image_uri(picture))
        for heading, picture in shown.pictures
    ]
    return {"shown": shown, "pictures": pictures}


def _legend(names: Sequence[str], colours: np.ndarray, shown: list[Shown] | GssError) -> list[tuple[str, str]]:
    ids = set() if isinstance(shown, GssError) else {each for image in shown for each in image.classes}
    return [(names[each], css(colours[each])) for each in sorted(ids)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["difference"] is None:
        found = ("-", "-", "-")
    else:
        other = percent(row["other_sign"], unit="%", nothing="-")
        interval = f"[{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
        found = (f"{100 * row['difference']:+.2f}{'*' if row['is_clear'] else ' '}", interval, other)
    values = (_with_spread(row, side) for side in ("baseline", "run"))
    return (shorten(row["name"], NAME_LETTERS), *values, *found)


def _calibration_cells(row: dict[str, Any]) -> tuple[str, ...]:
    (baseline, _), (run, _) = row["values"]
    return (row["name"], *(_value(*each) for each in row["values"]), f"{100 * (run - baseline):+.2f} ")


def _with_spread(row: dict[str, Any], side: str) -> str:
    return _value(row[f"{side}_value"], row[f"{side}_spread"])


def _value(value: float | None, spread: float | None) -> str:
    """Percent, and behind it the spread over seeds where there are several."""
    return percent(value, 2, nothing="-") + ("" if spread is None else f" ±{percent(spread, 2)}")
