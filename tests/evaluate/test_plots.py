"""Plots: the file is there, whole and of the expected size, whatever the classes are called."""

import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gss.evaluate.plots import DPI, iou_bars, palette_swatches, rounds
from gss.recipes.gss.palette.palette import Palette
from gss.recipes.gss.palette.strategies import make_palette

HARD_NAMES = ("$x", "$\\frac{", "a_b^c", "_hidden", "50 % \\ {tree}", "a very long name of a class " * 3)


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "new folder" / "plot.png"


def size(path) -> tuple[int, int]:
    """(width, height) of a PNG that decodes to its end; nothing else lies beside it."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        image.load()
        return image.size


def has_colour(path, colour) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return bool((pixels == colour).all(axis=1).any())


def test_iou_bars_take_hard_names_and_absent_classes(path):
    values = [0.0, 1.0, None, math.nan, 0.25, 0.5]
    iou_bars(path, HARD_NAMES, {"GSS-FF": values, "GSS-$T": values[::-1]})
    width, height = size(path)
    assert width == 8 * DPI and height > 2 * DPI
    iou_bars(path, HARD_NAMES * 8, {"GSS-FF": values * 8})
    assert size(path)[1] > 3 * height


def test_iou_bars_of_nothing_present(path):
    iou_bars(path, ["a"], {"GSS-FF": [None]})
    assert size(path)[0] == 8 * DPI


def test_swatches_show_every_colour(path):
    palette = make_palette("grid", HARD_NAMES, seed=1)
    palette_swatches(path, (*palette.names, "ignore"), palette.colours)
    assert size(path) == (round(1.9 * 4 * DPI), round(0.62 * 2 * DPI))
    assert all(has_colour(path, colour) for colour in palette.colours)


def test_swatches_of_one_class(path):
    palette_swatches(
        path,
        (*Palette(np.array([[255, 0, 0], [0, 0, 255]]), ("all",)).names, "ignore"),
        Palette(np.array([[255, 0, 0], [0, 0, 255]]), ("all",)).colours,
    )
    assert has_colour(path, (255, 0, 0)) and has_colour(path, (0, 0, 255))


def test_rounds_show_miou_and_worst_classes(path):
    rows = [
        {"round": index, "mIoU": 0.8 + 0.05 * index, "IoU": {**dict.fromkeys(HARD_NAMES, 0.9), "$x": None}}
        for index in range(3)
    ]
    rounds(path, rows)
    assert size(path) == (8 * DPI, round(4.5 * DPI))
    rounds(path, rows[:1])
    size(path)


def test_importing_the_module_loads_no_matplotlib():
    code = "import sys, gss.evaluate.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
