"""The model files `gss_ff.pth`, `posterior.pth`, `gss_ft.pth`: plain tensors and plain metadata."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, load, save

from gss import __version__
from gss.errors import CheckpointError
from gss.files import sha256_file, write_atomic

FORMAT = 1


@dataclass(frozen=True)
class ModelFile:
    """A model file in memory.

    Args:
        kind: `gss_ff`, `posterior` or `gss_ft`.
        tensors: parameter name -> tensor on the CPU.
        meta: names, palette, tokenizer, architecture, provenance: JSON-like values only.
        sha256: hash of the file read.
    """

    kind: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    sha256: str


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same for every device and file layout."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def save_model(path: Path, kind: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write a model file atomically; it loads with `torch.load(weights_only=True)`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = {"format": FORMAT, "kind": kind, "version": __version__, "tensors": plain, "meta": meta}
    write_atomic(path, lambda file: save(content, file))


def load_model(path: Path, kind: str | None = None) -> ModelFile:
    """Read a model file without executing anything from it.

    Args:
        kind: the kind expected, None for any.

    Raises:
        CheckpointError: missing, damaged, foreign or of another kind.
    """
    if not path.is_file():
        raise CheckpointError("model file not found", where=path, todo="build it: snakemake " + str(path))
    try:
        content = load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"not readable as a model file: {reason}", where=path, todo="delete it and build it again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError("not a model file of this project", where=path)
    if kind is not None and content["kind"] != kind:
        raise CheckpointError(f"this is a {content['kind']!r} file, expected {kind!r}", where=path)
    return ModelFile(content["kind"], content["tensors"], content["meta"], sha256_file(path))
