"""Validation while training: it measures what would be exported, and nothing of the training knows of it."""

import copy
import json
import os
import pickle
import signal
import subprocess
import threading
import time

import pytest
import torch
from test_processes import ENVIRONMENT, assert_same, command, start, weights
from tiny_learner import run

from gss.errors import GssError, Interrupted
from gss.results.journal import read_journal
from gss.train.checkpoint import CheckpointFolder
from gss.train.settings import LoopSettings
from gss.train.stop import Clock

HARD = {"ema": 0.9, "clip_norm": 0.1, "learner": {"norm": True, "dropout": 0.3}}
PLAIN = {"learner": {"norm": True, "dropout": 0.3}}
ON = {"validate_every": 4}


def figures(folder, prefix):
    """(step, name) -> value of the journal's metrics, without those that measure time; no one is written twice."""
    rows = [
        ((event["step"], name), value)
        for event in read_journal(folder / "journal.jsonl")
        for name, value in event.get("m", {}).items()
        if name.startswith(prefix) and name not in ("train/img_per_s", "train/data_wait")
    ]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def checkpoint(folder):
    saved = CheckpointFolder(folder / "checkpoints")
    return saved.load(saved.find_latest()[0].step, map_location=torch.device("cpu"))


def assert_trained_alike(one, two):
    """Weights to export, everything a checkpoint holds, the figures of the training, and the samples it saw."""
    assert_same(weights(one), weights(two))
    assert figures(one, "train/") == figures(two, "train/")
    assert (one / "seen_0.json").read_text() == (two / "seen_0.json").read_text()
    mine, theirs = checkpoint(one), checkpoint(two)
    for content in (mine, theirs):
        del content["settings"]["validate_every"]
    assert str(mine) == str(theirs)  # tensors are shown in part; the weights are compared above
    for name, value in mine["optimizer"]["state"].items():
        assert all(value[key].equal(theirs["optimizer"]["state"][name][key]) for key in value)


@pytest.mark.parametrize("options", [HARD, PLAIN, {**PLAIN, "precision": "bf16"}])
def test_it_changes_no_bit_of_the_training(options, tmp_path):
    run(tmp_path / "off", log_every=7, **options)
    run(tmp_path / "on", log_every=7, **ON, **options)
    assert_trained_alike(tmp_path / "off", tmp_path / "on")
    assert [step for step, name in figures(tmp_path / "on", "val/") if name == "val/mIoU"] == [*range(4, 29, 4), 30]
    assert figures(tmp_path / "off", "val/") == {}


def test_it_is_not_called_when_off(tmp_path):
    def never(*_):
        raise AssertionError("called")

    run(tmp_path, validate=never, steps=5)


def test_it_sees_what_is_exported(tmp_path):
    """The moving average, with its running statistics, in eval mode."""
    seen = []

    def validate(module, look):
        assert not module.training
        seen.append(copy.deepcopy(module.state_dict()))
        return {}

    run(tmp_path, validate=validate, validate_every=10, **HARD)
    assert len(seen) == 3
    assert_same(seen[-1], weights(tmp_path))


SCORES = {4: 0.2, 8: 0.7, 12: 0.6, 16: 0.7, 20: 0.1, 24: 0.3, 28: 0.3, 30: 0.5}


def scripted(seen):
    """A validation with the scores above; the weights it was given are noted."""

    def validate(module, look):
        step = [*SCORES][len(seen)]
        seen.append(copy.deepcopy(module.state_dict()))
        return {"val/mIoU": SCORES[step]}

    return validate


@pytest.mark.parametrize("options", [HARD, PLAIN])
def test_the_best_step_is_kept_through_restarts(options, tmp_path, capsys):
    seen, again = [], []
    result = run(tmp_path / "one", validate=scripted(seen), keep="best", **ON, **options)
    assert (result.step, result.exported_step, result.score) == (30, 8, 0.7)
    assert_same(seen[1], weights(tmp_path / "one"))
    assert "step 8/30  val/mIoU 0.7000 (the best so far) in 0:0" in capsys.readouterr().out
    for until in (7, 18, None):
        result = run(tmp_path / "parts", validate=scripted(again), keep="best", until=until, **ON, **options)
    assert (result.exported_step, result.score) == (8, 0.7)
    assert_same(seen[1], weights(tmp_path / "parts"))
    last = run(tmp_path / "last", validate=scripted([]), **ON, **options)
    assert (last.exported_step, last.score) == (30, None)
    assert not weights(tmp_path / "last")["0.weight"].equal(seen[1]["0.weight"])


