"""Modules from plain numbers: the latent prior and X^-1 as a model file, a configuration or a script describes them."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from gss.nets.backbone import build_backbone
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior, Posterior, WindowPosterior


def build_latent_prior(
    backbone: str,
    num_classes: int,
    vocab_size: int = 8192,
    *,
    backbone_options: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    normalisation: Literal["timm", "imagenet"] = "timm",
    drop_path: float = 0.0,
    output_stride: int = 32,
    frozen_levels: int = 0,
    norm_eval: bool = False,
    **sizes: Any,
) -> LatentPrior:
    """A freshly initialised latent prior; the defaults are the published sizes.

    Args:
        backbone: timm's name of the image encoder.
        num_classes: classes of the data set, without ignore.
        vocab_size: tokens of the dVAE.
        backbone_options: keywords for timm's constructor, e.g. `window_size`.
        weights, normalisation, drop_path, output_stride, frozen_levels, norm_eval: see `build_backbone`.
        sizes: `kind`, `channels` and all other keywords of `LatentPriorHead`.

    Raises:
        ConfigError: no such backbone, or options it does not know.
        CheckpointError: the weights do not fit.
    """
    encoder = build_backbone(
        backbone,
        options=backbone_options,
        weights=weights,
        normalisation=normalisation,
        drop_path=drop_path,
        frozen_levels=frozen_levels,
        norm_eval=norm_eval,
        output_stride=output_stride,
    )
    return LatentPrior(encoder, LatentPriorHead(encoder.channels, num_classes, vocab_size, **sizes))


def build_posterior(
    num_classes: int,
    variant: Literal["window", "conv", "nearest"] = "window",
    *,
    channels: int = 128,
    depth: int = 2,
    num_heads: int = 4,
    window: int = 7,
    ffn: int | None = None,
    colours: Tensor | None = None,
    temperature: float | None = None,
) -> Posterior:
    """A freshly initialised X^-1; the defaults are the published sizes.

    Args:
        num_classes: classes of the data set, without ignore.
        variant: `window` (FT-W), `conv` (FT) or `nearest` (FF).
        channels, depth, num_heads, window, ffn: see `WindowPosterior`; `conv` has `channels` alone.
        colours, temperature: see `NearestPosterior`, which needs the colours.
    """
    if variant == "nearest":
        if colours is None or len(colours) != num_classes + 1:
            raise ValueError(f"`nearest` needs {num_classes + 1} colours: one per class and that of ignore")
        return NearestPosterior(colours, temperature)
    if variant == "conv":
        return ConvPosterior(num_classes, channels)
    return WindowPosterior(num_classes, channels, depth=depth, num_heads=num_heads, window=window, ffn=ffn)
