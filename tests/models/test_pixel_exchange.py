"""Published checkpoints of CAE with UPerNet: bit-equal there and back, and nothing half-written."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from gss.checkpoints import read_checkpoint
from gss.cli import main
from gss.data.classes import ClassSpace
from gss.errors import CheckpointError, ConfigError
from gss.modelfile import load_model
from gss.recipes.pixel.assemble import build_segmenter
from gss.recipes.pixel.exchange import load_published, to_published
from gss.recipes.pixel.network import PixelNetwork, build_pixel_network
from gss.recipes.pixel.rehearse import rehearse
from gss.stages.run import Run
from tests.models.checked import CLASSES, write_checked

BEIT = {"img_size": 64, "embed_dim": 16, "depth": 4, "num_heads": 2, "use_abs_pos_emb": True, "init_values": 0.1}
BACKBONE = {"name": "beit_base_patch16_224", "options": BEIT}
INDEX, COUNTER = "relative_position_index", "num_batches_tracked"


def make(**changes: Any) -> PixelNetwork:
    """A tiny network, every tensor at random."""
    sizes = {"backbone": BACKBONE, "head": "upernet", "channels": 8, "auxiliary": {"channels": 4}, **changes}
    network = build_pixel_network(3, **sizes)
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape) if value.is_floating_point() else torch.randint(1, 99, value.shape))
    return network


def published(**changes: Any) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in to_published(make(**changes)).items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


def keys_of(depth: int) -> set[str]:
    """Keys of the published files, written down from their description."""

    def layers(*names: str) -> set[str]:
        return {f"{name}.{end}" for name in names for end in ("weight", "bias")}

    def cbr(name: str) -> set[str]:
        norm = {f"{name}.bn.{end}" for end in ("running_mean", "running_var", COUNTER)}
        return {f"{name}.conv.weight", *layers(f"{name}.bn"), *norm}

    attention = {"qkv.weight", "q_bias", "v_bias", "relative_position_bias_table", INDEX, "proj.weight", "proj.bias"}
    block = {f"attn.{key}" for key in attention} | {"gamma_1", "gamma_2"}
    block |= layers("norm1", "norm2", "mlp.fc1", "mlp.fc2")
    encoder = {"cls_token", "pos_embed", *layers("patch_embed.proj", "fpn1.0", "fpn1.1", "fpn1.3", "fpn2.0")}
    encoder |= {"fpn1.1.running_mean", "fpn1.1.running_var", f"fpn1.1.{COUNTER}"}
    encoder |= {f"blocks.{i}.{key}" for i in range(depth) for key in block}
    rows = [f"psp_modules.{i}.1" for i in range(4)] + ["bottleneck", "fpn_bottleneck"]
    rows += [f"{name}.{i}" for name in ("lateral_convs", "fpn_convs") for i in range(3)]
    head = layers("conv_seg").union(*map(cbr, rows))
    return (
        {f"backbone.{key}" for key in encoder}
        | {f"decode_head.{key}" for key in head}
        | {f"auxiliary_head.{key}" for key in layers("conv_seg") | cbr("convs.0")}
    )


@pytest.mark.parametrize(
    ("name", "depth", "width", "entries"),
    [("beit_base_patch16_224", 12, 768, 301), ("beit_large_patch16_512", 24, 1024, 505)],
)
def test_published_files_have_these_keys(name: str, depth: int, width: int, entries: int) -> None:
    options = {"img_size": 512, "use_abs_pos_emb": True, "init_values": 0.1}
    with torch.device("meta"):
        network = build_pixel_network(
            150, {"name": name, "options": options}, head="upernet", channels=width, auxiliary={"channels": 256}
        )
    state = to_published(network)
    assert len(state) == entries
    assert state.keys() == keys_of(depth)
    assert sum(key.startswith("backbone.") for key in state) == entries - 82
    assert state[f"backbone.blocks.0.attn.{INDEX}"].shape == (1025, 1025)
    assert state["decode_head.conv_seg.weight"].shape == (150, width, 1, 1)
    report = load_published(state, network, where="published.pth")
    assert [row.what for row in report.rows].count("dropped") == depth


def test_blocks_that_share_their_index_have_one_each_in_a_published_file() -> None:
    """On a real device; on `meta` every block has its own."""
    network = make()
    assert published().keys() == to_published(network).keys() == keys_of(len(network.backbone.features.blocks))


def test_there_and_back_is_bit_equal_and_every_key_has_a_row() -> None:
    state, other = published(), make()
    report = load_published({f"module.{key}": value for key, value in state.items()}, other, where="x")
    assert_equal(to_published(other), state)
    assert [row.published for row in report.rows] == list(state)
    assert {row.ours for row in report.rows if row.ours} == other.state_dict().keys()


def test_what_training_alone_uses_is_left_out_where_the_model_has_none() -> None:
    report = load_published(published(), make(auxiliary=None), where="x")
    dropped = [row for row in report.rows if row.why == "the model has no auxiliary head"]
    assert {row.published.split(".")[0] for row in dropped} == {"auxiliary_head"} and len(dropped) == 8


def test_counters_may_be_missing() -> None:
    state, network = published(), make()
    load_published({key: value for key, value in state.items() if not key.endswith(COUNTER)}, network, where="x")
    own = to_published(network)
    assert_equal({key: own[key] for key in own if not key.endswith(COUNTER)}, without(COUNTER)(state))


def without(part: str) -> Any:
    return lambda state: {key: value for key, value in state.items() if part not in key}


@pytest.mark.parametrize(
    ("spoil", "sizes", "said"),
    [
        (without("fpn1.3.bias"), {}, ["1 missing: backbone.fpn1.3.bias", "pixel.backbone"]),
        (without("lateral_convs.1.bn.weight"), {}, ["1 missing", "pixel.head"]),
        (without("auxiliary"), {}, ["7 missing", "pixel.auxiliary"]),
        (lambda state: state, {"channels": 16}, ["of another shape", "pixel.head and channels"]),
        (lambda state: {**state, "decode_head.x": torch.ones(1)}, {}, ["1 unexpected: decode_head.x"]),
        (lambda state: {f"encoder.{key}": value for key, value in state.items()}, {}, ["pixel.backbone.weights"]),
        (lambda state: {k: v + 1 if k.endswith(INDEX) else v for k, v in state.items()}, {}, ["other positions"]),
    ],
)
def test_another_architecture_is_one_error(spoil: Any, sizes: dict[str, Any], said: list[str]) -> None:
    network = make(**sizes)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_published(spoil(published()), network, where="some.pth")
    assert all(part in str(error.value) for part in [*said, "some.pth"]), str(error.value)
    assert_equal(network.state_dict(), before)


@pytest.mark.parametrize("changes", [{"head": "fcn"}, {"head": "plain"}, {"backbone": {"name": "resnet10t"}}])
def test_only_beit_with_upernet_has_a_published_form(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="published are transformers of BEiT's kind with UPerNet, and HRNet"):
        to_published(make(**changes))


# The verbs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment `mine`, whose data was checked."""
    monkeypatch.setenv("GSS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_checked(tmp_path, 64, {"backbone": BACKBONE, "head": "upernet", "channels": 8, "auxiliary": {"channels": 4}})
    return tmp_path


def checkpoint(project: Path, **changes: Any) -> dict[str, Tensor]:
    """A published checkpoint `published.pth`, with what mmcv and apex leave in it."""
    state = published(**changes)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict()
    meta = {"iter": 160000, "CLASSES": tuple(CLASSES), "PALETTE": [[1, 2, 3]] * 3, "best": np.float64(0.5)}
    content = {"meta": meta, "state_dict": state, "optimizer": optimizer, "amp": {"loss_scaler0": {"loss_scale": 1.0}}}
    torch.save(content, project / "published.pth")
    return state


def gss(*arguments: str) -> int:
    return main([arguments[0], "mine.yaml", *arguments[1:]])


def written(project: Path) -> set[str]:
    results = project / "results/mine"
    files = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    return files - {"data/manifest.json"}


@pytest.mark.parametrize("named", [False, True])
def test_checkpoints_become_models_and_models_checkpoints(
    project: Path, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint(project)
    if named:
        content = yaml.safe_load((project / "mine.yaml").read_text())
        content["pixel"]["checkpoint"] = "published.pth"
        (project / "mine.yaml").write_text(yaml.safe_dump(content))
    assert gss("import", *([] if named else ["published.pth"])) == 0
    said = capsys.readouterr().out
    assert f"published.pth: {len(state)} keys" in said and "dropped: derived from the window's size" in said
    path = project / "results/mine/pixel.pth"
    file = load_model(path, "pixel")
    assert file.meta["provenance"]["checkpoint"] == "published.pth"
    assert {"import/pixel.csv", "records/import_pixel.json", "pixel.pth"} <= written(project)
    with (project / "results/mine/import/pixel.csv").open() as table:
        assert [row["published"] for row in csv.DictReader(table)] == list(state)
    network = build_segmenter(file, None, protocol={}, where=path, device=torch.device("cpu"))
    with torch.inference_mode():
        assert network.scores(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert gss("export", "-o", "out.pth") == 0
    assert_equal(read_checkpoint(project / "out.pth"), state)
    content = torch.load(project / "out.pth", weights_only=True)
    assert content["meta"]["CLASSES"] == tuple(CLASSES) and len(content["meta"]["PALETTE"]) == 3
    assert gss("export", "--without-pixel-branch", "-o", "small.pth") == 0
    assert_equal(read_checkpoint(project / "small.pth"), without("auxiliary")(state))
    assert gss("import", "out.pth") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["no checkpoint to import is named", "pixel.checkpoint"]),
        (["elsewhere.pth"], ["elsewhere.pth", "not found"]),
        (["published.pth", "--as", "gss_ff"], ["recipe 'pixel' makes no 'gss_ff'", "one of pixel"]),
        (["published.pth", "pixel.channels=16"], ["another architecture", "pixel.head and channels"]),
        (["published.pth", "pixel.head=plain"], ["BEiT's kind with UPerNet", "head: upernet", "head: hrnet"]),
        (["pretraining.pth"], ["pixel.backbone.weights"]),
        (["results/mine/data/manifest.json"], ["not readable as a checkpoint: it is JSON"]),
    ],
)
def test_wrong_inputs_leave_nothing_behind(
    arguments: list[str], said: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(project)
    torch.save({"model": {"encoder.cls_token": torch.ones(1, 1, 16)}}, project / "pretraining.pth")
    assert gss("import", *arguments) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error
    assert written(project) == set()


def test_the_check_of_the_data_looks_at_a_checkpoint(project: Path) -> None:
    """Without weights of the pre-training, which it does not need."""
    checkpoint(project)
    backbone = "pixel.backbone.weights=gone.pth"
    named = [backbone, "pixel.checkpoint=published.pth"]
    rehearse(Run.open("mine.yaml", named), ClassSpace(tuple(CLASSES)))
    with pytest.raises(CheckpointError, match=r"pixel\.head and channels"):
        rehearse(Run.open("mine.yaml", [*named, "pixel.channels=16"]), ClassSpace(tuple(CLASSES)))
    with pytest.raises(ConfigError, match="pretrained weights not found"):
        rehearse(Run.open("mine.yaml", [backbone]), ClassSpace(tuple(CLASSES)))


def test_classes_in_another_order_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"meta": {"CLASSES": CLASSES[::-1]}, "state_dict": checkpoint(project)}, project / "published.pth")
    assert gss("import", "published.pth") == 2
    assert "class 0 is 'car' there, 'sky' here" in capsys.readouterr().err
    assert written(project) == set()


def test_there_is_no_tokenizer_to_export(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(project)
    assert gss("import", "published.pth") == 0
    assert gss("export", "--with-tokenizer", "-o", "out.pth") == 2
    assert "has no tokenizer" in capsys.readouterr().err
    assert not (project / "out.pth").exists()
