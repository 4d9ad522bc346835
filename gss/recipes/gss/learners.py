"""Learners of the two trained parts, in the form the training loop takes (`gss.train.learner.Learner`).

Letters: B batch, H W crop, h w token grid = ceil(H / 4), ceil(W / 4) (or / 8), N classes, V vocabulary.
A batch holds `image` uint8 [B, 3, H, W], `label` [B, H, W] (`gss.data.ids`), `valid` and `photometric`
(`gss.data.device.finish`).
"""

from abc import abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.data.classes import ignore_index
from gss.data.device import finish
from gss.nets.losses import pixel_loss_sum, pixel_weights, sum_of, token_loss_sum
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.posterior import Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.targets import double_label, token_targets, token_valid

Batch = dict[str, Tensor]
Stats = dict[str, tuple[Tensor, Tensor]]


class ImageLearner(nn.Module):
    """What both have in common: their images are normalised as the prior's backbone wants them."""

    terms: dict[str, float]
    saved: nn.Module
    has_idle = False
    prior: LatentPrior

    @property
    def ignored(self) -> int:
        """The label of pixels without loss."""
        return ignore_index(self.prior.head.num_classes)

    @abstractmethod
    def counts(self, batch: Batch) -> Tensor:
        """float64 [terms] or [terms, S]: valid elements of a micro-batch, or their weights' sums."""

    @abstractmethod
    def losses(self, image: Tensor, label: Tensor, groups: Tensor | None = None) -> tuple[Tensor, Stats]:
        """Sums of the losses, and what is reported beside them.

        Args:
            image: normalised, [B, 3, H, W], in the parameters' dtype.
            label: integers [B, H, W], 0..N-1 or `ignore_index(N)`; it is not changed.
            groups: see `gss.train.learner.Learner`.

        Returns:
            sums of the shape of `counts`, not divided by them; statistics as (sum, count).
        """

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Stats]:
        """`losses` of a micro-batch."""
        return self.losses(self.finished_image(batch), batch["label"], batch.get("groups"))

    def finished_image(self, batch: Batch) -> Tensor:
        """Augmented and normalised image [B, 3, H, W] in the parameters' dtype."""
        backbone = self.prior.backbone
        image = finish(batch["image"], batch["valid"], batch["photometric"], backbone.mean, backbone.std)
        return image.to(next(self.prior.parameters()).dtype)


