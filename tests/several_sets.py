"""Three small data sets of the same classes for trainings on several at once."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gss.data.images import write_png

ROOTS, SIZES = ("one", "two", "three"), (7, 3, 4)
SIDE = 32


def content(**changes: Any) -> dict[str, Any]:
    """The experiment: balanced, 12 images of a step; `changes` are of its section `pixel.training`."""
    train = {"train": {"images": "images", "labels": "labels"}}
    training = {"batch_size": 12, "lr": 0.01, "warmup_steps": 0, "precision": "fp64", **changes}
    return {
        "recipe": "pixel",
        "data": {
            "root": ROOTS[0],
            "classes": ["road", "sky", "car"],
            "splits": {**train, "val": {"images": "val", "labels": "val_labels"}},
            "sources": [{"root": root, "splits": train} for root in ROOTS[1:]],
            "sampling": "balanced",
        },
        "augment": {"base_scale": [SIDE, SIDE], "crop": [SIDE, SIDE], "photometric": False},
        "pixel": {"backbone": {"name": "test_resnet"}, "channels": 8, "steps": 6, "training": training},
        "run": {"workers": 0},
    }


def write_sets(folder: Path, **changes: Any) -> None:
    """Write `sets/` and the experiment `mine`. The classes are the red of an image, its source the blue; much of the
    third source is ignored."""
    path = folder / "config/experiments/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content(**changes)))
    rng = np.random.default_rng(0)
    for number, (root, size) in enumerate(zip(ROOTS, SIZES, strict=True)):
        for images, labels, count in (("images", "labels", size), *([("val", "val_labels", 4)] if number == 0 else [])):
            for index in range(count):
                ids = np.kron(rng.integers(0, 3, (4, 4)), np.ones((SIDE // 4, SIDE // 4), int))
                green = rng.integers(0, 256, ids.shape)
                image = np.stack([60 * ids, green, np.full_like(ids, 40 * number)], axis=2)
                if number == 2:
                    ids[:, 5 + index :] = 255
                write_png(folder / "sets" / root / images / f"{index}.png", image.astype(np.uint8))
                write_png(folder / "sets" / root / labels / f"{index}.png", ids.astype(np.uint8))
