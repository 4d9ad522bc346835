"""Pre-trained transformers, taken into an encoder: their tensors chosen, their tables of positions resized.

Source: how CAE's segmentation code reads files of its pre-training, BEiT's and MAE's, and of their fine-tuning.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gss.errors import CheckpointError
from gss.nets.keys import INDEX, KeyReport, KeyRow, Outcome, misfit, wrong_shape
from gss.nets.positions import absolute, relative

POSITIONS = "pos_embed"
TABLE = "relative_position_bias_table"
_SHARED = f"rel_pos_bias.{TABLE}"  # BEiT's pre-training has one for all blocks
_ENCODERS = ("encoder.", "backbone.timm_model.", "backbone.")  # before an encoder's keys: in CAE's files; in mmseg's
_LEFT_OUT = [  # what is no part of an encoder of maps
    (rf".*{INDEX}$", "derived from the window's size"),
    (r"(fc_|lin_)?norm\.", "norm behind the last block: maps have none"),
    (r"head(_dist)?\.|attn_pool\.|blocks_token_only\.|cls_(token$|attn_blocks\.)", "classifier of whole images"),
    (r"mask_token$", "embedding of what the pre-training hid"),
    (r"teacher\.|alignment_encoder\.", "encoder of the pre-training's targets"),
    (r"pretext_neck\.|decoder|encoder_to_decoder|lm_head\.", "decoder of the pre-training"),
    (r"fpn\d\.", "pyramid of a segmentation network"),
    (r"decode_head\.|auxiliary_head\.", "head of a segmentation network"),
]
_DECIDED_BY = [
    (r".*pos_embed", "backbone.options.use_abs_pos_emb"),
    (r".*\.gamma_", "backbone.options.init_values"),
    (r".*rel_pos_bias|.*relative_position", "backbone.options.use_rel_pos_bias"),
    (r"", "backbone.name and options"),
]


def encoder_tensors(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], grid: tuple[int, int]
) -> tuple[dict[str, Tensor], KeyReport]:
    """All tensors of a plain transformer, from a file of its pre-training, and what became of the file's keys.

    Tables of absolute and relative positions are resized; where a file has no relative ones, as CAE's, they start at
    zero.

    Args:
        weights: a state dict: of a bare encoder, or of a network whose encoder's keys begin with `encoder.` or
            `backbone.`; each with or without `module.` before it.
        own: the encoder's tensors under timm's names, whose shapes are asked for.
        grid: (h, w) of the encoder in patches.

    Raises:
        CheckpointError: a tensor is missing, is unknown, or has another shape.
    """
    given = {key.removeprefix("module."): value for key, value in weights.items()}
    prefix = next((prefix for prefix in _ENCODERS if any(key.startswith(prefix) for key in given)), "")
    found: dict[str, Tensor] = {}
    rows: list[KeyRow] = []
    unexpected: list[str] = []
    last = max(int(block[1]) for name in own if (block := re.match(r"blocks\.(\d+)\.", name)))
    tables = [name for name in own if name.endswith(TABLE)]
    for key, value in given.items():
        name = key.removeprefix(prefix)
        names = tables if name == _SHARED else [name] if name in own else []
        if key.startswith(prefix) and names:
            taken = _resized(name, value, own[names[0]], grid)
            found |= dict.fromkeys(names, taken)
            what: tuple[Outcome, str] = ("mapped", "")
            if taken is not value:
                what = ("resized", f"positions of {grid[0]} x {grid[1]} patches")
            rows += [KeyRow(key, ours, *what) for ours in names]
        elif reason := next((why for pattern, why in _LEFT_OUT if re.match(pattern, name)), ""):
            rows.append(KeyRow(key, "", "dropped", reason))
        elif (block := re.match(r"blocks\.(\d+)\.", name)) and int(block[1]) > last:
            rows.append(KeyRow(key, "", "dropped", "behind the last block that gives a map"))
        elif not key.startswith(prefix):
            rows.append(KeyRow(key, "", "dropped", "no part of the encoder"))
        else:
            unexpected.append(key)
    if not any(name in found for name in tables):
        found |= {name: torch.zeros_like(own[name]) for name in tables}
        rows += [KeyRow("", name, "started", "at zero: the file has no relative positions") for name in tables]
    missing = [name for name in own if name not in found]
    wrong = [wrong_shape(name, value, own[name]) for name, value in found.items() if value.shape != own[name].shape]
    if missing or unexpected or wrong:
        raise misfit(missing, unexpected, wrong, decided_by=_DECIDED_BY, otherwise="")
    return found, KeyReport(tuple(rows))


def _resized(name: str, value: Tensor, own: Tensor, grid: tuple[int, int]) -> Tensor:
    """A table of positions for the encoder's grid; any other tensor, and a table of this size, as it is.

    Raises:
        CheckpointError: names the table whose positions no square has.
    """
    try:
        if value.ndim != own.ndim or value.shape[-1] != own.shape[-1]:
            return value
        if name == POSITIONS and value.ndim == 3:  # of equal shape, too: as many patches may lie otherwise
            return absolute(value, grid, prefix=own.shape[1] - grid[0] * grid[1])
        if name.endswith(TABLE):
            return relative(value, grid)
    except CheckpointError as error:
        if value.shape == own.shape:  # of no square, and as large as the encoder's: an encoder's like this one
            return value
        raise CheckpointError(f"{name}: {error.what}", todo=error.todo) from error
    return value
