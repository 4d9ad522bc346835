"""One picture with the same two shapes, in every format of annotations."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gss.data.annotations.formats import FORMATS
from gss.data.annotations.make import Missing, make_labels
from gss.data.annotations.paint import Options
from gss.data.pairing import SplitFolders

SIZE = (6, 8)  # height, width
# A box of `car` (columns 1..4, rows 1..3), and over it a triangle of `tree` with the corners (3, 0), (7, 0), (3, 4).
EXPECTED = np.array(
    [
        [9, 9, 9, 1, 1, 1, 9, 9],
        [9, 0, 0, 1, 1, 9, 9, 9],
        [9, 0, 0, 1, 0, 9, 9, 9],
        [9, 0, 0, 0, 0, 9, 9, 9],
        [9, 9, 9, 9, 9, 9, 9, 9],
        [9, 9, 9, 9, 9, 9, 9, 9],
    ]
)
CAR, TREE = [1, 1, 5, 1, 5, 4, 1, 4], [3, 0, 7, 0, 3, 4]


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """A photograph of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def coco(**change: Any) -> dict[str, Any]:
    """A COCO JSON of the picture `a.jpg`; `change` replaces lists."""
    categories = [{"id": 5, "name": "tree"}, {"id": 2, "name": "car"}]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [CAR], "bbox": [1, 1, 4, 3], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 5, "segmentation": [TREE], "bbox": [3, 0, 4, 4], "iscrowd": 0},
    ]
    images = [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}]
    return {"images": images, "categories": categories, "annotations": annotations, **change}


def pairs(ring: list[int]) -> list[list[int]]:
    return [ring[k : k + 2] for k in range(0, len(ring), 2)]


def labelme(**change: Any) -> dict[str, Any]:
    shapes = [
        {"label": "car", "shape_type": "rectangle", "points": [[1, 1], [5, 4]]},
        {"label": "tree", "shape_type": "polygon", "points": pairs(TREE)},
    ]
    return {"shapes": shapes, "imagePath": "..\\photos\\a.jpg", "imageHeight": 6, "imageWidth": 8, **change}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def _coco_panoptic(root: Path) -> None:
    segments = np.choose(np.clip(EXPECTED, 0, 2), [300, 7, 0])
    rgb = np.stack([segments % 256, segments // 256, segments * 0], 2).astype(np.uint8)
    write(root / "labels/a.png", png(rgb))
    info = [{"id": 300, "category_id": 2}, {"id": 7, "category_id": 5}]
    write(root / "labels.json", coco(annotations=[{"image_id": 1, "file_name": "a.png", "segments_info": info}]))


def _labelme_xml(root: Path) -> None:
    def polygon(ring: list[int]) -> str:
        return "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in pairs(ring))

    mask = np.zeros((*SIZE, 4), np.uint8)
    mask[1:4, 1:5] = (200, 0, 0, 150)
    write(root / "labels/Masks/a_mask_0.png", png(mask))
    objects = [
        "<name>car</name><deleted>0</deleted><segm><mask>a_mask_0.png</mask></segm>",
        f"<name>tree</name><deleted>0</deleted><polygon>{polygon(TREE)}</polygon>",
        f"<name>gone</name><deleted>1</deleted><polygon>{polygon(CAR)}</polygon>",
    ]
    content = "".join(f"<object>{each}</object>" for each in objects)
    size = "<imagesize><nrows>6</nrows><ncols>8</ncols></imagesize>"
    write(root / "labels/a.xml", f"<annotation><filename>a.jpg</filename>{size}{content}</annotation>")


def _cvat(root: Path) -> None:
    shapes = [
        '<polygon label="tree" points="3,0;7,0;3,4" z_order="1"/>',
        '<mask label="car" rle="0, 12" left="1" top="1" width="4" height="3" z_order="0"/>',
        '<tag label="car"/>',
    ]
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("car", "tree"))
    image = f'<image id="0" name="task/a.jpg" width="8" height="6">{"".join(shapes)}</image>'
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    write(root / "labels.xml", f"<annotations>{meta}{image}</annotations>")


def _scalabel(root: Path) -> None:
    runs = {"counts": [7, 3, 3, 3, 3, 3, 3, 3, 20], "size": list(SIZE)}
    labels = [
        {"category": "car", "rle": runs},
        {"category": "tree", "poly2d": [{"vertices": pairs(TREE), "types": "LLL", "closed": False}]},
    ]
    write(root / "labels.json", {"frames": [{"name": "a.jpg", "labels": labels, "size": None}]})


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco": lambda root: write(root / "labels.json", coco()),
    "coco_panoptic": _coco_panoptic,
    "labelme": lambda root: write(root / "labels/a.json", labelme()),
    "labelme_xml": _labelme_xml,
    "cvat": _cvat,
    "scalabel": _scalabel,
    "yolo": lambda root: write(
        root / "labels/a.txt", "1 0.375 0 0.875 0 0.375 0.66666666666666666\n0 0.375 0.41666666666666667 0.5 0.5\n"
    ),
}
PLACES = {
    name: "labels" if name in ("labelme", "labelme_xml", "yolo") else f"labels{FORMATS[name].ending}"
    for name in WRITERS
}


def annotated(root: Path, name: str) -> None:
    """A folder with one photograph and its annotations."""
    write(root / "photos/x", "")
    picture().save(root / "photos/a.jpg")
    WRITERS[name](root)


def made(
    root: Path,
    name: str,
    folder: Path | None = None,
    labels: str | None = None,
    missing: Missing = "error",
    **options: Any,
) -> dict[str, Any]:
    """`classes` and `splits` of the labels that were made of a folder as `annotated` writes it."""
    classes = ("car", "tree") if name == "yolo" else ()
    given = {"overlap": FORMATS[name].overlap, "classes": classes, **options}
    splits = {"train": SplitFolders("photos", labels or PLACES[name])}
    folder, how = folder or root / "made", Options(name, **given)
    found = make_labels(root, splits, how, folder, title="mine", workers=1, missing=missing)
    return {"classes": list(found.classes), "splits": found.splits}


def label(root: Path, name: str = "a") -> np.ndarray:
    """A label that was made."""
    return np.asarray(Image.open(root / f"made/train/labels/{name}.png"))


def embedded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()
