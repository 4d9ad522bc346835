"""MLflow's own columns: source, user, commit, data set; and the packages as a file."""

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from gss.results.journal import Journal
from gss.stages.machine import machine_facts
from gss.stages.run import environment
from gss.tracking.mlflow_sync import sync
from gss.tracking.source import dataset_inputs

SHA = "0123456789abcdef" * 4


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """A client, and the runs that a training and an evaluation have become, by name."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["gss", "train", "pixel", "mine"])
    for stage in ("pixel", "evaluate_pixel_camvid-11"):
        header = {"experiment": "mine", "stage": stage, "dataset": "street", "config_sha256": SHA}
        read = {"input data/manifest.json": "a" * 64}
        read |= {"input data/sets/camvid-11/manifest.json": "b" * 64} if stage != "pixel" else {}
        with Journal(Path("results/mine/work") / stage / "journal.jsonl", header) as journal:
            journal.tags({**read, **environment(), **machine_facts(), "data": "/data/street"})
    sync([Path("results/mine")])
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return client, {run.info.run_name.partition("/")[0]: run for run in found}


def test_source_user_commit_and_data_set_are_filled(runs: tuple[Any, dict[str, Any]]) -> None:
    client, found = runs
    facts = machine_facts()
    for name, source in (("pixel", "gss train"), ("pipeline", "Snakefile")):
        tags = found[name].data.tags
        assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == (source, "LOCAL")
        assert tags["mlflow.user"] == facts["user"]
        assert tags.get("mlflow.source.git.commit") == facts.get("git_commit")
    assert {"cpu", "cores", "memory"} <= found["pixel"].data.tags.keys() and "packages" not in found["pixel"].data.tags
    inputs = {name: run.inputs.dataset_inputs for name, run in found.items()}
    (trained,) = inputs["pixel"]
    assert (trained.dataset.name, trained.dataset.digest) == ("street", "a" * 36)
    assert (trained.tags[0].key, trained.tags[0].value) == ("mlflow.data.context", "training")
    assert "/data/street" in trained.dataset.source
    assert {each.dataset.name for each in inputs["evaluate_pixel"]} == {"street", "camvid-11"}
    assert {each.dataset.name for each in inputs["pipeline"]} == {"street", "camvid-11"}
    listed = Path(client.download_artifacts(found["pixel"].info.run_id, "packages.txt")).read_text().splitlines()
    assert f"numpy=={version('numpy')}" in listed and len(listed) > 50


def test_what_is_not_known_is_left_out() -> None:
    assert dataset_inputs("toy", "merge", {"input gss_ff.pth": "a", "input data/statistics.json": "b"}) == []
    facts = machine_facts()
    assert all(facts.values()) and re.fullmatch(r"[0-9a-f]{40}|", facts.get("git_commit", ""))
