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
        return F.relu(self.bn(self.conv(x)), inplace=True)


def convolve_joined(maps: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Convolution of the concatenation of maps, each resized bilinearly to the size of the first, without either.

    It is the sum of a convolution of each map with its part of the weight. A tap of the kernel mixes channels, the
    resize and the tap's shift mix places, so they commute: of a coarser map each tap is applied at the map's own size,
    and for the gradients only the map itself is kept.

    Args:
        maps: [B, C_i, h_i, w_i].
        weight: [K, sum of C_i, k, k], k odd; the map is padded with zeros.

    Returns:
        [B, K, h_0, w_0].
    """
    first, *others = weight.split([x.shape[1] for x in maps], 1)
    size = (maps[0].shape[2], maps[0].shape[3])
    result = F.conv2d(maps[0], first, padding=weight.shape[2] // 2)
    for x, part in zip(maps[1:], others, strict=True):
        result = result + _convolve_resized(x, part, size)
    return result


def _convolve_resized(x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w], weight [K, C, k, k] -> [B, K, H, W]: the convolution of the map resized to (H, W)."""
    (height, width), (batch, _, rows, columns), side = size, x.shape, weight.shape[2]
    down, across = _shifted_resizes(rows, height, side, x), _shifted_resizes(columns, width, side, x)
    taps = weight.flatten(2).unbind(2)  # k * k of [K, C], row by row
    x = x.permute(0, 2, 3, 1)
    result = x.new_zeros(batch, height, width * len(weight))
    for row, vertical in enumerate(down):
        lines = x.new_zeros(batch * rows, width, len(weight))
        for horizontal, tap in zip(across, taps[row * side :], strict=False):
            mixed = F.linear(x, tap).flatten(0, 1)  # [B * h, w, K]
            lines = torch.baddbmm(lines, horizontal.expand(len(mixed), -1, -1), mixed)  # [B * h, W, K]
        result = torch.baddbmm(result, vertical.expand(batch, -1, -1), lines.view(batch, rows, -1))
    return result.unflatten(2, (width, -1)).permute(0, 3, 1, 2)


def _shifted_resizes(length: int, size: int, side: int, like: Tensor) -> list[Tensor]:
    """Matrices [size, length] that resize a line bilinearly and shift it, by zeros, for each tap of a kernel's side."""
    reach = side // 2
    identity = torch.eye(length, dtype=like.dtype, device=like.device)
    matrix = F.interpolate(identity[None], size, mode="linear", align_corners=False)[0].t()
    padded = F.pad(matrix, (0, 0, reach, reach))
    return [padded[shift : shift + size] for shift in range(side)]
