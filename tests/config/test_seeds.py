"""Experiments that are run with several seeds."""

from pathlib import Path

import pytest

from gss.cli import main
from gss.config import experiment_name, folder_name, load_experiment, origins, run_parts, runs_of
from gss.errors import ConfigError
from gss.stages.run import Run

TOY = Path("config/experiments/toy.yaml").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiments of a project: `toy`, and `many` with its seeds."""
    folder = tmp_path / "config" / "experiments"
    folder.mkdir(parents=True)
    (folder / "toy.yaml").write_text(TOY)
    (folder / "many.yaml").write_text("base: toy\nseeds: [0, 4]\n")
    monkeypatch.chdir(tmp_path)
    return folder


def test_each_seed_is_a_run_of_its_own(folder: Path) -> None:
    assert runs_of("toy") == ["toy"]
    assert runs_of("many") == ["many/seed_0", "many/seed_4"]
    assert runs_of("many/seed_4") == ["many/seed_4"]
    for name in ("many/seed_4", f"{folder}/many.yaml/seed_4"):
        assert experiment_name(name) == "many/seed_4"
        assert Run.open(name).name == "many/seed_4"
        assert Run.open(name).folder == Path("results/many/seed_4")


def test_a_seed_is_what_the_key_seed_would_make(folder: Path) -> None:
    (folder / "single.yaml").write_text("base: toy\nseed: 4\n")
    many, single = load_experiment("many/seed_4"), load_experiment("single")
    assert (many.seed, many.seeds) == (4, ())
    assert many.sha256 == single.sha256
    assert load_experiment("many/seed_0").sha256 == load_experiment("toy").sha256
    assert origins("many/seed_4", (), many)["seed"] == "config/experiments/many.yaml:2"


def test_other_settings_of_a_seed_stand_below_the_experiment(folder: Path) -> None:
    run = Run.open("many/seed_4", ["evaluation.flip=true"])
    assert run.folder.parent == Path("results/many") and run.folder.name.startswith("seed_4+")
    assert run.name == f"many/{run.folder.name}" == folder_name(run.folder)
    assert run.workflow == Path("results/many/seed_4")


@pytest.mark.parametrize(
    ("run", "parts"),
    [
        ("many", ("many", "")),
        ("many/gss_ff", ("many", "gss_ff")),
        ("many/seed_4", ("many/seed_4", "")),
        ("many/seed_4/gss_ff", ("many/seed_4", "gss_ff")),
        ("many/seed_4+01234567/gss_ff", ("many/seed_4+01234567", "gss_ff")),
    ],
)
def test_runs_are_named_with_their_seed(run: str, parts: tuple[str, str]) -> None:
    assert run_parts(run) == parts


@pytest.mark.parametrize("run", ["many/seed_04", "many/seed_", "/seed_4", "many/seed_4/seed_4", "many/gss_ff/seed_4"])
def test_anything_else_is_no_run(run: str) -> None:
    with pytest.raises(ValueError, match="is no run"):
        run_parts(run)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("many", "name one, here and below results: many/seed_0, many/seed_4"),
        ("many/seed_1", "'many' has no seed 1"),
        ("toy/seed_1", "'toy' has no `seeds`"),
        ("many/seed_01", "cannot be a name"),
        ("seed_1", "cannot be a name"),
    ],
)
def test_a_seed_that_is_missing_or_not_there_is_one_clear_error(
    folder: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", name]) == 2
    assert said in capsys.readouterr().err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [1, 1]", "has one twice"),
        ("seed: 1\nseeds: [2, 3]", "remove one of them"),
        ("seeds: [-1]", "greater than or equal to 0"),
        ("seeds: 3", "seeds"),
    ],
)
def test_wrong_seeds_are_refused(folder: Path, text: str, said: str) -> None:
    (folder / "mine.yaml").write_text(f"base: toy\n{text}\n")
    with pytest.raises(ConfigError, match=said):
        runs_of("mine")


def test_seeds_are_said_in_the_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match="said in the file"):
        load_experiment("many/seed_0", ["seeds=[0]"])
