"""Backbones: levels at any size, frozen levels, pretrained weights."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gss._compat import import_timm
from gss.checkpoints import read_backbone_weights
from gss.errors import CheckpointError, ConfigError
from gss.nets.backbone import build_backbone
from gss.nets.published import is_reordered, published_name, to_published_order

FAMILIES = ["tf_efficientnet_lite0", "resnet10t", "test_convnext", "swin_tiny_patch4_window7_224", "hrnet_w18_small"]
LITE0 = [  # level, mean, std, first values of a fixed image
    (0.53052, 12.19869, [-7.4367, -9.99114, -10.32652]),
    (-0.29021, 11.15335, [1.76926, -3.66445, -6.22327]),
    (-0.44260, 5.90242, [7.80273, 7.74528, 5.52227]),
    (-0.09294, 2.50313, [0.36587, 1.16696, 1.99674]),
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("side", [(64, 96), (45, 71)])
def test_any_size_gives_four_levels_and_gradients(name: str, side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    image = torch.randn(2, 3, *side, requires_grad=True)
    maps = backbone(image)
    expected = [
        (2, channels, -(-side[0] // stride), -(-side[1] // stride))
        for channels, stride in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(x.shape) for x in maps] == expected
    sum(x.square().mean() for x in maps).backward()
    assert torch.isfinite(image.grad).all()
    assert all(p.grad is not None for p in backbone.parameters())


def test_dilated_resnet_has_stride_eight_levels_and_contracted_dilations() -> None:
    backbone = build_backbone("resnet50c", output_stride=8)
    assert [x.shape[-1] for x in backbone(torch.zeros(2, 3, 64, 64))] == [16, 8, 8, 8]
    dilations = [[block.conv2.dilation[0] for block in backbone.features[f"layer{level}"]] for level in (1, 2, 3, 4)]
    assert dilations == [[1] * 3, [1] * 4, [1, 2, 2, 2, 2, 2], [2, 4, 4]]  # the first block of a level has half


@pytest.mark.parametrize("side", [(64, 64), (45, 71)])
def test_hrnet_fuses_bilinearly_and_by_the_size_of_each_branch(side: tuple[int, int]) -> None:
    backbone = build_backbone("hrnet_w18_small").eval()
    module = backbone.features.stage4[-1]
    seen: dict[str, list[Tensor]] = {}
    module.register_forward_hook(lambda _, given, made: seen.update(given=given[0], made=made))
    with torch.no_grad():
        backbone(torch.randn(1, 3, *side))
        maps = [branch(x) for branch, x in zip(module.branches, seen["given"], strict=True)]
        for i, (target, layers) in enumerate(zip(maps, module.fuse_layers, strict=True)):
            total = torch.zeros_like(target)
            for j, (layer, x) in enumerate(zip(layers, maps, strict=True)):
                if j > i:  # convolution and norm, then twice bilinear: by the factor, to the size
                    x = layer[1](layer[0](x))
                    x = F.interpolate(x, scale_factor=2.0 ** (j - i), mode="bilinear", align_corners=False)
                    x = F.interpolate(x, size=target.shape[2:], mode="bilinear", align_corners=False)
                total = total + (x if j >= i else layer(x))
            torch.testing.assert_close(seen["made"][i], F.relu(total))


def test_options_reach_timm() -> None:
    backbone = build_backbone("swin_tiny_patch4_window7_224", options={"embed_dim": 12, "num_heads": [1, 2, 3, 4]})
    assert backbone.channels == (12, 24, 48, 96)
    with pytest.raises(ConfigError, match="windows_size"):
        build_backbone("swin_tiny_patch4_window7_224", options={"windows_size": 4})
    with pytest.raises(ConfigError, match=r"strides \[8, 16, 32, 64\]"):
        build_backbone("swin_tiny_patch4_window7_224", options={"patch_size": 8})


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "swin_tiny_patch4_window7_224"])
def test_frozen_levels_keep_weights_statistics_and_outputs(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, frozen_levels=2, drop_path=0.2)
    image = torch.randn(2, 3, 64, 64)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    maps = backbone(image)
    assert [x.requires_grad for x in maps] == [False, False, True, True]
    torch.testing.assert_close(backbone(image)[1], maps[1])
    sum(x.square().mean() for x in maps[2:]).backward()
    torch.optim.SGD(backbone.parameters(), 1.0).step()
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    with torch.no_grad():
        torch.testing.assert_close(backbone.train()(image)[:2], list(maps[:2]))


def test_wholly_frozen_backbone_has_nothing_to_train() -> None:
    backbone = build_backbone("resnet10t", frozen_levels=4)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(module.training for module in backbone.features.modules())


def test_frozen_levels_stay_so_with_synchronised_batch_norm() -> None:
    backbone = nn.SyncBatchNorm.convert_sync_batchnorm(build_backbone("resnet10t", frozen_levels=2)).train()
    norms = {name: module.training for name, module in backbone.named_modules() if isinstance(module, nn.SyncBatchNorm)}
    assert not any(training for name, training in norms.items() if "layer" not in name or "layer1" in name)
    assert any(norms.values())


def test_norm_eval_trains_scale_but_not_statistics() -> None:
    backbone = build_backbone("resnet10t", norm_eval=True)
    before = backbone.features.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))[0].sum().backward()
    assert torch.equal(backbone.features.bn1.running_mean, before)
    assert backbone.features.bn1.weight.grad is not None


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "swin_tiny_patch4_window7_224"])
def test_weights_under_timm_names_are_loaded(name: str) -> None:
    source = build_backbone(name)
    weights = {key.replace("layers_", "layers."): value.half() for key, value in source.features.state_dict().items()}
    loaded = build_backbone(name, weights={**weights, "classifier.weight": torch.zeros(1)})
    for key, value in source.features.state_dict().items():
        torch.testing.assert_close(loaded.features.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    incomplete = dict(list(weights.items())[1:])
    with pytest.raises(CheckpointError, match=r"1 of .* tensors"):
        build_backbone(name, weights=incomplete)


TINY_SWIN = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 4], "window_size": 4}


def mmseg_form(backbone: Any) -> dict[str, Tensor]:
    """The tensors of a backbone as mmseg's pretrained file would hold them, with those that are not used."""
    name = backbone.architecture
    return {
        published_name(name, key): to_published_order(value) if is_reordered(name, key) else value
        for key, value in backbone.features.state_dict().items()
    } | {
        "norm.weight": torch.zeros(3),
        "fc.weight": torch.zeros(3),
        "stages.0.blocks.0.attn.w_msa.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
    }


