"""What pages, pictures, journals and the terminal show numbers, names, colours and settings as."""

import numpy as np

from gss.text import css, flatten, percent, shorten


def test_percent() -> None:
    assert percent(0.12345) == "12.3" and percent(0.12345, 2, unit=" %") == "12.35 %"
    assert percent(None, unit=" %") == "–" and percent(None, nothing="-") == "-" and percent(0.0) == "0.0"


def test_a_name_is_one_line_of_bounded_length() -> None:
    assert shorten("a\nb\x1b[1m", 20) == "a b [1m"
    assert shorten("x" * 8, 8) == "x" * 8 and shorten("x" * 9, 8) == "x" * 7 + "…"


def test_a_colour_of_any_kind() -> None:
    assert css((255, 0, 16)) == css(np.array([255, 0, 16], np.uint8)) == css(map(int, ["255", "0", "16"])) == "#ff0010"


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}
    assert flatten({"a": {}, "b": {"c": {}}, "d": []}) == {"d": []}
