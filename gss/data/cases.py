"""Files that have something in common, of a million perhaps: how many there are, and the first ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

_EXAMPLES = 3


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


class Fault(NamedTuple):
    """What is wrong with a file.

    Args:
        name: of the file; empty: of many, which the text names.
        text: what was found in it, and what would mend it.
        kind: equal where files have the same fault; default: the text.
    """

    name: str
    text: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else self.text


def summed(faults: Iterable[Fault]) -> Iterator[str]:
    """A line for each kind of fault, in the order of the first ones: how many files, three of them, and what is wrong
    with the first."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind or fault.text, []).append(fault)
    for same in kinds.values():
        names = ", ".join(fault.name for fault in same[:_EXAMPLES])
        more = "e.g. " if len(same) > _EXAMPLES else ""
        yield f"{len(same)} files ({more}{names}): {same[0].text}" if len(same) > 1 else str(same[0])


def together(cases: Iterable[Cases]) -> Cases:
    """The files of several kinds, none of which is in two; the first one of the first kind is the example."""
    found = [case for case in cases if case]
    return Cases(sum(case.count for case in found), found[0].example if found else "")
