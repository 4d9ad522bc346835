"""MSeg through the rules: labels of all sets are made, and looked at, of a tiny tree of them."""

import json

import pytest
import yaml
from project import Project

from gss.cli import main
from tests.data.mseg_tree import TESTED, TRAINED, Tree

SMALL = {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 7, "warmup_steps": 1}}


@pytest.mark.slow
def test_labels_of_all_sets_are_made_and_checked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(project.folder / "data/mseg_dataset")
    tree.lists()
    relabelled = {path: ids for name in TRAINED for path, ids in tree.relabel(name).items()}
    monkeypatch.chdir(project.folder)
    tiny = {**tree.experiment("mseg"), "pixel": SMALL, "augment": {"base_scale": [56, 40], "crop": [32, 32]}}
    project.experiment("tiny_mseg").write_text(yaml.safe_dump(tiny))
    data = "results/tiny_mseg/data"
    wanted = [f"{data}/manifest.json", *(f"{data}/sets/{name}/manifest.json" for name in TESTED)]
    assert project.planned(*wanted) == {"mseg_labels": 12, "check": 1, "check_set": 6}
    assert project.planned(wanted[-1]) == {"mseg_labels": 1, "check_set": 1}  # without the training sets
    done = project.snakemake("-c", "2", *wanted)
    assert done.returncode == 0, done.stdout
    assert all(path.is_file() for path in (*tree.expected, *relabelled))
    manifest = json.loads((project.folder / wanted[0]).read_text())
    assert {split: len(rows) for split, rows in manifest["splits"].items()} == {"train": 21, "val": 14}
    assert project.planned(*wanted) == {}
    # A record that is made again and says the same runs nothing again; another one does.
    record = tree.root / "prepared/kitti-19.json"
    assert main(["mseg-labels", "kitti-19", "--root", str(tree.root)]) == 0
    assert project.planned(*wanted) == {}
    record.write_text(record.read_text().replace('"files": 3', '"files": 4'))
    assert project.planned(*wanted) == {"check_set": 1}
