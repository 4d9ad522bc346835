"""An experiment with images on disk and an untrained model, as `gss export` finds it."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from gss.files import sha256_file
from gss.modelfile import load_model, save_model
from tests.use.models import write_models


def write_experiment(folder: Path, classes: tuple[str, ...], **options: Any) -> Path:
    """`exp.yaml`, its data set of three test images of 90 x 70, and `results/exp` with GSS-FF and GSS-FT.

    Args:
        options: of `write_models`.

    Returns:
        the results folder.
    """
    rng = np.random.default_rng(0)
    root, results = folder / "private" / "photos", folder / "results" / "exp"
    rows = []
    for number in range(3):
        image = cv2.resize(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), (90, 70), interpolation=cv2.INTER_CUBIC)
        (root / "test").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "test" / f"{number}.png"), image)
        rows.append(
            {
                "image": f"test/{number}.png",
                "label": f"test/{number}.png",
                "height": 70,
                "width": 90,
                "image_sha256": "00" * 32,
                "label_sha256": "00" * 32,
            }
        )
    space = {
        "names": list(classes),
        "colours": [[9 * index, 200, 7] for index in range(len(classes))],
        "reduce_zero_label": False,
        "label_map": {},
    }
    (results / "data").mkdir(parents=True)
    manifest = {"version": 1, "root": str(root), "classes": space, "splits": {"test": rows}}
    (results / "data" / "manifest.json").write_text(json.dumps(manifest))
    splits = {split: {"images": split, "labels": split} for split in ("train", "val", "test")}
    content = {
        "data": {"root": str(root), "classes": list(classes), "splits": splits},
        "augment": {"base_scale": [96, 96], "crop": [96, 96]},
        "latent_prior": {"backbone": {"name": "tf_efficientnet_lite0"}},
    }
    (folder / "exp.yaml").write_text(yaml.safe_dump(content))

    torch.manual_seed(0)
    write_models(results, num_classes=len(classes), **options)
    for name in ("gss_ff", "gss_ft"):
        file = load_model(results / f"{name}.pth")
        provenance = file.meta["provenance"] | {
            "experiment": "exp",
            "config_sha256": "c" * 64,
            "environment": {
                "gss": "0.1.0",
                "torch": "2.13",
                "timm": "1",
                "git": "abc",
                "host": "secret-host",
                "command": "gss merge /home/someone/exp",
            },
        }
        provenance["config"]["data"]["root"] = str(root)
        meta = file.meta | {"classes": list(classes), "provenance": provenance, "parents": {"gss_ff": {"host": "x"}}}
        save_model(results / f"{name}.pth", name, file.tensors, meta)
    return results


def write_metrics(results: Path, name: str, iou: dict[str, float | None]) -> None:
    """`evaluation/NAME/test/metrics.json` of the model that lies there."""
    content = {
        "mIoU": 0.5,
        "mAcc": 0.625,
        "aAcc": 0.75,
        "IoU": iou,
        "Acc": iou,
        "images": 3,
        "pixels": 18900,
        "model": {"file": f"{name}.pth", "sha256": sha256_file(results / f"{name}.pth")},
    }
    path = results / "evaluation" / name / "test" / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
