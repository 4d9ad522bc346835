"""What the training loop trains: the network, by the cross-entropy of every pixel."""

import torch
from torch import Tensor, nn

from gss.data.classes import ignore_index
from gss.data.device import finish
from gss.nets.losses import pixel_loss_sum, pixel_weights
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.network import PixelNetwork

Batch = dict[str, Tensor]


class PixelLearner(nn.Module):
    """See `gss.train.learner.Learner`.

    Args:
        class_weights: [N], factor of a pixel's loss by its label; None: 1.
        auxiliary_weight: factor of the auxiliary head's loss; None: the network has none.
        over_all: the losses are means over all pixels, ignored ones too, as published for `fcn` and `upernet`.
    """

    def __init__(
        self,
        network: PixelNetwork,
        *,
        class_weights: Tensor | None = None,
        auxiliary_weight: float | None = None,
        over_all: bool = False,
    ) -> None:
        super().__init__()
        self.terms = {"ce": 1.0}
        if auxiliary_weight is not None:
            self.terms["auxiliary"] = auxiliary_weight
        self.saved, self.over_all = network, over_all
        self.ignored = ignore_index(network.num_classes)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def counts(self, batch: Batch) -> Tensor:
        """float64 [terms]: valid pixels of a micro-batch, or the sum of their weights; for each head the same."""
        label = batch["label"]
        if self.over_all:
            pixels = torch.tensor(label.numel(), device=label.device)
        elif self.class_weights is None:
            pixels = (label != self.ignored).sum()
        else:
            pixels = pixel_weights(label, self.class_weights).double().sum()
        return pixels.double().expand(len(self.terms))

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Sums of the losses [terms] of a micro-batch, and the pixels that the head has right."""
        backbone, label = self.saved.backbone, batch["label"]
        image = finish(batch["image"], batch["valid"], batch["photometric"], backbone.mean, backbone.std)
        image = image.to(next(self.saved.parameters()).dtype)
        found = [
            pixel_loss_sum(
                logits,
                label,
                ignore_index=self.ignored,
                class_weights=self.class_weights,
                align_corners=self.saved.align_corners,
            )
            for logits in self.saved.of_all_heads(image)
        ]
        losses, (right, *_) = zip(*found, strict=True)
        return torch.stack(losses), {"pixel_acc": (right, (label != self.ignored).sum())}


def build_learner(experiment: PixelExperiment, network: PixelNetwork, class_weights: Tensor | None) -> PixelLearner:
    """What an experiment trains the network by."""
    config = experiment.pixel
    return PixelLearner(
        network,
        class_weights=class_weights,
        auxiliary_weight=config.auxiliary.weight if config.auxiliary else None,
        over_all=experiment.numerics == "reference" and config.head in ("fcn", "upernet"),
    )
