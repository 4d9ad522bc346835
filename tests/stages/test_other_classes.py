"""A class list that changed under a file made before: refused by name, and no file loses its own colours."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gss.data.classes import ClassSpace
from gss.data.toy import make_toy
from gss.errors import DataError
from gss.files import read_json, write_json
from gss.modelfile import load_model, save_model
from gss.recipes.gss.palette.palette import Palette, read_palette, write_palette
from gss.recipes.gss.stages import latent_prior
from gss.recipes.gss.stages.merge import merge
from gss.recipes.gss.stages.palette import palette
from gss.recipes.gss.stages.posterior import posterior
from gss.recipes.gss.stages.reconstruct import reconstruct
from gss.recipes.gss.stages.tokenizer import tokenizer
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.stages.check import check
from gss.stages.evaluate import evaluate
from gss.stages.run import Run
from gss.stages.training import class_weights
from gss.train.distributed import World
from tests.use.models import write_models

ALONE = World(0, 1, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toy`, a data set, and `results/toy` with untrained models of its classes."""
    folder = tmp_path_factory.mktemp("made")
    make_toy(folder / "toy", sizes={"train": 1, "val": 1, "test": 1})
    run = open_run(folder)
    check(run)
    palette(run)
    shutil.copy(run.folder / "palette" / "start.csv", run.folder / "palette.csv")
    write_models(run.folder, classes=run.space.names)
    (run.folder / "tokenizer").mkdir()
    shutil.copy(run.folder / "tokenizer.safetensors", run.folder / "tokenizer" / "start.safetensors")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return open_run(tmp_path)


def open_run(folder: Path) -> Run:
    opened = Run.open("toy", [f"data.root={folder / 'toy'}", "posterior.start_step=null"], folder / "results")
    return replace(opened, name="toy", folder=folder / "results" / "toy", workflow=None)


def swap(names: list[str]) -> list[str]:
    return [names[0], names[2], names[1], *names[3:]]


def spoil_palette(path: Path) -> None:
    found = read_palette(path)
    write_palette(path, Palette(found.colours, tuple(swap(list(found.names)))))


def spoil_start(run: Run) -> str:
    spoil_palette(run.folder / "palette" / "start.csv")
    return "palette/start.csv"


def spoil_final(run: Run) -> str:
    spoil_palette(run.folder / "palette.csv")
    return "palette.csv"


def spoil_model(run: Run) -> str:
    path = run.folder / "gss_ff.pth"
    file = load_model(path)
    save_model(path, "gss_ff", file.tensors, file.meta | {"classes": swap(file.meta["classes"])})
    return "gss_ff.pth"


def spoil_statistics(run: Run) -> str:
    path = run.folder / "data" / "statistics.json"
    content = read_json(path)
    rows = content["splits"]["train"]["classes"]
    rows[1]["name"], rows[2]["name"] = rows[2]["name"], rows[1]["name"]
    write_json(path, content)
    return "data/statistics.json"


@pytest.mark.parametrize(
    ("stage", "spoil"),
    [
        (lambda run: tokenizer(run, ALONE), spoil_start),
        (lambda run: reconstruct(run, ALONE), spoil_start),
        (lambda run: latent_prior.latent_prior(run, ALONE), spoil_final),
        (lambda run: posterior(run, ALONE), spoil_model),
        (lambda run: evaluate(run, ALONE, "gss_ff", "val"), spoil_model),
        (lambda run: class_weights(run, 0.5), spoil_statistics),
    ],
)
def test_labels_of_today_do_not_meet_a_file_of_other_classes(stage, spoil, run: Run) -> None:
    where = spoil(run)
    names = run.space.names
    with pytest.raises(DataError, match=f"class 1 is '{names[2]}' there, '{names[1]}' here") as error:
        stage(run)
    assert str(error.value.where) == str(run.folder / where) and error.value.todo


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "c"), "class 1 is 'c' there, 'b' here"),
        (("a",), "class 1 is none there, 'b' here"),
        (("a", "b", "c"), "class 2 is 'c' there, none here"),
    ],
)
def test_the_first_class_that_differs_is_named(names: tuple[str, ...], said: str) -> None:
    space = ClassSpace(("a", "b"))
    space.require_names(["a", "b"], where="x", todo="y")
    with pytest.raises(DataError, match=said):
        space.require_names(names, where="x", todo="y")


def test_a_model_file_holds_what_predictions_need(run: Run) -> None:
    colours = read_palette(run.folder / "palette.csv")
    space = ClassSpace(run.space.names, tuple((index, 0, 255) for index in range(len(run.space.names))))
    said = latent_prior.describe(run, space, colours, DVAE(32, 8, 8, 1))
    assert said["colours"] == [[index, 0, 255] for index in range(len(space.names))]
    assert said["palette"] == colours.colours.tolist()
    assert said["training_crop"] == list(run.experiment.augment.crop)
    assert latent_prior.describe(run, replace(space, colours=None), colours, DVAE(32, 8, 8, 1))["colours"] is None
    assert said["protocol"] == {
        "mode": "whole",
        "crop": [768, 768],
        "stride": [512, 512],
        "scale": None,
        "flip": False,
        "vote_temperature": None,
        "tokenizer_precision": "fp32",
    }
    prior, whole = load_model(run.folder / "gss_ff.pth"), load_model(run.folder / "gss_ft.pth")
    meta = prior.meta | said | {"latent_prior": prior.meta["latent_prior"], "tokenizer": prior.meta["tokenizer"]}
    save_model(run.folder / "gss_ff.pth", "gss_ff", prior.tensors, meta)
    tensors = {name: value for name, value in whole.tensors.items() if name.startswith("posterior.")}
    save_model(run.folder / "posterior.pth", "posterior", tensors, meta | {"posterior": whole.meta["posterior"]})
    other = run.experiment.model_validate(
        run.experiment.model_dump() | {"augment": {"base_scale": [9, 9], "crop": [8, 8]}, "evaluation": {"flip": True}}
    )
    merge(replace(run, experiment=other))
    merged = load_model(run.folder / "gss_ft.pth").meta
    assert merged["colours"] == said["colours"] and merged["training_crop"] == said["training_crop"]
    assert merged["protocol"] == said["protocol"] | {"flip": True}  # that of the figures it will have
