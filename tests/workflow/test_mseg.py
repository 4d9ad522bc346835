"""MSeg through the rules: labels of all sets are made, and looked at, of a tiny tree of them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from statistics import harmonic_mean

import pytest
import yaml
from project import SMALL as SMALL_GSS
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
    assert project.planned(*wanted) == {"mseg_labels": 19, "check": 1, "check_set": 6}
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


HRNET = {
    "backbone": {"name": "hrnet_w18_small"},
    "head": "hrnet",
    "channels": 32,
    "steps": 2,
    "training": {"batch_size": 7, "warmup_steps": 0, "optimizer": "sgd", "lr": 0.01, "power": 0.9, "decay_rule": "all"},
}
PIPELINE = {"base_scale": 40, "crop": [33, 33], "rotate": 10, "blur": True, "padding": "centre", "cat_max_ratio": None}
PROTOCOL = {"protocol": "mseg", "base_sizes": [32, 48], "crop": [33, 33], "pictures": 1}
VARIANTS = ("mseg_unrelabelled", "mseg_naive", "mseg_pixel_mgda", "mseg_single_coco", "mseg_oracle_camvid")
WINDOWS = {"mode": "slide", "crop": [32, 32], "stride": [24, 24], "splits": ["val"], "pictures": 1}


def write(project: Project, tree: Tree) -> None:
    """Each of MSeg's trainings on the tree, in two steps: as `t_` and its name."""
    for name in ("mseg_pixel_480", *VARIANTS):
        tiny = tree.experiment(name)
        sampling = tiny["data"].get("sampling", "repeat")
        multitask = {"multitask": "mgda"} if name == "mseg_pixel_mgda" else {}
        tiny |= {"augment": PIPELINE, "pixel": {**HRNET, "training": {**HRNET["training"], **multitask}}}
        tiny["evaluation"] |= {**PROTOCOL, "splits": ["val"]}
        for found in tiny["evaluation"]["sets"].values():
            found.pop("oracle", None)
        if "camvid-11" in tiny["evaluation"]["sets"]:
            tiny["evaluation"]["sets"]["camvid-11"]["oracle"] = "t_mseg_oracle_camvid"
        assert sampling == ("repeat" if "single" in name or "oracle" in name else "balanced")
        project.experiment(f"t_{name}").write_text(yaml.safe_dump(tiny))
    gss = {**tree.experiment("mseg"), "recipe": "gss", "augment": {"base_scale": [56, 40], "crop": [32, 32]}}
    assert len(gss["data"]["sources"]) == 6 and gss["data"]["sources"][1]["repeat"] == 40
    gss["evaluation"] |= WINDOWS
    gss |= {"palette": {"strategy": "published", "published": "mseg"}, "tokenizer": {"n_hid": 8, "vocab_size": 1024}}
    gss |= {
        "latent_prior": {"backbone": SMALL["backbone"], "head": "single_fusion", "channels": 16, "num_heads": 2},
        "posterior": {"variant": "conv", "channels": 8},
    }
    project.experiment("t_mseg").write_text(yaml.safe_dump(gss))
    small = {**SMALL_GSS, "reconstruction__max_rounds": 0, "latent_prior__milestones": [2], "posterior__steps": 2}
    small |= {f"{part}__training__warmup_steps": 0 for part in ("latent_prior", "posterior")}
    project.configure("t_mseg", **{key: value for key, value in small.items() if "start_step" not in key})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_raw_labels_to_summaries_of_all_recipes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw labels, records, lists, check, two steps, six test sets under both protocols; killed once in the middle."""
    tree = Tree(project.folder / "data/mseg_dataset")
    tree.lists()
    for name in TRAINED:
        tree.relabel(name)
    monkeypatch.chdir(project.folder)
    write(project, tree)
    wanted = [
        "results/t_mseg_pixel_480/evaluation/pixel/summary.json",
        "results/t_mseg/evaluation/gss_ft/summary.json",
        "results/t_mseg_oracle_camvid/evaluation/pixel/val/metrics.json",
        *(f"results/t_{name}/pixel.pth" for name in VARIANTS),
    ]
    plan = project.planned(*wanted)
    assert (plan["mseg_labels"], plan["check"], plan["check_set"]) == (19, 7, 12)
    words = [sys.executable, "-m", "snakemake", "-c", "2", *wanted]
    kept = {key: value for key, value in os.environ.items() if key not in ("GSS_DATA", "MLFLOW_TRACKING_URI")}
    begun = subprocess.Popen(words, cwd=project.folder, env=kept, start_new_session=True, stderr=subprocess.DEVNULL)
    trained = [project.folder / "results" / f"t_{name}" / "pixel.pth" for name in VARIANTS]
    while begun.poll() is None and not any(path.exists() for path in trained):
        time.sleep(0.2)
    os.killpg(begun.pid, signal.SIGKILL)
    assert begun.wait() == -signal.SIGKILL
    assert project.snakemake("--unlock").returncode == 0
    assert project.planned(*wanted)
    done = project.snakemake("-c", "2", *wanted)
    assert done.returncode == 0, done.stdout
    assert all(path.is_file() for path in trained)
    # Figures of an oracle are no input, which would train it: those that came meanwhile are taken in by another call.
    assert project.planned(*wanted) in ({}, {"summary": 1})
    assert project.snakemake("-c", "2", *wanted).returncode == 0
    assert project.planned(*wanted) == {}
    for summary, protocol in zip(wanted[:2], ("mseg", "gss"), strict=True):
        told = json.loads((project.folder / summary).read_text())
        assert set(told["sets"]) == set(TESTED)
        with (project.folder / summary).with_suffix(".csv").open(newline="") as file:
            assert [row["set"] for row in csv.DictReader(file)][:6] == list(told["sets"])
        found = {}
        for name in TESTED:
            metrics = json.loads((project.folder / summary).parent.joinpath(name, "metrics.json").read_text())
            found[name] = metrics["mIoU"]
            assert metrics["protocol"]["prediction"] == ("soft" if protocol == "mseg" else "hard")
            assert metrics["images"] == 2 and ("base_sizes" in metrics["protocol"]) == (protocol == "mseg")
        zero = sorted(name for name, mean in found.items() if mean == 0)
        assert sorted(told.get("without_h_mean", [])) == zero
        assert told["h_mean"] == (None if zero else pytest.approx(harmonic_mean(found.values())))
    ious = json.loads((project.folder / wanted[2]).read_text())["IoU"].values()
    oracle = sum(iou or 0 for iou in ious) / 11  # as the set counts absent classes
    with (project.folder / wanted[0]).with_suffix(".csv").open(newline="") as file:
        rows = {row["set"]: row for row in csv.DictReader(file)}
    assert float(rows["camvid-11"]["oracle"]) == pytest.approx(oracle, abs=1e-4)
