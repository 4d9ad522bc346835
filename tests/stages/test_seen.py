"""What was made of a split stays when another one changes: records, work folders, figures; and what the check saw."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gss.config import load_experiment
from gss.data.manifest import read_manifest
from gss.data.toy import make_toy
from gss.files import read_json, write_json
from gss.results.reader import Results
from gss.results.records import of_split, read_record
from gss.results.work import open_work
from gss.stages.check import check
from gss.stages.evaluate import evaluate
from gss.stages.run import Run
from gss.stages.seen import changes
from gss.train.distributed import setup
from tests.data.annotated import labelme, picture, write
from tests.use.models import write_models

TOY = yaml.safe_load(Path("config/experiments/toy.yaml").read_text())


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """The toy with two pairs in each split, checked; called, its configuration with changed sections."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GSS_DATA", raising=False)
    make_toy(tmp_path / "data" / "toy", sizes={"train": 2, "val": 2, "test": 2})

    def opened(**sections: Any) -> Run:
        file = Path("config/experiments/toy.yaml")
        content = {**TOY, **{key: {**TOY.get(key, {}), **value} for key, value in sections.items()}}
        write(file, yaml.safe_dump(content))
        run = Run.open("toy")
        check(run)
        return run

    return opened


def add(split: str) -> None:
    for kind in ("images", "labels"):
        shutil.copy(f"data/toy/{kind}/{split}/0000.png", f"data/toy/{kind}/{split}/9.png")


def test_a_split_has_a_hash_of_its_own(toy: Callable[..., Run]) -> None:
    run = toy()
    first = read_manifest(run.folder / "data/manifest.json")
    add("test")
    check(run)
    second = read_manifest(run.folder / "data/manifest.json")
    same = {split: first.split_sha256(split) == second.split_sha256(split) for split in first.splits}
    assert same == {"train": True, "val": True, "test": False} and first.sha256 != second.sha256
    shutil.copytree("data", "elsewhere")
    assert first.at(Path("elsewhere/toy"), Path("elsewhere")).split_sha256("val") == first.split_sha256("val")
    toy(data={"label_map": {5: "ignore"}})
    third = read_manifest(run.folder / "data/manifest.json")
    assert third.split_sha256("val") != second.split_sha256("val")


def test_work_is_that_of_the_splits_it_learns_from(toy: Callable[..., Run]) -> None:
    run = toy()
    work = run.work("tokenizer")

    def begin() -> None:
        fresh = Run.open("toy")
        with fresh.stage("tokenizer", fresh.inputs(run.folder / "data/manifest.json")):
            pass

    begin()
    (work / "step_1.pth").touch()
    assert of_split("train") in read_record(run.folder, "tokenizer")["inputs"]
    assert "data/manifest.json" not in read_record(run.folder, "tokenizer")["inputs"]
    add("test")
    check(run)
    begin()
    assert (work / "step_1.pth").is_file()
    add("train")
    check(run)
    begin()
    assert not (work / "step_1.pth").exists()


def test_work_of_an_earlier_version_goes_on(toy: Callable[..., Run]) -> None:
    """Its fingerprint names the whole manifest."""
    run = toy()
    inputs = run.inputs(run.folder / "data/manifest.json")
    before = {"stage": "tokenizer", "config": run.experiment.slice("tokenizer"), "inputs": inputs}
    assert open_work(run.work("tokenizer"), before) is None
    (run.work("tokenizer") / "step_1.pth").touch()
    with run.stage("tokenizer", inputs):
        assert (run.work("tokenizer") / "step_1.pth").is_file()
    assert of_split("train") in read_json(run.work("tokenizer") / "fingerprint.json")["inputs"]


@pytest.mark.parametrize(
    ("stage", "split", "reads", "learns"),
    [
        ("palette", None, ["train"], ["train"]),
        ("reconstruct", None, ["train", "val", "test"], ["train"]),
        ("latent_prior", None, ["train"], ["train"]),
        ("posterior", None, ["train", "val"], ["train", "val"]),  # the best by `val` is kept
        ("evaluate", "val", ["val"], ["val"]),
    ],
)
def test_splits_that_stages_read(stage: str, split: str | None, reads: list[str], learns: list[str]) -> None:
    experiment = load_experiment("toy", ["posterior.training.keep=best", "posterior.training.validate_every=10"])
    assert experiment.splits_of(stage, split) == (reads, learns)


def test_figures_are_of_today_as_long_as_their_split_is(toy: Callable[..., Run]) -> None:
    run = toy()
    write_models(run.folder, classes=run.space.names)
    evaluate(run, setup(), "gss_ft", "val")
    found = Results(run.folder).evaluations["gss_ft", "val"]
    add("test")
    check(run)
    assert Results(run.folder).is_of_today(found)
    add("val")
    check(run)
    assert not Results(run.folder).is_of_today(found)
    assert any("The data set was checked anew" in note for note in Results(run.folder).notes())
    path = found.folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["data"] = {"manifest_sha256": Results(run.folder).manifest.sha256}  # of an earlier version
    write_json(path, metrics)
    assert Results(run.folder).is_of_today(Results(run.folder).evaluations["gss_ft", "val"])


def test_the_record_of_the_check_says_what_it_saw(toy: Callable[..., Run]) -> None:
    run = toy()
    seen = read_record(run.folder, "check")["seen"]
    assert list(seen) == ["toy"] and seen["toy"]["splits"]["val"]["files"] == 4
    assert changes(run.experiment, run.folder, seen) == {}
    changes.__globals__["_looked"].cache_clear()
    add("val")
    found = changes(run.experiment, run.folder, seen)
    assert found == {"val": "4 files of val, now 6 with other names or sizes"}


def test_annotations_in_folders_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "sets/yard" / split).mkdir(parents=True, exist_ok=True)
            picture().save(tmp_path / f"sets/yard/{split}/{name}.jpg")
            write(tmp_path / f"sets/yard/json/{split}/{name}.json", labelme(imagePath=f"{name}.jpg"))
    splits = {split: {"images": split, "labels": f"json/{split}"} for split in ("train", "val")}
    data = {"root": "yard", "annotations": {"format": "labelme"}, "classes": ["car", "tree"], "splits": splits}
    content = {"recipe": "pixel", "data": data, "augment": {"base_scale": [32, 32], "crop": [32, 32]}}
    write(
        Path("config/experiments/mine.yaml"),
        yaml.safe_dump({**content, "pixel": {"backbone": {"name": "test_resnet"}}}),
    )
    run = Run.open("mine")
    check(run)
    seen = read_record(run.folder, "check")["seen"]

    def found() -> list[str]:
        changes.__globals__["_looked"].cache_clear()
        return list(changes(run.experiment, run.folder, seen))

    assert found() == []
    picture(seed=3).save("sets/yard/val/without_annotation.jpg")
    assert found() == []
    write(tmp_path / "sets/yard/json/val/b.json", labelme(imagePath="b.jpg", version="5.0"))
    assert found() == ["val"]
