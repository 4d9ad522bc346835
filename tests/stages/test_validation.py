"""What a training measures of itself is what `gss evaluate` measures of the file it leaves."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gss.data.toy import make_toy
from gss.files import read_json
from gss.modelfile import load_model
from gss.recipes.gss.stages.latent_prior import latent_prior
from gss.recipes.gss.stages.merge import merge
from gss.recipes.gss.stages.palette import palette
from gss.recipes.gss.stages.posterior import posterior
from gss.recipes.pixel.stage import pixel
from gss.results.journal import read_journal
from gss.stages.check import check
from gss.stages.evaluate import evaluate
from gss.stages.run import Run
from gss.train.distributed import World
from tests.use.models import write_models

ALONE = World(0, 1, 0, torch.device("cpu"))
TRAINING = "{batch_size: 2, lr: 1.0e-2, warmup_steps: 1, validate_every: EVERY, validate_images: IMAGES, keep: KEEP}"


def open_run(folder: Path, *, every: int = 1, images: int = 0, keep: str = "best", numerics: str = "default") -> Run:
    training = TRAINING.replace("EVERY", str(every)).replace("IMAGES", str(images)).replace("KEEP", keep)
    overrides = [
        f"data.root={folder / 'toy'}",
        f"latent_prior.training={training}",
        f"posterior.training={training}",
        "latent_prior.milestones=[2,3]",
        "posterior.start_step=null",
        "posterior.steps=3",
        f"numerics={numerics}",
        "run.workers=0",
    ]
    opened = Run.open("toy", overrides, folder / "results")
    return replace(opened, name="toy", folder=folder / "results" / "toy", workflow=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`toy`, a data set, and `results/toy` with all that the trainings read."""
    make_toy(tmp_path / "toy", sizes={"train": 2, "val": 3, "test": 1})
    run = open_run(tmp_path)
    check(run)
    palette(run)
    shutil.copy(run.folder / "palette" / "start.csv", run.folder / "palette.csv")
    write_models(run.folder, classes=run.space.names)
    for name in ("gss_ff.pth", "gss_ft.pth", "posterior.pth"):
        (run.folder / name).unlink(missing_ok=True)
    return tmp_path


def measured(run: Run, stage: str) -> dict[int, dict[str, float]]:
    """Figures of the validations by step."""
    found: dict[int, dict[str, float]] = {}
    for event in read_journal(run.work(stage) / "journal.jsonl"):
        found.setdefault(event.get("step", -1), {}).update(
            {name: value for name, value in event.get("m", {}).items() if name.startswith("val/")}
        )
    return {step: figures for step, figures in found.items() if figures}


def evaluated(run: Run, name: str) -> dict[str, float]:
    """The same figures of a file."""
    evaluate(run, ALONE, name, "val")
    metrics = read_json(run.folder / "evaluation" / name / "val" / "metrics.json")
    ious = {f"val/iou/{label}": iou for label, iou in metrics["IoU"].items() if iou is not None}
    return {"val/mIoU": metrics["mIoU"], **ious}


def tags(run: Run, stage: str) -> dict[str, Any]:
    return {k: v for event in read_journal(run.work(stage) / "journal.jsonl") for k, v in event.get("tags", {}).items()}


@pytest.mark.parametrize("numerics", ["default", "reference"])
def test_the_best_step_is_exported_and_scores_what_it_scored(numerics: str, folder: Path) -> None:
    run = open_run(folder, numerics=numerics)
    for until in (2, 3):
        latent_prior(run, ALONE, until)
    posterior(run, ALONE)
    merge(run)
    for stage, name in (("latent_prior", "gss_ff"), ("posterior", "gss_ft")):
        figures = measured(run, stage)
        assert list(figures) == [1, 2, 3]
        best = max(figures, key=lambda step: figures[step]["val/mIoU"])
        exported = {"step": best, "val/mIoU": figures[best]["val/mIoU"]}
        file = "posterior" if stage == "posterior" else name
        assert load_model(run.folder / f"{file}.pth", file).meta["provenance"]["exported"] == exported
        assert {key: tags(run, stage)[f"exported {key}"] for key in exported} == exported
        assert evaluated(run, name) == figures[best]


def test_some_images_are_measured_and_the_last_step_is_exported(folder: Path) -> None:
    run = open_run(folder, keep="last", images=1)
    latent_prior(run, ALONE)
    assert "exported" not in load_model(run.folder / "gss_ff.pth", "gss_ff").meta["provenance"]
    evaluate(run, ALONE, "gss_ff", "val")
    with np.load(run.folder / "evaluation/gss_ff/val/confusion.npz") as counts:
        right, found, there = (counts[name][1] for name in ("intersection", "predicted", "labelled"))  # the middle one
    ious = {
        f"val/iou/{name}": right[index] / (found[index] + there[index] - right[index])
        for index, name in enumerate(run.space.names)
        if found[index] + there[index]
    }
    assert measured(run, "latent_prior")[3] == {"val/mIoU": sum(ious.values()) / len(ious), **ious}


def test_validation_leaves_the_published_training_behind_a_changing_prior_as_it_is(folder: Path) -> None:
    latent_prior(open_run(folder), ALONE)
    found = []
    for every in (0, 1):
        run = open_run(folder, every=every, keep="last", numerics="reference")
        shutil.rmtree(run.work("posterior"), ignore_errors=True)
        posterior(run, ALONE)
        found.append(load_model(run.folder / "posterior.pth", "posterior").tensors)
    assert list(measured(run, "posterior")) == [1, 2, 3]
    assert all(found[0][name].equal(found[1][name]) for name in found[0])


def test_other_recipes_measure_themselves_the_same_way(tmp_path: Path) -> None:
    make_toy(tmp_path / "toy", sizes={"train": 2, "val": 3, "test": 1})
    training = TRAINING.replace("EVERY", "1").replace("IMAGES", "0").replace("KEEP", "best")
    experiment = {
        "recipe": "pixel",
        "data": {
            "root": str(tmp_path / "toy"),
            "classes": "classes.csv",
            "splits": {name: {"images": f"images/{name}", "labels": f"labels/{name}"} for name in ("train", "val")},
        },
        "augment": {"base_scale": [96, 96], "crop": [64, 64]},
        "pixel": {"backbone": {"name": "test_resnet"}, "channels": 8, "steps": 3, "training": yaml.safe_load(training)},
        "run": {"workers": 0},
    }
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(experiment))
    run = Run.open(str(tmp_path / "plain.yaml"), [], tmp_path / "results")
    check(run)
    pixel(run, ALONE)
    figures = measured(run, "pixel")
    best = max(figures, key=lambda step: figures[step]["val/mIoU"])
    exported = {"step": best, "val/mIoU": figures[best]["val/mIoU"]}
    assert load_model(run.folder / "pixel.pth", "pixel").meta["provenance"]["exported"] == exported
    assert evaluated(run, "pixel") == figures[best]
