"""What there is to say of many annotations: equal cases are one line, with their number and three examples."""

from collections.abc import Iterable, Iterator

_EXAMPLES = 3


class Notes:
    """Cases by what they have in common. Those of several processes are added up.

    Attributes:
        found: (what, whether it stops everything) -> number of cases, and the first ones.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, bool], tuple[int, list[str]]] = {}

    def fault(self, what: str, case: str) -> None:
        """A case of what would be learned wrongly."""
        self._add((what, True), 1, [case])

    def remark(self, what: str, case: str) -> None:
        """A case of what is left out or mended, and counted."""
        self._add((what, False), 1, [case])

    def take(self, other: "Notes") -> None:
        """Add those of another one."""
        for key, (count, cases) in other.found.items():
            self._add(key, count, cases)

    def faults(self) -> list[str]:
        return list(self._lines(True))

    def remarks(self) -> list[str]:
        return list(self._lines(False))

    def _add(self, key: tuple[str, bool], count: int, cases: Iterable[str]) -> None:
        before, shown = self.found.get(key, (0, []))
        self.found[key] = before + count, [*shown, *cases][:_EXAMPLES]

    def _lines(self, are_faults: bool) -> Iterator[str]:
        for (what, is_fault), (count, cases) in self.found.items():
            if is_fault == are_faults:
                yield (
                    f"{count} {what}, e.g. {', '.join(cases)}"
                    if count > len(cases)
                    else (f"{count} {what}: {', '.join(cases)}")
                )
