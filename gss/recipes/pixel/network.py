"""A per-pixel network: an encoder of four maps and a plain head.

Letters: B batch, H W size of the image, h w = ceil(H / 4), ceil(W / 4), C_i channels of level i, K width, N classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gss.data.device import normalise
from gss.nets.backbone import Backbone, build_backbone
from gss.nets.layers import ConvBNReLU
from gss.nets.tensors import resize


class PlainHead(nn.Module):
    """Each level through a 1x1 convolution, their sum at stride 4, a 3x3 convolution, a classifier.

    Args:
        in_channels: C_0..C_3, of the maps at strides 4, 8, 16, 32.
        num_classes: N.
        channels: K.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 128) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.fusion = ConvBNReLU(channels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps [B, C_i, h_i, w_i] -> logits [B, N, h, w]."""
        size = (maps[0].shape[2], maps[0].shape[3])
        parts = [resize(lateral(x), size) for lateral, x in zip(self.laterals, maps, strict=True)]
        return self.classifier(self.fusion(sum(parts[1:], parts[0])))


class PixelNetwork(nn.Module):
    """Encoder and head; in eval mode a `gss.evaluate.segmenter.Segmenter`."""

    are_votes, extra_names = False, ()
    protocol: Mapping[str, Any] = {}

    def __init__(self, backbone: Backbone, head: PlainHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def normalise(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in 0..255 -> float, as the backbone takes it."""
        return normalise(image, self.backbone.mean, self.backbone.std)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> logits [B, N, h, w]."""
        return self.head(self.backbone(image))

    def scores(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> logits float [B, N, H, W]."""
        return resize(self(image), (image.shape[2], image.shape[3]))

    def extras(self, image: Tensor) -> Tensor:
        """Nothing is shown beside a prediction: [B, 0, H, W]."""
        return image[:, :0]


def build_pixel_network(
    num_classes: int, backbone: Mapping[str, Any], *, weights: Mapping[str, Tensor] | None = None, **head: Any
) -> PixelNetwork:
    """A freshly initialised network.

    Args:
        backbone: `name` and other keywords of `build_backbone`.
        weights: pretrained tensors of the backbone.
        head: keywords of `PlainHead`.

    Raises:
        ConfigError: no such backbone, or options it does not know.
        CheckpointError: the weights do not fit.
    """
    encoder = build_backbone(**backbone, weights=weights)
    network = PixelNetwork(encoder, PlainHead(encoder.channels, num_classes, **head))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