def original_form(backbone: Any) -> dict[str, Tensor]:
    """The same as the authors of Swin name them: timm's order of channels, merging at the end of a stage."""
    found = {}
    for key, value in backbone.features.state_dict().items():
        level = re.match(r"layers_(\d)", key)
        if level:
            key = key.replace(level[0], f"layers.{int(level[1]) - ('downsample' in key)}", 1)
        found[key] = value
    return found


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [
        ("swin_tiny_patch4_window7_224", TINY_SWIN, mmseg_form),
        ("swin_tiny_patch4_window7_224", TINY_SWIN, original_form),
        ("resnet50c", {"layers": [1, 1, 1, 1]}, mmseg_form),
        ("hrnet_w18_small", {}, mmseg_form),
    ],
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_weights_under_other_names_are_loaded(name: str, options: dict[str, Any], form: Any, prefix: str) -> None:
    source = build_backbone(name, options=options)
    given = {prefix + key: value for key, value in form(source).items() if not key.endswith("num_batches_tracked")}
    loaded = build_backbone(name, options=options, weights=given)
    for key, value in source.features.state_dict().items():
        assert torch.equal(loaded.features.state_dict()[key], value), key


def cubic(values: list[float], new: int) -> list[float]:
    """Cubic convolution (a = -0.75) of a row at half-pixel centres; the border repeats."""
    found = []
    for target in range(new):
        centre = (target + 0.5) * len(values) / new - 0.5
        first, total = math.floor(centre) - 1, 0.0
        for source in range(first, first + 4):
            t = abs(centre - source)
            near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            total += (near if t <= 1 else far) * values[min(max(source, 0), len(values) - 1)]
        found.append(total)
    return found


