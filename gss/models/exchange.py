"""Published (mmseg) checkpoints: their files, their names and their order of channels, to ours and back.

Our names are those of `gss.models.gss.GSS` and of the model files: `prior.`, `posterior.`, `tokenizer.`.
"""

import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gss._compat import import_timm
from gss.errors import CheckpointError, ConfigError
from gss.filekind import file_kind
from gss.models.latent_prior import LatentPrior
from gss.models.posterior import ConvPosterior, Posterior
from gss.models.published import from_published_order, is_reordered, published_name, to_published_order
from gss.proxy import by_proxy
from gss.tokenizer.dvae import DVAE

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


def read_published(path: Path) -> dict[str, Tensor]:
    """Tensors of an mmseg checkpoint, of a bare state dict or of a safetensors file; nothing in it is executed.

    Raises:
        CheckpointError: missing or damaged; not only tensors; or a pickle that refers to anything but tensors, plain
            values and numpy scalars: names what.
    """
    if not path.exists():
        raise CheckpointError("checkpoint not found", where=path)
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickled(path)
    except Exception as error:  # of a damaged pickle there is no saying which
        kind, said = file_kind(path), ""
        todo = kind.todo if kind.sort != "published" else None
        if kind.sort != "object" and (foreign := re.search(r"GLOBAL (\S+)", str(error))):
            said = f"; it refers to {foreign[1]}, which no state dict needs: nothing of it was executed"
            todo = todo or "save only the tensors: torch.save({'state_dict': checkpoint['state_dict']}, file)"
        raise CheckpointError(
            f"not readable as a checkpoint: it is {kind.name}{said}", where=path, todo=todo
        ) from error
    for key in ("state_dict", "model"):  # of mmseg; of the files that accompany the Swin paper
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = file_kind(path)
        todo = "use it as it is" if kind.sort == "model" else None
        raise CheckpointError(f"no state dict: it is {kind.name}", where=path, todo=todo)
    return dict(content)


def read_published_meta(path: Path) -> dict[str, Any]:
    """What a checkpoint that `read_published` has read says beside its tensors; empty where it says nothing."""
    content = {} if path.suffix == ".safetensors" else _load_pickled(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return dict(meta) if isinstance(meta, Mapping) else {}


def read_backbone_weights(name: str, weights: str, folder: Path) -> dict[str, Tensor]:
    """Pretrained tensors of a backbone, as `build_backbone` takes them.

    Args:
        name: timm's name of the model.
        weights: a file like those of `read_published`, absolute or below `folder`; or `timm:TAG`: those timm names
            `NAME.TAG`, from its cache or downloaded.
        folder: the data folder.

    Raises:
        ConfigError: no such file or tag, or the download failed: names the file to put there instead.
        CheckpointError: the file cannot be used.
    """
    if not weights.startswith("timm:"):
        if not (folder / weights).is_file():
            raise ConfigError(
                "pretrained weights not found",
                where=(folder / weights).absolute(),
                todo="put the file there, or set GSS_DATA to the folder that holds your data",
            )
        return read_published(folder / weights)
    timm, tag = import_timm(), timm_tag(name, weights)
    try:
        return timm.create_model(f"{name}.{tag}", pretrained=True).state_dict()
    except Exception as error:  # the hub's client has errors of its own
        source = timm.get_pretrained_cfg(f"{name}.{tag}").hf_hub_id
        file, url = (
            f"weights/{name}.{tag}.safetensors",
            f"https://huggingface.co/{source}/resolve/main/model.safetensors",
        )
        raise ConfigError(
            f"the weights {tag} of {name} cannot be downloaded: {str(error).splitlines()[0]}{by_proxy(url)}",
            where=url,
            todo=f"on a machine with a network fetch that file, put it at {(folder / file).absolute()} and set "
            f"latent_prior.backbone.weights={file}",
        ) from error


def timm_tag(name: str, weights: str) -> str:
    """The tag in `timm:TAG`.

    Raises:
        ConfigError: timm knows no such weights of this model.
    """
    tag = weights.removeprefix("timm:")
    tags = [full.partition(".")[2] for full in import_timm().list_pretrained(f"{name}.*")]
    if tag not in tags:
        raise ConfigError(f"timm has no weights {tag!r} for {name}; it has {', '.join(tags) or 'none'}")
    return tag


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


def _load_pickled(path: Path) -> Any:
    """The content of a file of `torch.save`; that of a zip file stays on the disk until it is used."""
    with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of foreign files, of which the error says more
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _numpy_scalars() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What the pickle of a numpy number refers to, under the names of numpy 1 and 2: mmcv's meta holds best scores."""
    scalar = np.float64(0).__reduce__()[0]
    assert callable(scalar)
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return [np.dtype, *kinds, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]
