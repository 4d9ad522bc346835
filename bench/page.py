"""Tables in Markdown, and the place of a page where the measured ones stand."""

from collections.abc import Iterable, Sequence
from pathlib import Path

BEGIN, END = "<!-- measured -->\n", "<!-- end -->"


def line(cells: Iterable[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table; all columns but the first are figures."""
    return [line(head), "|---|" + "---:|" * (len(head) - 1), *map(line, rows)]


def write(page: Path, text: str, begin: str = BEGIN) -> None:
    """Put a text between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(f"{before}{begin}{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
