"""The whole model: photograph -> tokens -> maskige -> class scores.

Letters: B batch, H W size of the image, h w token grid = ceil(H / 4), ceil(W / 4) (or / 8), N classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gss.data.device import normalise
from gss.nets.tensors import resize
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.posterior import NearestPosterior, Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE


class GSS(nn.Module):
    """Latent prior, tokenizer and X^-1, for prediction: a `gss.evaluate.segmenter.Segmenter`.

    Args:
        prior: predicts tokens; its backbone holds the `mean` and `std` the image must be normalised with.
        tokenizer: the dVAE that decodes tokens.
        posterior: X^-1.
    """

    def __init__(self, prior: LatentPrior, tokenizer: DVAE, posterior: Posterior) -> None:
        super().__init__()
        self.prior, self.tokenizer, self.posterior = prior, tokenizer, posterior

    extra_names = ("maskige", "token_uncertainty")

    @property
    def are_votes(self) -> bool:
        return isinstance(self.posterior, NearestPosterior)

    @property
    def protocol(self) -> dict[str, Any]:
        temperature = self.posterior.temperature if isinstance(self.posterior, NearestPosterior) else None
        return {"vote_temperature": temperature, "tokenizer_precision": self.tokenizer.precision}

    def normalise(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in 0..255 -> float, as the backbone takes it."""
        return normalise(image, self.prior.backbone.mean, self.prior.backbone.std)

    def tokens(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> tokens int64 [B, h, w]."""
        return self.prior.tokens(image)

    def rgb(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> predicted maskige float [B, 3, 8h, 8w] in 0..1."""
        return self.tokenizer.decode(self.tokens(image))

    def scores(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> class scores float [B, N, H, W]; higher is more probable."""
        return self.posterior.scores(self.rgb(image), (image.shape[2], image.shape[3]))

    def extras(self, image: Tensor) -> Tensor:
        """The predicted maskige, see `rgb`, and how undecided the latent prior is about its tokens, grey."""
        rgb, unsure = self.rgb(image), self.prior.token_uncertainty(image)
        grey = resize(unsure[:, None].to(rgb.dtype), (rgb.shape[2], rgb.shape[3]))  # [B, 1, 8h, 8w]
        return torch.cat([rgb, grey.expand_as(rgb)], dim=1)
