"""What recipes share of taking in checkpoints of published code, and of writing them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss import __version__
from gss.data.classes import ClassSpace
from gss.errors import ConfigError
from gss.files import sha256_file, write_atomic, write_table
from gss.modelfile import ModelFile, save_model
from gss.nets.keys import KeyReport, KeyRow
from gss.stages.run import Run


def require_kind(run: Run, kind: str | None, kinds: Sequence[str]) -> None:
    """Raise ConfigError unless a recipe makes this of a checkpoint, where it is said.

    Args:
        kinds: what it makes.
    """
    if kind not in (None, *kinds):
        what = f"recipe {run.experiment.recipe!r} makes no {kind!r} of a checkpoint"
        raise ConfigError(what, where="--as", todo=f"one of {', '.join(kinds)}")


@dataclass(frozen=True)
class Imported:
    """A model file to be, and what became of the checkpoint's keys.

    Args:
        source: the checkpoint.
        kind, tensors, meta: see `gss.modelfile.save_model`.
        inputs: SHA-256 of what it was made of, by name.
    """

    source: Path
    kind: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    inputs: dict[str, str]
    report: KeyReport


def write_imported(run: Run, imported: Imported, *, reads: str) -> None:
    """Write the model file, and a table of the keys beside it.

    Args:
        reads: the stage that would have trained it.
    """
    path, table = run.folder / f"{imported.kind}.pth", run.folder / "import" / f"{imported.kind}.csv"
    with run.stage("import", imported.inputs, name=f"import_{imported.kind}", reads=reads) as journal:
        assert journal is not None
        write_table(table, KeyRow._fields, imported.report.rows)
        save_model(path, imported.kind, imported.tensors, imported.meta)
        journal.tags({"file": str(path), "sha256": sha256_file(path)})
    print(f"{imported.source}: {len(imported.report.rows)} keys\n{imported.report}\nwrote {path}, {table}", flush=True)


def refuse_other_classes(said: Mapping[str, Any], classes: Sequence[str], path: Path) -> None:
    """Raise CheckpointError where a checkpoint has the experiment's classes in another order.

    Other names alone may be another spelling: they are shown.

    Args:
        said: what the checkpoint says beside its tensors.
    """
    data_set = dict(said.get("dataset_meta") or {})  # of mmseg 1
    names = list(map(str, said.get("CLASSES") or data_set.get("classes") or classes))
    if sorted(names) == sorted(classes):
        todo = "give the experiment's classes the order of the checkpoint's"
        ClassSpace(tuple(classes)).require_names(names, where=path, todo=todo)
    else:
        pairs = zip_longest(names, classes)
        index, (theirs, ours) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        print(f"note: {path} names its classes otherwise: class {index} is {theirs!r} there, {ours!r} here")


def write_published(
    run: Run,
    path: Path,
    file: ModelFile,
    state: Mapping[str, Tensor],
    output: Path,
    *,
    colours: Sequence[Sequence[int]],
    own: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint as mmseg does, with what it was made of.

    Args:
        path, file: the model file.
        state: tensors under published names.
        output: the checkpoint.
        colours: of the classes.
        own: what else only this project reads.
    """
    meta = {
        "CLASSES": tuple(file.meta["classes"]),
        "PALETTE": colours,
        "gss": {
            "version": __version__,
            "experiment": run.name,
            "file": path.name,
            "sha256": file.sha256,
            **(own or {}),
        },
    }
    write_atomic(output, lambda stream: torch.save({"meta": meta, "state_dict": state}, stream))
    print(f"wrote {output}: {len(state)} tensors", flush=True)
