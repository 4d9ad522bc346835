"""Layers that several networks are made of."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.nets.norm import BatchNorm2d


class ConvBNReLU(nn.Module):
    """Convolution without bias, BatchNorm, ReLU; He initialisation (normal, fan-out)."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.conv(x))

    def finish(self, x: Tensor) -> Tensor:
        """What the layer makes of the output of its convolution, where that is computed otherwise."""
        return F.relu(self.bn(x), inplace=True)


def convolve_joined(maps: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Convolution of the concatenation of maps, each resized bilinearly to the size of the first, without either.

    It is the sum of a convolution of each map with its part of the weight. A tap of the kernel mixes channels, the
    resize and the tap's shift mix places, so they commute: of a coarser map each tap is applied at the map's own size,
    and for the gradients only the map itself is kept.

    Args:
        maps: [B, C_i, h_i, w_i]; from a list they are taken out, so that each can go as soon as it is not needed.
        weight: [K, sum of C_i, k, k], k odd; the map is padded with zeros.

    Returns:
        [B, K, h_0, w_0].
    """
    left = maps if isinstance(maps, list) else list(maps)
    first, *others = weight.split([x.shape[1] for x in left], 1)
    result = F.conv2d(left.pop(0), first, padding=weight.shape[2] // 2).contiguous(memory_format=torch.channels_last)
    for part in others:
        _add_convolved(result.permute(0, 2, 3, 1), left.pop(0), part)
    return result


def _add_convolved(result: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add to a map [B, H, W, K] the convolution, by weight [K, C, k, k], of a map [B, C, h, w] resized to it."""
    (batch, height, width, _), (rows, columns), side = result.shape, x.shape[2:], weight.shape[2]
    down, across = _shifted_resizes(rows, height, side, result), _shifted_resizes(columns, width, side, result)
    taps = weight.flatten(2).unbind(2)  # k * k of [K, C], row by row
    x = x.permute(0, 2, 3, 1)
    for row, vertical in enumerate(down):
        lines = result.new_zeros(batch * rows, width, len(weight))
        for horizontal, tap in zip(across, taps[row * side :], strict=False):
            mixed = F.linear(x, tap).flatten(0, 1)  # [B * h, w, K]
            lines.baddbmm_(horizontal.expand(len(mixed), -1, -1), mixed)  # [B * h, W, K]
        result.view(batch, height, -1).baddbmm_(vertical.expand(batch, -1, -1), lines.view(batch, rows, -1))


def _shifted_resizes(length: int, size: int, side: int, like: Tensor) -> list[Tensor]:
    """Matrices [size, length] that resize a line bilinearly and shift it, by zeros, for each tap of a kernel's side."""
    reach = side // 2
    identity = torch.eye(length, dtype=like.dtype, device=like.device)
    matrix = F.interpolate(identity[None], size, mode="linear", align_corners=False)[0].t()
    padded = F.pad(matrix, (0, 0, reach, reach))
    return [padded[shift : shift + size] for shift in range(side)]
