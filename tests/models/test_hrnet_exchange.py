"""MSeg's published checkpoints: bit-equal there and back, read without executing anything."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle_hrnet import shapes
from torch import Tensor, nn

from gss.checkpoints import read_checkpoint
from gss.cli import main
from gss.modelfile import load_model
from gss.recipes.pixel.exchange import load_published, to_published
from gss.recipes.pixel.network import PixelNetwork, build_pixel_network
from tests.models.checked import write_checked

SMALL = {"head": "hrnet", "channels": 8}


def make(name: str = "hrnet_w18_small", **changes: Any) -> PixelNetwork:
    """Every tensor at random."""
    network = build_pixel_network(3, {"name": name}, **{**SMALL, **changes})
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape) if value.is_floating_point() else torch.randint(1, 99, value.shape))
    return network


def test_published_files_have_these_keys() -> None:
    with torch.device("meta"):
        network = build_pixel_network(194, {"name": "hrnet_w48"}, head="hrnet", channels=720)
    state = to_published(network)
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes(194)
    report = load_published({f"module.{key}": value for key, value in state.items()}, network, where="x")
    assert [row.what for row in report.rows] == ["mapped"] * 1839


def test_pretrained_weights_have_the_names_of_the_authors() -> None:
    """Those of ImageNet hold the classifier and what leads to it, too."""
    names = {name for name in shapes(194) if not name.startswith("last_layer.")}
    with torch.device("meta"):
        network = build_pixel_network(194, {"name": "hrnet_w48"}, head="hrnet", channels=720)
    assert names == network.backbone.features.state_dict().keys()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment `mine`, whose data was checked."""
    monkeypatch.setenv("GSS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_checked(tmp_path, 65, {"backbone": {"name": "hrnet_w18_small"}, **SMALL})
    return tmp_path


def checkpoint(project: Path, *, as_zip: bool = False) -> dict[str, Tensor]:
    """`train_epoch_9.pth` as MSeg's training leaves it, by an old or a new torch."""
    state = {key: value.clone() for key, value in to_published(make()).items()}
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.01, momentum=0.9).state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    content = {"epoch": 9, "state_dict": wrapped, "optimizer": optimizer, "current_iter": 500, "max_iter": 1000}
    torch.save(content, project / "train_epoch_9.pth", _use_new_zipfile_serialization=as_zip)
    return state


def gss(*arguments: str) -> int:
    return main([arguments[0], "mine.yaml", *arguments[1:]])


@pytest.mark.parametrize("as_zip", [False, True])
def test_checkpoints_become_models_and_models_checkpoints(
    project: Path, as_zip: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint(project, as_zip=as_zip)
    assert gss("import", "train_epoch_9.pth") == 0
    said = capsys.readouterr().out
    assert f"train_epoch_9.pth: {len(state)} keys" in said and f"{len(state)} mapped" in said
    assert load_model(project / "results/mine/pixel.pth", "pixel").meta["pixel"]["head"] == "hrnet"
    with (project / "results/mine/import/pixel.csv").open() as table:
        assert [row["published"] for row in csv.DictReader(table)] == list(state)
    assert gss("export", "-o", "out.pth") == 0
    written = read_checkpoint(project / "out.pth")
    assert list(written) == [f"module.{key}" for key in state]
    assert all(torch.equal(written[f"module.{key}"], value) for key, value in state.items())
    assert gss("import", "out.pth") == 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pixel.channels=16"], ["of another shape", "pixel.head and channels"]),
        (["pixel.backbone.name=hrnet_w18"], ["missing", "pixel.backbone.name"]),
        (["pixel.head=fcn"], ["published are", "head: hrnet"]),
        (["pixel.auxiliary={}"], ["with HRNetHead and an auxiliary head"]),
    ],
)
def test_another_architecture_is_one_error(
    overrides: list[str], said: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(project)
    assert gss("import", "train_epoch_9.pth", *overrides) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error
    assert not list(project.glob("results/mine*/pixel.pth"))


class Trap:
    """A pickle that would make a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("sprung",)


def test_nothing_in_a_checkpoint_is_executed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"epoch": 1, "state_dict": {}, "args": Trap()}, project / "trap.pth")
    assert gss("import", "trap.pth") == 2
    assert "nothing of it was executed" in capsys.readouterr().err
    assert not (project / "sprung").exists() and not (project / "results/mine/pixel.pth").exists()
