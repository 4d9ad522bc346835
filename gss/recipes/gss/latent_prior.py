"""Latent prior: the network that predicts a maskige's tokens from the photograph (GSS-FF heads).

Letters: B batch, h w token grid (size of the stride-4 map), K `channels`, S `seg_channels`, C `cls_channels`,
V vocabulary, N classes. Convolutions run channels-last, so that a map and its [B, h, w, S] view share memory.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.nets.backbone import Backbone
from gss.nets.layers import ConvBNReLU
from gss.nets.losses import scores_at_once
from gss.nets.tensors import resize, single
from gss.nets.window import SwinBlocks

_PUBLISHED_ORDER = (1, 0, 2, 3)  # the published heads list their inputs as strides 8, 4, 16, 32


class LatentPriorHead(nn.Module):
    """From four feature maps to token scores, and to the pixel scores used in training.

    Args:
        in_channels: channels of the maps at strides 4, 8, 16, 32.
        num_classes: N.
        vocab_size: V.
        kind: `ff` has a fusion of its own for the pixel scores; `single_fusion` shares the one of the tokens; `tokens`
            gives no pixel scores: enough for prediction, and for training X^-1.
        channels: K, width of each level before fusion.
        seg_channels: S, width of the Swin blocks; a multiple of `num_heads`.
        cls_channels: C, width before the token classifier.
        token_stride: 4, as published, or 8: pixels per token in height and in width. All maps are resized to the one
            of this stride; 8 has a quarter of the tokens, and a decoded maskige of the image's own size.
        dropout: probability of zeroing a whole channel before the token classifier.

    Source: published GSS-FF, single-fusion and GSS-FT-W heads; parameter names and initialisation are theirs.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        vocab_size: int,
        *,
        kind: Literal["ff", "single_fusion", "tokens"] = "ff",
        channels: int = 384,
        seg_channels: int = 512,
        cls_channels: int = 2048,
        swin_depth: int = 2,
        num_heads: int = 16,
        window: int = 7,
        token_stride: Literal[4, 8] = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.kind, self.num_classes, self.vocab_size, self.token_stride = kind, num_classes, vocab_size, token_stride
        self.convs = _level_convs(in_channels, channels)
        self.fusion_conv = ConvBNReLU(4 * channels, seg_channels)
        self.transformer_block = SwinBlocks(
            seg_channels, swin_depth, heads=num_heads, window=window, ffn_dim=2 * seg_channels
        )
        self.swin_ln = nn.LayerNorm(seg_channels)
        self.conv_before_seg = ConvBNReLU(seg_channels, cls_channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(cls_channels, vocab_size, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]
        if kind == "ff":
            self.convs_pixel = _level_convs(in_channels, channels)
            self.fusion_conv_pixel = ConvBNReLU(4 * channels, channels)
        if kind != "tokens":
            self.conv_seg_pixel = nn.Conv2d(channels if kind == "ff" else seg_channels, num_classes, 1)

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps [B, C_i, h_i, w_i] -> [B, S, h, w], the aggregated features."""
        return _fuse(maps, self.convs, self.fusion_conv, self.token_stride)

    def hidden(self, fused: Tensor) -> Tensor:
        """[B, S, h, w] -> [B, C, h, w], input of the token classifier `conv_seg`, after dropout."""
        x = self.transformer_block(fused.permute(0, 2, 3, 1))  # [B, h, w, S]
        x = self.swin_ln(x).permute(0, 3, 1, 2)  # [B, S, h, w]
        return self.dropout(self.conv_before_seg(x))

    def pixel_logits(self, maps: Sequence[Tensor], fused: Tensor) -> Tensor:
        """Class scores [B, N, h, w], before the resize to the maskige; not for kind `tokens`.

        Args:
            maps: the backbone's four maps. fused: `fuse(maps)`; the single-fusion head needs nothing else.
        """
        if self.kind == "ff":
            fused = _fuse(maps, self.convs_pixel, self.fusion_conv_pixel, self.token_stride)  # [B, K, h, w]
        return self.conv_seg_pixel(fused)

    def tokens(self, fused: Tensor) -> Tensor:
        """Fused map [B, S, h, w] -> most probable token at every position, int64 [B, h, w]; the lowest of equals."""
        return self._of_scores(fused, lambda scores: scores.argmax(1))

    def expectation(self, fused: Tensor, table: Tensor, temperature: float) -> Tensor:
        """Mean of the rows of a table by the probabilities of the tokens.

        Args:
            fused: [B, S, h, w].
            table: float32 or float64 [V, E].
            temperature: T; the probabilities are the softmax of the scores / T.

        Returns:
            [B, h, w, E], of the table's dtype; as T -> 0 the row of the token that `tokens` gives, to the bit.
        """

        def mean(scores: Tensor) -> Tensor:
            with torch.autocast(scores.device.type, enabled=False):  # it would round the probabilities
                odds = single(scores).div_(temperature)
                odds.sub_(odds.amax(1, keepdim=True)).exp_()  # in place: pieces are what a prediction's peak is made of
                return (odds.to(table.dtype) @ table).div_(odds.sum(1, keepdim=True))

        return self._of_scores(fused, mean)

    def token_uncertainty(self, fused: Tensor) -> Tensor:
        """Fused map [B, S, h, w] -> entropy of the tokens' probabilities / log V, float32 [B, h, w] in 0..1."""
        largest = math.log(self.vocab_size)
        return self._of_scores(fused, lambda scores: torch.special.entr(scores.float().softmax(1)).sum(1) / largest)

    def _of_scores(self, fused: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """`answer` of the tokens' scores [n, V] at every position, [B, h, w, ...]; never of all positions at a time."""
        hidden = self.hidden(fused).permute(0, 2, 3, 1)  # [B, h, w, C]
        pieces = hidden.flatten(0, 2).split(max(1, scores_at_once(hidden) // self.vocab_size))
        weight = self.conv_seg.weight.flatten(1)  # [V, C]
        answers = [answer(F.linear(piece, weight, self.conv_seg.bias)) for piece in pieces]
        return torch.cat(answers).unflatten(0, hidden.shape[:3])


class Seen(NamedTuple):
    """What a latent prior says of images [B, 3, H, W]; h, w = ceil(H / 4), ceil(W / 4) (or / 8).

    Args:
        code: tokens int64 [B, h, w], or the expectation of their embeddings, float [B, h, w, E].
        pixel_logits: class scores of its pixel branch, [B, N, h, w], if they were asked for.
    """

    code: Tensor
    pixel_logits: Tensor | None = None


class LatentPrior(nn.Module):
    """Backbone and head."""

    def __init__(self, backbone: Backbone, head: LatentPriorHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def tokens(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> tokens int64 [B, ceil(H/4), ceil(W/4)]."""
        return self.see(image).code

    def see(
        self,
        image: Tensor,
        *,
        mixture: tuple[Tensor, float] | None = None,
        with_pixels: bool = False,
    ) -> Seen:
        """One pass over normalised images [B, 3, H, W].

        Args:
            mixture: embeddings [V, E] and a temperature: the code is `LatentPriorHead.expectation` of them; None: it is
                the most probable tokens.
            with_pixels: the pixel branch is wanted, too.
        """
        rows, columns = (-(-side // self.head.token_stride) for side in image.shape[2:])
        maps = self.backbone(self.backbone.fit(image))
        fused = self.head.fuse(maps)
        pixels = self.head.pixel_logits(maps, fused)[:, :, :rows, :columns] if with_pixels else None
        del maps  # what follows needs more memory
        code = self.head.tokens(fused) if mixture is None else self.head.expectation(fused, *mixture)
        return Seen(code[:, :rows, :columns], pixels)

    def token_uncertainty(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> float32 [B, ceil(H/4), ceil(W/4)], see `LatentPriorHead`."""
        rows, columns = (-(-side // self.head.token_stride) for side in image.shape[2:])
        maps = self.backbone(self.backbone.fit(image))
        return self.head.token_uncertainty(self.head.fuse(maps))[:, :rows, :columns]


def _level_convs(in_channels: Sequence[int], channels: int) -> nn.ModuleList:
    return nn.ModuleList(ConvBNReLU(in_channels[level], channels) for level in _PUBLISHED_ORDER)


def _fuse(maps: Sequence[Tensor], convs: nn.ModuleList, fusion: ConvBNReLU, token_stride: int = 4) -> Tensor:
    """fusion(concatenation of the levels, resized to the map of the tokens' stride), without the concatenation.

    A 1x1 convolution and a bilinear resize commute, so every level goes through its part of the fusion's weights
    at its own size, and the results are added.
    """
    weights = fusion.conv.weight.chunk(4, dim=1)  # four of [S, K, 1, 1]
    grid = maps[(4, 8).index(token_stride)]
    size = (grid.shape[2], grid.shape[3])
    parts = [
        resize(F.conv2d(conv(maps[level]), weight), size)
        for level, conv, weight in zip(_PUBLISHED_ORDER, convs, weights, strict=True)
    ]
    return F.relu(fusion.bn(parts[0] + parts[1] + parts[2] + parts[3]), inplace=True)  # [B, S, h, w]
