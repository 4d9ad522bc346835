"""The page of an experiment with several seeds: mean and spread, and the way to the page of each."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_results import EVIL, SyntheticResults

from gss.cli import main
from gss.files import write_json
from gss.results.journal import read_journal

SEEDS = (0, 3, 10)
NAMES = (*EVIL, "road")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticResults:
    return SyntheticResults(tmp_path_factory.mktemp("project"), NAMES)


@pytest.fixture
def folder(made: SyntheticResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Results of three seeds whose figures differ, in a project of its own."""
    shutil.copytree(made.folder.parents[1] / "config", tmp_path / "config")
    file = tmp_path / "config" / "experiments" / "made.yaml"
    file.write_text(f"{file.read_text()}seeds: {list(SEEDS)}\nposterior: {{steps: 77}}\n")
    for place, seed in enumerate(SEEDS):
        run = tmp_path / "results" / "made" / f"seed_{seed}"
        shutil.copytree(made.folder, run)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
        for path in run.glob("evaluation/*/*/metrics.json"):
            metrics = json.loads(path.read_text())
            metrics["mIoU"] += 0.01 * place**2
            metrics["IoU"][NAMES[0]] = None if place == 1 else 0.5 + 0.1 * place
            write_json(path, metrics)
    monkeypatch.chdir(tmp_path)
    yield Path("results/made")


def headline(folder: Path) -> list[float]:
    files = (folder / f"seed_{seed}/evaluation/gss_ft/test/metrics.json" for seed in SEEDS)
    return [json.loads(file.read_text())["mIoU"] for file in files]


def test_mean_and_spread_are_those_of_the_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "made"]) == 0
    values = headline(folder)
    mean, std = np.mean(values), np.std(values, ddof=1)
    page = (folder / "report.html").read_text(encoding="utf-8")
    shown = f"{100 * mean:.2f} ± {100 * std:.2f}"
    assert shown in capsys.readouterr().out
    assert shown in re.sub(r"<.*?>", "", page).replace("±", "± ")
    assert [f'href="seed_{seed}/report.html"' in page for seed in SEEDS] == [True] * 3
    assert EVIL[0] not in page and "note" not in page.partition("<h2")[0].partition("</style>")[2]
    table = pd.read_csv(folder / "seeds.csv").set_index(["split", "model", "figure"])
    assert list(table.columns) == ["mean", "std", "seed_0", "seed_3", "seed_10"]
    row = table.loc["test", "gss_ft", "mIoU"]
    assert list(row) == pytest.approx([mean, std, *values])
    row = table.loc["val", "gss_ff", f"iou/{NAMES[0]}"]  # a seed that neither met nor predicted the class
    assert list(row.dropna()) == pytest.approx([0.6, np.std([0.5, 0.7], ddof=1), 0.5, 0.7])
    assert page.count("<polyline") == 2 * 3 * 2  # loss and mIoU of two trainings, a curve of each seed


def test_seeds_that_are_no_match_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "seed_3" / "config.yaml"
    config.write_text(config.read_text().replace("steps: 77", "steps: 78"))
    shutil.rmtree(folder / "seed_10" / "evaluation")
    assert main(["report", "made"]) == 0
    printed, page = capsys.readouterr().out, (folder / "report.html").read_text(encoding="utf-8")
    for said in ("made/seed_3 was made with other settings than made/seed_0: posterior.steps 77 → 78", "seed_10 lacks"):
        assert said in printed and said in page
    assert "over 2 seeds" in printed


def test_a_key_that_an_earlier_version_did_not_know_is_no_difference(folder: Path) -> None:
    config = folder / "seed_3" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    assert content["posterior"].pop("channels") == 128  # the default
    config.write_text(yaml.safe_dump(content))
    assert main(["report", "made"]) == 0
    assert "other settings" not in (folder / "report.html").read_text(encoding="utf-8")


def test_classes_that_no_seed_met_are_counted_and_not_listed(folder: Path) -> None:
    for file in folder.glob("seed_*/evaluation/*/test/metrics.json"):
        metrics = json.loads(file.read_text())
        metrics["IoU"][NAMES[1]] = None
        file.write_text(json.dumps(metrics))
    assert main(["report", "made"]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    of_test = page.partition('<h2 id="test">')[2].partition("<h2")[0]
    assert "Not listed: 1 that no label of test has and no seed predicted" in of_test
    assert of_test.count('<td title="') == len(NAMES) - 1
    assert "Not listed" not in page.partition('<h2 id="val">')[2].partition("<h2")[0]


def test_seeds_are_those_of_the_file(folder: Path) -> None:
    file = Path("config/experiments/made.yaml")
    file.write_text(file.read_text().replace("[0, 3, 10]", "[10, 0]"))
    assert main(["report", "made"]) == 0
    assert "seed_10,seed_0\n" in (folder / "seeds.csv").read_text().partition("\n")[0] + "\n"
    file.unlink()  # copied results: all that are there
    assert main(["report", "made"]) == 0
    assert "seed_0,seed_3,seed_10\n" in (folder / "seeds.csv").read_text().partition("\n")[0] + "\n"


def test_nothing_evaluated_is_one_clear_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in SEEDS:
        shutil.rmtree(folder / f"seed_{seed}" / "evaluation")
    assert main(["report", "made"]) == 2
    assert "nothing evaluated yet" in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def test_figures_told_twice_stand_once_in_the_journal(folder: Path) -> None:
    journal = folder / "work" / "seeds" / "journal.jsonl"
    assert main(["report", "made"]) == main(["report", "made"]) == 0
    events = read_journal(journal)
    assert sum("m" in event for event in events) == 1
    assert events[0]["experiment"] == "made"


@pytest.mark.slow
def test_mlflow_shows_mean_and_spread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    from gss.tracking.mlflow_sync import sync

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", "made"]) == 0
    sync([folder])
    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {run.data.tags["experiment"] for run in runs} == {"made"}  # synthetic seeds have other journals
    (run,) = (run for run in runs if run.data.tags["stage"] == "pipeline" and "test/mIoU_std" in run.data.metrics)
    values = headline(folder)
    assert run.data.metrics["test/mIoU"] == pytest.approx(np.mean(values))
    assert run.data.metrics["test/mIoU_std"] == pytest.approx(np.std(values, ddof=1))
    assert f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}" in run.data.tags["mlflow.note.content"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"report.html", "seeds.csv", "config.yaml"}