def test_without_a_score_the_last_step_is_exported(tmp_path):
    result = run(tmp_path / "one", validate=lambda *_: {}, keep="best", **ON)
    assert (result.exported_step, result.score) == (30, None)
    run(tmp_path / "two")
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_a_signal_is_honoured_between_images_and_the_validation_is_done_again(tmp_path):
    run(tmp_path / "one", **ON, **PLAIN)
    stopping = {"images": 12, "delay": 0.05}
    threading.Thread(target=stop_when_validating, args=(tmp_path / "two",)).start()
    (tmp_path / "two").mkdir()
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM in the validation after step 4 of 30, which is") as stop:
        run(tmp_path / "two", validation_options=stopping, **ON, **PLAIN)
    assert (stop.value.step, stop.value.deadline) == (4, False)
    assert figures(tmp_path / "two", "val/") == {} and checkpoint(tmp_path / "two")["step"] == 4
    run(tmp_path / "two", **ON, **PLAIN)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert figures(tmp_path / "one", "") == figures(tmp_path / "two", "")


def stop_when_validating(folder):
    while not (folder / "validating").is_file():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_deadline_is_honoured_between_images(tmp_path, monkeypatch):
    def validate(module, look):
        monkeypatch.setenv("GSS_DEADLINE", "0")
        for _ in range(1000):
            look()
            time.sleep(0.01)
        raise AssertionError("it was not stopped")

    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 3))
    monkeypatch.setattr(Clock, "any_step_done", False)
    with pytest.raises(Interrupted, match="before the end of the job's time in the validation after step 4") as stop:
        run(tmp_path, validate=validate, deadline_margin=1, **ON)
    assert stop.value.deadline
    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 3))
    monkeypatch.setattr(Clock, "any_step_done", False)  # in the next job
    with pytest.raises(GssError, match="the time limit is too short: the validation alone takes longer"):
        run(tmp_path, validate=validate, deadline_margin=1, **ON)


def test_an_interruption_travels_between_processes():
    stop = pickle.loads(pickle.dumps(Interrupted("stopped", step=4, deadline=True)))
    assert (str(stop), stop.step, stop.deadline) == ("stopped", 4, True)


def test_its_time_is_no_step():
    clock = Clock(LoopSettings(steps=1, lr=1))
    for pause in (True, False):
        clock.step_done(0)
        if pause:
            clock.paused()
        time.sleep(0.05)
        clock.step_done(0)
        assert (clock._longest_step < 0.05) == pause


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["last", "best"])
def test_killed_in_the_middle_of_a_validation_it_ends_with_the_same_bits(keep, tmp_path):
    options = {"keep": keep, **ON, **HARD}
    run(tmp_path / "one", **options)
    folder = tmp_path / "two"
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        process = start(folder, validation_options={"delay": 0.2}, **options)
        began = time.monotonic()
        while not (folder / "validating").is_file():
            assert process.poll() is None and time.monotonic() < began + 120
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == code
        (folder / "validating").unlink()
    assert start(folder, **options).wait(120) == 0
    assert_same(weights(tmp_path / "one"), weights(folder))
    assert figures(tmp_path / "one", "") == figures(folder, "")


@pytest.mark.slow
def test_it_changes_no_bit_of_two_processes_and_their_counts_are_one(tmp_path):
    for name, options in (("off", PLAIN), ("on", {**ON, **PLAIN}), ("best", {"keep": "best", **ON, **PLAIN})):
        folder = tmp_path / name
        assert subprocess.run(command(folder, options), env=ENVIRONMENT, timeout=240).returncode == 0
    assert_trained_alike(tmp_path / "off", tmp_path / "on")
    assert figures(tmp_path / "on", "val/") == figures(tmp_path / "best", "val/") != {}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{**ON, **PLAIN}, {**ON, **HARD, "steps": 4}])  # the latter after the last step
def test_two_processes_stopped_in_a_validation_leave_together(options, tmp_path):
    assert subprocess.run(command(tmp_path / "one", options), env=ENVIRONMENT, timeout=240).returncode == 0
    folder = tmp_path / "two"
    slow = {"validation_options": {"images": 200, "delay": 0.05}}
    process = subprocess.Popen(command(folder, {**options, **slow}), env=ENVIRONMENT)
    began = time.monotonic()
    while not (folder / "validating").is_file():
        assert process.poll() is None and time.monotonic() < began + 120
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    left = json.loads((folder / "exit.json").read_text())
    assert left["step"] == 4 and "in the validation after step 4" in left["reason"]
    assert subprocess.run(command(folder, options), env=ENVIRONMENT, timeout=240).returncode == 0
    assert_same(weights(tmp_path / "one"), weights(folder))
    assert figures(tmp_path / "one", "") == figures(folder, "")
