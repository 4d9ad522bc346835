"""Numbers recorded from the published implementation, read once for all tests."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class Recorded:
    """One file of recorded numbers: tensors by name, and the lists beside them."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, without it."""
        found = self.tensors.items()
        return {name.removeprefix(f"{prefix}."): value for name, value in found if name.startswith(f"{prefix}.")}


@cache
def read(path: Path) -> Recorded:
    with safe_open(path, "pt") as file:
        meta = {key: json.loads(value) for key, value in file.metadata().items()}
        return Recorded({name: file.get_tensor(name) for name in file.keys()}, meta)  # noqa: SIM118
