"""The whole model: photograph -> tokens -> maskige -> class scores.

Letters: B batch, H W size of the image, h w token grid = ceil(H / 4), ceil(W / 4) (or / 8), N classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gss.data.device import normalise
from gss.errors import ConfigError
from gss.evaluate.maps import log_sum_exp, resized
from gss.nets.tensors import class_chunks, resize
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead, Seen
from gss.recipes.gss.posterior import NearestPosterior, Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE


class GSS(nn.Module):
    """Latent prior, tokenizer and X^-1, for prediction: a `gss.evaluate.segmenter.Segmenter`.

    Args:
        prior: predicts tokens; its backbone holds the `mean` and `std` the image must be normalised with.
        tokenizer: the dVAE that decodes tokens.
        posterior: X^-1.
        token_temperature: T of the mixture of tokens that is decoded, softmax(scores / T); None: the one token with the
            highest score, as published.
        pixel_weight: w; the scores are log-probabilities, those of X^-1 plus w times those of the prior's pixel branch;
            0: the branch is not looked at, as published.

    Raises:
        ConfigError: the prior has no pixel branch to weigh.
    """

    def __init__(
        self,
        prior: LatentPrior,
        tokenizer: DVAE,
        posterior: Posterior,
        *,
        token_temperature: float | None = None,
        pixel_weight: float = 0.0,
    ) -> None:
        super().__init__()
        require_pixel_branch(prior.head, pixel_weight)
        self.prior, self.tokenizer, self.posterior = prior, tokenizer, posterior
        self.token_temperature, self.pixel_weight = token_temperature, pixel_weight

    extra_names = ("maskige", "uncertainty_of_token")

    @property
    def are_votes(self) -> bool:
        return isinstance(self.posterior, NearestPosterior) and not self.pixel_weight

    @property
    def protocol(self) -> dict[str, Any]:
        temperature = self.posterior.temperature if isinstance(self.posterior, NearestPosterior) else None
        beyond = {"token_temperature": self.token_temperature, "pixel_weight": self.pixel_weight}
        return {
            "vote_temperature": temperature,
            "tokenizer_precision": self.tokenizer.precision,
            **{key: value for key, value in beyond.items() if value},
        }

    def normalise(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in 0..255 -> float, as the backbone takes it."""
        return normalise(image, self.prior.backbone.mean, self.prior.backbone.std)

    def tokens(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> tokens int64 [B, h, w]."""
        return self.prior.tokens(image)

    def rgb(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> predicted maskige float [B, 3, 8h, 8w] in 0..1."""
        return self.tokenizer.decode(self._see(image).code)

    def scores(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> class scores float [B, N, H, W]; higher is more probable."""
        size = image.shape[2], image.shape[3]
        seen = self._see(image, with_pixels=self.pixel_weight > 0, with_features=self.posterior.sees_image)
        rgb = self.tokenizer.decode(seen.code)
        if seen.pixel_logits is None:
            return self.posterior.scores(rgb, size, seen.features)
        scores = self.posterior.log_probabilities(rgb, size, seen.features)
        for of_image, logits in zip(scores, seen.pixel_logits, strict=True):  # [N, H, W], [N, h, w]
            logarithm = log_sum_exp(logits, size)  # [H, W]
            for chunk, some in zip(class_chunks(of_image, 0), resized(logits, size), strict=True):
                chunk += self.pixel_weight * (some - logarithm)
        return scores

    def extras(self, image: Tensor) -> Tensor:
        """The predicted maskige, see `rgb`, and how undecided the latent prior is about its tokens, grey."""
        rgb, unsure = self.rgb(image), self.prior.token_uncertainty(image)
        grey = resize(unsure[:, None].to(rgb.dtype), (rgb.shape[2], rgb.shape[3]))  # [B, 1, 8h, 8w]
        return torch.cat([rgb, grey.expand_as(rgb)], dim=1)

    def _see(self, image: Tensor, **wanted: bool) -> Seen:
        return self.prior.see(image, mixture=self.tokenizer.mixture(self.token_temperature), **wanted)


def require_pixel_branch(head: LatentPriorHead, weight: float) -> None:
    """Raise ConfigError where a weight is given to a pixel branch that the latent prior does not have."""
    if weight and head.kind == "tokens":
        raise ConfigError(
            f"the latent prior has no pixel branch to give the weight {weight}: its checkpoint was published without",
            where="evaluation.pixel_weight",
            todo="leave the key out, or train the latent prior",
        )
