"""What the training loop trains."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

Batch = Mapping[str, Tensor]
Stats = dict[str, tuple[Tensor, Tensor]]


class Learner(Protocol):
    """What the loop asks of an nn.Module that is to be trained.

    A batch is a dict of tensors; a step has one or more of them (micro-batches). One with `groups`, float [b, S] with a
    single 1 in the row of each sample, asks for counts and sums of each group: [k, S] instead of [k].

    Attributes:
        terms: weight of every loss term by its name, k terms in a fixed order.
        saved: the module that is trained: the optimizer updates its parameters, in groups by their names
            (`gss.train.optim`), its state goes into checkpoints, and it is what a training exports.
        has_idle: whether some of its parameters may have no part in the loss: several processes have to look for them.
    """

    terms: dict[str, float]
    saved: nn.Module
    has_idle: bool

    def counts(self, batch: Batch) -> Tensor:
        """float64 [k] or [k, S]: over how many elements each term is a mean, from the labels of a micro-batch alone."""

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Stats]:
        """Sums float, of the shape of `counts` and not divided by them, of the terms over a micro-batch; statistics as
        (sum, count)."""
