"""Numbers, names, colours and settings as pages, pictures and the terminal show them."""

from collections.abc import Iterable, Mapping
from typing import Any

from gss.config import leaves


def percent(fraction: float | None, digits: int = 1, *, unit: str = "", nothing: str = "–") -> str:
    """0.1234 -> `12.3`; `nothing` where there is no number."""
    return nothing if fraction is None else f"{100 * fraction:.{digits}f}{unit}"


def shorten(text: str, length: int) -> str:
    """One line of at most `length` letters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= length else line[: length - 1] + "…"


def css(colour: Iterable[int]) -> str:
    """(255, 0, 16) -> `#ff0010`."""
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; empty mappings are left out."""
    return {".".join(key): value for key, value in leaves(values) if value != {}}
