"""`gss watch`: what is done, what runs and how far it is, what waits, and when all is done; nothing is written."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gss.cli import main
from gss.cluster.lock import writer_lock
from gss.config import Job, load_experiment
from gss.progress import Progress as Pieces
from gss.results.records import write_record
from gss.train.distributed import World
from gss.train.progress import Progress
from gss.watch.log import read_log
from gss.watch.standing import SILENT_SECONDS, Standing, Watched, seconds_left
from gss.watch.watch import changes, expected_end

TOY = load_experiment("toy")
LINE = "step 25/225  loss 0.5  lr 0.001  50.0 img/s  wait 1%  mem 0.6 GB  ETA 1:40\n"
START = "--- 2026-01-02 03:04:05 on host: gss launch\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of the toy whose stages before the latent prior are done."""
    for job in TOY.jobs():
        if job.stage == "latent_prior":
            break
        make(tmp_path / "toy", job.name)
    return tmp_path / "toy"


def make(folder: Path, name: str, seconds: float = 10, inputs: dict[str, str] | None = None) -> None:
    """What a job of the toy leaves when it is done."""
    job = next(job for job in TOY.jobs() if job.name == name)
    write_record(folder, name, {"settings": TOY.slice(job.stage, job.split), "inputs": inputs or {}})
    write(folder / "benchmarks" / f"{name}.tsv", f"s\th:m:s\n{seconds}\t0:00:10\n")
    write(folder / "logs" / f"{name}.log", "")


def write(path: Path, text: str, age: float = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)


def look(folder: Path) -> dict[str, Standing]:
    return {each.job.name: each for each in Watched("toy", folder, TOY).look()}


def test_the_lines_of_trainings_and_of_other_stages_are_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress(World(0, 1, 0, torch.device("cpu")), None, steps=200, first=0)
    progress.fetched(8, 0.0)
    progress.validated(50, {"val/mIoU": 0.9231}, "val/mIoU 0.9231", 1.0)
    progress.line(100, {"train/loss": 0.5}, 1e-3)
    write(tmp_path / "train.log", capsys.readouterr().out)
    reading = read_log(tmp_path / "train.log")
    assert reading.text.startswith("step 100/200  loss 0.5  mIoU 92.3  ") and reading.text.endswith(" img/s")
    assert (reading.step, reading.until) == (100, 200) and reading.left is not None
    monkeypatch.setattr("gss.progress.LINE_SECONDS", 0)
    pieces = Pieces("val", 64, "img")
    pieces.show(16)
    write(tmp_path / "evaluate.log", capsys.readouterr().out)
    reading = read_log(tmp_path / "evaluate.log")
    assert reading.text.startswith("val 16/64  ") and reading.left is not None and not math.isnan(reading.left)
    pieces.show(64)
    write(tmp_path / "evaluate.log", capsys.readouterr().out)
    assert read_log(tmp_path / "evaluate.log").left is None  # the end of a part is not that of the stage
    assert read_log(tmp_path / "none.log").text == ""


def test_the_end_of_a_validation_is_not_that_of_its_training(tmp_path: Path) -> None:
    validates, log = "val 12/16  2.0 img/s  ETA 0:02\n", tmp_path / "train.log"
    write(log, START + LINE + validates)
    assert (read_log(log).step, read_log(log).left) == (25, 100)
    ends = LINE.replace("25/", "225/").replace("1:40", "0:00")
    write(log, START + ends + validates)  # the last one: nothing else is left
    assert (read_log(log).text, read_log(log).left) == ("val 12/16  2.0 img/s", 2)
    write(log, START + ends + validates + "val 16/16  2.0 img/s  in 0:08\nstep 225/225  val/mIoU 0.5 in 0:08\n")
    assert (read_log(log).text, read_log(log).left) == ("step 225/225  loss 0.5  mIoU 50.0  50.0 img/s", 0)


def test_what_is_done_runs_and_waits(folder: Path) -> None:
    write(folder / "logs" / "latent_prior_225.log", START + "step 25/225  val/mIoU 0.4 in 0:01\n" + LINE, age=40)
    with writer_lock(folder / "work" / "latent_prior"):
        now = look(folder)
    assert now["reconstruct"].state == "done"
    running = now["latent_prior_225"]
    assert (running.state, running.text) == ("runs", "step 25/225  loss 0.5  mIoU 40.0  50.0 img/s")
    assert running.left == pytest.approx(60, abs=5)  # 1:40, 40 s ago
    # Half a second a step: the second segment has 225 steps, too.
    assert now["latent_prior"].state == "waits" and now["latent_prior"].left == pytest.approx(112.5)
    assert now["posterior"].left is None and now["merge"].left == 0
    seconds, unknown = seconds_left([*now.values()])
    assert seconds == pytest.approx(172.5, abs=5) and unknown[0] == "posterior"
    assert "posterior, evaluate_gss_ff_val, evaluate_gss_ff_test and 2 more, whose time is not known yet" in (
        expected_end([*now.values()])
    )


