"""Folders as people have them, and what `gss init` decides of them."""

import tempfile
from collections.abc import Mapping, Sequence
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
from tests.data.annotated import write

CPU = Machine("cpu", 2, 8.0)
SIZE = (32, 48)
SHAPES = [("car", [8, 8, 24, 8, 24, 24, 8, 24]), ("tree", [30, 4, 44, 4, 30, 28])]
DENSE = [("road", [0, 16, 48, 16, 48, 32, 0, 32]), ("sky", [0, 0, 48, 0, 48, 15, 0, 15])]
Shapes = Sequence[tuple[str, list[float]]]


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


def coco(path: Path, names: Sequence[str], shapes: Shapes = SHAPES, classes: Sequence[str] = ()) -> None:
    known = list(classes or dict.fromkeys(name for name, _ in shapes))
    categories = [{"id": 3 * k + 1, "name": name} for k, name in enumerate(known)]
    images = [{"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(names)]
    drawn = [
        {"id": k, "image_id": k, "category_id": 3 * known.index(name) + 1, "segmentation": [ring], "iscrowd": 0}
        for k in range(len(names))
        for name, ring in shapes
    ]
    write(path, {"images": images, "categories": categories, "annotations": drawn})


def labelme(folder: Path, names: Sequence[str], shapes: Shapes = SHAPES, **change: Any) -> None:
    for name in names:
        found = [
            {"label": own, "shape_type": "polygon", "points": [ring[k : k + 2] for k in range(0, len(ring), 2)]}
            for own, ring in shapes
        ]
        size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        write(
            folder / f"{Path(name).stem}.json", {"shapes": found, "imagePath": name, "imageData": None, **size} | change
        )


def cvat(path: Path, names: Sequence[str], shapes: Shapes = SHAPES) -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name, _ in shapes)
    drawn = "".join(
        f'<polygon label="{name}" points="{";".join(f"{x},{y}" for x, y in zip(ring[::2], ring[1::2], strict=True))}"/>'
        for name, ring in shapes
    )
    images = "".join(f'<image name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">{drawn}</image>' for name in names)
    write(path, f"<annotations><meta><task><labels>{labels}</labels></task></meta>{images}</annotations>")


def yolo(folder: Path, names: Sequence[str], shapes: Shapes = SHAPES) -> None:
    lines = [
        " ".join([str(number), *(f"{value / SIZE[1 - k % 2]:.6f}" for k, value in enumerate(ring))])
        for number, (_, ring) in enumerate(shapes)
    ]
    for name in names:
        write(folder / f"{Path(name).stem}.txt", "\n".join(lines))


def photographs(folder: Path, count: int = 8, first: int = 0) -> list[str]:
    """Their names."""
    for number in range(first, first + count):
        photograph(folder / f"{number:03}.jpg", number)
    return [f"{number:03}.jpg" for number in range(first, first + count)]


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
