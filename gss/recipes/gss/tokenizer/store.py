"""The tokenizer's file: safetensors with its shape and origin as metadata."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gss.errors import TokenizerError
from gss.filekind import file_kind
from gss.files import write_atomic
from gss.modelfile import require_format, tensors_sha256
from gss.recipes.gss.tokenizer.dvae import DVAE

_OURS = "gss-tokenizer-"
FORMAT = f"{_OURS}1"
SHAPE = ("vocab_size", "n_hid", "n_init", "blocks_per_group", "group_count")


def save_tokenizer(path: Path, dvae: DVAE, meta: dict[str, Any]) -> str:
    """Write a tokenizer atomically.

    Args:
        meta: where it comes from, JSON-like values (`source`, palette, steps ...).

    Returns:
        SHA-256 of the weights, also set as `dvae.sha256`: the identity that model files refer to.
    """
    dvae.sha256 = tensors_sha256(dvae.state_dict())
    header = {"format": FORMAT, "shape": {key: getattr(dvae, key) for key in SHAPE}, "sha256": dvae.sha256, **meta}
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in dvae.state_dict().items()}
    content = save(tensors, {"gss": json.dumps(header)})
    write_atomic(path, lambda file: file.write(content))
    return dvae.sha256


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata of a tokenizer file: `shape`, `sha256` and what was given to `save_tokenizer`.

    Raises:
        TokenizerError: missing, damaged or foreign file.
    """
    return _read(path)[0]


def load_tokenizer(path: Path, device: torch.device | str = "cpu") -> DVAE:
    """Read a tokenizer, frozen and in eval mode, in channels-last layout.

    Raises:
        TokenizerError: missing, damaged or foreign file, or weights that are not those its hash names.
    """
    meta, tensors = _read(path)
    dvae = build_tokenizer(meta["shape"], tensors)
    if dvae.sha256 != meta["sha256"]:
        raise TokenizerError(
            f"the weights hash to {dvae.sha256[:12]}, the file says {meta['sha256'][:12]}",
            where=path,
            todo="the file was changed or damaged: copy it again, or move it away and run the tokenizer stage",
        )
    return dvae.to(device)


def build_tokenizer(shape: dict[str, int], tensors: dict[str, Tensor]) -> DVAE:
    """A tokenizer of given sizes and weights with its hash; frozen, in eval mode, in channels-last layout.

    Args:
        shape: the values of `SHAPE`.
        tensors: its state dict.
    """
    with torch.device("meta"):  # 98 million random numbers would only be overwritten
        dvae = DVAE(**shape)
    dvae.to_empty(device="cpu").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dvae.load_state_dict(tensors)
    dvae.sha256 = tensors_sha256(dvae.state_dict())
    return dvae.requires_grad_(False).eval()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.exists():
        raise TokenizerError(
            "tokenizer file not found",
            where=path,
            todo="it stands beside the model file in the results: copy it from there, or run the tokenizer stage",
        )
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("gss", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        format = str(meta.get("format", ""))
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise TokenizerError(f"the tokenizer cannot be read: {error.strerror}", where=path) from error
        raise _no_tokenizer(path) from error
    if not format.startswith(_OURS):
        raise _no_tokenizer(path)
    require_format(format, FORMAT, str(meta.get("environment", {}).get("gss", "")), where=path, error=TokenizerError)
    return meta, tensors


def _no_tokenizer(path: Path) -> TokenizerError:
    kind = file_kind(path)
    return TokenizerError(
        f"not readable as a tokenizer: it is {kind.name}",
        where=path,
        todo=kind.todo or "give the tokenizer.safetensors of the same experiment",
    )
