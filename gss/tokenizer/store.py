"""The tokenizer's file: safetensors with its shape and origin as metadata."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gss.errors import TokenizerError
from gss.files import write_atomic
from gss.modelfile import tensors_sha256
from gss.tokenizer.dvae import DVAE

FORMAT = "gss-tokenizer-1"
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


def load_tokenizer(path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> DVAE:
    """Read a tokenizer, frozen and in eval mode, in channels-last layout.

    Args:
        dtype: of its weights and its arithmetic; targets are made in float32.

    Raises:
        TokenizerError: missing, damaged or foreign file, or weights that are not those its hash names.
    """
    meta, tensors = _read(path)
    dvae = build_tokenizer(meta["shape"], tensors)
    if dvae.sha256 != meta["sha256"]:
        raise TokenizerError(
            f"the weights hash to {dvae.sha256[:12]}, the file says {meta['sha256'][:12]}",
            where=path,
            todo="the file was changed or damaged: delete it and run the tokenizer stage again",
        )
    return dvae.to(device=device, dtype=dtype)


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
    if not path.is_file():
        raise TokenizerError("tokenizer file not found", where=path, todo="run the tokenizer stage")
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("gss", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise TokenizerError(
            f"not readable as a tokenizer: {error}", where=path, todo="delete it and run the tokenizer stage again"
        ) from error
    if meta.get("format") != FORMAT:
        raise TokenizerError("not a tokenizer file of this project", where=path)
    return meta, tensors
