"""Labels of a tokenizer's training: more than memory is given to cost time, and change no crop."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import torch

from gss.data.classes import ClassSpace
from gss.data.manifest import Manifest, Rows, Source
from gss.recipes.gss.stages.tokenizer import TrainingLabels
from gss.recipes.gss.tokenizer.crops import MaskigeCrops


def test_labels_beyond_the_memory_given_are_read_again_and_give_the_same_crops(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, rows = [], Rows()
    for number, width in enumerate((40, 8, 50, 30, 60)):
        label = rng.integers(0, 3, (20, width), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), label)
        name = f"{number}.png"
        hashes = {"image_sha256": "", "label_sha256": ""}
        rows.append({"image": name, "label": name, "height": 20, "width": width, **hashes})
        labels.append(label)
    source = Source(tmp_path, ClassSpace(("a", "b", "c"), None), counts={"train": len(rows)})
    given = TrainingLabels(Manifest((source,), "", {"train": rows}).pairs("train"), kept_bytes=20 * 60)
    whole, bounded = (MaskigeCrops(source, 3, seed=0, batch_size=16, crop=32) for source in (labels, given))
    for (left,), (right,) in itertools.islice(zip(whole, bounded, strict=True), 5):
        assert torch.equal(left["label"], right["label"])
    assert [given[i] is given[i] for i in range(5)] == [True, True, False, False, False], "kept: 960 of 1,200 bytes"
