"""What the run of a pipeline and the model registry show: complete, once, and comparable with older runs."""

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from pipelines import Pipeline

from gss.config import find_recipe
from gss.files import write_text
from gss.recipes.gss.experiment import GSSExperiment, LatentPrior
from gss.tracking import overview
from gss.tracking.mlflow_sync import sync
from gss.tracking.overview import Point, Told, behind, description

CLASSES = ("sky", "traffic light", "a_b", "door;double door")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty project; the address of its store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def pipelines(uri: str) -> dict[str, Any]:
    """The runs of the pipelines, by experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.stage = 'pipeline'")
    return {run.data.tags["experiment"]: run for run in found}


def test_a_description_fits_whatever_the_classes_are() -> None:
    names = [f"class_{number} of a long name" for number in range(400)]
    points = [
        Point(f"{model}/test/iou/{name}", number / 400 if model == "gss_ft" else 0.5, 1, 0)
        for number, name in enumerate(names)
        for model in ("gss_ff", "gss_ft")
    ]
    points += [Point("gss_ft/test/mIoU", 0.5, 1, 0), Point("reconstruction/val/mIoU", 0.9, 1, 0)]
    text = description(points, find_recipe("gss"), report=True, model="gss-x/2")
    assert 7000 < len(text) < 8000
    assert r"| class\_399 of a long name | 50.00 | 99.75 | +49.75 |" in text
    assert r"| class\_0 of a long name | 50.00 | 0.00 | -50.00 |" in text
    assert "class\\_201 " not in text and "with smaller differences are left out" in text
    assert "| GSS-FT | test | 50.00 | – | – |" in text and "| reconstruction | val | 90.00 | – | – |" in text
    assert description([], find_recipe("gss"), report=False, model=None) == ""


def test_stages_that_were_taken_over_are_the_last_before_the_evaluation() -> None:
    def told(stage: str, config: str, last: int) -> Told:
        return Told(stage, config, "mine", True, True, last - 1, last)

    first = [told("palette", "aa", 10), told("reconstruct", "aa", 20), told("evaluate_gss_ft_test", "aa", 30)]
    again = [told("evaluate_gss_ft_test", "bb", 40), told("reconstruct", "cc", 50)]
    assert {name: (stage.config, stage.last) for name, stage in behind([*first, *again], "bb").items()} == {
        "palette": ("aa", 10),
        "reconstruct": ("aa", 20),
        "evaluate_gss_ft_test": ("bb", 40),
    }
    assert [stage.last for stage in behind([*first, *again], "aa").values()] == [10, 20, 30]
    assert set(behind([*first, *again], "cc")) == {"reconstruct"}


@pytest.mark.slow
def test_versions_of_a_model_are_its_files(project: str) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    made = Pipeline(Path("results/mine"), CLASSES)
    made.palette()
    made.reconstruct()
    made.merge(b"one")
    made.report("first")

    def versions() -> list[Any]:
        assert sync() == 1
        found = MlflowClient(project).search_model_versions("name = 'gss-mine'")
        return sorted(found, key=lambda version: int(version.version))

    def measured() -> list[bool]:
        return ["test/mIoU" in version.tags for version in versions()]

    def stored(name: str) -> list[bytes]:
        return sorted(path.read_bytes() for path in Path("mlruns").rglob(name))

    first = versions()
    assert len(first) == 1 and "test/mIoU" not in first[0].tags
    assert first[0].tags["input gss_ff.pth"] == "ff" * 32 and first[0].tags["git"] == "abc"
    for model in ("gss_ff", "gss_ft"):
        made.evaluate(model, "test")
    made.report("second")
    (again,) = versions()
    run = pipelines(project)["mine"]
    for name in ("test/mIoU", "gss_ff/test/mIoU"):
        assert again.tags[name] == f"{run.data.metrics[name]:.6f}"
    assert f"**{100 * run.data.metrics['test/mIoU']:.2f}**" in again.description
    assert {"test/iou/door", "gss_ff/test/iou/traffic light", "reconstruction/test/mIoU"} <= set(run.data.metrics)
    assert not any("/acc/" in name for name in run.data.metrics)
    assert {run.data.tags[name] for name in ("dataset", "classes")} == {"toy", "4"}
    assert run.data.tags["backbone"] == made.experiment.latent_prior.backbone.name
    assert r"| a\_b |" in run.data.tags["mlflow.note.content"]
    assert [b"second" in page for page in stored("report.html")] == [True]
    Path("results/mine/work/mlflow.json").unlink()  # as if nothing had been delivered from here
    assert measured() == [True]

    made.merge(b"two")
    assert measured() == [True, False]
    assert stored("gss_ft.pth") == []
    shutil.move("results/mine/work/evaluate_gss_ft_test", "results/mine/work/stale/evaluate_gss_ft_test-1")
    made.evaluate("gss_ft", "test")
    write_text(Path("config/config.yaml"), "mlflow: {upload_models: true}")
    assert measured() == [True, True]
    assert stored("gss_ft.pth") == [b"two"]
    fetched = download_artifacts("models:/gss-mine/2", dst_path="got", tracking_uri=project, registry_uri=project)
    assert {path.name for path in Path(fetched).iterdir()} == {"model.json", "gss_ft.pth", "tokenizer.safetensors"}


class NewerLatentPrior(LatentPrior):
    attention: Literal["full", "window"] = "full"


class NewerExperiment(GSSExperiment):
    """The configuration of a later version of this project, with one setting more."""

    latent_prior: NewerLatentPrior


@pytest.mark.slow
def test_old_runs_stay_comparable_when_settings_are_added(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow shows nothing for a parameter that a run lacks, and calls that a difference: old runs get the default."""
    Pipeline(Path("results/old"), CLASSES).run()
    sync()
    before = pipelines(project)["old"]
    assert before.data.params["latent_prior.token_stride"] == "4"  # a default
    assert "run.workers" not in before.data.params
    monkeypatch.setattr(overview, "experiment_class", lambda content: NewerExperiment)
    newer = Pipeline(Path("results/new"), CLASSES)
    content = newer.experiment.model_dump(mode="json")
    content["latent_prior"]["attention"] = "window"
    newer.reconfigure(NewerExperiment.model_validate(content))
    newer.run()
    sync()
    old, new = (pipelines(project)[name] for name in ("old", "new"))
    assert old.info.run_id == before.info.run_id
    assert set(old.data.params) == set(new.data.params)
    assert {name for name in old.data.params if old.data.params[name] != new.data.params[name]} == {
        "latent_prior.attention"
    }
    assert old.data.params["latent_prior.attention"] == "full"
