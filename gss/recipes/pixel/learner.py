"""What the training loop trains: the network, by the cross-entropy of every pixel."""

import torch
from torch import Tensor, nn

from gss.data.classes import ignore_index
from gss.data.device import finish
from gss.nets.losses import pixel_loss_sum, pixel_weights
from gss.recipes.pixel.network import PixelNetwork

Batch = dict[str, Tensor]


class PixelLearner(nn.Module):
    """See `gss.train.learner.Learner`.

    Args:
        class_weights: [N], factor of a pixel's loss by its label; None: 1.
    """

    def __init__(self, network: PixelNetwork, *, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.terms = {"ce": 1.0}
        self.saved = network
        self.ignored = ignore_index(network.head.classifier.out_channels)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def counts(self, batch: Batch) -> Tensor:
        """float64 [1]: valid pixels of a micro-batch, or the sum of their weights."""
        label = batch["label"]
        if self.class_weights is None:
            return (label != self.ignored).sum().double().view(1)
        return pixel_weights(label, self.class_weights).double().sum().view(1)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Sum of the losses [1] of a micro-batch, and the pixels that are right."""
        backbone, label = self.saved.backbone, batch["label"]
        image = finish(batch["image"], batch["valid"], batch["photometric"], backbone.mean, backbone.std)
        logits = self.saved(image.to(next(self.saved.parameters()).dtype))  # [B, N, h, w]
        loss, right = pixel_loss_sum(logits, label, ignore_index=self.ignored, class_weights=self.class_weights)
        return torch.stack([loss]), {"pixel_acc": (right, (label != self.ignored).sum())}
