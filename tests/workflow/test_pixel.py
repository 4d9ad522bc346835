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
PAGES = ("results/plain/report.html", "results/many/report.html")
QUICK = {"evaluation": {"splits": ["test"]}, "run": {"resources": {"evaluate": {"processes": 1}}}}


def verb(project: Project, *words: str) -> str:
    """What a verb prints, called in the project's folder."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "gss", *words]
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with an experiment and one of two seeds, all made; tests leave it as it is."""
    project = Project(tmp_path_factory.mktemp("pixel"))
    training = {**PIXEL["training"], "validate_every": 3, "validate_images": 4}
    content = {"recipe": "pixel", "base": "toy", "pixel": {**PIXEL, "training": training}, **QUICK}
    project.experiment("plain").write_text(yaml.safe_dump(content))
    project.experiment("many").write_text(yaml.safe_dump({"base": "plain", "seeds": [1, 2]}))
    done = project.snakemake("--cores", "2", *PAGES)
    assert done.returncode == 0 and "Error" not in done.stdout, done.stdout
    return project


@pytest.mark.slow
def test_a_per_pixel_network_is_trained_and_measured_by_the_rules(used: Project) -> None:
    assert used.planned(*PAGES, "results/plain/pixel.pth") == {}
    folder = used.folder / "results" / "plain"
    metrics = json.loads((folder / "evaluation/pixel/test/metrics.json").read_text())
    assert metrics["model"]["file"] == "pixel.pth" and metrics["protocol"]["mode"] == "whole"
    assert "vote_temperature" not in metrics["protocol"] and not (folder / "evaluation/pixel/test/maskiges").exists()


@pytest.mark.slow
def test_pages_tell_of_a_per_pixel_network_and_of_its_seeds(used: Project) -> None:
    said = verb(used, "report", "plain")
    assert "Pixel" in said and "GSS" not in said and "results/plain/pixel.pth" in said
    page = (used.folder / "results/plain/report.html").read_text()
    assert ">ceiling</th>" not in page and "val/mIoU" in page
    assert "over 2 seeds" in verb(used, "report", "many")
    said = verb(used, "compare", "plain", "many")
    assert "many/pixel against plain/pixel" in said and "±" in said
    assert "many/seed_2/pixel against plain/pixel" in verb(used, "compare", "plain", "many/seed_2")


@pytest.mark.slow
def test_seeds_are_made_one_by_one(used: Project) -> None:
    done = used.snakemake("-n", "results/many/pixel.pth")
    assert done.returncode != 0 and "many/seed_1, many/seed_2" in done.stdout
    used.experiment("many").write_text(yaml.safe_dump({"base": "plain", "seeds": [1, 2, 5]}))
    planned = used.planned("results/many/report.html")
    used.experiment("many").write_text(yaml.safe_dump({"base": "plain", "seeds": [1, 2]}))
    assert planned == dict.fromkeys(("check", "pixel", "evaluate", "report", "seeds"), 1)


@pytest.mark.slow
def test_a_per_pixel_network_predicts_and_is_exported(used: Project) -> None:
    image = next((used.folder / "data/toy/images/test").iterdir())
    ids = gss.load(used.folder / "results/plain/pixel.pth").predict(image)
    verb(used, "predict", "results/plain/pixel.pth", str(image), "-o", "predicted")
    assert np.array_equal(np.asarray(Image.open(used.folder / "predicted" / f"{image.stem}.png")), ids)
    verb(used, "export", "plain", "-o", "hub")
    assert np.array_equal(gss.load(used.folder / "hub").predict(image), ids)
    assert "maskige" not in (used.folder / "hub" / "README.md").read_text()
    assert "wrote plain.onnx" in verb(used, "export", "plain", "-o", "plain.onnx")


def test_the_page_of_an_experiment_with_seeds_is_asked_for_once(project: Project) -> None:
    """Not also of the rule for experiments without, which has nothing to say of it."""
    content = {"recipe": "pixel", "base": "toy", "pixel": PIXEL, "seeds": [1, 2]}
    project.experiment("many").write_text(yaml.safe_dump(content))
    done = project.snakemake("-n", "results/many/report.html", "results/toy/report.html")
    assert done.returncode == 0 and "Error" not in done.stdout, done.stdout


def test_what_a_recipe_has_not_is_named(project: Project) -> None:
    project.experiment("plain").write_text(yaml.safe_dump({"recipe": "pixel", "base": "toy", "pixel": PIXEL}))
    for words, said in {
        ("palette", "plain"): "recipe 'pixel' has no stage 'palette'",
        ("train", "posterior", "plain"): "recipe 'pixel' has no stage 'posterior'",
        ("evaluate", "plain", "--model", "gss_ft"): "recipe 'pixel' has no model 'gss_ft'",
        ("check", "toy", "recipe=pixl"): "no recipe 'pixl'; there are: gss, pixel",
    }.items():
        command = [sys.executable, "-m", "gss", *words]
        done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and said in done.stderr, (words, done.stderr)
    done = project.snakemake("-n", "results/plain/gss_ft.pth")
    assert done.returncode != 0 and "it makes results/plain/pixel.pth" in done.stdout


@pytest.mark.slow
def test_a_training_goes_on_from_the_model_of_another_experiment(used: Project) -> None:
    """With other classes: two of the textures become one."""
    toy = yaml.safe_load(used.experiment("toy").read_text())
    classes = ["background", "stripes", "diagonals", "checks", "dots"]
    mapping = {"rows": "stripes", "columns": "stripes"}
    data = {**toy["data"], "classes": classes, "native_classes": toy["data"]["classes"], "mapping": mapping}
    pixel = {**PIXEL, "start_from": "results/plain/pixel.pth"}
    content = {"recipe": "pixel", "base": "toy", "data": data, "pixel": pixel, **QUICK}
    used.experiment("further").write_text(yaml.safe_dump(content))
    target = "results/further/pixel.pth"
    assert "pixel" in used.planned(target) and "results/plain/pixel.pth" in used.snakemake("-n", target).stdout
    done = used.snakemake("--cores", "2", target)
    assert done.returncode == 0, done.stdout
    log = (used.folder / "results/further/logs/pixel.log").read_text()
    assert "goes on from a pixel of 6 classes after 6 steps" in log and " 0 new" in log
    assert "classes known there: background, diagonals, checks, dots; new: stripes" in log
    assert used.planned(target) == {}
    record = json.loads((used.folder / "results/further/records/pixel.json").read_text())
    assert "../plain/pixel.pth" in record["inputs"]
