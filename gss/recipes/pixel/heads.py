"""Heads of per-pixel networks: from the encoder's four maps to a score for every class.

Letters: B batch, C_i channels of level i, h_i w_i its size, h w = h_0 w_0 size of the finest one, at stride 4, K width,
N classes. `dropout` is the probability of zeroing a whole channel before the classifier.
"""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gss.errors import ConfigError
from gss.nets.layers import ConvBNReLU, convolve_joined
from gss.nets.norm import BatchNorm2d
from gss.nets.tensors import resize

_POOLED = (1, 2, 3, 6)  # sides of the pooled maps


class PlainHead(nn.Module):
    """Each level through a 1x1 convolution, their sum at stride 4, a 3x3 convolution, a classifier.

    Args:
        in_channels: C_0..C_3, of the maps at strides 4, 8, 16, 32.
        num_classes: N.
        channels: K.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.fusion = ConvBNReLU(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps [B, C_i, h_i, w_i] -> logits [B, N, h, w]."""
        size = (maps[0].shape[2], maps[0].shape[3])
        parts = [resize(lateral(x), size) for lateral, x in zip(self.laterals, maps, strict=True)]
        return self.classifier(self.dropout(self.fusion(sum(parts[1:], parts[0]))))


class FCNHead(nn.Module):
    """The maps, resized to the finest and concatenated, through one convolution, and a classifier.

    Args:
        in_channels: C_i of the maps, of any number.
        num_classes: N.
        channels: K.
        kernel: side of the convolution.

    Source: the published HRNet head, for four maps and kernel 1; the auxiliary head of the published UPerNet, for one
        map and kernel 3; parameter names and initialisation are theirs.
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, channels: int = 128, dropout: float = 0.0, kernel: int = 1
    ) -> None:
        super().__init__()
        self.conv_seg = _classifier(channels, num_classes)
        self.convs = nn.ModuleList([ConvBNReLU(sum(in_channels), channels, kernel)])
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C_i, h_i, w_i] -> logits [B, N, h, w]."""
        return self.conv_seg(self.dropout(_joined(cast(ConvBNReLU, self.convs[0]), maps)))


class HRNetHead(nn.Module):
    """The maps, resized to the finest and concatenated, through a 1x1 convolution with bias, and a classifier.

    Args:
        in_channels: C_i of the maps, of any number.
        num_classes: N.
        channels: K; published: the sum of C_i.

    Source: HRNetV2 as MSeg trained it; parameter names and initialisation. Its scores are resized with aligned corners.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.last_layer = nn.Sequential(
            nn.Conv2d(sum(in_channels), channels, 1),
            BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes, 1),
        )
        self.dropout = nn.Dropout2d(dropout)
        start_small(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C_i, h_i, w_i] -> logits [B, N, h, w]."""
        mix = cast(nn.Conv2d, self.last_layer[0])
        x = convolve_joined(maps, mix.weight).add_(cast(Tensor, mix.bias).view(-1, 1, 1))
        return self.last_layer[3](self.dropout(self.last_layer[1:3](x)))


class UPerNetHead(nn.Module):
    """Pyramid pooling of the coarsest map, a top-down path, and all levels joined at stride 4.

    Args:
        in_channels: C_0..C_3, of the maps at strides 4, 8, 16, 32.
        num_classes: N.
        channels: K.

    Source: Xiao et al. 2018, as published for ADE20K with CAE; parameter names, their order and initialisation.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        self.conv_seg = _classifier(channels, num_classes)
        self.psp_modules = _pooling(coarsest, channels)
        self.bottleneck = ConvBNReLU(coarsest + len(_POOLED) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvBNReLU(width, channels) for width in finer)
        self.fpn_convs = nn.ModuleList(ConvBNReLU(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = ConvBNReLU(len(in_channels) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps [B, C_i, h_i, w_i] -> logits [B, N, h, w].

        Args:
            maps: from a list they are taken out, so that each can go as soon as it is not needed.

        Raises:
            ConfigError: a batch of one in training.
        """
        left = maps if isinstance(maps, list) else list(maps)
        coarsest = left.pop()
        _require_statistics(self.bottleneck, coarsest)
        x = _joined(self.bottleneck, [coarsest, *(pool(coarsest) for pool in self.psp_modules)])
        levels = [x]
        for modules in zip(reversed(self.lateral_convs), reversed(self.fpn_convs), strict=True):
            lateral, fpn = (cast(ConvBNReLU, module) for module in modules)
            fine = lateral.finish(lateral.conv(left.pop()))
            x = F.interpolate(x, fine.shape[2:], mode="bilinear", align_corners=False).add_(fine)
            del fine
            y = fpn.conv(x)
            if not left:
                del x  # the largest one, before others of its size are made
            levels.insert(0, fpn.finish(y))
            del y
        return self.conv_seg(self.dropout(_joined(self.fpn_bottleneck, levels)))


class PSPHead(nn.Module):
    """Pyramid pooling of the coarsest map: it and its pooled maps joined, and a classifier.

    Args:
        in_channels: C_i of the maps; of the last one alone scores are made.
        num_classes: N.
        channels: K.

    Source: Zhao et al. 2017, on an encoder with `output_stride: 8`; the published width is a quarter of the map's.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        coarsest = in_channels[-1]
        self.conv_seg = _classifier(channels, num_classes)
        self.psp_modules = _pooling(coarsest, channels)
        self.bottleneck = ConvBNReLU(coarsest + len(_POOLED) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C_i, h_i, w_i] -> logits [B, N, h, w] at the size of the last one.

        Raises:
            ConfigError: a batch of one in training.
        """
        _require_statistics(self.bottleneck, maps[-1])
        x = _joined(self.bottleneck, [maps[-1], *(pool(maps[-1]) for pool in self.psp_modules)])
        return self.conv_seg(self.dropout(x))


def _pooling(in_channels: int, channels: int) -> nn.ModuleList:
    """A map pooled to several sizes, each through a 1x1 convolution."""
    return nn.ModuleList(
        nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvBNReLU(in_channels, channels)) for side in _POOLED
    )


def _require_statistics(layer: ConvBNReLU, x: Tensor) -> None:
    """A map pooled to one pixel has a variance only over several images; over several GPUs BatchNorm sees more."""
    if layer.training and len(x) == 1 and isinstance(layer.bn, nn.BatchNorm2d):
        raise ConfigError(
            "heads `upernet` and `psp` normalise a map of one pixel over the images computed at once, which are one",
            todo="train with more per process and micro-batch: a larger `batch_size`, or a smaller `accumulation`",
        )


def start_small(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.001), as published for HRNetV2; biases stay."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.001)


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """1x1, initialised as published."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _joined(layer: ConvBNReLU, maps: Sequence[Tensor]) -> Tensor:
    """The layer of the concatenation of maps, resized to the first one's size."""
    return layer.finish(convolve_joined(maps, layer.conv.weight))


HEADS: dict[str, type[nn.Module]] = {
    "plain": PlainHead,
    "fcn": FCNHead,
    "hrnet": HRNetHead,
    "upernet": UPerNetHead,
    "psp": PSPHead,
}
