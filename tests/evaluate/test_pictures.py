"""Panels: pixels that can be checked, and names that must not break them."""

import numpy as np
import pytest
from PIL import Image

from gss.evaluate.pictures import GAP, IGNORED, LINE, MARGIN, WRONG, error_picture, panel, picture_name

PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 90]])
COLOURS = ((10, 20, 30), (40, 50, 60), (70, 80, 90))


def _draw(path, *, size=(30, 40), names=("a", "b", "c"), colours=COLOURS, title="image"):
    rng = np.random.default_rng(0)
    label = np.zeros(size, np.uint8)
    label[:, size[1] // 2 :] = 255
    prediction = np.full(size, 1, np.uint8)
    panel(
        path,
        image=rng.integers(0, 256, (*size, 3)).astype(np.uint8),
        label=label,
        prediction=prediction,
        extras={"maskige": np.full((2 * size[0], 2 * size[1], 3), 128, np.uint8)},
        palette=PALETTE,
        names=names,
        colours=colours,
        title=title,
    )
    with Image.open(path) as file:
        assert file.format == "PNG"
        return np.asarray(file.convert("RGB"))


@pytest.mark.parametrize(("colours", "of_class"), [(COLOURS, np.array(COLOURS)), (None, PALETTE)])
def test_panel_shows_six_pictures(tmp_path, colours, of_class):
    canvas = _draw(tmp_path / "panel.png", colours=colours)
    width, height = 400, 300  # of a tile
    void = (0, 0, 0) if colours else PALETTE[-1]

    def left_and_right(row, column):
        y = MARGIN + 58 + row * (LINE + height + GAP) + LINE + height // 2
        x = MARGIN + column * (width + GAP)
        return canvas[y, x + width // 4], canvas[y, x + 3 * width // 4]

    def check(found, left, right):
        np.testing.assert_array_equal(found[0], left)
        np.testing.assert_array_equal(found[1], right)

    check(left_and_right(0, 1), of_class[0], void)  # label
    check(left_and_right(0, 2), PALETTE[0], PALETTE[-1])  # maskige
    check(left_and_right(1, 0), WRONG, IGNORED)  # error
    check(left_and_right(1, 1), of_class[1], of_class[1])  # prediction
    check(left_and_right(1, 2), (128,) * 3, (128,) * 3)  # predicted maskige


def test_error_picture():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 2] = 255
    label, prediction = np.array([[0, 255, 2]], np.uint8), np.array([[1, 1, 2]], np.uint8)
    np.testing.assert_array_equal(error_picture(image, label, prediction)[0], [WRONG, IGNORED, (255, 255, 255)])


def test_names_and_titles_with_any_letters_are_drawn(tmp_path):
    names = ("$x_$ \\frac{", '<b>&"quoted", comma</b>\nnext\tline', "Straße 道路 🚗" + "very long " * 30)
    canvas = _draw(tmp_path / "panel.png", names=names, title="$\\undefined{ <script> %s {} \n" * 20)
    plain = _draw(tmp_path / "plain.png")
    assert canvas.shape[1] == plain.shape[1]


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (360, 480), (700, 900)])
def test_any_image_size(tmp_path, size):
    canvas = _draw(tmp_path / "panel.png", size=size)
    assert canvas.shape[0] < 1300 and canvas.shape[1] < 1400


def test_picture_names_are_distinct(tmp_path):
    assert picture_name(7, tmp_path / "a" / "x.jpg") == "00007_x.png"
    assert picture_name(8, tmp_path / "b" / "x.jpg") != picture_name(7, tmp_path / "a" / "x.jpg")
