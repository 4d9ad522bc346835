"""How well palette and tokenizer carry a label: label -> maskige -> tokens -> maskige -> nearest colour -> IoU.

Letters: N classes, V vocabulary, H x W label height and width.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gss.data.augment import fit_size, nearest_indices
from gss.data.classes import NATIVE_IDS
from gss.data.ids import ids_tensor
from gss.data.metrics import confusion
from gss.errors import TokenizerError
from gss.recipes.gss.palette.maskige import nearest, paint
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.targets import STRIDE, double_label, resize_label


class Reconstruction(NamedTuple):
    """Counts over some labels; those of disjoint shards add up.

    confusion: int64 [N,N], [label, reconstruction], without ignored pixels. tokens: int64 [V], how often each is used.
    """

    confusion: Tensor
    tokens: Tensor


def reconstruct(
    dvae: DVAE,
    labels: Iterable[np.ndarray],
    colours: Tensor,
    *,
    doubled: bool,
    scale: tuple[int, int] | None = None,
) -> Reconstruction:
    """Encode and decode labels and compare.

    Args:
        dvae: the tokenizer; the work is done on its device.
        labels: uint8 or uint16 [H,W] each, 0..N-1 or `ignore_index(N)`.
        colours: [N+1,3] in 0..255, last row = ignored pixels.
        doubled: at the resolution training uses, a token for 4 x 4 label pixels; else, as published, at the label's
            own, a token for 8 x 8.
        scale: (width, height) that a label is fitted into before it is painted, as the published check does; None:
            its own size. It is compared at its own size all the same.

    Returns:
        Counts on the CPU.

    Source: the published reconstruction check. Ties of the vote over decoded pixels go to the lowest class.
    """
    device = dvae.weight.device
    num_classes = len(colours) - 1
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    tokens = torch.zeros(dvae.vocab_size, dtype=torch.int64)
    for array in labels:
        label = ids_tensor(np.ascontiguousarray(array)).to(device)[None]  # [1,H,W]
        ids, used = round_trip(dvae, label, colours, doubled=doubled, scale=scale)
        counts += confusion(ids, label, num_classes)
        tokens += used.flatten().bincount(minlength=dvae.vocab_size).cpu()
    return Reconstruction(counts, tokens)


@torch.no_grad()
def round_trip(
    dvae: DVAE, label: Tensor, colours: Tensor, *, doubled: bool, scale: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """What is left of a label after painting, encoding, decoding and choosing the nearest colour.

    Args:
        label: [B,H,W], 0..N-1 or `ignore_index(N)`, see `gss.data.ids`; on the tokenizer's device.
        colours: [N+1,3] in 0..255, last row = ignored pixels.
        doubled, scale: see `reconstruct`.

    Returns:
        class ids int64 [B,H,W], 0..N-1, and tokens int64 [B,h,w].

    Raises:
        TokenizerError: the label is smaller than one token.
    """
    own_size = (label.shape[1], label.shape[2])
    label = label if scale is None else _fitted(label, fit_size(*own_size, scale))
    height, width = label.shape[1:]
    source = double_label(label, (-(-height // 4), -(-width // 4))) if doubled else label
    if min(source.shape[1:]) < STRIDE:
        raise TokenizerError(f"a label of {height} x {width} pixels is smaller than a token", todo="use larger images")
    tokens = dvae.encode(paint(source, colours))
    ids = nearest(255 * dvae.decode(tokens), colours)  # [1,8h,8w]
    if own_size == (height, width):
        if ids.shape[1:] == (2 * height, 2 * width):
            return _vote(ids), tokens
        return (ids if ids.shape == label.shape else resize_label(ids, own_size)), tokens
    return resize_label(ids, (height, width), own_size), tokens


def _fitted(label: Tensor, size: tuple[int, int]) -> Tensor:
    """The label with the nearest pixels of the published test pipeline."""
    rows, columns = (
        torch.from_numpy(nearest_indices(source, target)).to(label.device)
        for source, target in zip(label.shape[1:], size, strict=True)
    )
    return label[:, rows][:, :, columns]


def _vote(ids: Tensor) -> Tensor:
    """Most frequent of each 2 x 2 block of [B,2H,2W], the lowest on ties: bilinear halving of the one-hot map."""
    four = torch.stack([ids[:, 0::2, 0::2], ids[:, 0::2, 1::2], ids[:, 1::2, 0::2], ids[:, 1::2, 1::2]])
    votes = (four[:, None] == four[None]).sum(1)  # [4,B,H,W]
    top = (votes == votes.amax(0)) * (NATIVE_IDS - four)  # always positive, 0 where outvoted
    return NATIVE_IDS - top.amax(0)


class Usage(NamedTuple):
    """Different tokens in use, and exp of the entropy of their frequencies."""

    used: int
    perplexity: float


def token_usage(tokens: Tensor) -> Usage:
    """Usage from the counts int64 [V] of a reconstruction."""
    share = tokens[tokens > 0].double() / tokens.sum()
    return Usage(len(share), math.exp(-float((share * share.log()).sum())))


def require_usage(tokens: Tensor, num_classes: int) -> Usage:
    """The usage, if the tokenizer can tell the classes and their borders apart.

    Args:
        num_classes: that occur in what was reconstructed.

    Raises:
        TokenizerError: collapse: fewer than two tokens per class are in use.
    """
    usage = token_usage(tokens)
    if usage.used < 2 * num_classes:
        raise TokenizerError(
            f"the tokenizer collapsed: {usage.used} of {len(tokens)} tokens are in use (perplexity "
            f"{usage.perplexity:.1f}) for {num_classes} classes",
            todo="train it longer (tokenizer.train.steps) or with a lower tokenizer.train.lr",
        )
    return usage