def test_bias_tables_for_another_window_are_resized_bicubically() -> None:
    source = build_backbone("swin_tiny_patch4_window7_224", options=TINY_SWIN)
    key = "layers_0.blocks.0.attn.relative_position_bias_table"
    rows, columns = torch.randn(7), torch.randn(7)
    source.features.state_dict()[key].copy_((rows[:, None] * columns).reshape(49, 1))
    larger = build_backbone(
        "swin_tiny_patch4_window7_224", options={**TINY_SWIN, "window_size": 6}, weights=mmseg_form(source)
    )
    expected = torch.tensor(cubic(rows.tolist(), 11))[:, None] * torch.tensor(cubic(columns.tolist(), 11))
    torch.testing.assert_close(larger.features.state_dict()[key], expected.reshape(121, 1))
    with pytest.raises(CheckpointError, match=r"is \[49, 2\], not \[49, 3\]"):
        wider = {**TINY_SWIN, "num_heads": [3, 2, 3, 4]}
        build_backbone(
            "swin_tiny_patch4_window7_224",
            options=wider,
            weights={
                **mmseg_form(source),
                "stages.0.blocks.0.attn.w_msa.relative_position_bias_table": torch.zeros(49, 2),
            },
        )


def test_pretrained_weights_come_from_files(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": state}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth", str(tmp_path / "b.pth")):
        assert torch.equal(read_backbone_weights("resnet10t", name, tmp_path)["a"], state["a"])
    with pytest.raises(ConfigError, match="pretrained weights not found"):
        read_backbone_weights("resnet10t", "weights/none.pth", tmp_path)


def test_pretrained_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_timm()
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        read_backbone_weights("resnet10t", "timm:c3_in1k", tmp_path)
    text = str(error.value)
    assert "https://huggingface.co/timm/resnet10t.c3_in1k/resolve/main/model.safetensors" in text
    assert f"{tmp_path}/weights/resnet10t.c3_in1k.safetensors" in text
    assert "`weights: weights/resnet10t.c3_in1k.safetensors`" in text
    with pytest.raises(ConfigError, match="no weights 'c4' for resnet10t; it has c3_in1k"):
        read_backbone_weights("resnet10t", "timm:c4", tmp_path)


def test_impossible_backbones_are_explained() -> None:
    with pytest.raises(ConfigError, match="resnet19"):
        build_backbone("resnet19")
    with pytest.raises(ConfigError, match=r"strides 4, 8, 16 and 32, but at \[16, 32, 64\]"):
        build_backbone("levit_128s")
    with pytest.raises(ConfigError, match="cannot be told apart"):
        build_backbone("hrnet_w18_small", frozen_levels=1)


def test_efficientnet_lite0_reproduces_its_check_values(gss_data: Path) -> None:
    path = gss_data / "weights" / "tf_efficientnet_lite0.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    backbone = build_backbone("tf_efficientnet_lite0", weights=load_file(path)).eval()
    i = torch.arange(224)
    pixels = torch.stack([(7 * i[:, None] + 3 * i + 50 * c) % 256 for c in range(3)]).float()[None]
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (backbone.mean, backbone.std))
    with torch.no_grad():
        maps = backbone((pixels - mean) / std)
    for x, (mean_value, std_value, first) in zip(maps, LITE0, strict=True):
        torch.testing.assert_close(x.mean().item(), mean_value, rtol=0, atol=1e-3)
        torch.testing.assert_close(x.std().item(), std_value, rtol=0, atol=1e-3)
        torch.testing.assert_close(x[0, 0, 0, :3], torch.tensor(first), rtol=0, atol=2e-3)
