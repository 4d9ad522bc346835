"""The pictures of numbers that stages leave behind, each one PNG file, written atomically."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gss.data.metrics import divide
from gss.data.reliability import BINS, UNIT, calibration_error
from gss.files import write_atomic
from gss.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WORST = 4  # classes named in the plot of rounds, per round


def iou_bars(path: Path, class_names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    """Draw one bar per class and series, in class order; the legend gives each series' mIoU.

    Args:
        path: PNG to write.
        class_names: N names.
        series: name -> N IoU values in 0..1; None or NaN where the class occurs nowhere.
    """
    positions, thickness = np.arange(len(class_names)), 0.8 / len(series)
    with _figure(path, 8, 1.2 + len(class_names) * (0.12 + 0.14 * len(series))) as figure:
        axes = figure.subplots()
        for index, (name, values) in enumerate(series.items()):
            iou = _floats(values)
            places = positions + (index - (len(series) - 1) / 2) * thickness
            bars = axes.barh(places, np.nan_to_num(iou), thickness, label=f"{name}  mIoU {_mean(iou):.3f}")
            texts = ["absent" if math.isnan(value) else f"{value:.3f}" for value in iou]
            axes.bar_label(bars, texts, padding=2, fontsize=7)
        axes.set(ylim=(len(class_names) - 0.5, -0.5), xlim=(0, 1.08), xlabel="IoU")
        axes.set_yticks(positions, class_names)
        _finish(axes, "x")
        figure.legend(loc="outside upper center", ncols=len(series))


def reliability_diagram(path: Path, counts: np.ndarray, title: str) -> None:
    """Draw the accuracy in each bin of confidence against the diagonal, and below it how many pixels are in the bins.

    Args:
        path: PNG to write.
        counts: int64 [BINS, 3] of all classes together, see `gss.data.reliability.Reliability`.
    """
    places, width = (np.arange(BINS) + 0.5) / BINS, 1 / BINS
    pixels, right, confidence = counts.T
    ece = float(calibration_error(counts))
    with _figure(path, 4.5, 5.6) as figure:
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        above.bar(places, np.nan_to_num(divide(right, pixels)), width * 0.9, label="accuracy")
        above.plot(divide(confidence / UNIT, pixels), divide(right, pixels), "k.", label="at the mean confidence")
        above.plot((0, 1), (0, 1), "--", color="grey", label="calibrated")
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{shorten(title, 40)}  ECE {ece:.3f}")
        above.legend(loc="upper left", fontsize=8)
        below.bar(places, pixels / max(pixels.sum(), 1), width * 0.9)
        below.set(xlabel="confidence", ylabel="share of pixels")
        for axes in (above, below):
            _finish(axes, "both")


def palette_swatches(path: Path, names: Sequence[str], colours: np.ndarray) -> None:
    """Draw every colour, int [., 3] in 0..255, as a tile with its index, name and RGB values."""
    columns = min(len(names), 4 if len(names) <= 32 else 8)
    rows = math.ceil(len(names) / columns)
    with _figure(path, 1.9 * columns, 0.62 * rows) as figure:
        axes = figure.subplots()
        tiles = np.full((rows * columns, 3), 255, np.uint8)
        tiles[: len(names)] = colours
        axes.imshow(tiles.reshape(rows, columns, 3), aspect="auto")
        for index, (name, colour) in enumerate(zip(names, colours.tolist(), strict=True)):
            ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 128 else "white"  # by luma
            text = f"{index}  {shorten(name, 22)}\n{','.join(map(str, colour))}"
            axes.text(index % columns, index // columns, text, color=ink, ha="center", va="center", fontsize=7)
        axes.set_axis_off()


def rounds(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the reconstruction mIoU of each refinement round and the classes that were among its worst.

    Args:
        path: PNG to write.
        rows: one mapping per round with `mIoU` and `IoU` (class name -> value in 0..1, or None where absent), as in
            metrics.json; other keys are not read.
    """
    steps = np.arange(len(rows))
    worst: dict[str, None] = {}  # an ordered set
    for row in rows:
        present = {name: value for name, value in row["IoU"].items() if value is not None}
        worst |= dict.fromkeys(sorted(present, key=present.__getitem__)[:WORST])
    with _figure(path, 8, 4.5) as figure:
        axes = figure.subplots()
        axes.plot(steps, [row["mIoU"] for row in rows], "k-o", linewidth=3, label="mIoU")
        for name in worst:
            # a label that begins with an underscore would be left out of the legend
            axes.plot(steps, _floats([row["IoU"][name] for row in rows]), "o--", label=f" {shorten(name, 28)}")
        axes.set(xticks=steps, xlabel="round", ylabel="IoU of the reconstruction")
        axes.set_ylim(top=1.02)
        _finish(axes, "both")
        figure.legend(loc="outside right upper", fontsize=8)


def stage_times(path: Path, stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw a bar for every row of a benchmark: milliseconds per image, on a logarithmic axis.

    Args:
        path: PNG to write.
        stages: title -> rows with `name` and `images_per_s` (None where a row took no time).
    """
    names = [name for title, stage in stages.items() for name in (title, *(row["name"] for row in stage))]
    with _figure(path, 8, 0.8 + 0.19 * len(names)) as figure:
        axes = figure.subplots()
        axes.set_yticks(np.arange(len(names)), names)
        first = 0
        for stage in stages.values():
            axes.get_yticklabels()[first].set_fontweight("bold")
            milliseconds = [1000 / row["images_per_s"] if row["images_per_s"] else math.nan for row in stage]
            bars = axes.barh(np.arange(first + 1, first + 1 + len(stage)), milliseconds, 0.75)
            axes.bar_label(bars, [f"{value:.3g}" for value in milliseconds], padding=2, fontsize=7)
            first += len(stage) + 1
        axes.set(ylim=(len(names) - 0.5, -0.5), xscale="log", xlabel="ms per image")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.12)
        _finish(axes, "x")


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """A figure of `width` x `height` inches, written to `path` when the block ends well."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False, "font.size": 9}):  # a class may be called `$x`
        figure = Figure((width, height), dpi=DPI, layout="constrained")
        yield figure
        write_atomic(path, lambda file: figure.savefig(file, format="png"))


def _finish(axes: "Axes", grid: Literal["both", "x", "y"]) -> None:
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], float)


def _mean(values: np.ndarray) -> float:
    """Mean of the numbers among them, NaN if there is none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else math.nan
