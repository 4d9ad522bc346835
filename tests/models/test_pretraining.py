"""Files of CAE's pre-training as encoders: which tensors are taken, what starts anew, what is refused."""

from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gss.checkpoints import read_checkpoint
from gss.errors import CheckpointError
from gss.nets.backbone import build_backbone
from gss.nets.encoder import Backbone
from gss.nets.keys import KeyReport
from gss.nets.positions import absolute, relative, sine

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2, "use_abs_pos_emb": True, "init_values": 0.1}
REST = {  # what a pre-training file holds beside the encoder, and what a reader might take for a part of it
    "mask_token": (1, 1, 8),
    "teacher.blocks.0.norm1.weight": (8,),
    "alignment_encoder.cls_token": (1, 1, 8),
    "pretext_neck.regressor_and_decoder.0.norm1.weight": (8,),
    "decoder.norm.weight": (8,),
    "encoder_to_decoder.weight": (8, 8),
    "encoder_to_decoder_norm.bias": (8,),
}


def encoder(name: str = "beit_base_patch16_224", **options: Any) -> Backbone:
    return build_backbone(name, options={**TINY, "img_size": 128, **options})


def file_of(width: int = 32, depth: int = 4, side: int = 14) -> dict[str, Tensor]:
    """A file of the pre-training, under its names, written down independently of timm."""

    def drawn(*shape: int) -> Tensor:
        return torch.empty(()).expand(shape) if width > 32 else torch.randn(shape) / 10

    blocks = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "gamma_1": (width,),
        "gamma_2": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.q_bias": (width,),
        "attn.v_bias": (width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    state = {
        "cls_token": drawn(1, 1, width),
        "pos_embed": sine((side, side), width),
        "patch_embed.proj.weight": drawn(width, 3, 16, 16),
        "patch_embed.proj.bias": drawn(width),
        **{f"blocks.{i}.{key}": drawn(*shape) for i in range(depth) for key, shape in blocks.items()},
        "norm.weight": drawn(width),
        "norm.bias": drawn(width),
    }
    return {f"encoder.{key}": value for key, value in state.items()}


def take(backbone: Backbone, state: dict[str, Tensor]) -> KeyReport:
    backbone.load_pretrained(state)
    assert backbone.pretrained is not None
    return backbone.pretrained


def outcomes(report: KeyReport) -> Counter[tuple[str, str]]:
    return Counter((row.what, row.why) for row in report.rows)


def test_the_encoder_is_taken_and_nothing_else() -> None:
    backbone, given = encoder(), file_of()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    rest = {key: torch.randn(shape) for key, shape in REST.items()}
    report = take(backbone, {**rest, **given})
    own = backbone.features.state_dict()
    for key, value in own.items():
        if key.endswith("relative_position_bias_table"):
            assert value.shape == (15 * 15 + 3, 2) and not value.any()
        elif key == "pos_embed":
            assert torch.equal(value, absolute(given["encoder.pos_embed"], (8, 8)))
        else:
            assert torch.equal(value, given[f"encoder.{key}"]), key
    pyramid = {key: value for key, value in backbone.state_dict().items() if key.startswith("pyramid.")}
    assert pyramid and all(torch.equal(value, before[key]) for key, value in pyramid.items())
    assert outcomes(report) == {
        ("mapped", ""): 3 + 4 * 15,
        ("resized", "positions of 8 x 8 patches"): 1,
        ("started", "at zero: the file has no relative positions"): 4,
        ("dropped", "norm behind the last block: maps have none"): 2,
        ("dropped", "embedding of what the pre-training hid"): 1,
        ("dropped", "encoder of the pre-training's targets"): 2,
        ("dropped", "decoder of the pre-training"): 4,
    }


@pytest.mark.parametrize(
    ("name", "options", "width", "depth"),
    [
        ("beit_base_patch16_224", {"img_size": 512, "init_values": 0.1}, 768, 12),
        ("beit_large_patch16_512", {"init_values": 1e-5}, 1024, 24),
    ],
)
def test_all_keys_of_the_published_sizes_fit(name: str, options: dict[str, Any], width: int, depth: int) -> None:
    given = {key: value.to("meta") for key, value in file_of(width, depth).items()}
    assert len(given) == 4 + 15 * depth + 2
    with torch.device("meta"):
        backbone = build_backbone(name, options={"use_abs_pos_emb": True, **options}, weights=given)
    assert backbone.pretrained is not None
    assert outcomes(backbone.pretrained) == {
        ("mapped", ""): 3 + 15 * depth,
        ("resized", "positions of 32 x 32 patches"): 1,
        ("started", "at zero: the file has no relative positions"): depth,
        ("dropped", "norm behind the last block: maps have none"): 2,
    }


def test_absolute_positions_are_not_trained_and_relative_ones_are() -> None:
    backbone = encoder()
    take(backbone, file_of())
    trained = {name: value.requires_grad for name, value in backbone.named_parameters()}
    assert not trained.pop("features.pos_embed")
    assert all(trained.values())


def test_relative_positions_that_start_at_zero_change_the_maps_once_they_are_not() -> None:
    backbone = encoder().eval()
    take(backbone, file_of())
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before = backbone(image)
        table = backbone.features.get_parameter("blocks.0.attn.relative_position_bias_table")
        table[7, 1] = 3
        after = backbone(image)
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {f"module.{key}": value for key, value in s.items()}])
@pytest.mark.parametrize("prefix", ["encoder.", "backbone.", "backbone.timm_model.", ""])
def test_files_of_fine_tuning_and_bare_encoders_are_read(prefix: str, wrap: Any) -> None:
    given = {key.removeprefix("encoder."): value for key, value in file_of().items()}
    expected, backbone = encoder(), encoder()
    take(expected, given)
    extra = {"head.weight": torch.ones(2, 32), "fc_norm.weight": torch.ones(32), "lin_norm.bias": torch.ones(32)}
    heads = {"decode_head.conv_seg.bias": torch.ones(2)} if prefix else {}
    index = {"blocks.0.attn.relative_position_index": torch.zeros(197, 197, dtype=torch.int64)}
    state = {f"{prefix}{key}": value for key, value in {**given, **extra, **index}.items()}
    take(backbone, wrap({**state, **heads}))
    for key, value in expected.features.state_dict().items():
        assert torch.equal(backbone.features.state_dict()[key], value), key


