"""Splits that are made of the pairs of one folder, by their names alone."""

import hashlib
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gss.errors import DataError


@dataclass(frozen=True)
class Division:
    """How pairs are divided.

    Args:
        shares: name of a split that is made -> share of the groups of pairs, above 0; the rest stays in `train`.
        seed: another one divides in another way.
        group: regular expression; names in which its first group, or all of it, is the same stay together. Where it
            finds nothing a name is alone. None: each is.
    """

    shares: Mapping[str, float]
    seed: int = 0
    group: str | None = None

    def group_of(self, name: str) -> str:
        """What a name has in common with those it stays together with."""
        found = re.search(self.group, name) if self.group else None
        return name if found is None else found[1 if found.re.groups else 0] or ""

    def divide(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The names of each split, `train` included, in their order.

        Raises:
            DataError: fewer groups than splits.

        Note:
            A group has a place in 0..1, of its name and the seed alone: `[0, test)` is `test`, the next piece `val`.
            So it stays where it is when others come. Only a split that would be empty takes the next group of
            `train`.
        """
        members: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            members[self.group_of(name)].append(index)
        if len(members) <= len(self.shares):
            kind = "groups of images" if self.group else "pairs"
            raise DataError(
                f"{len(members)} {kind} cannot be divided into train, {', '.join(self.shares)}",
                where="data.divide",
                todo="add images, name folders for each split, or change `group`",
            )
        places = {group: self._place(group) for group in members}
        groups = sorted(members, key=lambda group: places[group])
        split_of: dict[str, str] = {}
        start, bound = 0, 0.0
        for number, (split, share) in enumerate(self.shares.items()):
            bound += share
            end = bisect_left(groups, bound, key=lambda group: places[group])
            end = min(max(end, start + 1), len(groups) - len(self.shares) + number)  # one at least for each split
            split_of |= dict.fromkeys(groups[start:end], split)
            start = end
        parts: dict[str, list[int]] = {split: [] for split in ("train", *self.shares)}
        for group, indices in members.items():
            parts[split_of.get(group, "train")] += indices
        return {split: [names[index] for index in sorted(indices)] for split, indices in parts.items()}

    def _place(self, group: str) -> float:
        digest = hashlib.sha256(f"{self.seed} {group}".encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) / 2**64
