"""Trainings that go on from a model: which tensors a new network takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gss.config import load_experiment
from gss.errors import CheckpointError, ConfigError
from gss.modelfile import ModelFile, load_model, save_model
from gss.recipes.gss.assemble import build_posterior, build_prior, read_beside
from gss.recipes.pixel.assemble import build_network
from gss.use.hub import write_folder
from gss.use.start import go_on, start_files
from tests.use.models import write_models

KNOWN, OTHER = ("sky", "road", "car"), ("cow", "car", "sky", "tree")
TOKENS = ("head.conv_seg.weight", "head.conv_seg.bias")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("there"), classes=KNOWN, variant="conv", kind="ff")


def described(file: ModelFile, classes: tuple[str, ...]) -> dict[str, Any]:
    palette = np.zeros((len(classes) + 1, 3), int).tolist()
    return {**file.meta, "classes": list(classes), "palette": palette}


def begun(path: Path, meta: dict[str, Any], capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[Any, Any, str]:
    """A fresh network, the same after it went on from a file, and what was said."""
    torch.manual_seed(7)
    fresh = build_prior(meta)
    module = build_prior(meta)
    module.load_state_dict(fresh.state_dict())
    go_on(module, str(path), "prior.", meta, build_prior, key="latent_prior.start_from", of_tokens=TOKENS, **options)
    return fresh.state_dict(), module.state_dict(), capsys.readouterr().out


def test_other_classes_take_the_rows_of_their_names(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = load_model(there / "gss_ff.pth")
    fresh, now, said = begun(there / "gss_ff.pth", described(file, OTHER), capsys)
    rows = {"head.conv_seg_pixel.weight", "head.conv_seg_pixel.bias"}
    for name, value in now.items():
        known = file.tensors[f"prior.{name}"]
        if name in rows:
            assert torch.equal(value[1], known[2]) and torch.equal(value[2], known[0])  # car, sky
            assert torch.equal(value[0], fresh[name][0]) and torch.equal(value[3], fresh[name][3])
        else:
            assert torch.equal(value, known), name
    assert "goes on from a gss_ff of 3 classes" in said and f"{len(now)} tensors taken, 0 new" in said
    assert "classes known there: car, sky; new: cow, tree" in said


def test_tokens_of_another_tokenizer_are_learnt_anew(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = load_model(there / "gss_ff.pth")
    fresh, now, said = begun(there / "gss_ff.pth", {**file.meta, "tokenizer": "0" * 64}, capsys)
    for name in now:
        assert torch.equal(now[name], fresh[name] if name in TOKENS else file.tensors[f"prior.{name}"]), name
    assert f"{len(now) - 2} tensors taken, 2 new" in said and "made for another tokenizer" in said
    assert "classes known" not in said


def test_a_network_of_other_widths_takes_what_fits(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = load_model(there / "gss_ff.pth")
    wider = {**file.meta, "latent_prior": {**file.meta["latent_prior"], "cls_channels": 48}}
    _, now, said = begun(there / "gss_ff.pth", wider, capsys)
    assert torch.equal(now["head.fusion_conv.conv.weight"], file.tensors["prior.head.fusion_conv.conv.weight"])
    assert "head.conv_before_seg.conv.weight [48, " in said and ", there [" in said
    _, _, said = begun(there / "gss_ff.pth", wider, capsys, quiet=True)
    assert said == ""


@pytest.mark.parametrize("kind", ["posterior.pth", "gss_ft.pth"])
def test_x_inverse_goes_on_too(there: Path, kind: str, tmp_path: Path) -> None:
    whole = load_model(there / "gss_ft.pth")
    tensors = {name: value for name, value in whole.tensors.items() if name.startswith("posterior.")}
    save_model(tmp_path / "posterior.pth", "posterior", tensors, whole.meta)
    path = tmp_path / kind if kind == "posterior.pth" else there / kind
    meta = described(whole, OTHER)
    module = build_posterior(meta)
    go_on(module, str(path), "posterior.", meta, build_posterior, key="posterior.start_from")
    rows = [name for name in module.state_dict() if name.startswith("cls_segmap")]
    assert rows
    for name in rows:
        assert torch.equal(module.state_dict()[name][1], tensors[f"posterior.{name}"][2]), name


def test_an_exported_folder_is_a_model_too(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = load_model(there / "gss_ff.pth")
    beside = read_beside(there.joinpath)
    write_folder(tmp_path / "hub", file, beside, [[0, 0, 0]] * 3, metrics={}, card="")
    _, now, _ = begun(tmp_path / "hub", file.meta, capsys)
    assert all(torch.equal(value, file.tensors[f"prior.{name}"]) for name, value in now.items())
    assert start_files(str(tmp_path / "hub")) == [tmp_path / "hub" / "model.safetensors"] and start_files(None) == []


def test_what_holds_no_such_network_is_refused(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = load_model(there / "gss_ff.pth")
    meta = {"classes": list(KNOWN), "pixel": {"backbone": {"name": "test_resnet"}, "head": "plain", "channels": 8}}
    with pytest.raises(CheckpointError, match="'gss_ff' file, which holds no such network") as error:
        go_on(nn.Linear(1, 1), str(there / "gss_ff.pth"), "pixel.", meta, build_network, key="pixel.start_from")
    assert str(error.value.where).startswith("pixel.start_from: ")
    other = {**file.meta, "latent_prior": {**file.meta["latent_prior"], "backbone": {"name": "resnet10t"}}}
    _, _, said = begun(there / "gss_ff.pth", other, capsys)
    assert "backbone." in said and "more" in said
    with pytest.raises(CheckpointError, match="model file not found"):
        go_on(nn.Linear(1, 1), "results/none.pth", "pixel.", meta, build_network, key="pixel.start_from")


def test_the_file_is_asked_for_before_anything_trains(tmp_path: Path) -> None:
    named = {
        row.key: row for row in load_experiment("toy", [f"latent_prior.start_from={tmp_path}/a.pth"]).named_files()
    }
    assert named["latent_prior.start_from"].path == tmp_path / "a.pth"
    results = load_experiment("toy", ["latent_prior.start_from=results/other/gss_ff.pth"])
    assert "latent_prior.start_from" not in {row.key for row in results.named_files()}
    assert results.slice("latent_prior") != load_experiment("toy").slice("latent_prior")
    assert results.slice("posterior") == load_experiment("toy").slice("posterior")
    with pytest.raises(ConfigError):
        load_experiment("toy", ["latent_prior.start_from=3"])
