"""X^-1: from the decoded maskige back to class scores.

Letters: B batch, P Q height and width of the maskige (8h, 8w), N classes, C channels, H W size of the image.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.models.latent_prior import ConvBNReLU
from gss.models.losses import resize
from gss.models.window import SwinBlocks
from gss.palette.maskige import nearest


class Posterior(nn.Module):
    """What the variants have in common: `forward` gives scores at the maskige's size."""

    @abstractmethod
    def forward(self, rgb: Tensor) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> scores [B, N, P, Q]."""

    def scores(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> float scores [B, N, H, W], resized bilinearly to `size` = (H, W)."""
        return resize(self(rgb), size)


class WindowPosterior(Posterior):
    """Window attention on the maskige, then a linear classifier (GSS-FT-W).

    Args:
        num_classes: N.
        channels: C, a multiple of `num_heads`.
        ffn: hidden width of the feed-forward layers; None: 2 C.

    Source: published GSS-FT-W head; parameter names and initialisation are theirs.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 128,
        *,
        depth: int = 2,
        num_heads: int = 4,
        window: int = 7,
        ffn: int | None = None,
    ) -> None:
        super().__init__()
        self.projection = ConvBNReLU(3, channels)
        self.post_transformer_block = SwinBlocks(
            channels, depth, heads=num_heads, window=window, ffn_dim=ffn or 2 * channels
        )
        self.post_swin_ln = nn.LayerNorm(channels)
        self.cls_segmap = nn.ModuleDict({"conv": _classifier(channels, num_classes)})

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.projection(rgb.contiguous(memory_format=torch.channels_last))  # [B, C, P, Q]
        x = self.post_swin_ln(self.post_transformer_block(x.permute(0, 2, 3, 1)))  # [B, P, Q, C]
        return self.cls_segmap["conv"](x.permute(0, 3, 1, 2))  # [B, N, P, Q]


class ConvPosterior(Posterior):
    """Three 3x3 convolutions, BatchNorm and ReLU between them (an interpretation of the paper's GSS-FT).

    Args:
        num_classes: N.
        channels: C.
    """

    def __init__(self, num_classes: int, channels: int = 128) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvBNReLU(3, channels, 3), ConvBNReLU(channels, channels, 3))
        self.cls_segmap = nn.ModuleDict({"conv": _classifier(channels, num_classes, 3)})

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.convs(rgb.contiguous(memory_format=torch.channels_last))  # [B, C, P, Q]
        return self.cls_segmap["conv"](x)  # [B, N, P, Q]


class NearestPosterior(Posterior):
    """The class whose colour is nearest (GSS-FF); nothing is trained.

    Args:
        colours: [N + 1, 3] in 0..255; the last row, ignore, is never the answer.

    Note: exact ties of distance or of votes go to the lowest class.
    """

    def __init__(self, colours: Tensor) -> None:
        super().__init__()
        self.colours: Tensor
        self.register_buffer("colours", colours, persistent=False)
        self.num_classes = len(colours) - 1

    def ids(self, rgb: Tensor) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> class ids int64 [B, P, Q]."""
        return nearest(rgb * 255, self.colours)

    def forward(self, rgb: Tensor) -> Tensor:
        return F.one_hot(self.ids(rgb), self.num_classes).movedim(-1, 1).to(rgb.dtype)

    def scores(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """The same as resizing `forward(rgb)`, without N channels at the maskige's size."""
        ids = self.ids(rgb)  # [B, P, Q]
        height, width = size
        if ids.shape[1:] == (2 * height, 2 * width):
            return self._votes_of_four(ids)
        votes = rgb.new_empty((len(ids), self.num_classes, height, width), dtype=torch.float32)
        for label in range(self.num_classes):
            votes[:, label] = resize((ids == label).float().unsqueeze(1), size)[:, 0]
        return votes

    def _votes_of_four(self, ids: Tensor) -> Tensor:
        """[B, 2H, 2W] -> float32 [B, N, H, W]: an exact bilinear halving is the mean of 2x2 votes."""
        four = F.pixel_unshuffle(ids.unsqueeze(1), 2)  # [B, 4, H, W]
        votes = torch.zeros((len(ids), self.num_classes, *four.shape[2:]), device=ids.device)
        return votes.scatter_add_(1, four, torch.full(four.shape, 0.25, device=ids.device))


def _classifier(channels: int, num_classes: int, kernel: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_classes, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
