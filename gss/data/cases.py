"""Files that have something in common, of a million perhaps: how many there are, and the first one."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Cases:
    """How many, and the name of the first."""

    count: int = 0
    example: str = ""

    def add(self, name: str) -> None:
        self.count += 1
        self.example = self.example or name

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return f"{self.count} file{'s' * (self.count > 1)} (e.g. {self.example})"


def together(cases: Iterable[Cases]) -> Cases:
    """The files of several kinds, none of which is in two; the first one of the first kind is the example."""
    found = [case for case in cases if case]
    return Cases(sum(case.count for case in found), found[0].example if found else "")