def test_relative_positions_of_a_file_are_resized_and_a_shared_table_goes_to_every_block() -> None:
    table = torch.randn(27 * 27 + 3, 2)
    single, shared = encoder(), encoder()
    each = {f"blocks.{i}.attn.relative_position_bias_table": table for i in range(4)}
    given = {key.removeprefix("encoder."): value for key, value in file_of().items()}
    report = take(single, {**given, **each})
    assert outcomes(report)["resized", "positions of 8 x 8 patches"] == 5
    take(shared, {**given, "rel_pos_bias.relative_position_bias_table": table})
    for i in range(4):
        key = f"blocks.{i}.attn.relative_position_bias_table"
        assert torch.equal(single.features.state_dict()[key], relative(table, (8, 8)))
        assert torch.equal(shared.features.state_dict()[key], relative(table, (8, 8)))


def test_blocks_behind_the_last_map_are_left_out() -> None:
    backbone = encoder(out_indices=[0, 1, 2, 3], depth=5)
    report = take(backbone, file_of(depth=5))
    assert outcomes(report)["dropped", "behind the last block that gives a map"] == 15


def spoiled(**changes: Any) -> dict[str, Tensor]:
    state = {**file_of(), **changes}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("options", "changes", "said"),
    [
        ({}, {"encoder.blocks.2.mlp.fc1.bias": None}, ["1 missing: blocks.2.mlp.fc1.bias", "backbone.name"]),
        ({}, {"encoder.extra": torch.ones(1)}, ["1 unexpected: encoder.extra"]),
        ({"use_abs_pos_emb": False}, {}, ["1 unexpected: encoder.pos_embed", "use_abs_pos_emb"]),
        ({"init_values": 0}, {}, ["8 unexpected", "gamma_1", "options.init_values"]),
        ({"embed_dim": 64}, {}, ["of another shape", "[1, 1, 32], not [1, 1, 64]"]),
        ({}, {"encoder.pos_embed": torch.ones(1, 1 + 12, 32)}, ["pos_embed: the positions of 12 patches"]),
        (
            {},
            {"encoder.blocks.1.attn.relative_position_bias_table": torch.ones(228, 2)},
            ["3 missing: blocks.0.attn.relative_position_bias_table", "use_rel_pos_bias"],
        ),
    ],
)
def test_what_does_not_fit_is_one_error(options: dict[str, Any], changes: dict[str, Any], said: list[str]) -> None:
    backbone = encoder(**options)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        backbone.load_pretrained(spoiled(**changes))
    assert all(part in str(error.value) for part in said), str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_pretraining_file_is_read_with_its_arguments(tmp_path: Path) -> None:
    """Arguments of the command line stand in it as an object; a file of torch.save before 1.6 too."""
    state = file_of()
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict()
    args = Namespace(model="cae_base", lr=1.5e-3, color_jitter=None, device=torch.device("cpu"), sizes=[1, 2])
    content = {"model": state, "optimizer": optimizer, "epoch": 299, "scaler": {"scale": 65536.0}, "args": args}
    for legacy in (False, True):
        torch.save(content, tmp_path / "cae.pth", _use_new_zipfile_serialization=not legacy)
        found = read_checkpoint(tmp_path / "cae.pth")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], value) for key, value in state.items())
    torch.save({"module": state}, tmp_path / "engine.pth")
    assert read_checkpoint(tmp_path / "engine.pth").keys() == state.keys()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_arguments_that_would_execute_something_are_refused(tmp_path: Path) -> None:
    content = {"model": file_of(), "args": Namespace(trap=Trap(tmp_path / "owned"))}
    torch.save(content, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match="which no state dict needs"):
        read_checkpoint(tmp_path / "trap.pth")
    assert not (tmp_path / "owned").exists()
