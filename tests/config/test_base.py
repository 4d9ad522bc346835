"""Experiments that build on another."""

from pathlib import Path

import pytest

from gss.config import load_experiment, origins
from gss.errors import ConfigError

BASE = Path("config/experiments/toy.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiments of a project that has the toy."""
    text = BASE.read_text()
    folder = tmp_path / "config" / "experiments"
    folder.mkdir(parents=True)
    (folder / "toy.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return folder


def test_values_of_the_base_are_taken_where_none_are_given(folder: Path) -> None:
    (folder / "mine.yaml").write_text("base: toy\nseed: 3\naugment: {crop: [64, 64]}\n")
    (folder / "more.yaml").write_text("base: mine\nlatent_prior: {channels: 24}\n")
    toy, mine, more = map(load_experiment, ("toy", "mine", "more"))
    assert (mine.seed, mine.augment.crop, mine.augment.ratio) == (3, (64, 64), toy.augment.ratio)
    assert (more.seed, more.at("latent_prior.channels"), more.at("posterior")) == (3, 24, toy.at("posterior"))
    assert more.slice("palette") == toy.slice("palette") and more.slice("check") == toy.slice("check")
    said = origins("more", (), more)
    assert said["seed"] == "config/experiments/mine.yaml:2"
    assert said["latent_prior.channels"] == "config/experiments/more.yaml:2"
    assert said["data.root"].startswith("config/experiments/toy.yaml:") and said["numerics"] == "default"


def test_sections_of_the_base_can_be_left_out(folder: Path) -> None:
    one = "{root: x, classes: [a], splits: {val: {images: i, labels: l}}}"
    (folder / "mine.yaml").write_text(f"base: toy\nevaluation: {{sets: {{one: {one}, two: {one}}}}}\n")
    (folder / "some.yaml").write_text("base: mine\nevaluation: {sets: {two: null}}\n")
    (folder / "none.yaml").write_text("base: mine\nevaluation: {sets: null}\n")
    mine, some, none = map(load_experiment, ("mine", "some", "none"))
    assert [[*each.evaluation.sets] for each in (mine, some, none)] == [["one", "two"], ["one"], []]
    (folder / "own.yaml").write_text("base: mine\naugment: null\nevaluation: null\n")
    with pytest.raises(ConfigError, match="key 'augment' is missing"):
        load_experiment("own")
    (folder / "own.yaml").write_text("base: mine\nevaluation: null\n")
    said = origins("own", (), load_experiment("own"))
    assert {place for key, place in said.items() if key.startswith("evaluation.")} == {"default"}


def test_a_change_of_the_base_changes_what_depends_on_it(folder: Path) -> None:
    (folder / "mine.yaml").write_text("base: toy\nseed: 3\n")
    before = load_experiment("mine")
    (folder / "toy.yaml").write_text((folder / "toy.yaml").read_text() + "palette: {strategy: grid}\n")
    after = load_experiment("mine")
    changed = [stage.name for stage in after.kind.stages if before.slice(stage.name) != after.slice(stage.name)]
    assert changed == ["palette"]


def test_a_base_of_another_recipe_lends_what_both_have(folder: Path) -> None:
    (folder / "mine.yaml").write_text("base: toy\nevaluation: {pictures: 3, token_weight: 1.0}\n")
    (folder / "plain.yaml").write_text("recipe: pixel\nbase: mine\npixel: {backbone: {name: test_resnet}}\n")
    toy, plain = load_experiment("toy"), load_experiment("plain")
    assert plain.recipe == "pixel" and plain.data == toy.data and plain.augment == toy.augment
    assert plain.evaluation.pictures == 3 and not hasattr(plain.evaluation, "token_weight")  # it has no tokens
    assert plain.run.resources == {} and plain.run.log_every == toy.run.log_every


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a": "base: a"}, "leads back"),
        ({"a": "base: b", "b": "base: a"}, "leads back"),
        ({"a": "base: toi"}, "did you mean 'toy'"),
        ({"a": "base: [toy]"}, "names an experiment"),
        ({"a": "base: toy\npalete: {}"}, "did you mean 'palette'"),
    ],
)
def test_wrong_bases_are_one_clear_error(folder: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(f"{text}\n")
    with pytest.raises(ConfigError) as error:
        load_experiment("a")
    assert said in str(error.value)
    with pytest.raises(ConfigError, match="said in the file"):
        load_experiment("toy", ["base=a"])
