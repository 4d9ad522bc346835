"""What the training loop trains."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

Batch = Mapping[str, Tensor]
Stats = dict[str, tuple[Tensor, Tensor]]


class Learner(Protocol):
    """What the loop asks of an nn.Module that is to be trained.

    A batch is a dict of tensors; a step has one or more of them (micro-batches).

    Attributes:
        terms: weight of every loss term by its name, k terms in a fixed order.
        saved: the module that is trained: the optimizer updates its parameters, in groups by their names
            (`gss.train.optim`), its state goes into checkpoints, and it is what a training exports.
    """

    terms: dict[str, float]
    saved: nn.Module

    def counts(self, batch: Batch) -> Tensor:
        """float64 [k]: over how many elements each term is a mean, from the labels of a micro-batch alone."""

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Stats]:
        """Sums float [k] of the terms over a micro-batch, not divided by `counts`; statistics as (sum, count)."""
