"""Published (mmseg) checkpoints: their files, their names and their order of channels, to ours and back.

Our names are those of `gss.recipes.gss.model.GSS` and of the model files: `prior.`, `posterior.`, `tokenizer.`.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gss.errors import CheckpointError
from gss.nets.keys import INDEX, KeyReport, Names, copy_published
from gss.nets.published import from_published_order, is_reordered, published_name, to_published_order
from gss.nets.transformer import TransformerBackbone
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.posterior import ConvPosterior, Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE

PRIOR = ("convs", "fusion_conv", "transformer_block", "swin_ln", "conv_before_seg", "conv_seg")
POSTERIOR = ("projection", "post_transformer_block", "post_swin_ln", "cls_segmap")
PIXEL_BRANCH = ("convs_pixel", "fusion_conv_pixel", "conv_seg_pixel")
_DECIDED_BY = [  # published names -> what their presence and their shapes follow from
    (r"backbone\.", "the backbone (latent_prior.backbone)"),
    (r"decode_head\.d_vae\.", "the tokenizer"),
    (r"decode_head\.(convs|fusion_conv|conv_seg)_pixel\.", "the classes and the kind of head (latent_prior.head)"),
    (r"decode_head\.transformer_block\.", "latent_prior.swin_depth, num_heads and seg_channels"),
    (r"decode_head\.conv_seg\.", "the tokenizer's vocabulary and latent_prior.cls_channels"),
    (r"decode_head\.post_transformer_block\.", "posterior.depth, num_heads and channels"),
    (r"decode_head\.cls_segmap\.", "the classes and posterior.channels"),
    (r"decode_head\.(projection|post_swin_ln)\.", "posterior.variant and channels"),
    (r"decode_head\.", "latent_prior.channels, seg_channels, cls_channels and the backbone"),
]


def load_published(
    state: Mapping[str, Tensor],
    prior: LatentPrior | None,
    posterior: Posterior | None = None,
    dvae: DVAE | None = None,
    *,
    where: str | Path = "state dict",
) -> KeyReport:
    """Load a published state dict into modules built for it; every tensor of the modules must be there.

    Args:
        state: tensors under mmseg's names, with or without the prefix `module.`.
        prior: takes `backbone.` and the prior's part of `decode_head.`; of kind `tokens` it has no pixel branch.
            None: all that is left out.
        posterior: takes X^-1; None: X^-1 is left out.
        dvae: takes `decode_head.d_vae.`; None: the tokenizer is left out.
        where: named in errors.

    Raises:
        CheckpointError: keys missing or unexpected, or of another shape; nothing was loaded.
    """
    architecture = prior.backbone.architecture if prior else ""
    names = Names(
        published=lambda name: published_key(name, architecture),
        left_out=lambda key: _left_out(key, prior, posterior, dvae),
        reordered=lambda name: from_published_order if is_reordered(architecture, name) else None,
        decided_by=_DECIDED_BY,
        otherwise="use a GSS checkpoint of the published code",
    )
    return copy_published(state, _tensors(prior, posterior, dvae), names, where=where)


def to_published(prior: LatentPrior, posterior: Posterior | None = None, dvae: DVAE | None = None) -> dict[str, Tensor]:
    """State dict under mmseg's names, as the published code would have saved it, index buffers included.

    Returns:
        Tensors on their device, sharing memory with the modules where their order is the same.

    Raises:
        CheckpointError: X^-1 of a variant, or an encoder of a kind, that was not published.
    """
    if isinstance(posterior, ConvPosterior):
        raise CheckpointError("X^-1 of variant `conv` has no published form", todo="leave X^-1 out")
    architecture = prior.backbone.architecture
    return {
        published_key(name, architecture): to_published_order(value) if is_reordered(architecture, name) else value
        for name, value in _tensors(prior, posterior, dvae).items()
    }


def published_key(name: str, architecture: str) -> str:
    """Published name of one of our tensors.

    Args:
        name: beginning with `prior.`, `posterior.` or `tokenizer.`.
        architecture: timm's name of the backbone.
    """
    part, _, rest = name.partition(".")
    if part == "tokenizer":
        return f"decode_head.d_vae.{rest}"
    if part == "posterior":
        return f"decode_head.{rest}"
    part, _, rest = rest.partition(".")
    if part == "head":
        return f"decode_head.{rest}"
    part, _, rest = rest.partition(".")
    return f"backbone.norm{rest}" if part == "norms" else f"backbone.{published_name(architecture, rest)}"


def _tensors(prior: LatentPrior | None, posterior: Posterior | None, dvae: DVAE | None) -> dict[str, Tensor]:
    """Parameters and buffers by our name, and the derived index buffers that published checkpoints hold, too.

    Raises:
        CheckpointError: the encoder is a plain transformer, which no published network has.
    """
    if prior is not None and isinstance(prior.backbone, TransformerBackbone):
        raise CheckpointError(
            f"a latent prior on {prior.backbone.architecture} has no published form: no plain transformer has one",
            todo="export a folder or ONNX",
        )
    found: dict[str, Tensor] = {}
    for part, module in (("prior", prior), ("posterior", posterior), ("tokenizer", dvae)):
        if module is not None:
            found |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
            found |= {f"{part}.{name}": value for name, value in module.named_buffers() if name.endswith(INDEX)}
    return found


def _left_out(key: str, prior: LatentPrior | None, posterior: Posterior | None, dvae: DVAE | None) -> str:
    """Why a published key is not wanted; empty where it is, or where it is unknown."""
    room, _, rest = key.partition(".")
    part = rest.partition(".")[0] if room == "decode_head" else ""
    if dvae is None and part == "d_vae":
        return "the tokenizer is not asked for"
    if posterior is None and part in POSTERIOR:
        return "X^-1 is not asked for"
    if prior is None and (room == "backbone" or part in PRIOR + PIXEL_BRANCH):
        return "the latent prior is not asked for"
    if prior is not None and prior.head.kind == "tokens" and part in PIXEL_BRANCH:
        return "the model has no pixel branch"
    return ""
