"""The whole model: photograph -> tokens -> maskige -> class scores.

Letters: B batch, H W size of the image, h w token grid = ceil(H / 4), ceil(W / 4) (or / 8), N classes.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.data.device import normalise
from gss.errors import ConfigError
from gss.evaluate.maps import log_sum_exp, resized
from gss.nets.tensors import class_chunks, resize
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead, Seen
from gss.recipes.gss.palette.maskige import nearest
from gss.recipes.gss.posterior import NearestPosterior, Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE

RAREST = 1e-3  # added to the shares of classes, whose logarithms would else be infinite
_ALONE_AT_ONCE = 256  # tokens that are decoded alone at a time


class GSS(nn.Module):
    """Latent prior, tokenizer and X^-1, for prediction: a `gss.evaluate.segmenter.Segmenter`.

    Args:
        prior: predicts tokens; its backbone holds the `mean` and `std` the image must be normalised with.
        tokenizer: the dVAE that decodes tokens.
        posterior: X^-1.
        token_temperature: T of the mixture of tokens that is decoded, softmax(scores / T); None: the one token with the
            highest score, as published.
        token_weight: w; the scores are the mean of log-probabilities, those of X^-1 and w times the logarithms of the
            shares that the classes have in the tokens, see `class_shares`, of the mixture where one is decoded. A
            mixture of two colours may lie near that of a third class, whose share is small. 0: no shares, as published.
        pixel_weight: the same of the log-probabilities of the prior's pixel branch; 0: the branch is not looked at, as
            published.
        colours: [N + 1, 3] in 0..255, the palette with the ignore row last; for shares.

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
        token_weight: float = 0.0,
        pixel_weight: float = 0.0,
        colours: Tensor | None = None,
    ) -> None:
        super().__init__()
        require_pixel_branch(prior.head, pixel_weight)
        self.prior, self.tokenizer, self.posterior = prior, tokenizer, posterior
        self.token_temperature, self.token_weight, self.pixel_weight = token_temperature, token_weight, pixel_weight
        self.shares: Tensor | None
        shares = class_shares(tokenizer, colours) if token_weight and colours is not None else None
        self.register_buffer("shares", shares, persistent=False)

    extra_names = ("maskige", "uncertainty_of_token")

    @property
    def are_votes(self) -> bool:
        return isinstance(self.posterior, NearestPosterior) and not (self.token_weight or self.pixel_weight)

    @property
    def protocol(self) -> dict[str, Any]:
        temperature = self.posterior.temperature if isinstance(self.posterior, NearestPosterior) else None
        beyond = {key: getattr(self, key) for key in ("token_temperature", "token_weight", "pixel_weight")}
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
        return self.tokenizer.decode(self.see(image)[0].code)

    def scores(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> class scores float [B, N, H, W]; higher is more probable."""
        size = image.shape[2], image.shape[3]
        seen, shares = self.see(image, with_pixels=self.pixel_weight > 0)
        rgb = self.tokenizer.decode(seen.code)
        if shares is None and seen.pixel_logits is None:
            return self.posterior.scores(rgb, size)
        scores = self.posterior.log_probabilities(rgb, size)
        if shares is not None:
            for of_image, some in zip(scores, shares, strict=True):  # [N, H, W], [N, h, w]
                _add(of_image, self.token_weight, ((chunk + RAREST).log_() for chunk in resized(some, size)))
        if seen.pixel_logits is not None:
            for of_image, logits in zip(scores, seen.pixel_logits, strict=True):
                logarithm = log_sum_exp(logits, size)  # [H, W]
                _add(of_image, self.pixel_weight, (chunk - logarithm for chunk in resized(logits, size)))
        # The mean: all of them say the same thing, and a sum would take it for independent evidence.
        return scores.div_(1 + self.token_weight + self.pixel_weight)

    def extras(self, image: Tensor) -> Tensor:
        """The predicted maskige, see `rgb`, and how undecided the latent prior is about its tokens, grey."""
        rgb, unsure = self.rgb(image), self.prior.token_uncertainty(image)
        grey = resize(unsure[:, None].to(rgb.dtype), (rgb.shape[2], rgb.shape[3]))  # [B, 1, 8h, 8w]
        return torch.cat([rgb, grey.expand_as(rgb)], dim=1)

    def see(self, image: Tensor, *, with_pixels: bool = False) -> tuple[Seen, Tensor | None]:
        """What the prior says, and the shares of the classes in it, [B, N, h, w]; None: they are not weighed."""
        mixture = self.tokenizer.mixture(self.token_temperature)
        if self.shares is None:
            return self.prior.see(image, mixture=mixture, with_pixels=with_pixels), None
        if mixture is None:
            seen = self.prior.see(image, with_pixels=with_pixels)
            return seen, self.shares[seen.code].movedim(-1, 1)
        embeddings, temperature = mixture
        table = torch.cat([embeddings, self.shares.to(embeddings.dtype)], dim=1)  # both means by one product
        seen = self.prior.see(image, mixture=(table, temperature), with_pixels=with_pixels)
        code, shares = seen.code.tensor_split([embeddings.shape[1]], dim=-1)
        return seen._replace(code=code), shares.movedim(-1, 1)


def _add(scores: Tensor, weight: float, chunks: Iterable[Tensor]) -> None:
    """Add maps of a few classes at a time to scores [N, H, W]."""
    for some, chunk in zip(class_chunks(scores, 0), chunks, strict=True):
        some += weight * chunk


@torch.no_grad()
def class_shares(tokenizer: DVAE, colours: Tensor) -> Tensor:
    """float32 [V, N]: the shares of the classes in each token decoded alone, by the nearest colour of its 8 x 8 pixels.

    Args:
        colours: [N + 1, 3] in 0..255, the palette with the ignore row last.
    """
    device, shares = tokenizer.weight.device, []
    for tokens in torch.arange(tokenizer.vocab_size, device=device).split(_ALONE_AT_ONCE):
        ids = nearest(255 * tokenizer.decode(tokens[:, None, None]), colours.to(device))  # [n, 8, 8]
        shares.append(F.one_hot(ids.flatten(1), len(colours) - 1).float().mean(1))
    return torch.cat(shares)


def require_pixel_branch(head: LatentPriorHead, weight: float) -> None:
    """Raise ConfigError where a weight is given to a pixel branch that the latent prior does not have."""
    if weight and head.kind == "tokens":
        raise ConfigError(
            f"the latent prior has no pixel branch to give the weight {weight}: its checkpoint was published without",
            where="evaluation.pixel_weight",
            todo="leave the key out, or train the latent prior",
        )
