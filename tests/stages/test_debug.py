"""Keys to look for faults: a few pairs, one batch; what they make lies apart and is never taken for a result."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from gss.cli import main
from gss.config import list_experiments, load_experiment, runs_of
from gss.data.images import write_png
from gss.data.manifest import read_manifest
from gss.errors import ConfigError
from gss.files import read_json
from gss.results.journal import read_journal
from tests.stages.village import run, write


def own_folder() -> Path:
    (folder,) = Path("results").glob("mine+*")
    return folder


def losses(folder: Path) -> list[float]:
    events = read_journal(folder / "work/pixel/journal.jsonl")
    return [event["m"]["train/loss"] for event in events if "train/loss" in event.get("m", {})]


def test_some_images_are_all_that_the_check_and_who_follows_see(project: Path) -> None:
    write()
    run("check", "mine")
    run("check", "mine", "debug.images=2")
    rows = read_manifest(own_folder() / "data/manifest.json").rows
    assert {split: [row["image"] for row in found] for split, found in rows.items()} == {
        split: [f"images/{split}/1.png", f"images/{split}/3.png"] for split in ("train", "val")
    }
    of_set = read_manifest(own_folder() / "data/sets/village/manifest.json").rows["test"]
    assert [row["image"] for row in of_set] == ["photos/v0.png", "photos/v2.png"]
    assert read_json(own_folder() / "data/statistics.json")["splits"]["train"]["images"] == 2
    assert len(read_manifest(Path("results/mine/data/manifest.json")).rows["train"]) == 4


def test_all_images_are_not_taken_for_some(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    run("check", "mine")
    with pytest.raises(SystemExit):
        main(["train", "pixel", "mine", "debug.images=2"])
    assert "call `gss check` with the same settings before" in capsys.readouterr().err


def test_some_labels_of_one_class_are_no_fault(project: Path) -> None:
    write()
    for index in (1, 3):  # those that are looked at
        write_png(project / f"sets/city/labels/train/{index}.png", np.zeros((32, 48), np.uint8))
    run("check", "mine", "--only", "data", "debug.images=2")


def test_one_batch_is_learned_by_heart(project: Path) -> None:
    write(lambda content: content["augment"].update(photometric=False))
    run("check", "mine", "--only", "data")
    settings = ["pixel.steps=40", "pixel.training.lr=0.01", "run.log_every=1", "run.workers=0"]
    run("train", "pixel", "mine", "debug.overfit=true", *settings)
    found = losses(own_folder())
    assert len(found) == 40 and found[-1] < 0.5 * found[0]  # of random labels: nothing but these images tells them


def test_what_is_looked_at_by_keys_has_a_folder_of_its_own_and_no_file(project: Path) -> None:
    write()
    plain = load_experiment("mine")
    for override in ("debug.images=2", "debug.overfit=true"):
        found = load_experiment("mine", [override])
        assert found.sha256 != plain.sha256 and found.settings() != plain.settings()
        for row in plain.kind.stages:
            assert found.slice(row.name) == {**plain.slice(row.name), "debug": found.slice("check")["debug"]}
        assert found.slice("check", "village")["debug"] == found.slice("check")["debug"]
    write(lambda content: content.update(debug={"images": 2}))
    with pytest.raises(ConfigError, match=r"on the command line(.|\n)*gss VERB mine debug\.images=2"):
        load_experiment("mine")
    write(lambda content: content.update(debug={"images": None, "overfit": False}))  # as results have it
    assert load_experiment("mine") == plain


@pytest.mark.parametrize("name", list_experiments())
def test_no_slice_of_a_result_names_it(name: str) -> None:
    experiment = load_experiment(runs_of(name)[0])
    assert "debug" not in yaml.safe_dump([experiment.slice(row.name) for row in experiment.kind.stages])
    assert "debug" not in experiment.settings()
