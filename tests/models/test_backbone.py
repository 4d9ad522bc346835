"""Backbones: levels at any size, frozen levels, pretrained weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gss.errors import CheckpointError, ConfigError
from gss.models.backbone import build_backbone

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


def test_dilated_resnet_has_stride_eight_levels() -> None:
    maps = build_backbone("resnet50c", output_stride=8)(torch.zeros(2, 3, 64, 64))
    assert [x.shape[-1] for x in maps] == [16, 8, 8, 8]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "expected"), [
    ("swin_large_patch4_window12_384", {}, 195_201_204),
    ("resnet101c", {"output_stride": 8}, 42_519_392),
    ("hrnet_w48", {}, 65_325_120),
])  # fmt: skip
def test_parameters_of_the_published_backbones(name: str, options: dict, expected: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, **options)
    assert sum(p.numel() for p in backbone.parameters()) == expected


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


def test_impossible_backbones_are_explained() -> None:
    with pytest.raises(ConfigError, match="resnet19"):
        build_backbone("resnet19")
    with pytest.raises(ConfigError, match=r"strides 4, 8, 16 and 32, but at \[16, 16, 16\]"):
        build_backbone("vit_tiny_patch16_224")
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
