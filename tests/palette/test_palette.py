"""The palette file: what is written comes back, and faults are named."""

import numpy as np
import pytest

from gss.errors import ConfigError
from gss.recipes.gss.palette.palette import Palette, read_palette, write_palette

NAMES = ("road", "car, parked", 'the "rest"')
COLOURS = np.array([[1, 2, 3], [255, 0, 0], [0, 0, 0], [9, 9, 9]])


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "palette.csv"


def test_a_written_palette_reads_back_equal(path):
    write_palette(path, Palette(COLOURS, NAMES))
    found = read_palette(path)
    assert found.names == NAMES
    assert found.colours.dtype == np.int64 and np.array_equal(found.colours, COLOURS)
    assert path.read_text().splitlines()[::4] == ["index,name,r,g,b", "3,ignore,9,9,9"]


def test_quality_names_the_closest_pair_with_and_without_ignore():
    quality = Palette(COLOURS, NAMES).quality()
    assert (quality["d_min_sq"], quality["closest"]) == (14, ["road", 'the "rest"'])
    assert quality["d_min"] == 14**0.5
    colours = np.array([[0, 0, 0], [0, 0, 30], [0, 0, 40]])
    quality = Palette(colours, NAMES[:2]).quality()
    assert (quality["d_min"], quality["closest"]) == (10, ["car, parked", "ignore"])
    assert (quality["classes_d_min"], quality["classes_nearest_mean"]) == (30, 30)
    assert quality["nearest_mean"] == pytest.approx(50 / 3)


def test_one_class_has_no_pair_without_ignore():
    quality = Palette(np.array([[0, 0, 0], [0, 3, 4]]), ("all",)).quality()
    assert (quality["d_min"], quality["classes_d_min"], quality["classes_closest"]) == (5, None, None)


GOOD = "index,name,r,g,b\n0,sky,0,0,0\n1,sea,9,9,9\n2,ignore,1,1,1\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2,ignore,1,1,1\n", "", ["last of 2 rows", "'sea'", "2,ignore,0,0,0"]),
        ("9,9,9", "0,0,0", ["rows 0 (sky) and 1 (sea)", "(0,0,0)"]),
        ("1,1,1", "9,9,9", ["rows 1 (sea) and 2 (ignore)"]),
        ("9,9,9", "9,256,9", ["'sea'", "(9,256,9)", "0..255"]),
        ("9,9,9", "9,-1,9", ["'sea'", "(9,-1,9)"]),
        ("index,name,r,g,b", "name,r,g,b", ["'name,r,g,b'", "'index,name,r,g,b'"]),
        (GOOD, "", ["header"]),
        ("0,sky,0,0,0\n1,sea,9,9,9\n2,ignore,1,1,1\n", "", ["no row"]),
        ("1,sea", "2,sea", ["row 1 has index 2"]),
        ("9,9,9", "9,9", ["'1,sea,9,9'", "line 3"]),
        ("9,9,9", "9,9,red", ["'1,sea,9,9,red'", "line 3"]),
    ],
)
def test_faults_of_a_file_are_named_with_the_file(path, old, new, words):
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_palette(path)
    assert all(word in str(caught.value) for word in [*words, str(path), "to do:"]), str(caught.value)


def test_a_missing_file_is_named(path):
    with pytest.raises(ConfigError, match=r"palette\.csv"):
        read_palette(path)


def test_a_palette_without_ignore_row_is_refused():
    with pytest.raises(ConfigError, match="3 classes has 4 rows"):
        Palette(COLOURS[:3], NAMES)
