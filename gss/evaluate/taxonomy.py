"""From the classes of a model to those of a test set.

Letters: U classes of the model, T classes of the test set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gss.data.classes import ignore_index
from gss.data.ids import tensor_dtype


@dataclass(frozen=True, eq=False)
class Target:
    """The classes of a test set, and what a prediction of the model becomes among them.

    Args:
        names: classes of the test set, T, in the order of their ids.
        matrix: bool [T, U]; at most one True in a column. A class of the model without one has no target.
        prediction: `hard`: the target of the winning class, without one class 0, as GSS published it; `hard_ignore`:
            the same, without one `ignore_index(T)`, which is no class; `soft`: the largest sum over the classes of one
            target, as MSeg published it.

    Source: MSeg's table as a 1x1 convolution of probabilities (MSeg) and of one-hot winners (GSS).
    """

    names: tuple[str, ...]
    matrix: Tensor
    prediction: Literal["hard", "hard_ignore", "soft"] = "hard"

    @classmethod
    def of(cls, names: Sequence[str], targets: Sequence[int | None], prediction: str = "hard") -> "Target":
        """Args: targets: for each class of the model, the class of the test set, or None: no target."""
        matrix = torch.zeros(len(names), len(targets), dtype=torch.bool)
        for source, target in enumerate(targets):
            if target is not None:
                matrix[target, source] = True
        return cls(tuple(names), matrix, prediction)  # type: ignore[arg-type]  # one of the three

    @property
    def abstains(self) -> bool:
        """Whether a prediction may be no class."""
        return self.prediction == "hard_ignore"

    def hard(self, ids: Tensor) -> Tensor:
        """What winning classes become.

        Args:
            ids: integer [...], 0..U-1.

        Returns:
            [...], 0..T-1 or `ignore_index(T)`, of the type of `gss.data.ids`.
        """
        table = self.matrix.byte().argmax(dim=0).to(tensor_dtype(len(self.names)))  # [U], the first of equals
        if self.abstains:
            table[~self.matrix.any(dim=0)] = ignore_index(len(self.names))
        return table.to(ids.device)[ids.long()]

    def soft(self, scores: Tensor) -> Tensor:
        """Scores of the test classes: sums over the classes that become one; those without target are left out.

        Args:
            scores: float [U, ...], votes or probabilities.

        Returns:
            float [T, ...].
        """
        mapped = scores.new_zeros(len(self.names), *scores.shape[1:])
        for target, source in self.matrix.nonzero().tolist():  # in a fixed order: the same sums on every device
            mapped[target] += scores[source]
        return mapped
