"""Several data sets as one: pairs in folders of their own, labels that say the same classes in other ways."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gss.cli import main
from gss.config import load_experiment
from gss.data.augment import Augment
from gss.data.images import write_png
from gss.data.loader import TrainLoader, read_pair
from gss.data.manifest import read_manifest
from gss.errors import ConfigError
from gss.stages.run import Run

CONTENT = {
    "recipe": "pixel",
    "data": {
        "root": "one",
        "classes": ["road", "sky", "car"],
        "splits": {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")},
        "sources": [
            {
                "root": "two",
                "splits": {"train": {"images": "photos", "labels": "masks"}},
                "label_map": {0: "ignore", 10: 2, 20: 1, 30: 0},
                "label_suffix": "_id",
            }
        ],
    },
    "augment": {"base_scale": [32, 32], "crop": [32, 32]},
    "pixel": {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 4, "warmup_steps": 1}},
}
NATIVE = np.array([30, 20, 10], np.uint8)  # of `two`, by class


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment `mine` of two sources with 5 + 3 training pairs; the same picture stands for the same label."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    rng = np.random.default_rng(0)

    def pair(image: str, label: str, table: np.ndarray) -> None:
        ids = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), int))
        write_png(tmp_path / "sets" / image, (ids[..., None] * 60 + rng.integers(0, 9, (32, 32, 3))).astype(np.uint8))
        write_png(tmp_path / "sets" / label, table[ids])

    for index in range(5):
        for split in ("train", "val"):
            pair(f"one/images/{split}/{index}.png", f"one/labels/{split}/{index}.png", np.array([0, 1, 2], np.uint8))
    for index in range(3):
        pair(f"two/photos/{index}.png", f"two/masks/{index}_id.png", NATIVE)
    write_experiment(CONTENT)
    return tmp_path


def write_experiment(content: dict) -> None:
    path = Path("config/experiments/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def test_pairs_of_all_sources_are_read_each_in_its_way(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine"]) == 0
    manifest = Run.open("mine").manifest
    pairs = manifest.pairs("train")
    assert len(pairs) == 8 and len(manifest.pairs("val")) == 5
    sets = project / "sets"
    assert [pair.image.relative_to(sets).parts[0] for pair in pairs] == ["one"] * 5 + ["two"] * 3
    assert pairs[-1].label == sets / "two/masks/2_id.png" and pairs[7] == pairs[-1]
    for pair in (*pairs, *manifest.pairs("val")):
        image, label = read_pair(pair)
        assert np.array_equal(label, image[..., 0] // 60)  # the classes are the same whatever the file says
    written = json.loads(Path("results/mine/data/manifest.json").read_text())
    assert [source["root"] for source in written["sources"]] == ["one", "two"]  # no path of this machine
    assert str(project) not in json.dumps(written)


def test_batches_hold_the_classes_of_both(project: Path) -> None:
    assert main(["check", "mine"]) == 0
    manifest = Run.open("mine").manifest
    augment = Augment((32, 32), (1.0, 1.0), (32, 32), 1.0, 0.5, False)
    steps = iter(TrainLoader(manifest.pairs("train"), manifest.space, augment, seed=0, batch_size=8))
    (batch,) = next(steps)
    steps.close()
    assert torch.equal(batch["label"], batch["image"][:, 0] // 60)


def test_statistics_are_of_all_and_of_each(project: Path) -> None:
    assert main(["check", "mine"]) == 0
    statistics = json.loads(Path("results/mine/data/statistics.json").read_text())
    train = statistics["splits"]["train"]
    assert (train["images"], train["pixels"], train["sizes"]) == (8, 8 * 1024, {"32x32": 8})
    each = [statistics["sources"][root]["train"] for root in ("one", "two")]
    assert set(each[1]["native_ids"]) <= {"10", "20", "30"}
    for index, found in enumerate(train["classes"]):
        assert found["pixels"] == sum(source["classes"][index]["pixels"] for source in each)
    assert sum(found["pixels"] for found in train["classes"]) == 8 * 1024


def test_a_picture_in_two_sources_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = project / "sets"
    (sets / "two/photos/1.png").write_bytes((sets / "one/images/val/3.png").read_bytes())
    assert main(["check", "mine"]) == 0
    said = capsys.readouterr().out
    assert "warning: 1 images are in val of one and train of two at once, e.g. images/val/3.png = photos/1.png" in said


def test_faults_name_their_source(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(project / "sets/two/masks/1_id.png", np.full((32, 32), 40, np.uint8))
    assert main(["check", "mine"]) == 2
    said = capsys.readouterr().err
    assert "two: masks/1_id.png: ids found that are no class: 40 (1024 pixels)" in said
    assert not Path("results/mine/data/manifest.json").exists()


def test_a_missing_source_is_one_clear_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "sets/two").rename(project / "sets/three")
    assert main(["check", "mine"]) == 2
    said = capsys.readouterr().err
    assert "folder of the source 'two' not found" in said and "expected in it: masks, photos" in said


def test_one_source_writes_what_it_always_did(project: Path) -> None:
    write_experiment({**CONTENT, "data": {**CONTENT["data"], "sources": []}})
    assert main(["check", "mine"]) == 0
    written = json.loads(Path("results/mine/data/manifest.json").read_text())
    assert list(written) == ["version", "root", "classes", "splits"] and written["version"] == 1
    assert "sources" not in json.loads(Path("results/mine/data/statistics.json").read_text())


def test_a_manifest_whose_sources_do_not_add_up_is_refused(project: Path) -> None:
    assert main(["check", "mine"]) == 0
    path = Path("results/mine/data/manifest.json")
    path.write_text(path.read_text().replace('"train": 3', '"train": 2'))
    with pytest.raises(Exception, match="the sources do not add up to the rows"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"root": "one"}, "one root, one source"),
        ({"splits": {"test": {"images": "a", "labels": "b"}}}, "which `data.splits` lacks"),
        ({"classes": ["a"]}, "classes"),
        ({"label_map": {10: 2, "x": 1}}, "label_map"),
    ],
)
def test_wrong_sources_are_refused(project: Path, change: dict, said: str) -> None:
    source = {**CONTENT["data"]["sources"][0], **change}
    write_experiment({**CONTENT, "data": {**CONTENT["data"], "sources": [source]}})
    with pytest.raises(ConfigError, match=said):
        load_experiment("mine")


def test_a_change_of_a_source_checks_again_and_of_nothing_else(project: Path) -> None:
    before = load_experiment("mine")
    source = {**CONTENT["data"]["sources"][0], "label_map": {0: "ignore", 10: 1, 20: 2, 30: 0}}
    write_experiment({**CONTENT, "data": {**CONTENT["data"], "sources": [source]}})
    after = load_experiment("mine")
    changed = [row.name for row in after.kind.stages if before.slice(row.name) != after.slice(row.name)]
    assert changed == ["check"]