class LatentPriorLearner(ImageLearner):
    """Trains the latent prior on the tokens of the painted label, and its pixel branch on the label.

    Args:
        dvae: frozen tokenizer.
        colours: int64 [N + 1, 3], the palette with the ignore row last.
        class_weights: [N], factor of a pixel's loss by its label; a token has the mean of its valid pixels.
            None: 1, as published.

    Source: published GSS-FF heads: 0.8 x cross-entropy of tokens + 0.2 x cross-entropy of pixels.
    """

    def __init__(self, prior: LatentPrior, dvae: DVAE, colours: Tensor, *, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.terms = {"token": 0.8, "pixel": 0.2}
        self.saved = self.prior = prior
        self.dvae = dvae.requires_grad_(False)
        self.colours: Tensor
        self.register_buffer("colours", colours, persistent=False)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def counts(self, batch: Batch) -> Tensor:
        label, groups = batch["label"], batch.get("groups")
        doubled = double_label(label, _token_grid(label, self.prior.head.token_stride))  # [B, 8h, 8w]
        if self.class_weights is None:
            elements = [token_valid(doubled, self.ignored), doubled != self.ignored]
            return torch.stack([sum_of(each, groups) for each in elements]).double()
        weights = [_token_weights(doubled, self.class_weights), pixel_weights(doubled, self.class_weights)]
        return torch.stack([sum_of(each.double(), groups) for each in weights])

    def losses(self, image: Tensor, label: Tensor, groups: Tensor | None = None) -> tuple[Tensor, Stats]:
        head = self.prior.head
        maps = self.prior.backbone(image)
        fused = head.fuse(maps)
        pixel_logits = head.pixel_logits(maps, fused)  # [B, N, h, w]
        tokens, doubled = self._targets(label, pixel_logits.detach())
        weights = None if self.class_weights is None else _token_weights(doubled, self.class_weights)
        token_sum, tokens_right = token_loss_sum(
            head.hidden(fused),
            head.conv_seg.weight,
            cast(Tensor, head.conv_seg.bias),
            tokens,
            ignore_index=head.vocab_size,
            weights=weights,
            groups=groups,
        )
        pixel_sum, pixels_right = pixel_loss_sum(
            pixel_logits, doubled, ignore_index=self.ignored, class_weights=self.class_weights, groups=groups
        )
        return torch.stack([token_sum, pixel_sum]), {
            "token_acc": (tokens_right, (tokens != head.vocab_size).sum()),
            "pixel_acc": (pixels_right, (doubled != self.ignored).sum()),
        }

    @torch.no_grad()
    def _targets(self, label: Tensor, pixel_logits: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(label.device.type, enabled=False):  # tokens near a tie must not depend on the precision
            return token_targets(self.dvae, label, pixel_logits, self.colours)


class PosteriorLearner(ImageLearner):
    """Trains X^-1 behind a frozen latent prior and tokenizer.

    Args:
        prior: frozen.
        class_weights: [N], factor of a pixel's loss by its label; None: 1, as published.
        reference: as published, the prior's head predicts its tokens in train mode: with the statistics of the batch
            and with dropout, and its running statistics drift. They go nowhere: X^-1 alone is saved.

    Note:
        Deviation: unless `reference`, the prior is what it is at prediction (tests/models/test_training.py), but for
        the rounding of half precision where X^-1 is trained in it.

    Source: published GSS-FT-W.
    """

    def __init__(
        self,
        prior: LatentPrior,
        dvae: DVAE,
        posterior: Posterior,
        *,
        class_weights: Tensor | None = None,
        reference: bool = False,
    ) -> None:
        super().__init__()
        self.terms = {"ce": 1.0}
        self.reference = reference
        self.saved = self.posterior = posterior
        self.prior = prior.requires_grad_(False)
        self.dvae = dvae.requires_grad_(False)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.train()

    def train(self, mode: bool = True) -> "PosteriorLearner":
        super().train(mode)
        self.prior.eval()
        self.prior.head.train(mode and self.reference)
        return self

    def counts(self, batch: Batch) -> Tensor:
        label, groups = batch["label"], batch.get("groups")
        if self.class_weights is None:
            return sum_of(label != self.ignored, groups).double()[None]
        return sum_of(pixel_weights(label, self.class_weights).double(), groups)[None]

    def losses(self, image: Tensor, label: Tensor, groups: Tensor | None = None) -> tuple[Tensor, Stats]:
        loss, right = self.posterior.loss_sum(
            self._decoded(image), label, class_weights=self.class_weights, groups=groups
        )
        return loss[None], {"pixel_acc": (right, (label != self.ignored).sum())}

    @torch.no_grad()
    def _decoded(self, image: Tensor) -> Tensor:
        tokens = self.prior.tokens(image)
        with torch.autocast(image.device.type, enabled=False):
            return self.dvae.decode(tokens).to(next(self.posterior.parameters()).dtype)  # [B, 3, 8h, 8w]


def _token_grid(label: Tensor, stride: int) -> tuple[int, int]:
    return -(-label.shape[1] // stride), -(-label.shape[2] // stride)


def _token_weights(doubled: Tensor, class_weights: Tensor) -> Tensor:
    """[B, h, w]: mean class weight of the valid pixels of every 8x8 block, 0 where there are none."""
    weights = F.avg_pool2d(pixel_weights(doubled, class_weights).unsqueeze(1), 8)
    valid = (doubled != ignore_index(len(class_weights))).to(weights.dtype)
    valid = F.avg_pool2d(valid.unsqueeze(1), 8)
    return (weights / valid.clamp_min(1 / 64))[:, 0]
