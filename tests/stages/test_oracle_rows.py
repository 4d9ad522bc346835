"""What a network reaches that is trained on a test set's own training data, beside the models that never saw it."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gss import workflow
from gss.config import load_experiment
from gss.data.metrics import scores
from tests.stages.village import MODEL, VILLAGE, in_set, run, trained, write

PAIRS = VILLAGE["splits"]["test"]


def native(content: dict) -> None:
    """The experiment that is trained on the village itself."""
    content["data"] = {"root": "village", "classes": VILLAGE["classes"], "splits": {"train": PAIRS, "test": PAIRS}}
    content["evaluation"] = {"pictures": 0}


@pytest.fixture
def measured(project: Path) -> Path:
    write(in_set(oracle="villagers", absent="zero"))
    write(native, name="villagers")
    trained()
    run("evaluate", "mine")
    return project


def summary() -> dict:
    run("summary", "mine")
    return json.loads((MODEL / "summary.json").read_text())


def test_an_oracle_stands_beside_and_is_in_no_mean(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = summary()
    assert before["sets"]["village"]["oracle"] == {
        "experiment": "villagers",
        "mIoU": None,
        "missing": "not evaluated on test",
    }
    assert not Path("results/villagers").exists()  # nothing was trained for it
    assert "oracle of village, villagers: not evaluated on test" in capsys.readouterr().out
    run("report", "mine")
    assert "not there: not evaluated on test" in Path("results/mine/report.html").read_text()
    for words in (("check",), ("train", "pixel"), ("evaluate",)):
        run(*words, "villagers")
    path = Path("results/villagers/evaluation/pixel/test/confusion.npz")
    with np.load(path) as arrays:
        kept = dict(arrays)
    kept["confusion"][2], kept["confusion"][:, 2] = 0, 0  # a class that is nowhere
    np.savez(path, **kept)
    now = summary()
    expected = scores(kept["confusion"], "zero").mIoU  # as the set has it
    assert now["sets"]["village"]["oracle"] == {"experiment": "villagers", "mIoU": expected}
    assert now["h_mean"] == before["h_mean"]
    workflow.find_experiment.cache_clear()
    seen = workflow.oracles(SimpleNamespace(experiment="mine", model="pixel"))
    recorded = json.loads(Path("results/mine/records/summary_pixel.json").read_text())["inputs"]
    assert seen and seen == {name: digest for name, digest in recorded.items() if name.startswith("..")}
    rows = list(csv.DictReader((MODEL / "summary.csv").read_text().splitlines()))
    assert [(row["set"], row["oracle"]) for row in rows] == [("village", str(expected)), ("h_mean", "")]
    capsys.readouterr()
    run("report", "mine")
    assert f"{100 * expected:.2f}" in next(
        line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["oracle"]
    )
    page = Path("results/mine/report.html").read_text()
    assert f"oracle, villagers</td><td>{100 * expected:.2f}</td>" in page


def test_an_oracle_can_be_asked_for_beside_the_file(measured: Path) -> None:
    """Figures are those of the workflow, in a folder that has no configuration yet."""
    run("summary", "mine", "evaluation.sets.village.oracle=none")
    (path,) = Path("results").glob("mine+*/evaluation/pixel/summary.json")
    assert json.loads(path.read_text())["sets"]["village"]["oracle"]["experiment"] == "none"


def test_an_oracle_of_other_classes_is_none(measured: Path) -> None:
    write(lambda content: (native(content), content["data"].update(classes=["ground", "car", "animal"])), "villagers")
    for words in (("check",), ("train", "pixel"), ("evaluate",)):
        run(*words, "villagers")
    assert summary()["sets"]["village"]["oracle"]["missing"] == "other classes: car, vehicle"


def test_an_oracle_is_a_matter_of_the_summary_alone(project: Path) -> None:
    plain = load_experiment("mine")
    write(in_set(oracle="villagers"))
    named = load_experiment("mine")
    for stage in ("check", "evaluate"):
        assert plain.slice(stage, "village") == named.slice(stage, "village")
    assert plain.slice("summary") != named.slice("summary")


def test_figures_that_come_or_change_sum_up_again_and_are_never_asked_for(project: Path) -> None:
    write(in_set(oracle="villagers"))
    workflow.find_experiment.cache_clear()
    wildcards = SimpleNamespace(experiment="mine", model="pixel")
    assert workflow.oracles(wildcards) == {}
    assert workflow.summary_inputs(wildcards) == ["results/mine/evaluation/pixel/village/metrics.json"]
    found = []
    for text in ("{}", "{ }"):
        path = Path("results/villagers/seed_1/evaluation/pixel/test/metrics.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        found.append(workflow.oracles(wildcards))
    assert found[0] != found[1] and list(found[0]) == ["../villagers/seed_1/evaluation/pixel/test/metrics.json"]
    assert workflow.summary_inputs(wildcards) == ["results/mine/evaluation/pixel/village/metrics.json"]
    workflow.find_experiment.cache_clear()
