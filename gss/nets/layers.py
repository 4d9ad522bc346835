"""Layers that several networks are made of."""

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
