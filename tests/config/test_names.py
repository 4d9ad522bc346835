"""One rule for the names of experiments, and the file that a name means."""

import json
import unicodedata
from pathlib import Path

import pytest

from gss.cli import main
from gss.config import experiment_path, list_experiments, load_project
from gss.errors import ConfigError
from gss.stages.run import Run

TOY = Path("config/experiments/toy.yaml").read_text(encoding="utf-8")


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the experiments of a project that has `toy` alone."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config" / "experiments"
    folder.mkdir(parents=True)
    (folder / "toy.yaml").write_text(TOY)
    return folder


@pytest.mark.parametrize("name", ["v1.2", "_x", "2024-01", "Straße", "道路", "a.b-c_d.", "toy.csv"])
def test_letters_digits_dots_and_dashes_make_a_name(name: str, experiments: Path) -> None:
    (experiments / f"{name}.yaml").write_text(TOY)
    assert list_experiments() == sorted([name, "toy"])
    assert Run.open(name).folder == Path("results") / name
    assert Run.open(str(experiments / f"{name}.yaml")).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "-x",
        ".x",
        "..",
        "a/b",
        "it's",
        "$HOME",
        "a;b",
        "a\nb",
        "a{b}",
        "x.yaml.yaml",
        "\udcdf",
        "comparisons",
        "mlflow.log",
    ],
)
def test_anything_else_is_refused_wherever_it_is_named(name: str, experiments: Path) -> None:
    for meant in (name, str(experiments / f"{name}.yaml")) if name and "/" not in name else (name,):
        with pytest.raises(ConfigError, match="cannot be a name"):
            experiment_path(meant)
    for listed in ({"experiments": [name]}, {"comparisons": {name: ["toy", "toy/gss_ff"]}}):
        path = experiments.parent / "config.yaml"
        path.write_text(json.dumps(listed))
        with pytest.raises(ConfigError, match=r"cannot be a name|not readable as YAML"):  # a lone surrogate is no text
            load_project(path)


def test_unicode_forms_are_one_name(experiments: Path) -> None:
    (experiments / f"{unicodedata.normalize('NFD', 'Grün')}.yaml").write_text(TOY)
    for form in ("NFC", "NFD"):
        assert Run.open(unicodedata.normalize(form, "Grün")).name == unicodedata.normalize("NFC", "Grün")


def test_a_report_is_of_the_experiment_that_was_named(experiments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("results/v1").mkdir(parents=True)
    Path("results/v1/report.html").write_text("of v1")
    assert main(["report", "v1.2"]) == 2
    assert "results/v1.2" in capsys.readouterr().err
    assert Path("results/v1/report.html").read_text() == "of v1"


def test_what_editors_and_file_systems_leave_is_no_experiment(experiments: Path) -> None:
    (experiments / "._toy.yaml").write_bytes(b"\x00\x05\x16\x07")
    (experiments / ".#toy.yaml").symlink_to("nobody@nowhere.1")
    (experiments / "toy (copy).yaml").write_text(TOY)
    (experiments / "folder.yaml").mkdir()
    (experiments / "lost.yaml").symlink_to("nowhere")
    (experiments / "toy.yaml~").write_text(TOY)
    assert list_experiments() == ["toy"]
    for name, said in (("lost", "a link to nowhere"), ("folder", "is a folder"), ("toi", "did you mean 'toy'?")):
        with pytest.raises(ConfigError) as caught:
            experiment_path(name)
        assert said in str(caught.value)


def test_yml_is_read_and_two_files_of_a_name_are_refused(experiments: Path) -> None:
    (experiments / "other.yml").write_text(TOY)
    assert list_experiments() == ["other", "toy"] and experiment_path("other").name == "other.yml"
    (experiments / "toy.yml").write_text(TOY)
    assert list_experiments() == ["other", "toy"]
    with pytest.raises(ConfigError, match=r"has two files, toy\.yaml and toy\.yml"):
        experiment_path("toy")


def test_a_file_elsewhere_does_not_write_into_the_results_of_the_project(experiments: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    with pytest.raises(ConfigError, match="would mix"):
        Run.open("toy.yaml")
    assert Run.open("toy.yaml", results=tmp_path / "else").folder == tmp_path / "else" / "toy"
    assert Run.open("config/experiments/toy.yaml").name == "toy"
