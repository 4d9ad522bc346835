"""An experiment as text: YAML with the reason beside each decision."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*(?: [\w./-]+)*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def text(content: Mapping[str, Any], reasons: Mapping[str, str], head: list[str]) -> str:
    """The file.

    Args:
        reasons: dotted key -> why.
        head: lines above everything.
    """
    lines = [f"# {line}".rstrip() for line in head]
    for index, (key, value) in enumerate(content.items()):
        if isinstance(value, dict) or not index:
            lines.append("")
        lines += _lines(key, value, key, reasons, 0)
    return "\n".join(lines) + "\n"


def _lines(key: Any, value: Any, dotted: str, reasons: Mapping[str, str], depth: int) -> Iterator[str]:
    indent, name = "  " * depth, f"{scalar(key)}:"
    if why := reasons.get(dotted):
        yield from textwrap.wrap(why, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    has_reasons = any(known.startswith((f"{dotted}.", f"{dotted}[")) for known in reasons)
    one_line = f"{indent}{name} {flow(value)}"
    if depth and not has_reasons and len(one_line) <= _WIDTH:
        yield one_line
    elif isinstance(value, dict):
        yield f"{indent}{name}"
        for inner, each in value.items():
            yield from _lines(inner, each, f"{dotted}.{inner}", reasons, depth + 1)
    elif isinstance(value, list):
        yield f"{indent}{name}"
        items = [flow(item) for item in value]
        width = max(map(len, items))
        for index, item in enumerate(items):
            behind = reasons.get(f"{dotted}[{index}]")
            yield f"{indent}  - {item:<{width}}  # {behind}" if behind else f"{indent}  - {item}"
    else:
        yield one_line


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A word or a number; in quotes what YAML would take for something else."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value)
