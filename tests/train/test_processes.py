"""Trainings in processes of their own: several at once, stopped, killed, and started again."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_disk import tiny_disk
from tiny_learner import run

from gss.cluster.launch import launch
from gss.results.journal import read_journal
from gss.train.checkpoint import CheckpointFolder

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "OMP_NUM_THREADS": "1"}
OPTIONS = {"steps": 40, "save_every": 7, "learner": {"norm": True, "dropout": 0.2}, "ema": 0.9}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(folder):
    return torch.load(folder / "final.pt", weights_only=True)


def assert_same(one, two, tolerance=0.0):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=0, atol=tolerance) if tolerance else tensor.equal(two[name]), name


def steps_in_journal(folder):
    return [event["step"] for event in read_journal(folder / "journal.jsonl") if "m" in event]


def figures(folder):
    return [
        (event["step"], event["m"]["train/loss"], event["m"]["train/accuracy"])
        for event in read_journal(folder / "journal.jsonl")
        if "m" in event
    ]


def wait_for_step(process, folder, step):
    """Wait until the journal has a step."""
    deadline = time.monotonic() + 120
    while step not in steps_in_journal(folder):
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline, "it never came that far"
        time.sleep(0.01)


def wait_for_checkpoint(process, folder):
    """Wait for the first checkpoint."""
    wait_for_step(process, folder, 5)
    while not (folder / "checkpoints" / "checkpoints.json").is_file():
        time.sleep(0.01)


def send_at_step(process, folder, step, number):
    wait_for_step(process, folder, step)
    process.send_signal(number)


def start(folder, *, stderr=None, environment=None, **options):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tiny_learner", folder, json.dumps(options)],
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
        stderr=stderr,
    )


@pytest.mark.slow
def test_killed_and_stopped_training_ends_with_the_same_bits(tmp_path):
    run(tmp_path / "one", **OPTIONS)
    seed = random.randrange(2**32)
    print("seed", seed)
    first, second = sorted(random.Random(seed).sample(range(1, 36), 2))
    folder = tmp_path / "two"
    for step, number, code in ((first, signal.SIGKILL, -9), (second, signal.SIGTERM, 75)):
        process = start(folder, delay=0.03, **OPTIONS)
        send_at_step(process, folder, step, number)
        assert process.wait(60) == code
    assert start(folder, **OPTIONS).wait(120) == 0
    assert_same(weights(tmp_path / "one"), weights(folder))
    assert steps_in_journal(folder) == list(range(1, 41))
    assert figures(folder) == figures(tmp_path / "one")


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """The same batches, and in float64 without batch norm the same weights as one process with the doubled batch."""
    options = {"precision": "fp64", "clip_norm": 0.5, "steps": 20}
    run(tmp_path / "one", **options)
    assert launch(2, [str(tmp_path / "two"), json.dumps(options)], work=tmp_path / "two", module="tiny_learner") == 0
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-10)
    ranks = [json.loads((tmp_path / f"two/seen_{rank}.json").read_text()) for rank in (0, 1)]
    together = [[*first, *second] for first, second in zip(*(chunks(seen, 4) for seen in ranks), strict=True)]
    assert together == chunks(json.loads((tmp_path / "one/seen_0.json").read_text()), 8)
    for mine, theirs in zip(figures(tmp_path / "one"), figures(tmp_path / "two"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-10)


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped_with_the_same_batches(tmp_path):
    options = {"precision": "fp64", "clip_norm": 0.5, "steps": 20, "ema": 0.9}
    run(tmp_path / "one", **options)
    folder = tmp_path / "two"
    run(folder, until=9, **options)  # no save step, no log step of a whole interval
    before = json.loads((folder / "seen_0.json").read_text())
    assert launch(2, [str(folder), json.dumps(options)], work=folder, module="tiny_learner") == 0
    ranks = [json.loads((folder / f"seen_{rank}.json").read_text()) for rank in (0, 1)]
    after = [
        position
        for parts in zip(*(chunks(seen, 4) for seen in ranks), strict=True)
        for part in parts
        for position in part
    ]
    assert before + after == json.loads((tmp_path / "one/seen_0.json").read_text())
    assert_same(weights(tmp_path / "one"), weights(folder), 1e-10)
    for mine, theirs in zip(figures(tmp_path / "one"), figures(folder), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-10)


@pytest.mark.slow
def test_a_time_limit_without_a_single_step_is_an_error(tmp_path):
    process = start(tmp_path / "work", stderr=subprocess.PIPE, environment={"GSS_DEADLINE": str(time.time() + 50)})
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "the time limit is too short: " in error and "60 s are kept for an end in good order" in error


@pytest.mark.slow
def test_two_processes_stop_together_before_the_deadline(tmp_path):
    options = {**OPTIONS, "steps": 5000, "delay": 0.05, "deadline_margin": 1}
    for seconds in (15, 60, 240):  # a busy machine needs that long to begin: then the time limit is too short
        process = subprocess.Popen(
            command(tmp_path, options), env={**ENVIRONMENT, "GSS_DEADLINE": str(time.time() + seconds)}
        )
        if process.wait(300) != 2:
            break
    assert process.returncode == 75
    left = json.loads((tmp_path / "exit.json").read_text())
    assert left["code"] == 75 and "stopped before the end of the job's time after step" in left["reason"]
    assert left["deadline"] is True
    assert CheckpointFolder(tmp_path / "checkpoints").find_latest()[0].step == left["step"]


@pytest.mark.slow
def test_local_normalisation_of_two_processes_is_that_of_their_micro_batches(tmp_path):
    options = {"precision": "fp64", "steps": 20, "normalisation": "local"}
    run(tmp_path / "one", accumulation=4, **options)
    two = tmp_path / "two"
    assert launch(2, [str(two), json.dumps({**options, "accumulation": 2})], work=two, module="tiny_learner") == 0
    assert_same(weights(tmp_path / "one"), weights(two), 1e-10)
    for mine, theirs in zip(figures(tmp_path / "one"), figures(two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-10)


@pytest.mark.slow
def test_two_processes_stopped_by_launch_end_with_the_same_bits(tmp_path):
    for name, disturbed in (("one", False), ("two", True)):
        folder = tmp_path / name
        if disturbed:
            process = subprocess.Popen(
                command(folder, {**OPTIONS, "delay": 0.03}), env=ENVIRONMENT, text=True, stdout=subprocess.PIPE
            )
            send_at_step(process, folder, 16, signal.SIGTERM)
            out = process.communicate(timeout=60)[0]
            assert process.returncode == 75 and "to go on, run the same command again" in out
            left = json.loads((folder / "exit.json").read_text())
            assert left["code"] == 75 and left["step"] >= 16 and "stopped by SIGTERM" in left["reason"]
        assert subprocess.run(command(folder, OPTIONS), env=ENVIRONMENT, timeout=120).returncode == 0
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert steps_in_journal(tmp_path / "two") == list(range(1, 41))


FULL = {"steps": 20, "log_every": 5, "learner": {"width": 400}}  # a checkpoint takes more than 40 kB


def assert_previous_stands(folder, error):
    """Exit code 2 was checked; here: one clear message, the checkpoint of step 5, and nothing half-written."""
    assert "error: cannot write: " in error and "step_00000010" in error and "Traceback" not in error
    assert [file.name[:13] for file in folder.rglob("step_*")] == ["step_00000005"]
    assert not [*folder.rglob("*.tmp")]
    entry, reports = CheckpointFolder(folder / "checkpoints").find_latest()
    assert entry.step == 5 and reports == []


@pytest.mark.slow
def test_file_size_limit_ends_with_exit_code_2_and_training_goes_on_after_it(tmp_path):
    run(tmp_path / "one", **FULL)
    folder = tmp_path / "two"
    process = start(folder, delay=0.1, stderr=subprocess.PIPE, **FULL)
    wait_for_checkpoint(process, folder)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "File too large" in error
    assert_previous_stands(folder, error)
    assert start(folder, **FULL).wait(120) == 0
    assert_same(weights(tmp_path / "one"), weights(folder))


@pytest.mark.slow
def test_full_disk_ends_with_exit_code_2_and_training_goes_on_after_it(tmp_path):
    run(tmp_path / "one", **FULL)
    with tiny_disk(tmp_path / "disk", "400k") as disk:
        folder = disk / "work"
        process = subprocess.Popen(
            command(folder, {**FULL, "delay": 0.1}, nproc=1), env=ENVIRONMENT, text=True, stderr=subprocess.PIPE
        )
        wait_for_checkpoint(process, folder)
        with (disk / "filler").open("wb") as filler:
            filler.write(bytes(shutil.disk_usage(disk).free - 20_000))
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 2
        assert "No space left on device" in error
        assert_previous_stands(folder, error)
        (disk / "filler").unlink()
        assert subprocess.run(command(folder, FULL, nproc=1), env=ENVIRONMENT, timeout=120).returncode == 0
        assert_same(weights(tmp_path / "one"), weights(folder))


def command(folder, options, *, nproc=2):
    """A launch."""
    program = (
        "import sys; from pathlib import Path; from gss.cluster.launch import launch; "
        f"sys.exit(launch({nproc}, sys.argv[1:], work=Path(sys.argv[1]), module='tiny_learner'))"
    )
    return [sys.executable, "-c", program, str(folder), json.dumps(options)]


def chunks(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]
