"""Checkpoints that others wrote: state dicts of mmsegmentation and timm, read without executing anything in them."""

import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gss._compat import import_timm
from gss.errors import CheckpointError, ConfigError
from gss.filekind import file_kind
from gss.proxy import by_proxy


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of an mmseg checkpoint, of a bare state dict or of a safetensors file; nothing in it is executed.

    Raises:
        CheckpointError: missing or damaged; not only tensors; or a pickle that refers to anything but tensors, plain
            values, numpy scalars and namespaces of argparse: names what.
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
    for key in ("state_dict", "model", "module"):  # of mmseg; of Swin, BEiT, MAE and CAE; of DeepSpeed
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = file_kind(path)
        todo = "use it as it is" if kind.sort == "model" else None
        raise CheckpointError(f"no state dict: it is {kind.name}", where=path, todo=todo)
    return dict(content)


def read_checkpoint_meta(path: Path) -> dict[str, Any]:
    """What a checkpoint that `read_checkpoint` has read says beside its tensors; empty where it says nothing."""
    content = {} if path.suffix == ".safetensors" else _load_pickled(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return dict(meta) if isinstance(meta, Mapping) else {}


def read_backbone_weights(name: str, weights: str, folder: Path) -> dict[str, Tensor]:
    """Pretrained tensors of a backbone, as `build_backbone` takes them.

    Args:
        name: timm's name of the model.
        weights: a file like those of `read_checkpoint`, absolute or below `folder`; or `timm:TAG`: those timm names
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
        return read_checkpoint(folder / weights)
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
            f"`weights: {file}` in the section `backbone`",
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


def _load_pickled(path: Path) -> Any:
    """The content of a file of `torch.save`; that of a zip file stays on the disk until it is used.

    Beside tensors it may hold arguments of a command line, as files of pre-trainings do: a namespace takes any names,
    and does nothing.
    """
    with torch.serialization.safe_globals([Namespace, *_numpy_scalars()]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of foreign files, of which the error says more
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _numpy_scalars() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What the pickle of a numpy number refers to, under the names of numpy 1 and 2: mmcv's meta holds best scores."""
    scalar = np.float64(0).__reduce__()[0]
    assert callable(scalar)
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return [np.dtype, *kinds, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]
