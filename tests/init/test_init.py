"""The verb: it never overwrites, and what it writes runs."""

import re
from pathlib import Path

import pytest

from gss.cli import main
from tests.init.made import coco, labelme, pairs, photographs
from tests.workflow.project import Project


def test_an_experiment_is_never_overwritten(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("config/experiments")
    root = pairs(base / "set", count=4)
    assert main(["init", "mine", str(root)]) == 2
    assert "call this in the folder of the project" in capsys.readouterr().err
    folder.mkdir(parents=True)
    for suffix in (".yaml", ".yml"):
        path = folder / f"mine{suffix}"
        path.write_text("mine: all mine\n")
        assert main(["init", "mine", str(root)]) == 2
        assert "there is an experiment 'mine'" in capsys.readouterr().err
        assert path.read_text() == "mine: all mine\n"
        path.unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine", "nowhere"], "no such folder"),
        (["a b", "."], "cannot be a name"),
        (["mine", ".", "--hours", "0"], "is no number of hours"),
    ],
)
def test_what_cannot_be_is_told(base: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config/experiments").mkdir(parents=True)
    try:
        assert main(["init", *words]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert said in capsys.readouterr().err
    assert not list(Path("config/experiments").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_from_two_folders_to_a_report(
    kind: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    root = base / "set"
    if kind == "labels":
        pairs(root, count=8)
    else:
        coco(root / "all.json", photographs(root / "images"))
    words = ["init", "mine", str(root), "--hours", "3"]
    assert main([*words, "--dry-run"]) == 0
    assert "recipe: pixel" in capsys.readouterr().out and not project.experiment("mine").exists()
    assert main(words) == 0
    shown = capsys.readouterr().out
    written = project.experiment("mine").read_text()
    assert written in shown and "as measured here" in written
    done = project.snakemake("results/mine/report.html", GSS_DATA=str(base))
    assert done.returncode == 0, done.stdout
    assert project.experiment("mine").read_text() == written
    (metrics,) = project.folder.glob("results/mine/evaluation/pixel/*/metrics.json")
    assert "mine" in (project.folder / "results/mine/report.html").read_text() and metrics.parent.name == "val"


@pytest.mark.slow
def test_every_stage_of_gss_is_measured(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config/experiments").mkdir(parents=True)
    labelme(base / "set", photographs(base / "set", 4))
    words = ["init", "mine", str(base / "set"), "--recipe", "gss", "--hours", "9", "--dry-run"]
    assert main(words) == 0
    said = capsys.readouterr().out
    times = re.findall(r"^#   (\w+) +\d[\d.]* (?:s|min|h)$", said, re.MULTILINE)
    stages = ["labels", "check", "palette", "tokenizer", "reconstruct", "latent_prior", "posterior", "merge"]
    assert times == [*stages, "evaluate", "report", "all"]
