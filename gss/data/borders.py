"""Tells labels that were resized smoothly or compressed with loss: between two classes stand ids between theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gss.data.cases import Cases, together

_LINES = 512  # of a label, in which borders are counted
# Ids in between, at so many borders: labels that were never resized smoothly have 0.01, others 0.3 and more.
_SUSPICIOUS = 0.1


def count_borders(native: np.ndarray) -> tuple[int, int]:
    """Borders between classes whose ids are not neighbours, and those with an id in between.

    Args:
        native: uint8 or uint16 [H, W], native ids.

    Returns:
        Of three pixels beside each other, how often the ids of the outer ones differ by more than one; and how often
        the id of the middle one lies between them then. Counted in some of the lines.
    """
    lines = native[:: -(-len(native) // _LINES)]
    left, middle, right = lines[:, :-2], lines[:, 1:-1], lines[:, 2:]
    low, high = np.minimum(left, right), np.maximum(left, right)
    return int(np.count_nonzero(high - low > 1)), int(np.count_nonzero((low < middle) & (middle < high)))


@dataclass
class Borders:
    """What `count_borders` finds in many labels.

    Attributes:
        crossed, between: sums.
        smooth: labels that look smoothed.
    """

    crossed: int = 0
    between: int = 0
    smooth: Cases = field(default_factory=Cases)

    def add(self, name: str, crossed: int, between: int) -> None:
        """Count one label."""
        self.crossed += crossed
        self.between += between
        if between > _SUSPICIOUS * crossed:
            self.smooth.add(name)

    @property
    def are_smooth(self) -> bool:
        return self.between > _SUSPICIOUS * self.crossed


def smoothed(splits: Mapping[str, Borders]) -> list[str]:
    """A line on the splits whose labels look smoothed as a whole, if there are any."""
    found = {split: borders for split, borders in splits.items() if borders.are_smooth}
    if not found:
        return []
    crossed, between = (sum(getattr(each, key) for each in found.values()) for key in ("crossed", "between"))
    return [
        f"where two classes meet in labels of {' and '.join(found)}, {100 * between / crossed:.0f} % of the time an id "
        f"stands in between that lies between theirs: {together(each.smooth for each in found.values())}. So do labels "
        "look that were resized smoothly or compressed with loss, and then these ids are wrong classes: write them "
        "again from their source, and resize with nearest neighbours"
    ]
