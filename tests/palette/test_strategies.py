"""Colours for classes: published lists, grid, data set colours."""

import numpy as np
import pytest

from gss.errors import ConfigError
from gss.recipes.gss.palette.palette import Palette, read_rows
from gss.recipes.gss.palette.strategies import JITTER, PUBLISHED, grid_colours, make_palette

SIZES = {"ade20k": 150, "cityscapes": 19, "mseg": 194}


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


def published(name: str) -> Palette:
    return make_palette("published", names(SIZES[name]), seed=0, published=name)


@pytest.mark.parametrize(("name", "smallest"), [("ade20k", 401), ("cityscapes", 400), ("mseg", 349)])
def test_published_palettes_have_their_known_distances(name, smallest):
    quality = published(name).quality()
    assert quality["d_min_sq"] == quality["classes_d_min_sq"] == smallest


@pytest.mark.parametrize(
    ("name", "mean", "without"),
    [
        ("ade20k", 34.956, 35.002),
        ("cityscapes", 66.944, 66.783),
        ("mseg", 30.553, 30.440),
    ],
)
def test_published_palettes_have_their_known_mean_distances(name, mean, without):
    quality = published(name).quality()
    assert quality["nearest_mean"] == pytest.approx(mean, abs=5e-4)
    assert quality["classes_nearest_mean"] == pytest.approx(without, abs=5e-4)


@pytest.mark.parametrize("name", SIZES)
def test_class_lists_fit_their_palettes(name):
    rows = read_rows(PUBLISHED.parent / "classes" / f"{name}.csv", ["index", "name"])
    assert len(rows) == SIZES[name]
    assert all(row[1] == row[1].strip() != "" for row in rows)


def test_a_published_palette_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="'cityscapes' has 19 classes, the data set has 11"):
        make_palette("published", names(11), seed=0, published="cityscapes")


@pytest.mark.parametrize("count", [1, 2, 11, 19, 150, 194, 254])
def test_grid_gives_distinct_colours_for_any_number_of_classes(count):
    palette = make_palette("grid", names(count), seed=count)
    assert palette.num_classes == count
    assert palette.colours[-1].tolist() == [0, 0, 0]
    assert np.array_equal(palette.colours, make_palette("grid", names(count), seed=count).colours)


def test_grid_jitters_within_the_cells_of_the_published_layout():
    draws = np.stack([grid_colours(150, np.random.default_rng(seed)) for seed in range(200)])
    cells = draws.mean(axis=0).round().reshape(5, 6, 5, 3)
    assert np.all(np.diff(cells[:, 0, 0, 0]) > 40) and np.all(np.diff(cells[0, 0, :, 2]) > 40)
    spread = draws.max(axis=0) - draws.min(axis=0)
    assert spread.max() == 2 * JITTER


def test_dataset_colours_keep_their_order_and_get_a_free_ignore_colour():
    colours = ((128, 64, 128), (244, 35, 232))
    palette = make_palette("dataset", names(2), seed=0, colours=colours)
    assert palette.colours.tolist() == [*map(list, colours), [0, 0, 0]]
    with_black = make_palette("dataset", names(2), seed=0, colours=((0, 0, 0), (255, 0, 0)))
    to_ignore = np.linalg.norm(with_black.colours[:2] - with_black.colours[2], axis=1)
    assert to_ignore.min() >= 380  # the best is (127.5, 255, 255), at 382.5 of both


def test_dataset_without_or_with_doubled_colours_is_refused():
    with pytest.raises(ConfigError, match="no colours"):
        make_palette("dataset", names(2), seed=0)
    with pytest.raises(ConfigError, match=r"rows 0 \(class 0\) and 1 \(class 1\)"):
        make_palette("dataset", names(2), seed=0, colours=((7, 7, 7), (7, 7, 7)))


def test_maximal_puts_an_ignore_row_last():
    palette = make_palette("maximal", names(3), seed=0)
    assert palette.colours.shape == (4, 3)
    assert palette.quality()["d_min"] > 340


ROWS = "index,name,r,g,b\n0,sky,1,2,3\n1,sea,9,9,9\n2,ignore,0,0,0\n"


def test_a_file_gives_its_colours_to_the_classes_it_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(ROWS, encoding="utf-8-sig")  # as spreadsheets save it
    assert make_palette("file", ("sky", "sea"), seed=0, file=path).colours.tolist() == [[1, 2, 3], [9, 9, 9], [0, 0, 0]]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("sky", "sea", "land"), "has 2 classes, the data set 3: no row for 'land'"),
        (("sky",), "has 2 classes, the data set 1: no class is called 'sea'"),
        (("sky", "see"), "no row for 'see'; no class is called 'sea'"),
        (("sea", "sky"), "row 0 is 'sky', class 0 is 'sea'"),
    ],
)
def test_a_file_of_other_classes_is_refused(names, said, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(ROWS)
    with pytest.raises(ConfigError) as caught:
        make_palette("file", names, seed=0, file=path)
    assert said in str(caught.value) and str(path) in str(caught.value)
