"""What stands in a results folder is whole, and of the settings it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

from gss import workflow
from gss.config import load_experiment
from gss.data.toy import make_toy
from gss.errors import GssError
from gss.files import read_json, write_json
from gss.results.journal import Journal, read_journal
from gss.results.records import made_by, read_record, record_file
from gss.stages.check import check
from gss.stages.evaluate import evaluate
from gss.stages.run import Run
from gss.train.distributed import setup
from tests.use.models import write_models

TOY = yaml.safe_load(Path("config/experiments/toy.yaml").read_text())


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the toy experiment with changed sections, in an empty project with its data."""
    monkeypatch.chdir(tmp_path)
    make_toy(tmp_path / "data" / "toy", sizes={"train": 1, "val": 1, "test": 2})

    def written(**sections: Any) -> Path:
        file = Path("config/experiments/toy.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {**TOY, **{key: {**TOY.get(key, {}), **value} for key, value in sections.items()}}
        file.write_text(yaml.safe_dump(content))
        return file

    written()
    return written


@pytest.fixture
def evaluated(write: Callable[..., Path]) -> Run:
    """The toy with an untrained model that was measured on its two test images."""
    run = Run.open("toy")
    check(run)
    write_models(run.folder, classes=run.space.names)
    evaluate(run, setup(), "gss_ft", "test")
    return run


def test_only_what_changes_results_gets_a_folder_of_its_own(write: Callable[..., Path]) -> None:
    plain, apart = Run.open("toy"), Run.open("toy", ["evaluation.flip=true"])
    assert plain.folder == Run.open("toy", ["run.workers=0", "published.source=me"]).folder == Path("results/toy")
    assert apart.folder.name.startswith("toy+") and apart.workflow == plain.folder
    assert Run.open("toy", ["seed=1"]).folder not in (plain.folder, apart.folder)
    assert Run.open("toy", ["posterior.experiment=other", "posterior.start_step=null"]).workflow == plain.folder
    assert Run.open("toy", ["run.workers=0"]).now.config["run"]["workers"] == plain.experiment.run.workers


def test_an_evaluation_that_breaks_off_leaves_no_figures(evaluated: Run) -> None:
    folder = evaluated.folder / "evaluation" / "gss_ft" / "test"
    assert (folder / "metrics.json").is_file() and read_record(evaluated.folder, "evaluate_gss_ft_test")
    image = evaluated.root / "images" / "test" / "0001.png"
    cv2.imwrite(str(image), cv2.imread(str(image))[:-8])
    with pytest.raises(GssError, match="when the data set was checked"):
        evaluate(evaluated, setup(), "gss_ft", "test")
    assert [*folder.glob("*.json"), *folder.glob("*.csv"), *folder.glob("*.npz")] == []
    assert read_record(evaluated.folder, "evaluate_gss_ft_test") is None


def test_other_figures_of_the_same_evaluation_reach_the_journal(evaluated: Run) -> None:
    """As new code gives them; here, a label was painted over."""
    label = evaluated.root / "labels" / "test" / "0001.png"
    cv2.imwrite(str(label), cv2.imread(str(label), cv2.IMREAD_UNCHANGED) * 0)
    before = read_json(evaluated.folder / "evaluation/gss_ft/test/metrics.json")["mAcc"]
    evaluate(evaluated, setup(), "gss_ft", "test")
    now = read_json(evaluated.folder / "evaluation/gss_ft/test/metrics.json")["mAcc"]
    events = read_journal(evaluated.work("evaluate_gss_ft_test") / "journal.jsonl")
    assert now != before
    assert [event["m"]["test/mAcc"] for event in events if "test/mAcc" in event.get("m", {})] == [before, now]


def test_a_record_that_cannot_be_read_says_nothing(evaluated: Run) -> None:
    for text in ("", "[]", "{}", '{"settings": 3}'):
        record_file(evaluated.folder, "check").write_text(text)
        assert read_record(evaluated.folder, "check") is None


def test_what_a_stage_reads_is_declared(write: Callable[..., Path]) -> None:
    """The counts behind `class_balance`, and the archives."""
    workflow.find_experiment.cache_clear()
    toy = type("Wildcards", (), {"experiment": "toy"})
    assert workflow.training_inputs("latent_prior")(toy) == workflow.training_inputs("posterior")(toy) == []
    training = {**TOY["posterior"]["training"], "class_balance": 0.5}
    write(posterior={"training": training}, data={"archives": [{"file": "a.zip"}]})
    workflow.find_experiment.cache_clear()
    assert workflow.training_inputs("posterior")(toy) == ["results/toy/data/statistics.json"]
    assert workflow.training_inputs("latent_prior")(toy) == []
    changed, plain = load_experiment("toy"), load_experiment("toy", ["data.archives=[]"])
    assert changed.slice("prepare") != plain.slice("prepare")
    assert changed.slice("check") == plain.slice("check")
    workflow.find_experiment.cache_clear()


def test_a_training_that_was_begun_anew_says_nothing_of_older_results(tmp_path: Path) -> None:
    """Results older than records are judged by what their work folder says, once it is theirs."""
    work = tmp_path / "work" / "latent_prior"
    write_json(work / "fingerprint.json", {"stage": "latent_prior", "config": {"version": 1}, "inputs": {"a": "b"}})
    with Journal(work / "journal.jsonl", {"stage": "latent_prior"}) as journal:
        journal.metrics(1, {"train/loss": 0.5})
    assert made_by(tmp_path, "latent_prior") == {"settings": {"version": 1}, "inputs": {"a": "b"}}
    Journal(work / "journal.jsonl", {}).metrics(2, {"train/loss": 0.4})
    assert made_by(tmp_path, "latent_prior") is None
    (work / "journal.jsonl").unlink()
    assert made_by(tmp_path, "latent_prior") is None
