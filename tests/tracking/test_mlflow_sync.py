"""Journals reach MLflow: every point once, at its own time, also after the store was away."""

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gss.files import read_json
from gss.results.journal import Journal
from gss.tracking.mlflow_sync import sync
from gss.tracking.store import sanitise

SHA = "0123456789abcdef" * 4
NEAR_MISSES = (
    "test/iou/door;double door",
    "test/iou/door",
    "a//b",
    "/a",
    "../x",
    "a/./b",
    "a/",
    "",
    ";",
    "wall, brick",
    "100%",
    "é ñ",
    "x" * 300,
    "x" * 299 + "y",
    "a/" * 150,
    "new\nline",
    "a=b",
    "a_b",
    "a&b",
    "a_b_2",
)


def start_journal(folder: Path, stage: str, name: str = "journal.jsonl") -> Journal:
    header = {"experiment": folder.name, "stage": stage, "dataset": "toy", "config_sha256": SHA}
    return Journal(folder / "work" / stage / name, header)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder in an empty project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path("results/mine")


def runs(uri: str) -> dict[str, Any]:
    """All runs of a store by name."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_name: run for run in client.search_runs(experiments)}


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


def database(folder: Path) -> str:
    return f"sqlite:///{folder.absolute().parents[1] / 'mlflow.db'}"


def test_names_are_accepted_and_distinct() -> None:
    from mlflow.utils.validation import _validate_metric_name

    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = [*NEAR_MISSES, *("".join(rng.choices("ab./;_- :%é\n&", k=rng.randint(0, 12))) for _ in range(2000))]
    known: dict[str, str] = {}
    for name in names:
        clean = sanitise(name, known)
        _validate_metric_name(clean)
        assert 0 < len(clean) <= 250
        assert sanitise(name, known) == clean
    assert len(set(known.values())) == len(set(names))


def test_good_names_stay_and_synonyms_are_cut() -> None:
    known: dict[str, str] = {}
    assert sanitise("test/iou/traffic light", known) == "test/iou/traffic light"
    assert sanitise("test/iou/door;double door", known) == "test/iou/door"
    assert sanitise("test/iou/door", known) == "test/iou/door_2"


@pytest.mark.slow
def test_a_pipeline_becomes_a_parent_with_children(folder: Path) -> None:
    with start_journal(folder, "latent_prior") as journal:
        journal.params({"latent_prior": {"training": {"lr": 0.5}}})
        journal.tags({"git": "abc"})
        for step in range(1, 1501):
            journal.metrics(step, {"train/loss": 1 / step, "train/lr": 0.1})
    for model, value in (("gss_ff", 0.5), ("gss_ft", 0.75)):
        for split in ("val", "test"):
            with start_journal(folder, f"evaluate_{model}_{split}") as journal:
                table = folder / "evaluation" / model / split / "per_class.csv"
                table.parent.mkdir(parents=True)
                table.write_text(split)
                journal.metrics(0, {f"{split}/mIoU": value, f"{split}/iou/door;double door": value})
                journal.artifact(table)
    assert sync() == 1
    uri = database(folder)
    found = runs(uri)
    parent_name = next(name for name in found if name.startswith("pipeline/"))
    assert parent_name == f"pipeline/mine/{time.strftime('%Y-%m-%d')}-{SHA[:8]}"
    assert set(found) == {parent_name, "latent_prior", "evaluate_gss_ff", "evaluate_gss_ft"}
    parent, trained = found[parent_name], found["latent_prior"]
    assert trained.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert trained.data.tags["stage"] == "latent_prior"
    assert trained.data.tags["git"] == "abc"
    assert trained.data.params == {"latent_prior.training.lr": "0.5"}
    assert history(uri, trained, "train/loss") == [(step, 1 / step) for step in range(1, 1501)]
    for split in ("val", "test"):
        assert found["evaluate_gss_ft"].data.metrics[f"{split}/iou/door"] == 0.75
        assert parent.data.metrics[f"{split}/iou/door"] == 0.75
        assert parent.data.metrics[f"{split}/mIoU"] == 0.75
        assert parent.data.metrics[f"gss_ff/{split}/mIoU"] == 0.5
        assert parent.data.metrics[f"gss_ff/{split}/iou/door"] == 0.5
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert parent.info.end_time == max(run.info.end_time for run in found.values())
    stored = sorted(path.relative_to(path.parents[3]).as_posix() for path in Path("mlruns").rglob("per_class.csv"))
    tables = [f"evaluation/gss_{model}/{split}/per_class.csv" for model in ("ff", "ft") for split in ("test", "val")]
    assert stored == sorted(tables * 2)  # below the stage and below the pipeline


@pytest.mark.slow
def test_points_arrive_once_and_runs_are_kept(folder: Path) -> None:
    from mlflow import MlflowClient

    uri = database(folder)
    journal = start_journal(folder, "posterior")
    journal.metrics(1, {"train/loss": 3.0})
    assert sync() == 1
    assert runs(uri)["posterior"].info.status == "RUNNING"
    journal.metrics(2, {"train/loss": 2.0})
    with journal.path.open("ab") as file:
        file.write(b'{"t": 1, "step": 3, "m": {"train/lo')  # torn by a crash
    assert sync() == 1
    journal = start_journal(folder, "posterior")  # a restart: the same journal, the same run
    journal.params({"lr": 1})
    assert sync() == 1
    journal.params({"lr": 2})  # MLflow refuses to change one; the first stays
    journal.metrics(3, {"train/loss": 1.0})
    journal.end("interrupted")
    assert sync() == 1
    memory = folder / "work" / "mlflow.json"
    remembered = memory.read_text()
    assert sync() == 1
    assert memory.read_text() == remembered

    remembered = read_json(memory)
    remembered["sqlite:../../mlflow.db"]["offsets"] = {}  # as after a delivery whose end was not written down
    memory.write_text(json.dumps(remembered))
    assert sync() == 1
    found = runs(uri)
    assert len(found) == 2
    assert history(uri, found["posterior"], "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert found["posterior"].data.params == {"lr": "1"}
    assert {run.info.status for run in found.values()} == {"KILLED"}

    MlflowClient(uri).delete_run(found["posterior"].info.run_id)  # by the user: it gets everything again
    journal.end("finished")
    assert sync() == 1
    again = runs(uri)
    assert again["posterior"].info.run_id != found["posterior"].info.run_id and len(again) == 2
    assert history(uri, again["posterior"], "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]

    journal.metrics(4, {"train/loss": 0.5})
    Path.cwd().rename(Path.cwd().with_name("moved"))
    deliver = [sys.executable, "-m", "gss", "mlflow-sync", "results/mine"]  # this process keeps the old file open
    for points in (7, 4):  # with the three of the deleted run; in a new store
        subprocess.run(deliver, check=True)
        with contextlib.closing(sqlite3.connect("mlflow.db")) as store:
            assert store.execute("select count(*) from metrics").fetchone() == (points,)
        Path("mlflow.db").unlink()
