"""Training that goes on from a model, for other classes, data or schedules: which tensors a new network takes."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gss.data.native import some
from gss.errors import CheckpointError
from gss.modelfile import ModelFile, load_model
from gss.use.hub import WEIGHTS, is_export, read_folder

_SHOWN = 5  # tensors that are new


def start_files(start_from: str | None) -> list[Path]:
    """The file whose content a training depends on, if it goes on from a model."""
    if start_from is None:
        return []
    path = Path(start_from)
    return [path / WEIGHTS if path.is_dir() else path]


def go_on(
    module: nn.Module,
    start_from: str | None,
    prefix: str,
    meta: Mapping[str, Any],
    build: Callable[[dict[str, Any]], nn.Module],
    *,
    key: str,
    of_tokens: Collection[str] = (),
    quiet: bool = False,
) -> None:
    """Copy a model's tensors into a fresh network where names and shapes are equal; rows of classes by their names.

    Args:
        module: is changed.
        start_from: a model file of ours, or a folder that `gss export` wrote; None: nothing is copied.
        prefix: of the network's tensors in the file.
        meta: describes `module`; `build` makes such a network of it.
        key: names the file, for messages.
        of_tokens: tensors that mean something only with the same tokenizer.
        quiet: without the lines that say what was kept and what is new.

    Raises:
        CheckpointError: the file is missing, damaged or foreign, has no such network, or nothing of it fits.
    """
    if start_from is None:
        return
    path, where = Path(start_from), f"{key}: {start_from}"
    file = read_folder(path)[0] if is_export(path) else load_model(path)
    known = {name.removeprefix(prefix): value for name, value in file.tensors.items() if name.startswith(prefix)}
    if not known:
        raise CheckpointError(f"this is a {file.kind!r} file, which holds no such network", where=where)
    classes, there = list(meta["classes"]), list(file.meta["classes"])
    by_class = set() if classes == there else _of_classes(meta, build)
    foreign = of_tokens if file.meta.get("tokenizer") != meta.get("tokenizer") else ()
    rows = [(index, there.index(name)) for index, name in enumerate(classes) if name in there]
    kept, new = 0, list[str]()
    with torch.no_grad():
        for name, own in module.state_dict().items():
            value = known.get(name)
            if value is None or name in foreign:
                new.append(
                    f"{name} {list(own.shape)}" + ("" if value is None else ", made for another tokenizer there")
                )
            elif name in by_class and rows and value.shape == (len(there), *own.shape[1:]):
                for index, other in rows:
                    own[index] = value[other]
                kept += 1
            elif name not in by_class and value.shape == own.shape:
                own.copy_(value)
                kept += 1
            else:
                new.append(f"{name} {list(own.shape)}, there {list(value.shape)}")
    if not kept:
        raise CheckpointError(
            "no tensor fits this network: encoder, head or widths are others there",
            where=where,
            todo="make these keys those of the model: its config.yaml has them",
        )
    if not quiet:
        print("\n".join(_told(file, kept, new, classes, there)), flush=True)


def _of_classes(meta: Mapping[str, Any], build: Callable[[dict[str, Any]], nn.Module]) -> set[str]:
    """The tensors whose first dimension is the number of classes."""
    shapes = []
    with torch.device("meta"):
        for classes in (list(meta["classes"]), [*meta["classes"], ""]):
            state = build({**meta, "classes": classes}).state_dict()
            shapes.append({name: value.shape for name, value in state.items()})
    return {name for name, shape in shapes[0].items() if shapes[1][name] != shape}


def _told(file: ModelFile, kept: int, new: list[str], classes: list[str], there: list[str]) -> Iterator[str]:
    step = f" after {file.meta['step']} steps" if "step" in file.meta else ""
    yield f"goes on from a {file.kind} of {len(there)} classes{step}: {kept} tensors taken, {len(new)} new"
    if classes != there:
        had, lacks = [name for name in classes if name in there], [name for name in classes if name not in there]
        yield f"  classes known there: {some(had) or 'none'}; new: {some(lacks) or 'none'}"
    for line in new[:_SHOWN]:
        yield f"  new: {line}"
    if len(new) > _SHOWN:
        yield f"  new: {len(new) - _SHOWN} more"
