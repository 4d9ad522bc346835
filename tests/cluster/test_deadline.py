import math
import time

import pytest

from gss.cluster import deadline
from gss.cluster.deadline import Deadline
from gss.errors import GssError


def test_the_environment_comes_first_and_nothing_means_no_deadline(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 100))
    assert 95 < Deadline.of_this_job().seconds_left() <= 100
    monkeypatch.setenv("GSS_DEADLINE", "soon")
    with pytest.raises(GssError, match="GSS_DEADLINE is 'soon'"):
        Deadline.of_this_job()
    monkeypatch.delenv("GSS_DEADLINE")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert Deadline.of_this_job().seconds_left() == math.inf


def test_without_an_answer_of_slurm_there_is_a_warning_and_no_deadline(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("GSS_DEADLINE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Deadline.of_this_job().seconds_left() == math.inf
    assert "the end of SLURM job 7 is not known" in capsys.readouterr().out


def test_it_is_asked_again_without_making_anyone_wait(monkeypatch):
    monkeypatch.setattr(deadline, "_REFRESH_SECONDS", 0.2)
    answers = iter([time.time() + 50, None, time.time() + 500])

    def ask():
        time.sleep(0.1)
        return next(answers, None)

    asked = Deadline(ask)
    longest, end = 0.0, time.monotonic() + 10
    while asked.seconds_left() < 400:  # no answer in between: the old one stays
        assert time.monotonic() < end
        began = time.perf_counter()
        assert asked.seconds_left() > 30
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.01)
    assert longest < 0.09
