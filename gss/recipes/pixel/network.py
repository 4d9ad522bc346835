"""A per-pixel network: an encoder of four maps and a head.

Letters: B batch, H W size of the image, h w = ceil(H / 4), ceil(W / 4), N classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gss.data.device import normalise
from gss.nets.backbone import Backbone, build_backbone
from gss.nets.published import publish_hrnet_of_mseg
from gss.nets.tensors import resize
from gss.recipes.pixel.heads import HEADS, FCNHead, HRNetHead, start_small

_AUXILIARY_LEVEL = 2  # of stride 16


class PixelNetwork(nn.Module):
    """Encoder and head; in eval mode a `gss.evaluate.segmenter.Segmenter`.

    Args:
        num_classes: N.
        auxiliary: a second head, on the map of stride 16 alone, that only training uses.

    Attributes:
        align_corners: how logits are resized to the image, see `gss.nets.tensors.resize`.
    """

    are_votes, extra_names = False, ()
    protocol: Mapping[str, Any] = {}

    def __init__(
        self, backbone: Backbone, head: nn.Module, num_classes: int, auxiliary: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.num_classes, self.auxiliary = backbone, head, num_classes, auxiliary
        self.align_corners = isinstance(head, HRNetHead)

    def normalise(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in 0..255 -> float, as the backbone takes it."""
        return normalise(image, self.backbone.mean, self.backbone.std)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> logits [B, N, h, w]."""
        return self.head(self.backbone(image))

    def of_all_heads(self, image: Tensor) -> list[Tensor]:
        """Normalised image [B, 3, H, W] -> logits [B, N, h, w], and those of the auxiliary head at its map's size."""
        return self.of_maps(self.backbone(image))

    def of_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """The same of the encoder's maps, which may be taken out of the list."""
        middle = maps[_AUXILIARY_LEVEL]
        logits = [self.head(maps)]
        if self.auxiliary is not None:
            logits.append(self.auxiliary([middle]))
        return logits

    def scores(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> logits float [B, N, H, W]."""
        height, width = image.shape[2:]
        image = self.backbone.fit(image)
        full = resize(self(image), (image.shape[2], image.shape[3]), align_corners=self.align_corners)
        return full[:, :, :height, :width]

    def extras(self, image: Tensor) -> Tensor:
        """Nothing is shown beside a prediction: [B, 0, H, W]."""
        return image[:, :0]


def build_pixel_network(
    num_classes: int,
    backbone: Mapping[str, Any],
    *,
    weights: Mapping[str, Tensor] | None = None,
    head: str = "plain",
    auxiliary: Mapping[str, Any] | None = None,
    **options: Any,
) -> PixelNetwork:
    """A freshly initialised network.

    Args:
        backbone: `name` and other keywords of `build_backbone`.
        weights: pretrained tensors of the backbone.
        head: a name of `HEADS`; `options` are its keywords. With `hrnet` the encoder, too, is MSeg's: see
            `publish_hrnet_of_mseg`; without weights its convolutions start at N(0, 0.001).
        auxiliary: `channels` and `dropout` of an auxiliary head; None: there is none.

    Raises:
        ConfigError: no such backbone, or options it does not know.
        CheckpointError: the weights do not fit.
    """
    encoder = build_backbone(**backbone, weights=weights)
    main = HEADS[head](encoder.channels, num_classes, **options)
    second = None
    if auxiliary is not None:
        second = FCNHead([encoder.channels[_AUXILIARY_LEVEL]], num_classes, kernel=3, **auxiliary)
    network = PixelNetwork(encoder, main, num_classes, second)
    if head == "hrnet":
        publish_hrnet_of_mseg(network)
        if weights is None:
            start_small(encoder)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
