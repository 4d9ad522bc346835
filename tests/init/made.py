"""Folders as people have them, and what `gss init` decides of them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from gss.cli import main
from gss.init.data import Found
from gss.init.init import decide
from gss.init.network import Machine
from gss.init.plan import Plan
from gss.init.write import text

CPU = Machine("cpu", 2, 8.0)
SIZE = (32, 48)


def photograph(path: Path, seed: int, size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def ids(seed: int, values: tuple[int, ...] = (0, 1, 2, 3), size: tuple[int, int] = SIZE) -> np.ndarray:
    """Blocks of 8 pixels; all values occur."""
    rng = np.random.default_rng(seed)
    blocks = rng.permutation(np.resize(np.array(values), (size[0] // 8) * (size[1] // 8)))
    return np.kron(blocks.reshape(size[0] // 8, size[1] // 8), np.ones((8, 8), int))


def label(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint16 if pixels.max() > 255 else np.uint8
    Image.fromarray(pixels.astype(kind)).save(path)


def pairs(
    root: Path, count: int = 24, images: str = "images/{:03}.jpg", labels: str = "labels/{:03}.png", **of: Any
) -> Path:
    """A folder with photographs and labels of ids."""
    for number in range(count):
        photograph(root / images.format(number), number)
        label(root / labels.format(number), ids(number, **of))
    return root


def planned(*places: Path, on: Machine = CPU, **options: Any) -> tuple[Plan, Found]:
    """What is decided; labels of annotations are gone."""
    with tempfile.TemporaryDirectory() as folder:
        return decide(places, on, Path(folder), **options)


def data(*places: Path) -> dict[str, Any]:
    """The section `data` that is decided, without its root."""
    plan, _ = planned(*places)
    found = dict(plan.content["data"])
    found.pop("root")
    return found


def decided(*places: Path, **options: Any) -> tuple[dict[str, Any], Mapping[str, str], list[str]]:
    """The experiment, its reasons, and the notes."""
    plan, _ = planned(*places, **options)
    return plan.content, plan.reasons, plan.notes


def checks(project: Path, *places: Path, **options: Any) -> dict[str, Any]:
    """The same, after `gss check` of the written file has passed."""
    plan, _ = planned(*places, **options)
    written = text(plan.content, plan.reasons, ["by a test"])
    path = project / "mine.yaml"
    path.write_text(written, encoding="utf-8")
    assert yaml.safe_load(written) == plan.content
    assert main(["check", str(path), "--results", str(project / "results")]) == 0
    return plan.content["data"]
