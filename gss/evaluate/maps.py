"""From maps of scores to class ids: the grid of windows, resizes, probabilities and the first maximum.

Letters: N classes; R, S size of a map of scores; H, W size of the result.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.ids import tensor_dtype
from gss.evaluate.taxonomy import Target
from gss.nets.tensors import class_chunks


def windows(height: int, width: int, crop: tuple[int, int], stride: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the windows that cover an image, row by row.

    Note: the last window of a row or column is shifted back to end at the border; a crop larger than the
    image gives one window of the image's size.
    """
    rows = _intervals(height, crop[0], stride[0])
    return [(row, column) for row in rows for column in _intervals(width, crop[1], stride[1])]


def _intervals(size: int, crop: int, stride: int) -> list[slice]:
    count = max(size - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, size) for index in range(count)]
    return [slice(max(end - crop, 0), end) for end in ends]


def lowest_best(
    views: list[Tensor], size: tuple[int, int], watched: Callable[[Iterator[Tensor]], Iterator[Tensor]] = iter
) -> Tensor:
    """The class of the highest score after a bilinear resize to `size`; the lowest id on ties.

    Args:
        views: float [N, R, S] each. With more than one, their probabilities (softmax over N at `size`) are
            averaged; with one the softmax is left out, as it changes no order.
        watched: looks at the scores [classes, H, W] that decide on their way.

    Returns:
        [H, W] for `size` = (H, W), uint8 or int32 (`gss.data.ids`).

    Note: classes are resized a few at a time beside a running maximum; `N x H x W` numbers never exist.
    """
    chunks = resized(views[0], size) if len(views) == 1 else sum_probabilities(views, size)
    return first_maximum((scores for chunk in watched(chunks) for scores in chunk), len(views[0]))


def first_maximum(maps: Iterator[Tensor], count: int) -> Tensor:
    """uint8 or int32 [H, W]: the number of the largest of `count` maps [H, W] at every pixel."""
    best = next(maps).clone()  # [H, W]
    ids = torch.zeros_like(best, dtype=tensor_dtype(count))  # [H, W]
    for index, scores in enumerate(maps, 1):
        ids.masked_fill_(scores > best, index)  # strict: an equal score of a later class loses
        torch.maximum(best, scores, out=best)
    return ids


def target_probabilities(views: list[Tensor], size: tuple[int, int], target: Target) -> Iterator[Tensor]:
    """[H, W] per test class: the sum of the probabilities of the classes that become it, over the views."""
    logarithms = [log_sum_exp(view, size) for view in views]  # [H, W] each
    for sources in target.matrix.to(views[0].device):  # [U]
        total = torch.zeros_like(logarithms[0])
        for view, logarithm in zip(views, logarithms, strict=True):
            for chunk in resized(view[sources], size) if sources.any() else ():
                total += (chunk - logarithm).exp_().sum(dim=0)
        yield total


def resized(view: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """The maps of a few classes at a time, at `size`.

    Note: the view's memory layout decides how a resize rounds, and that decides many ties of votes; it is kept.
    """
    layout = torch.channels_last if view.stride(0) == 1 else torch.contiguous_format
    for chunk in class_chunks(view, 0):
        if tuple(chunk.shape[1:]) != size:
            chunk = chunk[None].contiguous(memory_format=layout)  # of the view alone it cannot be told
            chunk = F.interpolate(chunk, size, mode="bilinear", align_corners=False)[0]
        yield chunk.contiguous()  # [classes, H, W]


def sum_probabilities(views: list[Tensor], size: tuple[int, int]) -> Iterator[Tensor]:
    """Like `resized`: the sum over the views of softmax over the classes."""
    logarithms = [log_sum_exp(view, size) for view in views]  # [H, W] each
    for chunks in zip(*(resized(view, size) for view in views), strict=True):
        terms = [(chunk - log).exp_() for chunk, log in zip(chunks, logarithms, strict=True)]
        yield torch.stack(terms).sum(dim=0)  # [classes, H, W]


def sum_votes(views: list[Tensor], size: tuple[int, int]) -> Iterator[Tensor]:
    """Like `resized`: the sum over the views."""
    for chunks in zip(*(resized(view, size) for view in views), strict=True):
        yield torch.stack(chunks).sum(dim=0)  # [classes, H, W]


def log_sum_exp(view: Tensor, size: tuple[int, int]) -> Tensor:
    total = view.new_full(size, -torch.inf)
    for chunk in resized(view, size):
        total = torch.logaddexp(total, chunk.logsumexp(dim=0))
    return total  # [H, W]
