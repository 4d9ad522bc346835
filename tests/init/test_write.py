"""The text of an experiment says what was decided, whatever names look like, with the reasons beside it."""

from pathlib import Path

import pytest

from gss.config.load import _parsed
from gss.init.write import text

NAMES = [
    "road",
    "no",
    "1e3",
    "012",
    "1:30",
    "true",
    "",
    "a: b",
    "it's",
    "#4",
    "- x",
    "ä\tb",
    "C2",
    "0x1f",
    "~",
    "a,b",
    "x #y",
]


def test_every_name_comes_back_as_it_was() -> None:
    content = {"data": {"classes": NAMES, "mapping": dict.fromkeys(NAMES, "ignore"), "label_map": {255: "ignore"}}}
    for reasons in ({}, {"data.classes": "why", "data.classes[2]": "12 %", "data.mapping": "long " * 60}):
        assert _parsed(text(content, reasons, ["head", ""])) == content


def test_numbers_and_nests() -> None:
    content = {"recipe": "pixel", "a": {"lr": 2e-3, "tiny": 1e-7, "on": True, "b": {"c": [[1, 2], [3]], "d": {"e": 1}}}}
    assert _parsed(text(content, {"a.b.d.e": "deep"}, [])) == content


def test_reasons_stand_above_their_keys() -> None:
    lines = text({"a": {"b": 1, "c": ["x", "yy"]}}, {"a.b": "for b", "a.c[0]": "5 %"}, ["head"]).splitlines()
    assert lines == ["# head", "", "a:", "  # for b", "  b: 1", "  c:", "    - x   # 5 %", "    - yy"]


@pytest.mark.parametrize("regex", [r"^(.*?)\d+$", r"_camera_", "^it's"])
def test_expressions_need_no_second_escape(regex: str, tmp_path: Path) -> None:
    assert _parsed(text({"a": {"group": regex}}, {}, [])) == {"a": {"group": regex}}
