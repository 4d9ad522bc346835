"""Training of a dVAE on maskiges: what is minimised, and the weights that are kept.

Letters: B crops, P their side in pixels, N classes, V vocabulary, h = P // 8.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.nets.norm import BatchNorm2d
from gss.recipes.gss.palette.maskige import paint
from gss.recipes.gss.tokenizer.dvae import DVAE, EPSILON, Block, Convolution, map_pixels

WEIGHTS = {"likelihood": 0.3, "colour": 1.0, "usage": 0.5}
LOGIT_SCALE = 2.0  # of the normalised token logits at the start
RESIDUAL_GAIN = 0.5  # of the residual paths at the start; the published 1 / layers^2 takes longer than we train
RANDOM_TEMPERATURE = 0.03  # T with random palettes, whose colours may be arbitrarily close
MIN_LOG_SCALE = -5.0  # keeps the likelihood of a pixel that is right everywhere finite


class NormalisedDVAE(nn.Module):
    """A dVAE with BatchNorm over its token logits, without which training ends with a handful of tokens.

    Args:
        dvae: the module to train, in place. An untrained one gets token embeddings of unit variance, since a one-hot
            input has a fan-in of one, and stronger residual paths.
        trained_on: mapped pictures [B,3,P,P]; given for a trained dVAE, whose logits on them the norm then keeps.
    """

    def __init__(self, dvae: DVAE, trained_on: Tensor | None = None) -> None:
        super().__init__()
        self.dvae: DVAE = dvae.requires_grad_(True).train()
        self.dvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.norm = BatchNorm2d(dvae.vocab_size)
        if trained_on is None:
            self._initialise()
        else:
            self._keep_logits(trained_on)

    @torch.no_grad()
    def _initialise(self) -> None:
        self.norm.weight.fill_(LOGIT_SCALE)
        self.dvae.decoder.input.w.normal_()
        for module in self.dvae.modules():
            if isinstance(module, Block):
                cast(Convolution, module.res_path[-1]).w.mul_(RESIDUAL_GAIN / module.gain)

    @torch.no_grad()
    def _keep_logits(self, mapped: Tensor) -> None:
        variance, mean = torch.var_mean(self.dvae.encode_logits(mapped), (0, 2, 3))
        mean_so_far, variance_so_far = _statistics(self.norm)
        mean_so_far.copy_(mean)
        variance_so_far.copy_(variance)
        self.norm.weight.copy_(torch.sqrt(variance + self.norm.eps))
        self.norm.bias.copy_(mean)

    def forward(self, mapped: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder output [B,6,P,P] and token probabilities [B,V,h,h] of mapped pictures [B,3,P,P] in 0.1..0.9."""
        logits = self.norm(self.dvae.encode_logits(mapped))
        soft = logits.softmax(1)
        hard = torch.zeros_like(soft).scatter_(1, logits.argmax(1, keepdim=True), 1)
        return self.dvae.decoder(hard + soft - soft.detach()), soft


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


