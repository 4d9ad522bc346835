"""An experiment of recipe pixel whose data was checked, for tests of its verbs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gss.files import write_json

CLASSES = ["sky", "road", "car"]


def write_checked(folder: Path, crop: int, pixel: Mapping[str, Any]) -> None:
    """Write `mine.yaml` and the manifest of its data, of which nothing else is there."""
    content = {
        "recipe": "pixel",
        "data": {
            "root": "set",
            "classes": CLASSES,
            "splits": {split: {"images": split, "labels": split} for split in ("train", "val")},
        },
        "augment": {"base_scale": [64, 64], "crop": [crop, crop]},
        "pixel": dict(pixel),
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    space = {"names": CLASSES, "colours": None, "reduce_zero_label": False, "label_map": {}}
    write_json(folder / "results/mine/data/manifest.json", {"root": "gone", "classes": space, "splits": {}})
