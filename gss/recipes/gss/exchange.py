"""Published (mmseg) checkpoints: their files, their names and their order of channels, to ours and back.

Our names are those of `gss.recipes.gss.model.GSS` and of the model files: `prior.`, `posterior.`, `tokenizer.`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gss.errors import CheckpointError
from gss.nets.published import from_published_order, is_reordered, published_name, to_published_order
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.posterior import ConvPosterior, Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE

INDEX = "relative_position_index"
PRIOR = ("convs", "fusion_conv", "transformer_block", "swin_ln", "conv_before_seg", "conv_seg")
POSTERIOR = ("projection", "post_transformer_block", "post_swin_ln", "cls_segmap")
PIXEL_BRANCH = ("convs_pixel", "fusion_conv_pixel", "conv_seg_pixel")
_SHOWN = 5
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


class KeyRow(NamedTuple):
    """What became of one key of a checkpoint."""

    published: str
    ours: str
    what: Literal["mapped", "re-ordered", "dropped"]
    why: str


@dataclass(frozen=True)
class KeyReport:
    """What became of every key of a checkpoint, in its order."""

    rows: tuple[KeyRow, ...]

    def __str__(self) -> str:
        """Numbers of keys: one line for each outcome and reason."""
        counts = Counter((row.what, row.why) for row in self.rows)
        return "\n".join(f"{count:5d} {what}{f': {why}' if why else ''}" for (what, why), count in counts.items())


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
    own = _tensors(prior, posterior, dvae)
    architecture = prior.backbone.architecture if prior else ""
    ours = {published_key(name, architecture): name for name in own}
    given = {key.removeprefix("module."): value for key, value in state.items()}
    rows, unexpected, wrong, loads = [], [], [], []
    for key, value in given.items():
        reason = _left_out(key, prior, posterior, dvae)
        if reason:
            rows.append(KeyRow(key, "", "dropped", reason))
        elif key not in ours:
            unexpected.append(key)
        elif value.shape != own[ours[key]].shape:
            wrong.append(f"{key} {list(value.shape)}, not {list(own[ours[key]].shape)}")
        elif key.endswith(INDEX):
            if not (own[ours[key]].is_meta or torch.equal(value, own[ours[key]])):
                wrong.append(f"{key}: other positions than those of a window of this size")
            rows.append(KeyRow(key, "", "dropped", "derived from the window's size"))
        elif is_reordered(architecture, ours[key]):
            loads.append((ours[key], from_published_order(value)))
            rows.append(KeyRow(key, ours[key], "re-ordered", "channels of the patch merging"))
        else:
            loads.append((ours[key], value))
            rows.append(KeyRow(key, ours[key], "mapped", ""))
    missing = [key for key in ours if key not in given and not key.endswith(INDEX)]
    if missing or unexpected or wrong:
        raise _misfit(missing, unexpected, wrong, where)
    with torch.no_grad():
        for name, value in loads:
            own[name].copy_(value)
    return KeyReport(tuple(rows))


def to_published(prior: LatentPrior, posterior: Posterior | None = None, dvae: DVAE | None = None) -> dict[str, Tensor]:
    """State dict under mmseg's names, as the published code would have saved it, index buffers included.

    Returns:
        Tensors on their device, sharing memory with the modules where their order is the same.

    Raises:
        CheckpointError: X^-1 of a variant that was not published.
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
    """Parameters and buffers by our name, and the derived index buffers that published checkpoints hold, too."""
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


def _misfit(missing: list[str], unexpected: list[str], wrong: list[str], where: str | Path) -> CheckpointError:
    lines, suspects = [], []
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong)):
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            lines.append(f"{len(keys)} {title}: {', '.join(keys[:_SHOWN])}{more}")
            suspects += [next((what for prefix, what in _DECIDED_BY if re.match(prefix, key)), "") for key in keys]
    decided = list(dict.fromkeys(filter(None, suspects)))
    return CheckpointError(
        "the checkpoint is of another architecture:\n  " + "\n  ".join(lines),
        where=where,
        todo=f"compare {'; '.join(decided)}" if decided else "use a GSS checkpoint of the published code",
    )