def test_only_segments_of_a_training_share_a_work_folder() -> None:
    assert {job.work for job in TOY.jobs() if job.stage == "latent_prior"} == {"latent_prior"}
    assert Job("evaluate_gss_ff_street_11", "evaluate", "street_11").work == "evaluate_gss_ff_street_11"


def test_times_of_other_seeds_tell_how_long_it_takes(folder: Path) -> None:
    seeds = [folder.parent / "several" / f"seed_{seed}" for seed in (0, 1)]
    for job in TOY.jobs():
        make(seeds[0], job.name, 100)
    now = Watched("several/seed_1", seeds[1], TOY).look()
    assert {each.left for each in now[:-1]} == {100}
    assert seconds_left(now) == (1200, [])
    assert expected_end(now) == "nothing runs; left: about 20:00"


def test_a_job_that_failed_or_stopped_is_told_from_one_that_runs(folder: Path) -> None:
    log, journal = folder / "logs" / "latent_prior_225.log", folder / "work" / "latent_prior" / "journal.jsonl"
    write(journal, '{"journal": "x"}\n', age=2 * SILENT_SECONDS)
    write(log, START + LINE, age=2 * SILENT_SECONDS)
    assert look(folder)["latent_prior_225"].state == "stopped"  # killed: nobody holds its lock, no sign of life
    write(journal, '{"journal": "x"}\n{"end": "interrupted"}\n')
    assert look(folder)["latent_prior_225"].state == "stopped"
    write(log, START + LINE + "error: the loss is not finite\n  where: step 26\n")
    failed = look(folder)["latent_prior_225"]
    assert (failed.state, failed.text) == ("failed", "the loss is not finite")
    log.unlink()
    assert look(folder)["latent_prior_225"].state == "waits"


def test_other_settings_and_other_inputs_are_not_done(folder: Path) -> None:
    job = next(job for job in TOY.jobs() if job.name == "palette")
    write_record(folder, "palette", {"settings": {**TOY.slice("palette"), "palette": {"seed": 7}}, "inputs": {}})
    assert look(folder)[job.name].state != "done"
    make(folder, "palette")
    assert look(folder)["palette"].state == "done"
    make(folder, "reconstruct", inputs={"data/manifest.json": "0" * 64})
    write(folder / "data" / "manifest.json", "{}", age=-10)  # newer than the record, with another content
    assert look(folder)["reconstruct"].state != "done"
    (folder / "records" / "check.json").unlink()  # what reads what is made anew is not done either
    os.utime(folder / "data" / "manifest.json", (0, 0))
    assert look(folder)["reconstruct"].state == "waits"


def test_it_ends_when_all_is_there_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = content()
    assert main(["watch", "toy", "--results", str(folder.parent), "--once"]) == 0
    assert "toy: 4 of 13 stages done" in capsys.readouterr().out and content() == before
    left = [job.name for job in TOY.jobs() if not (folder / "records" / f"{job.name}.json").exists()]

    def progress(seconds: float) -> None:
        if left:
            make(folder, left.pop(0))
        else:
            write_record(folder, "report", {"settings": {}, "inputs": {}})

    monkeypatch.setattr("time.sleep", progress)
    assert main(["watch", "toy", "--results", str(folder.parent)]) == 0
    said = capsys.readouterr().out
    assert "toy: done posterior" in said and said.rstrip().endswith("toy: done report")
    assert all("\x1b" not in line for line in said.splitlines())


def test_only_changes_are_told_where_lines_stay(folder: Path) -> None:
    first = {"toy": Watched("toy", folder, TOY).look()}
    assert changes(first, first) == []
    make(folder, "latent_prior_225")
    told = changes(first, {"toy": Watched("toy", folder, TOY).look()})
    assert told[0] == "toy: done latent_prior_225" and len(told) == 2


def test_ctrl_c_is_an_end_in_good_order(folder: Path) -> None:
    command = [sys.executable, "-m", "gss", "watch", "toy", "--results", str(folder.parent)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's `&` takes it away
    )
    try:
        assert process.stdout is not None and "toy" in process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("owner", "state"), [({"host": "elsewhere"}, "runs"), ({"pid": 2**22 + 1}, "waits"), ({"age": 300}, "waits")]
)
def test_a_lock_counts_while_its_holder_lives(folder: Path, owner: dict, state: str) -> None:
    """By the heartbeat of one on another host, by the process of one on this host."""
    lock = folder / "work" / "latent_prior" / "writer.lock"
    with writer_lock(lock.parent):
        content = json.loads(lock.read_text())
    age = owner.pop("age", 0)
    write(lock, json.dumps({**content, **({"host": "elsewhere"} if age else {}), **owner}), age)
    write(folder / "work" / "latent_prior" / "journal.jsonl", '{"end": "finished"}\n', 300)
    write(folder / "logs" / "latent_prior_225.log", START + LINE, 300)
    assert look(folder)["latent_prior_225"].state == state
