"""Tensors of other people's checkpoints under our names: each key is taken, dropped with a reason, or an error."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gss.errors import CheckpointError

INDEX = "relative_position_index"
COUNTER = "num_batches_tracked"  # of BatchNorm; nothing depends on it
_SHOWN = 5


Outcome = Literal["mapped", "re-ordered", "resized", "started", "dropped"]


class KeyRow(NamedTuple):
    """What became of one key of a checkpoint, or of a tensor that the checkpoint has nothing for."""

    published: str
    ours: str
    what: Outcome
    why: str


@dataclass(frozen=True)
class KeyReport:
    """What became of every key of a checkpoint, in its order."""

    rows: tuple[KeyRow, ...]

    def __str__(self) -> str:
        """Numbers of keys: one line for each outcome and reason."""
        counts = Counter((row.what, row.why) for row in self.rows)
        return "\n".join(f"{count:5d} {what}{f': {why}' if why else ''}" for (what, why), count in counts.items())


@dataclass(frozen=True)
class Names:
    """How a published state dict is called and told apart.

    Args:
        published: of each of our tensors, the name there.
        left_out: why a key there is not wanted; empty where it is, or where it is unknown.
        reordered: by our name, what puts a tensor into our order of channels; None: it is in that order.
        decided_by: patterns of published names, and what their presence and their shapes follow from, for errors.
        otherwise: what to do where none of these fits.
        optional: ends of published names that may be missing: those tensors stay as they are.
    """

    published: Callable[[str], str]
    left_out: Callable[[str], str]
    decided_by: Sequence[tuple[str, str]]
    otherwise: str
    reordered: Callable[[str], Callable[[Tensor], Tensor] | None] = lambda name: None
    optional: tuple[str, ...] = ()


def copy_published(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Names, *, where: str | Path
) -> KeyReport:
    """Copy a published state dict into our tensors; every one of them must be there.

    Args:
        state: tensors under published names, with or without the prefix `module.`.
        own: tensors by our name, with the index buffers that published state dicts hold: those are compared.
        where: named in errors.

    Raises:
        CheckpointError: keys missing or unexpected, or of another shape; nothing was copied.
    """
    ours = {names.published(name): name for name in own}
    given = {key.removeprefix("module."): value for key, value in state.items()}
    rows, unexpected, wrong, loads = [], [], [], []
    for key, value in given.items():
        name = ours.get(key, "")
        if reason := names.left_out(key):
            rows.append(KeyRow(key, "", "dropped", reason))
        elif not name:
            unexpected.append(key)
        elif value.shape != own[name].shape:
            wrong.append(wrong_shape(key, value, own[name]))
        elif key.endswith(INDEX):
            if not (own[name].is_meta or torch.equal(value, own[name])):
                wrong.append(f"{key}: other positions than those of a window of this size")
            rows.append(KeyRow(key, "", "dropped", "derived from the window's size"))
        elif convert := names.reordered(name):
            loads.append((name, convert(value)))
            rows.append(KeyRow(key, name, "re-ordered", "channels of the patch merging"))
        else:
            loads.append((name, value))
            rows.append(KeyRow(key, name, "mapped", ""))
    missing = [key for key in ours if key not in given and not key.endswith((INDEX, *names.optional))]
    if missing or unexpected or wrong:
        raise misfit(missing, unexpected, wrong, where=where, decided_by=names.decided_by, otherwise=names.otherwise)
    with torch.no_grad():
        for name, value in loads:
            own[name].copy_(value)
    return KeyReport(tuple(rows))


def wrong_shape(key: str, value: Tensor, own: Tensor) -> str:
    """A line on a tensor of another shape, for `misfit`."""
    return f"{key} {list(value.shape)}, not {list(own.shape)}"


def misfit(
    missing: Sequence[str],
    unexpected: Sequence[str],
    wrong: Sequence[str],
    *,
    where: str | Path | None = None,
    decided_by: Sequence[tuple[str, str]],
    otherwise: str,
) -> CheckpointError:
    """The error on a checkpoint whose keys do not fit.

    Args:
        missing, unexpected, wrong: keys, and lines on those of another shape.
        decided_by, otherwise: see `Names`.
    """
    lines, suspects = [], []
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong)):
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            lines.append(f"{len(keys)} {title}: {', '.join(keys[:_SHOWN])}{more}")
            suspects += [next((what for prefix, what in decided_by if re.match(prefix, key)), "") for key in keys]
    decided = list(dict.fromkeys(filter(None, suspects)))
    return CheckpointError(
        "the checkpoint is of another architecture:\n  " + "\n  ".join(lines),
        where=where,
        todo=f"compare {'; '.join(decided)}" if decided else otherwise,
    )
