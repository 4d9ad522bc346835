"""The pyramid pooling head, against the computation written out."""

import pytest
import torch
import torch.nn.functional as F

from gss.errors import ConfigError
from gss.recipes.pixel.heads import PSPHead
from gss.recipes.pixel.network import build_pixel_network


def test_it_is_what_it_says() -> None:
    torch.manual_seed(0)
    head = PSPHead([4, 8, 16, 24], 5, channels=6).double().eval()
    x = torch.randn(2, 24, 9, 11, dtype=torch.float64)
    pooled = []
    for side, (_, layer) in zip((1, 2, 3, 6), head.psp_modules, strict=True):
        y = layer(F.adaptive_avg_pool2d(x, side))
        pooled.append(F.interpolate(y, (9, 11), mode="bilinear", align_corners=False))
    y = F.conv2d(torch.cat([x, *pooled], 1), head.bottleneck.conv.weight, padding=1)
    expected = head.conv_seg(F.relu(head.bottleneck.bn(y)))
    assert torch.allclose(head([x[:, :4], x[:, :8], x[:, :16], x]), expected, rtol=1e-10, atol=1e-12)


def test_scores_are_those_of_the_dilated_encoder_at_stride_8() -> None:
    network = build_pixel_network(5, {"name": "resnet10t", "output_stride": 8}, head="psp", channels=8).eval()
    assert network(torch.randn(1, 3, 64, 96)).shape == (1, 5, 8, 12)
    assert network.scores(torch.randn(1, 3, 64, 96)).shape == (1, 5, 64, 96)


def test_one_image_alone_is_refused_in_training() -> None:
    with pytest.raises(ConfigError, match="`psp` normalise a map of one pixel"):
        PSPHead([4, 4, 4, 4], 5, channels=4)([torch.randn(1, 4, 8, 8)] * 4)
