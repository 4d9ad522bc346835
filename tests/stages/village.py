"""A model of a city, and a village with classes of its own that it is tested on: small files, commands as given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gss.cli import main
from gss.data.images import write_png

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/merge.md").read_text(encoding="utf-8")
VILLAGE = yaml.safe_load(PAGE.split("## Test sets with other classes")[1].split("```yaml\n")[1].split("```")[0])[
    "evaluation"
]["sets"]["village"]
FOLDERS = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
ONE: dict[str, Any] = {
    "recipe": "pixel",
    "data": {"root": "city", "classes": ["road", "car", "person"], "splits": FOLDERS},
    "augment": {"base_scale": [32, 32], "crop": [32, 32]},
    "pixel": {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 4, "warmup_steps": 1}},
    "evaluation": {"splits": ["val"], "pictures": 1, "sets": {"village": VILLAGE}},
}
MODEL = Path("results/mine/evaluation/pixel")


def make_pair(root: Path, images: str, labels: str, name: str, rng: np.random.Generator, values: np.ndarray) -> None:
    write_png(root / images / name, rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    write_png(root / labels / name, np.kron(rng.choice(values, (4, 6)), np.ones((8, 8))).astype(values.dtype))


def write(change: Callable[[dict], object] = lambda content: None, name: str = "mine") -> None:
    content = json.loads(json.dumps(ONE))
    change(content)
    path = Path(f"config/experiments/{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def in_set(**keys: object) -> Callable[[dict], object]:
    return lambda content: content["evaluation"]["sets"]["village"].update(keys)


def run(*words: str) -> None:
    assert main([*words]) == 0


def ending(*words: str) -> object:
    """The exit status of a verb whose processes leave by themselves."""
    with pytest.raises(SystemExit) as left:
        main([*words])
    return left.value.code


def trained() -> None:
    run("check", "mine")
    run("train", "pixel", "mine")


def metrics(name: str) -> dict[str, Any]:
    return json.loads((MODEL / name / "metrics.json").read_text())
