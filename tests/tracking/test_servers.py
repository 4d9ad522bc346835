"""Deliveries to a real server and to SQLite that are disturbed: everything arrives once, and nobody waits for it."""

import collections
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from stores import Line, MlflowServer, postgresql, wait_for

from gss.results.journal import Journal, read_journal
from gss.tracking.mlflow_sync import sync

pytestmark = pytest.mark.slow

STAGES = ("check", "palette", "tokenizer", "reconstruct", "latent_prior", "posterior")
FOLLOW = [sys.executable, "-c", "from gss.tracking.mlflow_sync import follow; follow(interval=0.3)"]
STAGE = """
import sys, time
from pathlib import Path
from gss.results.journal import Journal
folder, stage, begin = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(max(0, begin - time.time()))
header = {"experiment": folder.name, "stage": stage, "dataset": "six", "config_sha256": "ab" * 32}
with Journal(folder / "work" / stage / "journal.jsonl", header) as journal:
    journal.params({"stage": stage})
    for step in range(300):
        journal.metrics(step, {"train/loss": 1 / (step + 1), "train/lr": 0.1})
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with postgresql() as backend:
        started = MlflowServer(backend, tmp_path_factory.mktemp("server"))
        try:
            started.start()  # makes the tables, too
            yield started
        finally:
            started.kill()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder; followers wait shortly for a server that hangs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def stored(uri: str, dataset: str) -> tuple[dict[str, dict[str, collections.Counter[tuple[int, float]]]], list[Any]]:
    """Points of all runs of a data set's experiment, by run and metric; and the runs."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(f"gss/{dataset}")
    runs = list(client.search_runs([experiment.experiment_id]))
    points = {
        run.info.run_name: {
            name: collections.Counter(
                (point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
        }
        for run in runs
    }
    return points, runs


@pytest.mark.parametrize("store", ["sqlite", "server"])
def test_six_stages_and_followers_that_begin_in_the_same_second(
    store: str, project: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh store; each stage has a follower of its own, as in six Snakemake calls."""
    uri = f"sqlite:///{project / 'mlflow.db'}"
    if store == "server":
        uri = request.getfixturevalue("server").uri
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    begin = str(time.time() + 2)
    stages = [subprocess.Popen([sys.executable, "-c", STAGE, "results/six", stage, begin]) for stage in STAGES]
    followers = [subprocess.Popen(FOLLOW, stdout=subprocess.PIPE, text=True) for _ in STAGES]
    assert [stage.wait(60) for stage in stages] == [0] * 6
    for follower in followers:
        follower.terminate()
    assert [(follower.communicate(timeout=90)[0], follower.returncode) for follower in followers] == [("", 0)] * 6
    points, runs = stored(uri, "six")
    assert sorted(run.info.run_name for run in runs if run.data.tags["stage"] != "pipeline") == sorted(STAGES)
    assert len(runs) == 7
    assert {run.info.status for run in runs} == {"FINISHED"}
    for stage in STAGES:
        assert points[stage] == {
            "train/loss": {(step, 1 / (step + 1)): 1 for step in range(300)},
            "train/lr": {(step, 0.1): 1 for step in range(300)},
        }


def steps(journal: Path) -> list[dict[str, Any]]:
    """The events of a training's journal that tell a loss."""
    return [event for event in read_journal(journal)[1:] if "train/loss" in event.get("m", {})]


def test_a_training_does_not_notice_what_happens_to_the_server(
    server: MlflowServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs, fails, refuses, is killed and comes back: one warning, no point missing or doubled, no step late."""
    line = Line(server.port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.uri)
    work = Path("results/mine/work/latent_prior")
    journal = Journal(
        work / "journal.jsonl",
        {"experiment": "mine", "stage": "latent_prior", "dataset": "outage", "config_sha256": "cd" * 32},
    )
    rooms = Path(__file__).parents[1]
    options = json.dumps({"steps": 100_000, "delay": 0.03, "save_every": 100})
    training = subprocess.Popen(
        [sys.executable, "-m", "tiny_learner", str(work), options],
        env={**os.environ, "PYTHONPATH": str(rooms / "train")},
        stdout=subprocess.DEVNULL,
    )
    with (project / "said").open("wb") as said, (project / "story").open("wb") as story:
        follower = subprocess.Popen(FOLLOW, stdout=said, stderr=story)

    def told() -> str:
        return (project / "said").read_text()

    try:
        wait_for(lambda: "warning" in told(), "the warning")
        for state, calls in (("hanging", 2), ("failing", 6)):
            line.be(state)
            before = line.calls
            wait_for(lambda enough=before + calls: line.calls >= enough, f"{calls} calls to a line that is {state}")
        line.be("good")
        wait_for(lambda: "again" in told(), "the delivery")
        server.kill()
        wait_for(lambda: told().count("warning") == 2, "the second warning")
        server.start()
        wait_for(lambda: told().count("again") == 2, "the delivery")
        wait_for(lambda: len(steps(journal.path)) > 300, "more than 300 steps")
        training.terminate()
        assert training.wait(30) == 75
        follower.terminate()
        assert follower.wait(30) == 0
    finally:
        for process in (training, follower):
            process.kill()
            process.wait()
    lines = told().splitlines()
    assert [text.split(" ")[0] for text in lines] == ["warning:", "MLflow", "warning:", "MLflow"], lines
    events = steps(journal.path)
    assert len(events) > 300
    pauses = [after["t"] - before["t"] for before, after in itertools.pairwise(events)]
    print(f"{len(pauses)} steps, mean {sum(pauses) / len(pauses):.0f} ms, longest {max(pauses)} ms")
    assert max(pauses) < 3000  # one call to the hanging server takes 4 s and more
    points, runs = stored(server.uri, "outage")
    expected = {(event["step"], event["m"]["train/loss"]): 1 for event in events}
    assert points["latent_prior"]["train/loss"] == expected
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]


def test_the_end_is_not_held_up_by_a_server_that_hangs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(1)
    line.be("hanging")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.uri)
    for name in ("one", "two", "three", "four"):
        header = {"experiment": name, "stage": "check", "dataset": "held", "config_sha256": "01" * 32}
        Journal(Path("results") / name / "work/check/journal.jsonl", header).metrics(0, {"pairs": 1})
    follower = subprocess.Popen(FOLLOW, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: line.calls >= 3, "the second attempt")
    began = time.monotonic()
    follower.terminate()
    said = follower.communicate(timeout=60)[0]
    assert time.monotonic() - began < 10
    assert said.count("warning") == 1 and said.endswith("to deliver them: gss mlflow-sync\n"), said
    assert follower.returncode == 0


def test_killed_deliveries_are_repeated_without_doubling(
    server: MlflowServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    seed = random.randrange(10**6)
    done = subprocess.run(
        [sys.executable, "-m", "killed_deliveries", "results/mine", str(seed)],
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
    )
    print(f"seed {seed}: {done.stdout}")
    assert done.returncode == 0
    effects, killed = map(int, done.stdout.split()[-2:])
    assert effects > 12 and killed > 3
    points, runs = stored(server.uri, "killed")
    assert len(runs) == 4
    early = {(step, 1 / (step + 1)): 1 for step in range(1200)}
    late = {(step, 0.5): 1 for step in range(1200, 1260)}
    assert points["latent_prior"] == {"train/loss": early | late, "train/lr": late, "train/accuracy": late}
    parent = next(run for run in runs if run.data.tags["stage"] == "pipeline")
    assert points["evaluate_gss_ft"] == points[parent.info.run_name] == {"test/mIoU": {(0, 0.5): 1}}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for name, copies in (("evaluation/gss_ft/test/per_class.csv", 2), ("gss_ft.pth", 1), ("report.html", 1)):
        source = Path("results/mine", name)
        assert [path.read_text() for path in server.folder.rglob(source.name)] == [source.read_text()] * copies
    client = MlflowClient(server.uri)
    versions = client.search_model_versions("name = 'gss-mine'")
    assert [(version.version, version.tags["test/mIoU"]) for version in versions] == [("1", "0.500000")]
    assert [page.name for page in Path(client.download_artifacts(parent.info.run_id, "model")).rglob("*.pth")]
    assert "50.00" in parent.data.tags["mlflow.note.content"]


def test_two_that_deliver_the_same_at_once(
    server: MlflowServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose locks do not reach the other host."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    one, two = Path("one/mine"), Path("two/mine")
    header = {"experiment": "mine", "stage": "check", "dataset": "twice", "config_sha256": "23" * 32}
    journal = Journal(one / "work/check/journal.jsonl", header)
    journal.metrics(0, {"x": 1.0})
    assert sync([one]) == 1
    for step in range(1, 5000):
        journal.metrics(step, {"x": 1.0})
    shutil.copytree(one, two)
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(sync, ([one], [two]))) == [1, 1]
    points, runs = stored(server.uri, "twice")
    assert points["check"] == {"x": {(step, 1.0): 1 for step in range(5000)}}
    assert len(runs) == 2
