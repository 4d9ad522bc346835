"""Labels of MSeg's thirteen sets, made of those they are published with; all trees are tiny and generated."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gss.cli import main
from tests.data.mseg_tree import TESTED, TRAINED, Tree


def made(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("name", [*TRAINED, *TESTED])
def test_every_pixel_becomes_its_class_of_the_set(name: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path, (name,))
    assert main(["mseg-labels", name, "--root", str(tmp_path)]) == 0
    for path, ids in tree.expected.items():
        label = made(path)
        assert label.dtype == np.uint8 and np.array_equal(label, ids), path
    record = json.loads((tmp_path / f"prepared/{name}.json").read_text())
    pixels = sum(sum(split["pixels"].values()) + split["ignored_pixels"] for split in record["labels"].values())
    assert pixels == 40 * 56 * len(tree.expected)
    assert sum(split["files"] for split in record["labels"].values()) == len(tree.expected)
