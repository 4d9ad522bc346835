"""LabelMe: JSON of today's tool, one file for each picture, and XML of the web tool before it (version 3)."""

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from gss.data.annotations.parsed import TOO_FEW, Parsed, Picture, flat, read_json, read_xml, reading
from gss.data.annotations.shapes import Shape, box
from gss.errors import DataError

UNKNOWN = "shapes of a kind that is not read"
# By `shape_type`: the kind, how many points it needs, and the values of a `Shape` of its points.
_KINDS: dict[str, tuple[str, int, Callable[[list[float]], Any]]] = {
    "polygon": ("polygon", 3, lambda xy: [xy]),
    "oriented_rectangle": ("polygon", 4, lambda xy: [xy]),
    "rectangle": ("box", 2, lambda xy: [box(*xy[:4])]),
    "circle": ("ellipse", 2, lambda xy: [*xy[:2], *2 * [math.dist(xy[:2], xy[2:4])]]),
    "line": ("line", 2, lambda xy: [xy]),
    "linestrip": ("line", 2, lambda xy: [xy]),
    "point": ("point", 1, lambda xy: [xy]),
    "points": ("point", 1, lambda xy: [xy]),
}


def read_labelme(path: Path, inside: str, classes: list[str]) -> Parsed:
    """A JSON file of LabelMe, whose picture lies elsewhere or is in it (`imageData`).

    Source:
        https://github.com/wkentaro/labelme
    """
    content, parsed = read_json(path), Parsed()
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("no LabelMe JSON: it has no list 'shapes'", where=path)
    with reading(path):
        shapes = []
        for shape in content["shapes"]:
            kind, case = shape.get("shape_type") or "polygon", f"{inside}{path.name} ({shape['label']})"
            points = flat(shape["points"])
            if kind == "mask":
                values = {"how": "base64", "text": shape["mask"], "top": round(points[1]), "left": round(points[0])}
                shapes.append(Shape(str(shape["label"]), "mask", values))
            elif kind not in _KINDS:
                parsed.notes.fault(UNKNOWN, f"{case}: {kind}")
            elif len(points) < 2 * _KINDS[kind][1]:
                parsed.notes.remark(TOO_FEW, case)
            else:
                made, _, values_of = _KINDS[kind]
                shapes.append(Shape(str(shape["label"]), made, values_of(points)))  # type: ignore[arg-type]
        name = str(content.get("imagePath") or "").replace("\\", "/").rpartition("/")[2]
        names = tuple(f"{inside}{each}" for each in (name, path.stem) if each)
        size = (content.get("imageHeight"), content.get("imageWidth"))
        parsed.pictures = [
            Picture(
                names,
                path,
                (int(size[0]), int(size[1])) if size[0] and size[1] else None,
                shapes,
                is_embedded=bool(content.get("imageData")),
            )
        ]
    return parsed


def embedded_picture(path: Path) -> bytes:
    """The picture in a LabelMe JSON, as a file.

    Raises:
        DataError: it cannot be decoded.
    """
    content = read_json(path)
    with reading(path):
        return base64.b64decode(content["imageData"])


def read_labelme_xml(path: Path, inside: str, classes: list[str]) -> Parsed:
    """An XML file of LabelMe 3: polygons and masks; masks lie beside it, or in a folder `Masks` there or above.

    Objects that were deleted are none. Without its size the picture's own counts.
    """
    root, parsed = read_xml(path), Parsed()
    if root.tag != "annotation":
        raise DataError(f"no LabelMe XML: its root is <{root.tag}>", where=path)
    with reading(path):
        shapes = []
        for thing in root.iter("object"):
            name = _text(thing, "name")
            if _text(thing, "deleted") == "1":
                continue
            mask, polygon = _text(thing, "segm/mask"), thing.find("polygon")
            if mask:
                shapes.append(Shape(name, "mask", {"how": "file", "path": str(_mask_file(path, mask))}))
                continue
            if polygon is None:
                parsed.notes.fault(UNKNOWN, f"{inside}{path.name} ({name}): {', '.join(each.tag for each in thing)}")
                continue
            points = [(float(_text(pt, "x")), float(_text(pt, "y"))) for pt in polygon.iter("pt")]
            if len(points) < 3:
                parsed.notes.remark(TOO_FEW, f"{inside}{path.name} ({name})")
                continue
            is_box = _text(thing, "type") == "bounding_box"
            shapes.append(Shape(name, "box" if is_box else "polygon", [flat(points)]))
        size = (_text(root, "imagesize/nrows"), _text(root, "imagesize/ncols"))
        names = tuple(f"{inside}{each}" for each in (_text(root, "filename"), path.stem) if each)
        parsed.pictures = [Picture(names, path, (int(size[0]), int(size[1])) if all(size) else None, shapes)]
    return parsed


def _text(element: Element, place: str) -> str:
    return (element.findtext(place) or "").strip()


def _mask_file(path: Path, name: str) -> Path:
    places = (path.parent, path.parent / "Masks", path.parent.parent / "Masks")
    return next((place / name for place in places if (place / name).is_file()), path.parent / name)
