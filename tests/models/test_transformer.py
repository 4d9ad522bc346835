"""Plain transformers as encoders: the published numbers of CAE's, any size, frozen blocks, the economical attention."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss._compat import import_timm
from gss.errors import CheckpointError, ConfigError
from gss.nets.attention import biased_attention
from gss.nets.backbone import build_backbone
from gss.nets.tensors import resize
from gss.nets.transformer import TransformerBackbone
from gss.recipes.pixel.network import build_pixel_network

TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}
BEIT = {**TINY, "img_size": 64, "init_values": 0.1, "use_abs_pos_emb": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": TINY,
    "vit_small_patch14_reg4_dinov2": TINY,
    "vit_small_patch16_dinov3": TINY,
    "eva02_tiny_patch14_224": TINY,
    "deit3_small_patch16_224": TINY,
    "deit_tiny_distilled_patch16_224": TINY,
    "vit_base_patch32_224": TINY,
    "beit_base_patch16_224": BEIT,
    "beitv2_base_patch16_224": {**TINY, "img_size": (64, 96)},
    "cait_xxs24_224": {**TINY, "img_size": 64},
    "samvit_base_patch16": {**TINY, "img_size": 64},
}
CAE_B = {"img_size": 512, "use_abs_pos_emb": True, "init_values": 0.1}
PUBLISHED = {  # shape, sum, sum of magnitudes, first value, value of channel 31 at the last position
    0: ((1, 32, 16, 16), 72.34284, 513.21923, -0.0219457, 0.0593370),
    1: ((1, 32, 8, 8), 16.90305, 1380.84018, 0.1473662, 0.9871293),
    2: ((1, 32, 4, 4), -19.39212, 333.61024, -1.3551505, -0.4794637),
    3: ((1, 32, 2, 2), 32.39445, 114.42897, -1.3964030, -0.8334804),
}


def published(name: str) -> str:
    """The name of a parameter in the release."""
    return name.removeprefix("features.").replace("pyramid.0.", "fpn1.").replace("pyramid.1.", "fpn2.")


@torch.no_grad()
def fill(backbone: TransformerBackbone) -> int:
    """Give every parameter the values that the published numbers were computed with; returns how many there are."""
    parameters = {published(name): value for name, value in backbone.named_parameters()}
    for place, name in enumerate(sorted(parameters)):
        value = parameters[name]
        wave = 0.1 * torch.sin(0.7 * torch.arange(value.numel(), dtype=torch.float64) + place)
        value.copy_(wave.view(value.shape))
        if ("norm" in name and name.endswith("weight")) or name == "fpn1.1.weight" or "gamma" in name:
            value += 1
    return len(parameters)


def test_a_filled_beit_gives_the_published_maps() -> None:
    backbone = build_backbone("beit_base_patch16_224", options={**BEIT, "out_indices": (0, 1, 2, 3)}).eval()
    assert isinstance(backbone, TransformerBackbone)
    assert fill(backbone) == 76
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 88_992
    image = torch.cos(0.01 * torch.arange(3 * 64 * 64, dtype=torch.float64)).float().view(1, 3, 64, 64)
    for with_gradient in (False, True):
        with torch.set_grad_enabled(with_gradient):
            maps = backbone(image)
        for x, (shape, total, magnitude, first, last) in zip(maps, PUBLISHED.values(), strict=True):
            assert x.shape == shape
            assert x.sum().item() == pytest.approx(total, abs=1e-2)
            assert x.abs().sum().item() == pytest.approx(magnitude, abs=1e-2)
            assert x[0, 0, 0, 0].item() == pytest.approx(first, abs=1e-4)
            assert x[0, 31, -1, -1].item() == pytest.approx(last, abs=1e-4)


def test_the_default_blocks_are_the_published_ones() -> None:
    for depth, blocks in ((12, (3, 5, 7, 11)), (24, (7, 11, 15, 23)), (4, (0, 1, 2, 3))):
        backbone = build_backbone("vit_tiny_patch16_224", options={**TINY, "depth": depth})
        assert backbone._blocks == blocks


def test_levels_are_tokens_of_their_blocks_without_norm() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vit_tiny_patch16_224", options={**TINY, "img_size": 64}).eval()
    seen: dict[int, Tensor] = {}
    for index in (2, 3):
        backbone.features.blocks[index].register_forward_hook(
            lambda _, __, out, index=index: seen.__setitem__(index, out)
        )
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 64))
    third, last = (seen[index][:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2) for index in (2, 3))
    assert torch.equal(maps[2], third)
    assert torch.equal(maps[3], F.max_pool2d(last, 2))


@pytest.mark.parametrize(
    ("name", "options", "trainable", "frozen", "block", "table", "pyramid"),
    [
        ("beit_base_patch16_224", CAE_B, 93_308_736, 787_200, 7_136_304, 47_664, (4_721_664, 2_360_064)),
        (
            "beit_large_patch16_512",
            {"use_abs_pos_emb": True, "init_values": 1e-5},
            317_235_712,
            1_049_600,
            12_660_800,
            63_552,
            (8_392_704, 4_195_328),
        ),
    ],
)
def test_caes_encoders_have_the_published_sizes(
    name: str, options: dict[str, Any], trainable: int, frozen: int, block: int, table: int, pyramid: tuple[int, int]
) -> None:
    def size(module: nn.Module, requires_grad: bool = True) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad == requires_grad)

    with torch.device("meta"):
        backbone = build_backbone(name, options=options, drop_path=0.1)
        maps = backbone(torch.empty(2, 3, 512, 512))
    features: Any = backbone.features
    width = features.embed_dim
    assert [tuple(x.shape) for x in maps] == [(2, width, side, side) for side in (128, 64, 32, 16)]
    assert (size(backbone), size(backbone, False)) == (trainable, frozen)
    assert size(features.blocks[0]) == block
    assert features.blocks[0].attn.relative_position_bias_table.numel() == table
    assert (size(backbone.pyramid[0]), size(backbone.pyramid[1])) == pyramid  # type: ignore[index,arg-type]
    assert size(features.patch_embed) + features.cls_token.numel() == width * (3 * 256 + 2)
    assert not features.pos_embed.requires_grad
    assert all(module.eps == 1e-6 for module in features.modules() if isinstance(module, nn.LayerNorm))
    rates = [getattr(layer.drop_path1, "drop_prob", 0.0) for layer in features.blocks]
    assert rates == pytest.approx([0.1 * i / (len(rates) - 1) for i in range(len(rates))])
    assert isinstance(features.blocks[0].drop_path1, nn.Identity)


def test_relative_positions_are_the_published_ones() -> None:
    backbone = build_backbone("beit_base_patch16_224", options={**TINY, "img_size": 512, "depth": 4})
    index: Any = backbone.features.blocks[0].attn.relative_position_index
    assert index.shape == (1025, 1025)
    assert index[0, 0] == 3971
    assert (index[0, 1:] == 3969).all()
    assert (index[1:, 0] == 3970).all()
    assert (index.diagonal()[1:] == 1984).all()
    places = [(1, 1024), (1024, 1), (1, 2), (2, 1), (1, 33)]
    assert [int(index[place]) for place in places] == [0, 3968, 1983, 1985, 1921]


def test_fresh_tables_are_zero_and_count_once_they_are_not() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("beit_base_patch16_224", options=BEIT).eval()
    attention: Any = backbone.features.blocks[0].attn
    x = torch.randn(1, 17, 32)
    with torch.no_grad():
        attention.q_bias.normal_()
        attention.v_bias.normal_()
        before = attention(x)
        bias = torch.cat([attention.q_bias, torch.zeros(32), attention.v_bias])
        q, k, v = F.linear(x, attention.qkv.weight, bias).view(1, 17, 3, 2, 16).permute(2, 0, 3, 1, 4)
        shares = (q @ k.mT / 4).softmax(-1)
        torch.testing.assert_close(before, attention.proj((shares @ v).transpose(1, 2).reshape(1, 17, 32)))
        attention.relative_position_bias_table[0, 0] = 1
        assert not torch.equal(attention(x), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_give_four_maps_and_all_parameters_have_gradients(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, options=FAMILIES[name])
    height, width = backbone.input_size or (75, 131)
    maps = backbone(torch.randn(2, 3, height, width))
    assert [tuple(x.shape) for x in maps] == [
        (2, 32, -(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)
    ]
    sum(x.square().mean() for x in maps).backward()
    assert [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []
    assert {backbone.layer_of(name) for name, _ in backbone.named_parameters()} == {*range(6)}
    before = [n for n, _ in backbone.named_parameters() if backbone.layer_of(n) == 0]
    assert all(not n.startswith(("pyramid.", "features.blocks.")) for n in before)
    assert backbone.num_layers == 5


def test_patches_of_eight_pixels_have_a_pyramid_of_their_own() -> None:
    backbone = build_backbone("vit_tiny_patch16_224", options={**TINY, "patch_size": 8})
    assert [x.shape[-1] for x in backbone(torch.zeros(2, 3, 64, 64))] == [16, 8, 4, 2]
    assert [len(list(level.parameters())) for level in backbone.pyramid] == [2, 0, 0, 0]  # type: ignore[union-attr]


def test_fixed_sizes_are_told_and_smaller_images_padded_at_prediction() -> None:
    torch.manual_seed(0)
    network = build_pixel_network(
        5, {"name": "beit_base_patch16_224", "options": BEIT}, head="upernet", channels=8
    ).eval()
    backbone = network.backbone
    for height, width in ((48, 64), (64, 80), (256, 256)):
        with pytest.raises(ConfigError, match=f"images of 64 x 64 .* has {height} x {width}"):
            backbone(torch.zeros(2, 3, height, width))
    with pytest.raises(ConfigError, match=r"evaluation: \{mode: slide, crop: \[64, 64\]"):
        network.scores(torch.zeros(1, 3, 64, 80))
    image = torch.randn(1, 3, 42, 64)
    with torch.no_grad():
        scores = network.scores(image)
        padded = resize(network(F.pad(image, (0, 0, 0, 22))), (64, 64))
    assert scores.shape == (1, 5, 42, 64)
    assert torch.equal(scores, padded[:, :, :42])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**BEIT, "out_indices": (0, 1, 2)}, r"four ascending blocks of 0 to 3, not from \[0, 1, 2\]"),
        ({**BEIT, "out_indices": (0, 2, 1, 3)}, r"not from \[0, 2, 1, 3\]"),
        ({**BEIT, "out_indices": (0, 1, 2, 4)}, r"not from \[0, 1, 2, 4\]"),
        ({**BEIT, "out_indices": 5}, r"not from \[5\]"),
        ({**BEIT, "embed_dim": 30}, "no multiple of 4"),
        ({**BEIT, "img_size": 70}, r"`img_size` \[70, 70\] of beit_base_patch16_224 is no multiple of its patch of 16"),
        ({**BEIT, "windows": 3}, "windows"),
    ],
)
def test_what_cannot_be_is_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone("beit_base_patch16_224", options=options)
    with pytest.raises(ConfigError, match="output_stride"):
        build_backbone("vit_tiny_patch16_224", options=TINY, output_stride=8)
    with pytest.raises(ConfigError, match=r"\[100, 96\] of vit_tiny_patch16_224 is no multiple"):
        build_backbone("vit_tiny_patch16_224", options={**TINY, "img_size": (100, 96)})
    for other in ("mixer_s16_224", "naflexvit_base_patch16_gap"):
        with pytest.raises(ConfigError, match="not built like the transformers"):
            build_backbone(other)


def test_frozen_blocks_keep_their_weights_and_the_pyramid_does_not() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vit_tiny_patch16_224", options={**TINY, "reg_tokens": 2}, frozen_levels=2, drop_path=0.5)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    blocks = {name.split(".")[2] for name in trained if name.startswith("features.blocks.")}
    assert blocks == {"2", "3"}
    assert {name.split(".")[1] for name in trained if name.startswith("features.")} == {"blocks"}
    assert any(name.startswith("pyramid.") for name in trained)
    assert [block.training for block in backbone.features.blocks] == [False, False, True, True]
    assert backbone.pyramid.training
    shared = build_backbone(
        "beit_base_patch16_224",
        options={**BEIT, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        frozen_levels=2,
    )
    trained = {name for name, parameter in shared.named_parameters() if parameter.requires_grad}
    assert {".".join(name.split(".")[1:3]) for name in trained if "features" in name} == {"blocks.2", "blocks.3"}
    whole = build_backbone("vit_tiny_patch16_224", options=TINY, frozen_levels=4)
    assert not any(parameter.requires_grad for parameter in whole.features.parameters())
    assert all(parameter.requires_grad for parameter in whole.pyramid.parameters())


def test_norm_eval_leaves_the_new_pyramid_its_statistics() -> None:
    backbone = build_backbone("vit_tiny_patch16_224", options=TINY, norm_eval=True)
    assert backbone.pyramid[0][1].training  # type: ignore[index]


@pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", 96), ("beit_base_patch16_224", (64, 96))])
def test_tables_of_positions_follow_the_size(name: str, size: Any) -> None:
    torch.manual_seed(0)
    options = BEIT if name.startswith("beit") else {**TINY, "img_size": 64}
    source = build_backbone(name, options=options)
    state = {key: torch.randn_like(value) for key, value in source.features.state_dict().items()}
    larger = build_backbone(name, options={**options, "img_size": size}, weights={**state, "head.bias": torch.zeros(3)})
    got = larger.features.state_dict()
    for key, value in state.items():
        if value.shape == got[key].shape:
            assert torch.equal(got[key], value), key
    height, width = (size, size) if isinstance(size, int) else size
    grid = state["pos_embed"][0, 1:].view(1, 4, 4, 32).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (height // 16, width // 16), mode="bicubic", align_corners=False)
    torch.testing.assert_close(got["pos_embed"][0, 1:], resized.flatten(2)[0].t())
    assert torch.equal(got["pos_embed"][0, 0], state["pos_embed"][0, 0])
    with pytest.raises(CheckpointError, match="no square grid"):
        build_backbone(name, options=options, weights={**state, "pos_embed": torch.zeros(1, 14, 32)})


def test_positions_of_as_many_patches_in_another_grid_are_no_equal_ones() -> None:
    state = build_backbone("vit_tiny_patch16_224", options={**TINY, "img_size": 64}).features.state_dict()
    wide = build_backbone("vit_tiny_patch16_224", options={**TINY, "img_size": (32, 128)}, weights=state)
    grid = state["pos_embed"][0, 1:].view(1, 4, 4, 32).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (2, 8), mode="bicubic", align_corners=False).flatten(2)[0].t()
    torch.testing.assert_close(wide.features.state_dict()["pos_embed"][0, 1:], resized)
    again = build_backbone(
        "vit_tiny_patch16_224", options={**TINY, "img_size": (32, 96)}
    ).features  # of no square: only an encoder like this one has it
    same = build_backbone("vit_tiny_patch16_224", options={**TINY, "img_size": (32, 96)}, weights=again.state_dict())
    assert torch.equal(same.features.state_dict()["pos_embed"], again.state_dict()["pos_embed"])


def test_imagenets_mean_can_be_chosen() -> None:
    backbone = build_backbone("beit_base_patch16_224", options=BEIT, normalisation="imagenet")
    assert backbone.mean == (123.675, 116.28, 103.53)
    assert build_backbone("beit_base_patch16_224", options=BEIT).mean == (127.5, 127.5, 127.5)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor, index: Tensor) -> Tensor:
    bias = table[index].permute(2, 0, 1)
    return (query @ key.mT / math.sqrt(query.shape[-1]) + bias).softmax(-1) @ value


@pytest.mark.parametrize("pairs", [1, 2**22])
def test_economical_attention_has_the_gradients_of_the_plain_one(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gss.nets.attention._PAIRS", pairs)
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    table = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 7, (5, 5))
    arguments = (query, key, value, table, index)
    torch.testing.assert_close(biased_attention(*arguments), plain_attention(*arguments))
    slope = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    wanted = torch.autograd.grad((plain_attention(*arguments) * slope).sum(), arguments[:4])
    torch.testing.assert_close(torch.autograd.grad((biased_attention(*arguments) * slope).sum(), arguments[:4]), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_economical_attention_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 9, 8, requires_grad=True) for _ in range(3))
    table, index = torch.randn(11, 2, requires_grad=True), torch.randint(0, 11, (9, 9))
    wanted = torch.autograd.grad(plain_attention(query, key, value, table, index).square().sum(), [query, table])
    found = biased_attention(query.to(dtype), key.to(dtype), value.to(dtype), table, index)
    assert found.dtype == dtype
    got = torch.autograd.grad(found.float().square().sum(), [query, table])
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_a_beit_trains_as_timms_does() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("beit_base_patch16_224", options=BEIT)
    plain = import_timm().create_model("beit_base_patch16_224", num_classes=0, **BEIT)
    plain.load_state_dict(backbone.features.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 64)
    maps = plain.forward_intermediates(image, indices=(0, 1, 2, 3), intermediates_only=True)
    sum(x.square().mean() for x in maps).backward()
    ours = backbone.features.forward_intermediates(image, indices=(0, 1, 2, 3), intermediates_only=True)
    sum(x.square().mean() for x in ours).backward()
    wanted = dict(plain.named_parameters())
    for name, parameter in backbone.features.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-4, atol=1e-6)
