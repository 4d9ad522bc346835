"""Numbers, names, colours and settings as pages, pictures and the terminal show them."""

from collections.abc import Iterable, Mapping
from typing import Any

from gss.config import leaves

_SHOWN = 80  # letters of a value in a list of differences


def percent(fraction: float | None, digits: int = 1, *, unit: str = "", nothing: str = "–") -> str:
    """0.1234 -> `12.3`; `nothing` where there is no number."""
    return nothing if fraction is None else f"{100 * fraction:.{digits}f}{unit}"


def size(number: int) -> str:
    """Bytes as people say them: 1234567 -> `1.2 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


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


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, absent: str) -> list[str]:
    """`key old -> new` of each value in which nested mappings differ.

    Args:
        absent: said in the place of a value that one of them lacks.
    """
    old, new = ({".".join(key): value for key, value in leaves(values)} for values in (before, now))

    def shown(values: Mapping[str, Any], key: str) -> str:
        return shorten(repr(values[key]), _SHOWN) if key in values else absent

    keys = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
    return [f"{key} {shown(old, key)} -> {shown(new, key)}" for key in keys]
