"""Token targets of the latent prior: label -> doubled label -> maskige -> tokens.

Letters: B batch, H x W label height and width, N classes, V vocabulary, h x w token grid; doubled labels are 8h x 8w.
Labels hold ids 0..N-1, and `ignore_index(N)` where they are ignored, in a type of `gss.data.ids`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.classes import ignore_index
from gss.data.ids import tensor_dtype
from gss.recipes.gss.palette.maskige import paint
from gss.recipes.gss.tokenizer.dvae import DVAE

STRIDE = 8
_CLASSES_AT_ONCE = 8  # whose scores are resized together


def double_label(label: Tensor, token_grid: tuple[int, int]) -> Tensor:
    """Resize a label to 8 pixels per token.

    Args:
        label: [B,H,W]; what is ignored competes with the classes as the last one of them.
        token_grid: (h, w).

    Returns:
        [B,8h,8w] of the same type.

    Source:
        Published GSS-FF heads. Where the size doubles exactly, `resize_label` equals repetition, because the
        nearest pixel weighs at least 0.5625.
    """
    height, width = STRIDE * token_grid[0], STRIDE * token_grid[1]
    if (height, width) == (2 * label.shape[1], 2 * label.shape[2]):
        return label.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return resize_label(label, (height, width))


def resize_label(label: Tensor, *sizes: tuple[int, int]) -> Tensor:
    """Resize class ids as the published code does: one-hot, bilinear, argmax with the lowest id on ties.

    Args:
        label: [B,H,W] of any integer type.
        sizes: (height, width); several resize the shares of the classes to one size after the other.

    Returns:
        [B,height,width] of the same type. One class is resized after the other, so memory does not grow with N.
    """
    best = torch.zeros((label.shape[0], *sizes[-1]), device=label.device)
    result = torch.zeros_like(best, dtype=label.dtype)
    for value in label.unique().tolist():  # ascending, so that a running maximum with `>` keeps the lowest id
        share = (label == value).float()[:, None]
        for size in sizes:
            share = F.interpolate(share, size, mode="bilinear", align_corners=False)
        result[share[:, 0] > best] = value
        best = torch.maximum(best, share[:, 0])
    return result


def fill_ignored(label: Tensor, pixel_logits: Tensor) -> Tensor:
    """Replace ignored pixels by what the network sees there.

    Args:
        label: [B,8h,8w].
        pixel_logits: float [B,N,h,w] of the pixel branch; not differentiated.

    Returns:
        [B,8h,8w] of ids 0..N-1: the label, and at ignored pixels the argmax of the logits resized bilinearly.
    """
    ignored = label == ignore_index(pixel_logits.shape[1])
    filled = label.clone()
    for b in ignored.flatten(1).any(1).nonzero()[:, 0].tolist():
        choice = _resized_argmax(pixel_logits[b].detach().float(), (label.shape[1], label.shape[2]))
        filled[b] = torch.where(ignored[b], choice.to(label.dtype), label[b])
    return filled


def _resized_argmax(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Highest of scores [N,h,w] resized bilinearly, ids [*size], a few classes at a time; the lowest id on ties."""
    best = scores.new_full(size, -torch.inf)
    ids = torch.zeros(size, dtype=tensor_dtype(len(scores)), device=scores.device)
    for first, part in zip(range(0, len(scores), _CLASSES_AT_ONCE), scores.split(_CLASSES_AT_ONCE), strict=True):
        values, index = F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0].max(0)
        ids = torch.where(values > best, (index + first).to(ids.dtype), ids)
        best = torch.maximum(best, values)
    return ids


def token_valid(label: Tensor, ignored: int) -> Tensor:
    """bool [B,h,w]: at least one of the 64 pixels of a token in a label [B,8h,8w] is not `ignored`."""
    valid = (label != ignored).float()[:, None]
    return F.max_pool2d(valid, STRIDE)[:, 0] > 0


@torch.no_grad()
def token_targets(dvae: DVAE, label: Tensor, pixel_logits: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    """What the latent prior learns to predict for a batch of labels.

    Args:
        dvae: the frozen tokenizer.
        label: [B,H,W].
        pixel_logits: float [B,N,h,w], fills the ignored pixels.
        colours: [N+1,3] in 0..255, the last row for ignored pixels.

    Returns:
        tokens int64 [B,h,w], V where all 64 pixels are ignored; and the doubled label [B,8h,8w] before filling.
    """
    doubled = double_label(label, (pixel_logits.shape[2], pixel_logits.shape[3]))
    tokens = dvae.encode(paint(fill_ignored(doubled, pixel_logits), colours))
    valid = token_valid(doubled, ignore_index(pixel_logits.shape[1]))
    return tokens.masked_fill(~valid, dvae.vocab_size), doubled
