"""Each Snakemake call delivers to MLflow while it runs and when it ends, however it ends."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest
from project import Project

pytestmark = pytest.mark.slow

RULE = """
rule held:
    output: "results/{experiment}/held"
    shell: "python held.py {wildcards.experiment} > {output}"
"""
HELD = """
import sys, time
from pathlib import Path
from gss.results.journal import Journal
name = sys.argv[1]
header = {"experiment": name, "stage": name, "dataset": "held", "config_sha256": name * 64}
with Journal(Path("results") / name / "work" / "check" / "journal.jsonl", header) as journal:
    journal.metrics(0, {"x": 1.0})
    time.sleep(3)
    assert name != "b", "made to fail"
    journal.metrics(1, {"x": 1.0})
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a rule that takes three seconds."""
    project = Project(tmp_path_factory.mktemp("project"))
    with (project.folder / "Snakefile").open("a") as file:
        file.write(RULE)
    (project.folder / "held.py").write_text(HELD)
    return project


def begin(project: Project, name: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Snakemake whose job has written its first number, and its follower."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    snakemake = subprocess.Popen(
        [sys.executable, "-m", "snakemake", f"results/{name}/held"],
        cwd=project.folder,
        start_new_session=True,
        env=kept,
        stderr=subprocess.DEVNULL,
        # a script in the background has its commands ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    journal = project.folder / "results" / name / "work" / "check" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_bytes().count(b"\n") == 2):
        assert time.monotonic() < deadline and snakemake.poll() is None
        time.sleep(0.05)
    return snakemake, next(child for child in psutil.Process(snakemake.pid).children() if "--parent" in child.cmdline())


def points(project: Project, name: str) -> int:
    """Numbers that MLflow has of an experiment."""
    with contextlib.closing(sqlite3.connect(project.folder / "mlflow.db")) as store:
        return store.execute(
            "select count(*) from metrics join runs using (run_uuid) where name = ?", (name,)
        ).fetchone()[0]


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE  # nobody here reaps orphans


def test_what_runs_nothing_starts_nothing(held: Project) -> None:
    for arguments in (["-n", "results/a/held"], ["--unlock"], ["--summary", "results/a/held"]):
        done = held.snakemake(*arguments)
        assert done.returncode == 0, done.stdout
    assert not (held.folder / "results").exists()
    assert not list(held.folder.glob("mlflow*"))


@pytest.mark.parametrize(
    ("name", "end"), [("a", None), ("b", "failure"), ("c", "SIGINT"), ("d", "SIGTERM"), ("e", "SIGKILL")]
)
def test_the_numbers_are_there_when_snakemake_has_ended(held: Project, name: str, end: str | None) -> None:
    snakemake, follower = begin(held, name)
    if end in ("SIGINT", "SIGTERM", "SIGKILL"):
        snakemake.send_signal(signal.Signals[end])
    assert (snakemake.wait(90) == 0) == (end is None)
    deadline = time.monotonic() + (90 if end == "SIGKILL" else 0)  # the others wait for it
    while not ended(follower):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert points(held, name) >= (2 if end in (None, "SIGTERM") else 1)  # after SIGTERM jobs run to their end
    assert (held.folder / "results" / "mlflow.log").read_text() == ""


def test_a_dead_server_is_told_once_and_holds_nobody_up(held: Project) -> None:
    done = held.snakemake("results/f/held", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.stdout.count("warning: not everything reaches http://127.0.0.1:9") == 1
    assert "to deliver them: gss mlflow-sync" in done.stdout
    assert "Connection refused" in (held.folder / "results" / "mlflow.log").read_text()
