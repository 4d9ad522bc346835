import re

import pytest

from gss import progress
from gss.progress import Progress, clock, track


def test_lines_of_a_log(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = Progress("evaluate test", 3, "img")
    for done in range(4):
        shown.show(done)
    first, second, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"evaluate test 1/3  \d+\.\d img/s  ETA 0:\d\d", first)
    assert second.startswith("evaluate test 2/3  ")
    assert re.fullmatch(r"evaluate test 3/3  \d+\.\d img/s  in 0:\d\d", last)


def test_a_log_is_not_flooded(capsys):
    shown = Progress("check", 1000, "pairs")
    for done in range(1001):
        shown.show(done)
    assert len(capsys.readouterr().out.splitlines()) == 1  # all within five seconds: the last one


def test_a_terminal_has_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    shown = Progress("predict", 2, "img")
    shown.show(1)
    shown.show(2)
    assert re.fullmatch(r"\rpredict 1/2 [^\n]*\x1b\[K\rpredict 2/2 [^\n]*\x1b\[K\n", capsys.readouterr().out)


def test_an_item_is_done_when_the_next_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    items = track("ab", "letters", 2, "letters")
    assert next(items) == "a" and capsys.readouterr().out == ""
    assert next(items) == "b" and capsys.readouterr().out.startswith("letters 1/2  ")
    assert list(items) == [] and capsys.readouterr().out.startswith("letters 2/2  ")


def test_quiet(capsys):
    Progress("evaluate", 1, "img", quiet=True).show(1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:01"), (60, "1:00"), (201, "3:21"), (7322, "2:02:02")])
def test_clock(seconds, text):
    assert clock(seconds) == text
