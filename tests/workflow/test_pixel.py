"""Recipe `pixel`, from made data to everything that is done with a model, by the code that GSS uses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from project import Project

import gss

PIXEL = {"backbone": {"name": "test_resnet"}, "channels": 16, "steps": 6, "training": {"lr": 2e-3, "warmup_steps": 2}}

QUICK = {"evaluation": {"splits": ["test"]}, "run": {"resources": {"evaluate": {"processes": 1}}}}


def verb(project: Project, *words: str) -> str:
    """What a verb prints, called in the project's folder."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "gss", *words]
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_per_pixel_network_is_used_like_any_model(project: Project) -> None:
    training = {**PIXEL["training"], "validate_every": 3, "validate_images": 4}
    content = {"recipe": "pixel", "base": "toy", "pixel": {**PIXEL, "training": training}, **QUICK}
    project.experiment("plain").write_text(yaml.safe_dump(content))
    project.experiment("many").write_text(yaml.safe_dump({"base": "plain", "seeds": [1, 2]}))
    pages = ("results/plain/report.html", "results/many/report.html")
    done = project.snakemake("--cores", "2", *pages)
    assert done.returncode == 0 and "Error" not in done.stdout, done.stdout
    assert project.planned(*pages, "results/plain/pixel.pth") == {}
    folder = project.folder / "results" / "plain"
    metrics = json.loads((folder / "evaluation/pixel/test/metrics.json").read_text())
    assert metrics["model"]["file"] == "pixel.pth" and metrics["protocol"]["mode"] == "whole"
    assert "vote_temperature" not in metrics["protocol"] and not (folder / "evaluation/pixel/test/maskiges").exists()

    said = verb(project, "report", "plain")
    assert "Pixel" in said and "GSS" not in said and "results/plain/pixel.pth" in said
    page = (folder / "report.html").read_text()
    assert ">ceiling</th>" not in page and "val/mIoU" in page
    said = verb(project, "compare", "plain", "many")
    assert "many/pixel against plain/pixel" in said and "±" in said
    assert "many/seed_2/pixel against plain/pixel" in verb(project, "compare", "plain", "many/seed_2")

    said = verb(project, "report", "many")
    assert "over 2 seeds" in said
    done = project.snakemake("-n", "results/many/pixel.pth")
    assert done.returncode != 0 and "many/seed_1, many/seed_2" in done.stdout
    project.experiment("many").write_text(yaml.safe_dump({"base": "plain", "seeds": [1, 2, 5]}))
    once = ("check", "pixel", "evaluate", "report", "seeds")
    assert project.planned("results/many/report.html") == dict.fromkeys(once, 1)

    image = next((project.folder / "data/toy/images/test").iterdir())
    ids = gss.load(folder / "pixel.pth").predict(image)
    verb(project, "predict", "results/plain/pixel.pth", str(image), "-o", "predicted")
    assert np.array_equal(np.asarray(Image.open(project.folder / "predicted" / f"{image.stem}.png")), ids)
    verb(project, "export", "plain", "-o", "hub")
    assert np.array_equal(gss.load(project.folder / "hub").predict(image), ids)
    assert "maskige" not in (project.folder / "hub" / "README.md").read_text()
    assert "wrote plain.onnx" in verb(project, "export", "plain", "-o", "plain.onnx")


def test_what_a_recipe_has_not_is_named(project: Project) -> None:
    project.experiment("plain").write_text(yaml.safe_dump({"recipe": "pixel", "base": "toy", "pixel": PIXEL}))
    for words, said in {
        ("palette", "plain"): "recipe 'pixel' has no stage 'palette'",
        ("train", "posterior", "plain"): "recipe 'pixel' has no stage 'posterior'",
        ("evaluate", "plain", "--model", "gss_ft"): "recipe 'pixel' has no model 'gss_ft'",
        ("export", "plain", "-o", "plain.pth"): "recipe 'pixel' has no published checkpoints",
        ("check", "toy", "recipe=pixl"): "no recipe 'pixl'; there are: gss, pixel",
    }.items():
        command = [sys.executable, "-m", "gss", *words]
        done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and said in done.stderr, (words, done.stderr)
    done = project.snakemake("-n", "results/plain/gss_ft.pth")
    assert done.returncode != 0 and "it makes results/plain/pixel.pth" in done.stdout
