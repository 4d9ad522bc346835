"""What networks and their users do with maps: resize them, and go through their classes in pieces.

Letters: B batch, C channels, h w size of a map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """[B, C, h, w] -> [B, C, *size]: bilinear, no antialiasing.

    Args:
        align_corners: the centres of the corner pixels stay in place; else pixels are areas, as in photographs.
    """
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def single(x: Tensor) -> Tensor:
    """In float32 at least, also under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def class_chunks(scores: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Views of the scores of 16 classes each along `dim`, of up to 23 at the end.

    Resizing a chunk in channels-last layout gives the bits of resizing the whole: full vector registers, the same rest,
    and never the few channels for which torch takes another way.
    """
    return scores.tensor_split(list(range(16, scores.shape[dim] - 7, 16)), dim)
