"""How sure a prediction is: the probability of the class that wins, and the entropy of all, found as it is decided.

Letters: N classes; H, W size of the result.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from gss.evaluate.maps import lowest_best, sum_votes

CACHED = 2**18  # numbers that a core's cache holds: on a CPU, passes over more of them wait for the memory
TINY = 1e-30  # has a logarithm, and adds nothing to an entropy


class _Watch(Protocol):
    """What looks at the scores of all classes, a few classes at a time."""

    def add(self, chunk: Tensor) -> None:
        """Args: chunk: float [classes, H, W]."""
        ...

    def result(self) -> tuple[Tensor, Tensor]:
        """float32 [H, W] each: the largest probability, the entropy."""
        ...


def decide(views: list[Tensor], size: tuple[int, int], are_votes: bool, certainty: Tensor) -> Tensor:
    """`lowest_best`, and how sure it is.

    Args:
        are_votes: the views are probabilities; else they are logits.
        certainty: float32 [2, H, W], filled: the winning class's mean probability over the views (confidence), and the
            entropy of all of them divided by log N (uncertainty), both 0..1.

    Note: the entropy of logits z is log s - (sum of d exp d) / s, with d = z - max z and s = the sum of exp d: one
        exponential for each, and no second look at them. `N x H x W` numbers never exist.
    """
    is_softmax = len(views) == 1 and not are_votes
    watch: _Watch = _Logits(size, views[0].device) if is_softmax else _Shares(size, views[0].device, len(views))
    if are_votes and len(views) > 1:  # whose winner is that of another mean, as published
        ids = lowest_best(views, size)
        confidence = torch.zeros(size, device=ids.device)
        maps = (shares for chunk in _watched(sum_votes(views, size), watch) for shares in chunk)
        for index, shares in enumerate(maps):
            confidence = torch.where(ids == index, shares / len(views), confidence)
        entropy = watch.result()[1]
    else:
        ids = lowest_best(views, size, lambda chunks: _watched(chunks, watch))
        confidence, entropy = watch.result()
    certainty[0] = confidence.clamp_(0, 1)
    certainty[1] = entropy.div_(math.log(len(views[0])) or 1).clamp_(0, 1)
    return ids


def _watched(chunks: Iterator[Tensor], watch: _Watch) -> Iterator[Tensor]:
    for chunk in chunks:
        watch.add(chunk)
        yield chunk


def _rows(chunk: Tensor) -> Iterator[slice]:
    """Rows to work on at once."""
    step = max(1, CACHED // (len(chunk) * chunk.shape[2])) if chunk.device.type == "cpu" else chunk.shape[1]
    return (slice(first, first + step) for first in range(0, chunk.shape[1], step))


class _Logits:
    """Of the softmax of what it sees."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.top = torch.full(size, torch.finfo(torch.float32).min, device=device)
        self.sums, self.moments = torch.zeros(2, *size, device=device)  # of exp d, of d exp d

    def add(self, chunk: Tensor) -> None:
        for rows in _rows(chunk):
            part = chunk[:, rows].float()
            top, sums, moments = self.top[rows], self.sums[rows], self.moments[rows]
            higher = torch.maximum(top, part.amax(dim=0))
            down = top - higher  # what those seen before are below the new maximum
            factor = down.exp()
            below = part - higher
            terms = below.exp()
            moments.addcmul_(down, sums).mul_(factor).add_(below.mul_(terms).sum(dim=0))
            sums.mul_(factor).add_(terms.sum(dim=0))
            top.copy_(higher)

    def result(self) -> tuple[Tensor, Tensor]:
        return 1 / self.sums, self.sums.log() - self.moments / self.sums


class _Shares:
    """Of probabilities, of which it sees the sum over some views."""

    def __init__(self, size: tuple[int, int], device: torch.device, num_views: int) -> None:
        self.num_views = num_views
        self.best, self.entropy = torch.zeros(2, *size, device=device)

    def add(self, chunk: Tensor) -> None:
        for rows in _rows(chunk):
            shares = chunk[:, rows].float() / self.num_views
            torch.maximum(self.best[rows], shares.amax(dim=0), out=self.best[rows])
            self.entropy[rows] -= shares.clamp_min(TINY).log_().mul_(shares).sum(dim=0)

    def result(self) -> tuple[Tensor, Tensor]:
        return self.best, self.entropy
