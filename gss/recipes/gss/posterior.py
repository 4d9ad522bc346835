"""X^-1: from the decoded maskige back to class scores.

Letters: B batch, P Q height and width of the maskige (8h, 8w), N classes, C channels, H W size of the image.
"""

from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.data.classes import ignore_index
from gss.evaluate.maps import log_sum_exp
from gss.nets.layers import ConvBNReLU
from gss.nets.losses import pixel_loss_sum, pixel_weights, token_loss_sum
from gss.nets.tensors import class_chunks, resize, single
from gss.nets.window import SwinBlocks
from gss.recipes.gss.palette.maskige import nearest


class Posterior(nn.Module):
    """What the variants have in common: `forward` gives scores at the maskige's size."""

    @abstractmethod
    def forward(self, rgb: Tensor) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> scores [B, N, P, Q]."""

    def scores(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> float scores [B, N, H, W], resized bilinearly to `size` = (H, W)."""
        return resize(self(rgb), size)

    def log_probabilities(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """As `scores`, normalised: their log-softmax over the classes, float32 at least."""
        scores = single(self.scores(rgb, size))
        for of_image in scores:
            of_image -= log_sum_exp(of_image, size)
        return scores

    def loss_sum(
        self, rgb: Tensor, label: Tensor, *, class_weights: Tensor | None = None, groups: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of `scores(rgb, (H, W))`, summed over the valid pixels.

        Args:
            rgb: [B, 3, P, Q] in 0..1.
            label: integers [B, H, W], 0..N-1 or `ignore_index(N)`.
            class_weights: [N], factor of a pixel's loss by its label; None: 1.
            groups: see `gss.nets.losses`.

        Returns:
            the sum, [] or [S], differentiable in the parameters; the number of pixels guessed right, int64.
        """
        scores = self(rgb)
        ignored = ignore_index(scores.shape[1])
        return pixel_loss_sum(scores, label, ignore_index=ignored, class_weights=class_weights, groups=groups)


class WindowPosterior(Posterior):
    """Window attention on the maskige, then a linear classifier (GSS-FT-W).

    Args:
        num_classes: N.
        channels: C, a multiple of `num_heads`.
        ffn: hidden width of the feed-forward layers; None: 2 C.

    Source: published GSS-FT-W head; parameter names and initialisation are theirs.

    Note: the classifier commutes with the bilinear resize, so features are resized before they are classified.
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

    def hidden(self, rgb: Tensor) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> input of the classifier, [B, C, P, Q]."""
        x = self.projection(rgb.contiguous(memory_format=torch.channels_last))  # [B, C, P, Q]
        x = self.post_transformer_block(x.permute(0, 2, 3, 1))  # [B, P, Q, C]
        return self.post_swin_ln(x).permute(0, 3, 1, 2)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.cls_segmap["conv"](self.hidden(rgb))  # [B, N, P, Q]

    def scores(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        return self.cls_segmap["conv"](resize(self.hidden(rgb), size))  # [B, N, H, W]

    def loss_sum(
        self, rgb: Tensor, label: Tensor, *, class_weights: Tensor | None = None, groups: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = None if class_weights is None else pixel_weights(label, class_weights)
        classifier = cast(nn.Conv2d, self.cls_segmap["conv"])
        hidden = resize(self.hidden(rgb), (label.shape[1], label.shape[2]))  # [B, C, H, W]
        return token_loss_sum(
            hidden,
            classifier.weight,
            cast(Tensor, classifier.bias),
            label.long(),
            ignore_index=ignore_index(len(classifier.weight)),
            weights=weights,
            groups=groups,
        )


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
        temperature: T of soft votes, the softmax over the classes of -d^2 / T with d the distance of a pixel to
            a class's colour in units of 0..255; None: one vote for the nearest colour, as published.

    Note: exact ties of distance or of votes go to the lowest class.
    """

    def __init__(self, colours: Tensor, temperature: float | None = None) -> None:
        super().__init__()
        self.temperature = temperature
        self.colours: Tensor
        self.register_buffer("colours", colours, persistent=False)
        self.num_classes = len(colours) - 1

    def ids(self, rgb: Tensor) -> Tensor:
        """Maskige [B, 3, P, Q] in 0..1 -> class ids int64 [B, P, Q]."""
        return nearest(rgb * 255, self.colours)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.scores(rgb, (rgb.shape[2], rgb.shape[3])).to(rgb.dtype)

    def scores(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """The same as resizing `forward(rgb)`, without N channels at the maskige's size."""
        if self.temperature is None and rgb.shape[2:] == (2 * size[0], 2 * size[1]):
            four = F.pixel_unshuffle(self.ids(rgb).unsqueeze(1), 2)  # [B, 4, H, W]
            # An exact bilinear halving is the mean of 2x2 votes.
            return self._no_votes(rgb, size).scatter_add_(1, four, rgb.new_full(four.shape, 0.25, dtype=torch.float32))
        votes = self._no_votes(rgb, size)
        planes = self._hard_votes(rgb) if self.temperature is None else self._soft_votes(rgb)
        for chunk in class_chunks(votes, 1):
            some = torch.stack(list(islice(planes, chunk.shape[1])), dim=-1)  # [B, P, Q, classes]
            chunk.copy_(resize(some.permute(0, 3, 1, 2), size))
        return votes

    def log_probabilities(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """log((4 v + 1) / (4 + N)) of the shares v of the votes: the four maskige pixels of an image pixel are one vote
        each, and every class has one more, without which the logarithm of most classes would be infinite."""
        return self.scores(rgb, size).mul_(4).add_(1).div_(4 + self.num_classes).log_()

    def _no_votes(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """float32 [B, N, H, W] zeros in the layout of the published one-hot map: its resizes round like that map's,
        and many ties are decided by the rounding."""
        shape = (len(rgb), self.num_classes, *size)
        return torch.empty(shape, device=rgb.device, memory_format=torch.channels_last).zero_()

    def _hard_votes(self, rgb: Tensor) -> Iterator[Tensor]:
        """Class by class, float32 [B, P, Q]: 1 where its colour is the nearest."""
        ids = self.ids(rgb)  # [B, P, Q]
        return ((ids == label).float() for label in range(self.num_classes))

    def _soft_votes(self, rgb: Tensor) -> Iterator[Tensor]:
        """Class by class, float32 [B, P, Q]: the softmax of -d^2 / T, which is computed twice instead of kept."""
        total = torch.full_like(rgb[:, 0], -torch.inf, dtype=torch.float32)  # log of the sum over the classes
        for label in range(self.num_classes):
            total = torch.logaddexp(total, self._exponent(rgb, label))
        return ((self._exponent(rgb, label) - total).exp_() for label in range(self.num_classes))

    def _exponent(self, rgb: Tensor, label: int) -> Tensor:
        difference = 255 * rgb.float() - self.colours[label].float()[:, None, None]  # [B, 3, P, Q]
        return difference.square_().sum(1) / -self.temperature  # type: ignore[operator]


def _classifier(channels: int, num_classes: int, kernel: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_classes, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
