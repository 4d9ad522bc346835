"""Annotations through the rules: labels are made once, before the check, and again when an annotation file changes."""

import json

import pytest
import yaml
from project import Project

from tests.data.annotated import coco, picture, write

SPLITS = {split: {"images": split, "labels": f"{split}.json"} for split in ("train", "val")}
SET = {"root": "yard", "annotations": {"format": "coco"}, "splits": {"val": SPLITS["val"]}, "classes": "annotations"}
CONTENT = {
    "recipe": "pixel",
    "data": {
        "root": "yard",
        "annotations": {"format": "coco", "background": "ground"},
        "classes": "annotations",
        "splits": SPLITS,
    },
    "augment": {"base_scale": [32, 32], "crop": [32, 32]},
    "pixel": {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 2, "warmup_steps": 1}},
    "evaluation": {"sets": {"village": {**SET, "model_mapping": {"ground": "ignore"}}}},
}


@pytest.mark.slow
def test_labels_are_made_before_the_check(project: Project) -> None:
    root = project.folder / "data/yard"
    for seed, split in enumerate(SPLITS):
        write(root / f"{split}.json", coco())
        write(root / split / "x", "")
        picture(seed=seed).save(root / split / "a.jpg")
    project.experiment("yard").write_text(yaml.safe_dump(CONTENT))
    manifest, of_set = "results/yard/data/manifest.json", "results/yard/data/sets/village/manifest.json"
    assert project.planned(manifest) == {"labels": 1, "check": 1}
    assert project.planned(of_set) == {"labels": 1, "labels_of_set": 1, "check_set": 1}
    assert not (project.folder / "results").exists()
    done = project.snakemake("-c", "2", manifest, of_set)
    assert done.returncode == 0, done.stdout
    rows = json.loads((project.folder / manifest).read_text())["splits"]
    assert [row["label"] for row in rows["train"]] == ["beside:annotated/0/train/labels/a.png"]
    assert project.planned(manifest, of_set) == {}
    write(root / "train.json", coco(annotations=coco()["annotations"][:1]))
    assert project.planned(manifest) == {"check": 1}  # which makes labels of what has changed
    done = project.snakemake("-c", "2", manifest)
    assert done.returncode == 0, done.stdout
    assert "labels made" in (project.folder / "results/yard/logs/check.log").read_text()
    assert project.planned(manifest, of_set) == {"check_set": 1}  # the classes may be others
    assert project.snakemake("-c", "2", of_set).returncode == 0
    (root / "val.json").touch()
    assert project.planned(manifest, of_set) == {}