class DVAELearner(nn.Module):
    """The loss of a dVAE on painted label crops, for the training loop.

    Terms, each a mean:
        likelihood: -ln of the logit-Laplace density of the mapped maskige, per channel and pixel, without its constant.
        colour: cross-entropy of the pixel's class among all colours, with logits -|decoded - colour|^2 / T.
        usage: sum_v m_v ln m_v, m = mean token probability of the batch: KL(m || uniform) - ln V.

    Args:
        dvae: weights to start from; trained in place.
        colours: [N+1,3] in 0..255, last row = ignored pixels.
        random_palettes: paint every crop in fresh random colours: a tokenizer for any palette.
        trained_on: labels [B,P/2,P/2]; given when the dVAE is trained already and only learns new colours.

    Source: Ramesh et al. 2021 (arXiv 2102.12092), appendix A.

    Note:
        Deviation: the relaxed categorical is straight-through without noise (forward argmax, backward softmax), and the
        KL acts on the mean of the batch instead of on every position; with the published objective few tokens
        survive on pictures of few flat colours (bench/tokenizer.md). `export` folds BatchNorm on the logits away.
    """

    def __init__(
        self,
        dvae: DVAE,
        colours: Tensor,
        *,
        random_palettes: bool = False,
        trained_on: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.terms, self.has_idle = dict(WEIGHTS), False
        self.random_palettes = random_palettes
        self.colours = nn.Buffer(colours.double() / 255)
        self.temperature = RANDOM_TEMPERATURE if random_palettes else colour_temperature(colours)
        seen = None if trained_on is None else mapped_maskige(double(trained_on), self.palettes(len(trained_on)))
        self.saved = NormalisedDVAE(dvae, seen)

    def counts(self, batch: dict[str, Tensor]) -> Tensor:
        """float64 [3]: channel values, pixels and tokens of the batch."""
        pixels = 4 * batch["label"].numel()
        return torch.tensor([3 * pixels, pixels, pixels // 64], dtype=torch.float64, device=batch["label"].device)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Sums [3] of the terms for `label` [B,P/2,P/2], and statistics.

        Statistics: `pixel_accuracy`, and `tokens_used` = different tokens in the batch of this process.
        """
        label = double(batch["label"])  # [B,P,P]
        palettes = self.palettes(len(label))
        mapped = mapped_maskige(label, palettes).to(self.saved.norm.weight.dtype)
        output, soft = self.saved(mapped)

        classes = label.long().clamp(max=len(self.colours) - 1)
        scores = self.colour_scores(output[:, :3].sigmoid(), palettes)
        usage = soft.mean((0, 2, 3))
        tokens = soft.argmax(1)
        sums = torch.stack(
            [
                negative_likelihood(mapped, output).sum(),
                F.cross_entropy(scores, classes, reduction="sum"),
                (usage * usage.clamp_min(1e-12).log()).sum() * tokens.numel(),
            ]
        )
        correct = (scores.detach().argmax(1) == classes).double()
        one = torch.ones((), dtype=torch.float64, device=label.device)
        used = one * (tokens.flatten().bincount(minlength=soft.shape[1]) > 0).sum()
        return sums, {"pixel_accuracy": (correct.sum(), one * correct.numel()), "tokens_used": (used, one)}

    def palettes(self, num_crops: int) -> Tensor:
        """Colours [B,N+1,3] in 0..1 of each crop: the palette, or fresh uniform draws."""
        if self.random_palettes:
            return torch.rand(num_crops, *self.colours.shape, dtype=self.colours.dtype, device=self.colours.device)
        return self.colours.expand(num_crops, -1, -1)

    def colour_scores(self, mapped: Tensor, palettes: Tensor) -> Tensor:
        """[B,N+1,P,P] of decoded pictures [B,3,P,P] in 0.1..0.9: -|y - colour|^2 / T without the common |y|^2."""
        y = (mapped - EPSILON) / (1 - 2 * EPSILON)
        colours = palettes.to(mapped.dtype)
        products = (colours @ y.flatten(2)).unflatten(2, y.shape[2:])
        return (2 * products - colours.square().sum(2)[:, :, None, None]) / self.temperature


def mapped_maskige(label: Tensor, palettes: Tensor) -> Tensor:
    """[B,3,P,P] in 0.1..0.9 of labels [B,P,P], each painted with its own colours of [B,N+1,3] in 0..1."""
    crops = [paint(crop[None], 255 * colours) for crop, colours in zip(label, palettes, strict=True)]
    return map_pixels(torch.cat(crops)).contiguous(memory_format=torch.channels_last)


def double(label: Tensor) -> Tensor:
    """Repeat every pixel of [B,H,W] in both directions."""
    return label.repeat_interleave(2, 1).repeat_interleave(2, 2)


def colour_temperature(colours: Tensor) -> float:
    """T of the colour cross-entropy: a tenth of the smallest squared distance between two colours, in 0..1 units."""
    rows = colours.double() / 255
    return float(torch.pdist(rows).min() ** 2 / 10)


def negative_likelihood(mapped: Tensor, output: Tensor) -> Tensor:
    """-ln of the logit-Laplace density of `mapped` [B,3,P,P] given decoder `output` [B,6,P,P], without its constant.

    ln b + |logit(x) - mu| / b; left out: ln(2 x (1 - x)), which no weight can change.
    """
    mean, log_scale = output[:, :3], output[:, 3:].clamp_min(MIN_LOG_SCALE)
    return log_scale + (torch.logit(mapped) - mean).abs() * torch.exp(-log_scale)


@torch.no_grad()
def export(trained: NormalisedDVAE) -> DVAE:
    """The trained dVAE as DALL-E's architecture, frozen: BatchNorm is folded into the encoder's last convolution."""
    dvae, norm = copy.deepcopy(trained.dvae), trained.norm
    last = dvae.encoder.output
    mean, variance = _statistics(norm)
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    last.w.mul_(scale[:, None, None, None])
    last.b.copy_((last.b - mean) * scale + norm.bias)
    return dvae.float().requires_grad_(False).eval()
