"""Model files, `gss_ff.pth`, `posterior.pth`, `gss_ft.pth`, `pixel.pth`: plain tensors and plain metadata."""

import contextlib
import hashlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, load, nn, save

from gss import __version__
from gss.errors import CheckpointError, GssError
from gss.filekind import file_kind
from gss.files import sha256_file, write_atomic

FORMAT = 1


@dataclass(frozen=True)
class ModelFile:
    """A model file in memory.

    Args:
        kind: name of the model, `posterior` or one that a recipe lists.
        tensors: parameter name -> tensor on the CPU.
        meta: names, colours, palette, tokenizer, architecture, protocol, provenance: JSON-like values only.
        sha256: hash of the file read.
        version: of gss that wrote it.
    """

    kind: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    sha256: str
    version: str = ""


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
        CheckpointError: missing, damaged, foreign, of another kind or of a later format; says what a foreign file is.
    """
    if not path.exists():
        raise CheckpointError("model file not found", where=path, todo=f"build it: snakemake {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign files, of which the error says more
            content = load(path, map_location="cpu", weights_only=True)
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the check sums
    except Exception as error:  # of a damaged pickle there is no saying which
        raise _no_model(path, error) from error
    if not isinstance(content, dict) or not {"format", "kind", "tensors", "meta"} <= content.keys():
        raise _no_model(path)
    if damaged is not None:
        raise _no_model(path, ValueError(f"the check sum of {damaged} is not that of its content"))
    version = str(content.get("version", ""))
    require_format(content["format"], FORMAT, version, where=path)
    if kind is not None and content["kind"] != kind:
        raise CheckpointError(f"this is a {content['kind']!r} file, expected {kind!r}", where=path)
    return ModelFile(content["kind"], content["tensors"], content["meta"], sha256_file(path), version)


def _no_model(path: Path, error: Exception | None = None) -> CheckpointError:
    if isinstance(error, OSError) and error.errno:
        return CheckpointError(f"the model file cannot be read: {error.strerror}", where=path)
    kind = file_kind(path)
    if kind.sort == "model" and error is not None:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return CheckpointError(f"the model file is damaged: {reason}", where=path, todo="copy it or build it again")
    return CheckpointError(
        f"not readable as a model file: it is {kind.name}",
        where=path,
        todo=kind.todo or "give the model of an experiment, such as gss_ft.pth",
    )


def require_format(
    found: object, known: str | int, version: str, *, where: Path, error: type[GssError] = CheckpointError
) -> None:
    """Raise `error` unless a file of ours is written in the format that is known here.

    Args:
        version: of gss that wrote the file.
    """
    if found != known:
        raise error(
            f"written in format {found} by gss {version or 'of another version'}; this is gss {__version__}, which "
            f"reads format {known}",
            where=where,
            todo="update gss, or use the version that wrote the file",
        )


@contextlib.contextmanager
def described(file: ModelFile, where: str | Path) -> Iterator[None]:
    """Turn what a file's description lacks, or says in a way that this version does not know, into one clear error."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"what the file says of its model {said}; it was written by gss {file.version or 'of another version'}, "
            f"this is gss {__version__}",
            where=where,
            todo="copy it or build it again" if file.version == __version__ else "use the version that wrote it",
        ) from error


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], prefix: str, *, where: str | Path) -> None:
    """Load the tensors under a prefix into a module; every one must be there with its shape.

    Raises:
        CheckpointError: what is missing, unexpected or of another shape.
    """
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the tensors do not fit: {error}", where=where) from error
