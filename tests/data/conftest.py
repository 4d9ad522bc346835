"""A small sound data set made by code, for tests to damage."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gss.data.check import scan
from gss.data.classes import ClassSpace
from gss.data.manifest import Manifest, read_manifest, write_manifest
from gss.data.pairing import SplitFolders
from tests.data.sets import Set


@dataclass
class Tiny:
    """Four train and two val pairs of 40 x 56 pixels with the ids 0, 1, 2 and 255."""

    root: Path
    space: ClassSpace = field(default_factory=lambda: ClassSpace(("sky", "road", "tree")))
    splits: dict[str, SplitFolders] = field(
        default_factory=lambda: {s: SplitFolders(f"images/{s}", f"labels/{s}") for s in ("train", "val")}
    )

    def image(self, name: str) -> Path:
        return self.root / "images" / f"{name}.jpg"

    def label(self, name: str) -> Path:
        return self.root / "labels" / f"{name}.png"

    def write_label(self, name: str, label: np.ndarray) -> None:
        Image.fromarray(label).save(self.label(name))

    def rewrite_labels(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        for path in (self.root / "labels").rglob("*.png"):
            Image.fromarray(change(np.asarray(Image.open(path)))).save(path)

    def scan(self, space: ClassSpace | None = None, workers: int = 1) -> tuple[dict, dict, list[str]]:
        return scan(self.root, self.splits, space or self.space, workers=workers)

    def manifest(self) -> Manifest:
        content, _, faults = self.scan()
        assert faults == []
        path = self.root / "manifest.json"
        write_manifest(path, content)
        return read_manifest(path)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    rng = np.random.RandomState(0)
    tiny = Tiny(tmp_path / "data")
    for name in ("train/a", "train/b", "train/c", "train/d", "val/e", "val/f"):
        tiny.image(name).parent.mkdir(parents=True, exist_ok=True)
        tiny.label(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (40, 56, 3), dtype=np.uint8)).save(tiny.image(name))
        blocks = rng.randint(0, 3, (5, 7), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        blocks[:2] = 255
        tiny.write_label(name, blocks)
    return tiny


@pytest.fixture
def made(tmp_path: Path) -> Set:
    """Sound until a test changes it."""
    return Set(tmp_path / "data")
