"""COCO: instances as polygons and masks of runs, and panoptic labels as PNG with JSON."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from gss.data.annotations.masks import segments_of
from gss.data.annotations.parsed import TOO_FEW, Parsed, Picture, read_json, reading, ring_is_area
from gss.data.annotations.shapes import Shape, box
from gss.errors import DataError

NO_CATEGORY = "annotations of a category that is not declared"
NO_IMAGE = "annotations of an image that is not declared"


def read_instances(path: Path, inside: str, classes: list[str]) -> Parsed:
    """COCO's JSON: `images`, `categories` and `annotations`, each of which has a `segmentation`.

    A list of polygons, runs, or runs as text; a group (`iscrowd`) is of its class like any other. Without a
    segmentation the `bbox` is what was drawn, as CVAT exports rectangles.

    Source:
        https://cocodataset.org/#format-data, "Object Detection"
    """
    content = _content(path, "annotations", "images", "categories")
    parsed = Parsed()
    with reading(path):
        names = _categories(content, parsed)
        of_image: dict[Any, list[Shape]] = defaultdict(list)
        known = {image["id"]: image for image in content["images"]}
        for annotation in content["annotations"]:
            number = f"annotation {annotation.get('id')} of {path.name}"
            if annotation["image_id"] not in known:
                parsed.notes.fault(NO_IMAGE, f"{number}: image {annotation['image_id']}")
            elif annotation["category_id"] not in names:
                parsed.notes.fault(NO_CATEGORY, f"{number}: category {annotation['category_id']}")
            elif "segments_info" in annotation:
                raise DataError("these are panoptic annotations", where=path, todo="format: coco_panoptic")
            elif shape := _shape(names[annotation["category_id"]], annotation):
                of_image[annotation["image_id"]].append(shape)
            else:
                parsed.notes.remark(TOO_FEW, f"{number} ({names[annotation['category_id']]})")
        parsed.pictures = [
            Picture((str(image["file_name"]),), path, _size(image), of_image.get(number, []))
            for number, image in known.items()
        ]
    return parsed


def _shape(name: str, annotation: dict[str, Any]) -> Shape | None:
    """None where it has no area."""
    found = annotation.get("segmentation")
    if isinstance(found, dict):
        return Shape(name, "mask", {"how": "runs", "counts": found["counts"], "size": found["size"]})
    if found:
        rings = [ring for ring in found if ring_is_area(ring)]
        return Shape(name, "polygon", rings) if rings else None
    x, y, width, height = annotation["bbox"]
    return Shape(name, "box", [box(x, y, x + width, y + height)])


def read_panoptic(path: Path, inside: str, classes: list[str]) -> Parsed:
    """COCO's panoptic JSON, and PNG files in a folder beside it that is called as it is, without its ending.

    Source:
        https://cocodataset.org/#format-data, "Panoptic Segmentation"
    """
    content = _content(path, "annotations", "images", "categories")
    folder = path.with_suffix("")
    if not folder.is_dir():
        what = f"no folder of PNG files {folder.name}/ beside the JSON"
        raise DataError(what, where=path, todo=f"put them there: {folder}")
    parsed = Parsed()
    with reading(path):
        names = _categories(content, parsed)
        known = {image["id"]: image for image in content["images"]}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in known:
                parsed.notes.fault(NO_IMAGE, f"{annotation['file_name']}: image {annotation['image_id']}")
                continue
            image, file, shapes = known[annotation["image_id"]], str(folder / annotation["file_name"]), []
            for segment in annotation["segments_info"]:
                if segment["category_id"] not in names:
                    parsed.notes.fault(NO_CATEGORY, f"{annotation['file_name']}: category {segment['category_id']}")
                    continue
                values = {"how": "segment", "path": file, "segment": segment["id"]}
                shapes.append(Shape(names[segment["category_id"]], "mask", values))
            parsed.pictures.append(Picture((str(image["file_name"]),), path, _size(image), shapes))
    return parsed


def undeclared_segments(picture: Picture) -> list[int]:
    """Segments of a panoptic PNG that the JSON does not name; none of pictures of other formats."""
    of_file: dict[str, set[int]] = defaultdict(set)
    for shape in picture.shapes:
        if shape.kind == "mask" and shape.values["how"] == "segment":
            of_file[shape.values["path"]].add(shape.values["segment"])
    return sorted(segment for file, known in of_file.items() for segment in segments_of(file) - known)


def _content(path: Path, *keys: str) -> dict[str, Any]:
    content = read_json(path)
    missing = [key for key in keys if not (isinstance(content, dict) and isinstance(content.get(key), list))]
    if missing:
        raise DataError(f"no COCO JSON: it has no list {missing[0]!r}", where=path)
    return dict(content)


def _categories(content: dict[str, Any], parsed: Parsed) -> dict[Any, str]:
    """Names by number; the classes are these in the order of their numbers."""
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    parsed.classes = list(dict.fromkeys(names[number] for number in sorted(names)))
    return names


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    return (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
