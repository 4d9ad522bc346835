"""What `gss init` decides: values of an experiment, and why."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Plan:
    """An experiment that comes about.

    Args:
        content: as the file will have it.
        reasons: dotted key -> why it is so; of an item of a list, `key[0]`, what stands behind it.
        notes: what to say besides.
    """

    content: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, why: str = "") -> None:
        """Set the value at a dotted key."""
        *sections, last = key.split(".")
        section = self.content
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
        if why:
            self.reasons[key] = why
