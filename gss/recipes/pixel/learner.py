"""What the training loop trains: the network, by the cross-entropy of every pixel."""

import torch
from torch import Tensor, nn

from gss.data.classes import ignore_index
from gss.data.device import finish
from gss.nets.losses import pixel_loss_sum, pixel_weights, sum_of
from gss.recipes.pixel.ccsa import CCSA
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.heads import PSPHead
from gss.recipes.pixel.network import PixelNetwork

Batch = dict[str, Tensor]


class PixelLearner(nn.Module):
    """See `gss.train.learner.Learner`.

    Args:
        class_weights: [N], factor of a pixel's loss by its label; None: 1.
        auxiliary_weight: factor of the auxiliary head's loss; None: the network has none.
        over_all: the losses are means over all pixels, ignored ones too, as published for `fcn` and `upernet`.
        ccsa: a loss of the encoder's last map, and its share; the other losses have the rest.

    Note:
        Pairs of `ccsa` are drawn within a micro-batch. Its term is the mean over those with samples of several sources,
        no part of which belongs to one of them.
    """

    def __init__(
        self,
        network: PixelNetwork,
        *,
        class_weights: Tensor | None = None,
        auxiliary_weight: float | None = None,
        over_all: bool = False,
        ccsa: tuple[CCSA, float] | None = None,
    ) -> None:
        super().__init__()
        self.ccsa = ccsa[0] if ccsa else None
        share = ccsa[1] if ccsa else 0.0
        self.terms = {"ce": 1 - share}
        if auxiliary_weight is not None:
            self.terms["auxiliary"] = (1 - share) * auxiliary_weight
        self.heads = len(self.terms)
        self.has_idle = isinstance(network.head, PSPHead)  # what the encoder makes the other maps of
        if self.ccsa is not None:
            self.terms["csa"] = share
        self.saved, self.over_all = network, over_all
        self.ignored = ignore_index(network.num_classes)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def counts(self, batch: Batch) -> Tensor:
        """float64 [terms] or [terms, S]: valid pixels of a micro-batch, or the sum of their weights; for each head the
        same."""
        label, groups = batch["label"], batch.get("groups")
        if self.over_all:
            pixels = sum_of(torch.ones_like(label, dtype=torch.bool), groups)
        elif self.class_weights is None:
            pixels = sum_of(label != self.ignored, groups)
        else:
            pixels = sum_of(pixel_weights(label, self.class_weights).double(), groups)
        counts = pixels.double().expand(self.heads, *pixels.shape)
        if self.ccsa is None:
            return counts
        source = batch["source"]
        return torch.cat([counts, (source != source[0]).any().to(counts).expand(1, *pixels.shape)])

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Sums of the losses, of the shape of `counts`, and the pixels that the head has right."""
        backbone, label = self.saved.backbone, batch["label"]
        image = finish(batch["image"], batch["valid"], batch["photometric"], backbone.mean, backbone.std)
        image = image.to(next(self.saved.parameters()).dtype)
        maps = backbone(image)
        last = maps[-1]
        found = [
            pixel_loss_sum(
                logits,
                label,
                ignore_index=self.ignored,
                class_weights=self.class_weights,
                align_corners=self.saved.align_corners,
                groups=batch.get("groups"),
            )
            for logits in self.saved.of_maps(maps)
        ]
        losses, (right, *_) = zip(*found, strict=True)
        if self.ccsa is not None:
            losses += (self.ccsa(last, label, batch["source"], self.ignored).to(losses[0]).expand_as(losses[0]),)
        return torch.stack(losses), {"pixel_acc": (right, (label != self.ignored).sum())}


def build_learner(experiment: PixelExperiment, network: PixelNetwork, class_weights: Tensor | None) -> PixelLearner:
    """What an experiment trains the network by."""
    config = experiment.pixel
    return PixelLearner(
        network,
        class_weights=class_weights,
        auxiliary_weight=config.auxiliary.weight if config.auxiliary else None,
        over_all=experiment.numerics == "reference" and config.head in ("fcn", "upernet"),
        ccsa=(CCSA(config.ccsa.pairs, config.ccsa.broadcast), config.ccsa.weight) if config.ccsa else None,
    )
