"""Snakemake notices files that are others than when the data set was checked, and makes again what they are in."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from project import Project

from gss.data.manifest import read_manifest
from gss.data.toy import make_toy
from gss.results.records import of_split, read_record, record_file, write_record
from gss.stages.check import check
from gss.stages.run import Run

FINISHED = json.loads(Path(__file__).with_name("finished.json").read_text())
MEASURED = {"check": 1, "reconstruct": 1, "evaluate": 2, "report": 1, "all": 1}
EVALUATIONS = [(model, split) for model in ("gss_ff", "gss_ft") for split in ("val", "test")]
READ = {"reconstruct": ("train", "val", "test"), **{f"evaluate_{m}_{split}": (split,) for m, split in EVALUATIONS}}


@pytest.fixture
def data(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy's data, checked in truth; all that is made of them lies there without content, with its records."""
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("GSS_DATA", raising=False)
    data = project.folder / "data" / "toy"
    make_toy(data, sizes={"train": 2, "val": 2, "test": 2})
    for path in data.rglob("*"):
        os.utime(path, (1000, 1000))
    run = Run.open("toy")
    check(run)
    manifest = read_manifest(run.folder / "data" / "manifest.json")
    for name in FINISHED["files"]:
        if not (path := project.folder / name).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.touch()
    for name, record in FINISHED["records"].items():
        if name != "check":
            inputs = {key: digest for key, digest in record.get("inputs", {}).items() if key != "data/manifest.json"}
            if len(inputs) < len(record.get("inputs", {})):
                inputs |= {of_split(split): manifest.split_sha256(split) for split in READ.get(name, ("train",))}
            write_record(run.folder, name, {**record, "inputs": inputs})
    for path in run.folder.rglob("*"):
        os.utime(path, (2000, 2000))
    return data


def add(data: Path, split: str) -> None:
    for kind in ("images", "labels"):
        first = min((data / kind / split).iterdir())
        shutil.copy(first, first.with_stem("9999"))


def test_what_is_as_it_was_runs_nothing(project: Project, data: Path) -> None:
    assert project.planned("all") == {}


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_photograph_that_is_only_measured_trains_nothing(split: str, project: Project, data: Path) -> None:
    add(data, split)
    assert project.planned("all") == MEASURED


def test_a_photograph_that_is_trained_on_makes_everything_again(project: Project, data: Path) -> None:
    min((data / "images" / "train").iterdir()).unlink()
    done = project.snakemake("-n", "all")
    assert "4 files of train, now 3 with other names or sizes" in done.stdout
    planned = project.planned("all")
    assert planned["latent_prior"] == planned["posterior"] == planned["palette"] == 1 and planned["evaluate"] == 4


def test_only_other_content_counts(project: Project, data: Path) -> None:
    """Touched, written again as it was: nothing. Of the same size, with another byte: everything."""
    label = min((data / "labels" / "train").iterdir())
    content = bytearray(label.read_bytes())
    label.write_bytes(content)
    assert project.planned("all") == {}
    content[-20] ^= 1
    label.write_bytes(content)
    assert project.planned("all")["latent_prior"] == 1


def copied(data: Path, project: Project) -> None:
    """As unpacked on another machine: every time is another one."""
    shutil.copytree(data, data.with_name("new"), copy_function=shutil.copyfile)
    shutil.rmtree(data)
    data.with_name("new").rename(data)


def unwatched(data: Path, project: Project) -> None:
    add(data, "train")
    project.configure("toy", run__watch_data=False)


def older(data: Path, project: Project) -> None:
    """The record of a version that did not look."""
    add(data, "train")
    path = record_file(project.folder / "results" / "toy", "check")
    record = json.loads(path.read_text())
    del record["seen"]
    path.write_text(json.dumps(record))


def gone(data: Path, project: Project) -> None:
    """Results are shown where the data are not."""
    shutil.rmtree(data / "images")


@pytest.mark.parametrize("case", [copied, unwatched, older, gone])
def test_results_stay_finished(case: Callable[[Path, Project], None], project: Project, data: Path) -> None:
    case(data, project)
    assert project.planned("all") == {}


def test_results_that_are_copied_stay_finished(project: Project, data: Path, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    for name in ("results", "data"):
        shutil.copytree(project.folder / name, other.folder / name)
    assert other.planned("all") == {}
    add(other.folder / "data" / "toy", "test")
    assert other.planned("all") == MEASURED


PIXEL = """
recipe: pixel
data:
  root: toy
  classes: classes.csv
  splits: {train: {images: images/train, labels: labels/train}, test: {images: images/test, labels: labels/test}}
augment: {base_scale: [96, 96], crop: [64, 64]}
pixel: {backbone: {name: test_resnet}, channels: 8, steps: 2, training: {batch_size: 2, warmup_steps: 1}}
evaluation:
  splits: [test]
  pictures: 1
  sets:
    village: {root: toy, classes: classes.csv, splits: {val: {images: images/val, labels: labels/val}}}
"""


@pytest.mark.slow
def test_a_test_photograph_is_measured_and_nothing_is_trained(project: Project) -> None:
    folder, data = project.folder / "results" / "mine", project.folder / "data" / "toy"
    make_toy(data, sizes={"train": 2, "val": 1, "test": 1})
    project.experiment("mine").write_text(PIXEL)
    target = "results/mine/report.html"
    assert project.snakemake("-c1", target).returncode == 0
    before, model = read_record(folder, "pixel"), (folder / "pixel.pth").stat().st_mtime_ns
    shutil.rmtree(folder / "work")
    assert project.planned(target) == {}
    add(data, "test")
    broken = data / "labels" / "test" / "9999.png"
    content, measured = broken.read_bytes(), {"check": 1, "evaluate": 1, "report": 1}
    broken.write_bytes(b"no picture")
    assert project.planned(target) == measured
    done = project.snakemake("-c1", target)
    assert done.returncode != 0 and "9999.png" in done.stdout and (folder / "data/manifest.json").is_file()
    broken.write_bytes(content)
    assert project.planned(target) == measured
    done = project.snakemake("-c1", target)
    assert done.returncode == 0, done.stdout
    assert json.loads((folder / "evaluation/pixel/test/metrics.json").read_text())["images"] == 2
    assert (folder / "pixel.pth").stat().st_mtime_ns == model and read_record(folder, "pixel") == before
    assert project.planned(target) == {}  # the manifest is newer than the model, and another file
    add(data, "val")
    assert project.planned(target) == {"check_set": 1, "evaluate": 1, "summary": 1, "report": 1}
    add(data, "train")
    assert project.planned(target)["pixel"] == 1
