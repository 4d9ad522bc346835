"""A model as a folder in the layout of model hubs: weights, configuration, palette, figures and a card."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

import gss
from gss.config import recipe_of_model
from gss.errors import CheckpointError, GssError
from gss.filekind import FileKind, file_kind
from gss.files import read_json, sha256_file, write_atomic, write_json, write_text
from gss.modelfile import ModelFile, require_format

_OURS = "gss-folder-"
FORMAT = f"{_OURS}1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_BESIDE = "tokenizer."  # names of the tensors that stand beside a model begin so in the weights
_AGAIN = "copy or export it again"


def write_folder(
    folder: Path,
    file: ModelFile,
    beside: Any,
    colours: Sequence[Sequence[int]],
    *,
    metrics: dict[str, Any],
    card: str,
) -> None:
    """Write a model and all it needs to predict; `gss.load` reads the folder.

    Args:
        folder: an export that lies there is replaced.
        beside: what the model's recipe keeps beside it.
        colours: RGB of the N classes, 0..255.
        metrics: split -> what its `metrics.json` says.
        card: content of README.md.

    Raises:
        GssError: the folder holds something else, or a file cannot be written.
    """
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise GssError("there is something else than an earlier export", where=folder, todo="choose another -o")
    sizes, tensors = recipe_of_model(file.kind).part("assemble").pack(file, beside, folder)
    weights = {**file.tensors, **{_BESIDE + name: value for name, value in tensors.items()}}
    content = save({name: value.contiguous() for name, value in weights.items()}, {"format": "pt"})
    write_atomic(folder / WEIGHTS, lambda stream: stream.write(content))
    write_json(folder / "metrics.json", metrics)
    write_text(folder / "README.md", card)
    write_json(
        folder / CONFIG,
        {
            "format": FORMAT,
            "library_name": "gss",
            "version": gss.__version__,
            "kind": file.kind,
            "model_sha256": file.sha256,
            "weights_sha256": sha256_file(folder / WEIGHTS),
            "colours": [list(colour) for colour in colours],
            "tokenizer": sizes,
            "meta": file.meta,
        },
    )


def is_export(folder: Path) -> bool:
    """Whether a folder has the configuration of a model hub's, ours or another project's."""
    return (folder / CONFIG).is_file()


def read_folder(folder: Path) -> tuple[ModelFile, Any]:
    """The model, and what its recipe keeps beside it, that `write_folder` wrote.

    Raises:
        CheckpointError: missing, damaged, foreign, of a later format, or files of different exports.
    """
    path = folder / WEIGHTS
    config = read_json(folder / CONFIG)
    format = str(config.get("format", "")) if isinstance(config, dict) else ""
    if not format.startswith(_OURS):
        raise CheckpointError(
            "not a folder that gss export wrote",
            where=folder / CONFIG,
            todo="give a folder that gss export wrote, or a gss_ft.pth; other models are run by their own code",
        )
    require_format(format, FORMAT, config.get("version", ""), where=folder / CONFIG)
    try:
        tensors, digest = load_file(path), sha256_file(path)
    except (SafetensorError, OSError) as error:
        kind = file_kind(path) if path.is_file() else FileKind(f"missing ({error})", _AGAIN)
        raise CheckpointError(f"not readable as weights: it is {kind.name}", where=path, todo=kind.todo) from error
    if digest != config["weights_sha256"]:
        raise CheckpointError(
            f"not the weights that {CONFIG} describes: their SHA-256 differs", where=path, todo=_AGAIN
        )
    names = [name for name in tensors if name.startswith(_BESIDE)]
    parts = {name.removeprefix(_BESIDE): tensors.pop(name) for name in names}
    beside = recipe_of_model(config["kind"]).part("assemble").unpack(config["tokenizer"], parts)
    meta = {**config["meta"], "colours": config["colours"]}
    return ModelFile(config["kind"], tensors, meta, config["model_sha256"], config["version"]), beside


def public(meta: dict[str, Any]) -> dict[str, Any]:
    """A model file's metadata without what concerns nobody else: host, command lines, the data set's folder."""
    provenance = dict(meta["provenance"])
    environment = {key: value for key, value in provenance["environment"].items() if key not in ("host", "command")}
    config = provenance["config"]
    data = {**config["data"], "root": re.split(r"[/\\]", config["data"]["root"].rstrip("/\\"))[-1]}
    provenance |= {"environment": environment, "config": {**config, "data": data}}
    return {**{key: value for key, value in meta.items() if key != "parents"}, "provenance": provenance}
