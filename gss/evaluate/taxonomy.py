"""From the universal classes of MSeg to those of a test set, by the user's own copy of MSeg's master table.

Letters: U universal classes, T classes of the test set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gss.data.ids import tensor_dtype
from gss.errors import DataError, GssError
from gss.files import read_table

_UNIVERSAL, _UNLABELED = "universal", "unlabeled"

Mapping = Literal["hard", "votes", "logits"]
"""How a prediction is mapped: the winner alone, as published; or every score, which are votes or logits."""


@dataclass(frozen=True, eq=False)
class TestTaxonomy:
    """Which universal class counts as which class of a test set.

    Args:
        names: classes of the test set, T, in the order of their ids.
        matrix: bool [T, U]; at most one True in a column. A universal class without one belongs to none.
    """

    __test__ = False  # no test, whatever pytest makes of the name

    names: tuple[str, ...]
    matrix: Tensor

    def hard(self, ids: Tensor) -> Tensor:
        """Test ids of winning universal classes; one that belongs to no test class becomes 0, as published.

        Args:
            ids: integer [...], 0..U-1.

        Returns:
            [...], 0..T-1, of the type of `gss.data.ids`.
        """
        table = self.matrix.byte().argmax(dim=0).to(tensor_dtype(len(self.names)))  # [U], the first of equals
        return table.to(ids.device)[ids.long()]

    def soft(self, scores: Tensor) -> Tensor:
        """Scores of the test classes: sums over their universal classes; the rest is dropped.

        Args:
            scores: float [U, ...], votes or probabilities.

        Returns:
            float [T, ...].
        """
        mapped = scores.new_zeros(len(self.names), *scores.shape[1:])
        for target, source in self.matrix.nonzero().tolist():  # in a fixed order: the same sums on every device
            mapped[target] += scores[source]
        return mapped


def read_taxonomy(path: Path, test_set: str, names: Sequence[str]) -> TestTaxonomy:
    """Read one test set's column of the master table.

    Args:
        path: `MSeg_master.tsv`: a row per universal class in the order of its ids, `unlabeled` aside.
        test_set: heading of the column, such as `voc2012`; its cells are empty or name a class of the test set.
        names: classes of the test set in the order of the ids in its labels, which the table does not tell.

    Raises:
        DataError: the file cannot be read, has no such column, or a cell names no class of the test set.
    """
    try:
        table = read_table(path, separator="\t")
    except GssError as error:
        raise DataError(f"the taxonomy cannot be read: {error.what}", where=path) from error
    if missing := [column for column in (_UNIVERSAL, test_set) if column not in table]:
        raise DataError(
            f"the taxonomy has no column {missing[0]!r}",
            where=path,
            todo=f"this is MSeg's master table, tab separated; columns found: {', '.join(table.columns) or 'none'}",
        )
    table = table[table[_UNIVERSAL] != _UNLABELED]
    matrix = torch.zeros(len(names), len(table), dtype=torch.bool)
    pairs = zip(table[_UNIVERSAL], table[test_set].str.strip(), strict=True)
    for universal, (source, name) in enumerate(pairs):
        if name and name not in names:
            raise DataError(
                f"column {test_set!r} maps {source!r} to {name!r}, which is no class of the test set",
                where=path,
                todo=f"its classes, in the order of their ids, were given as: {', '.join(names)}",
            )
        if name:
            matrix[list(names).index(name), universal] = True
    return TestTaxonomy(tuple(names), matrix)
