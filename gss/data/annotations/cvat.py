"""CVAT: "CVAT for images 1.1"."""

from pathlib import Path
from xml.etree.ElementTree import Element

from gss.data.annotations.labelme import UNKNOWN
from gss.data.annotations.parsed import TOO_FEW, Parsed, Picture, read_xml, reading
from gss.data.annotations.shapes import Shape, box
from gss.errors import DataError

_POINTS = {"polygon": ("polygon", 3), "polyline": ("line", 2), "points": ("point", 1)}


def read_cvat(path: Path, inside: str, classes: list[str]) -> Parsed:
    """An XML file of many pictures: polygons, boxes, ellipses, lines, points, and masks; `tag` is of whole pictures and
    passed over. `z_order` says what is painted over what.

    Source:
        https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
    """
    root, parsed = read_xml(path), Parsed()
    if root.tag != "annotations":
        raise DataError(f"no XML of CVAT: its root is <{root.tag}>", where=path)
    if root.find("track") is not None:
        what = "it is of a video, whose pictures have no names"
        raise DataError(what, where=path, todo='export it from CVAT as "CVAT for images 1.1"')
    with reading(path):
        labels = [(label.findtext("name") or "").strip() for label in root.findall("meta//labels/label")]
        parsed.classes = list(dict.fromkeys(labels))
        for image in root.iter("image"):
            shapes = []
            for thing in image:
                case = f"{image.attrib['name']} ({thing.get('label')})"
                if thing.tag == "tag":
                    continue
                if thing.tag not in (*_POINTS, "box", "ellipse", "mask"):
                    parsed.notes.fault(UNKNOWN, f"{case}: {thing.tag}")
                elif parsed.classes and thing.attrib["label"] not in parsed.classes:
                    parsed.notes.fault("shapes of a label that is not declared", case)
                elif (shape := _shape(thing)) is None:
                    parsed.notes.remark(TOO_FEW, case)
                else:
                    shapes.append(shape)
            size = int(image.attrib["height"]), int(image.attrib["width"])
            parsed.pictures.append(Picture((image.attrib["name"],), path, size, shapes))
    return parsed


def _shape(thing: Element) -> Shape | None:
    """None where it has too few points."""
    name, layer = thing.attrib["label"], int(thing.get("z_order", 0))
    number = {
        key: float(thing.attrib[key])
        for key in ("xtl", "ytl", "xbr", "ybr", "cx", "cy", "rx", "ry")
        if key in thing.attrib
    }
    turned = float(thing.get("rotation", 0))
    if thing.tag == "box":
        corners = box(number["xtl"], number["ytl"], number["xbr"], number["ybr"], turned)
        return Shape(name, "box", [corners], layer)
    if thing.tag == "ellipse":
        return Shape(name, "ellipse", [*(number[key] for key in ("cx", "cy", "rx", "ry")), turned], layer)
    if thing.tag == "mask":
        top, left, height, width = (int(float(thing.attrib[key])) for key in ("top", "left", "height", "width"))
        counts = [int(count) for count in thing.attrib["rle"].split(",")]
        values = {"how": "runs", "counts": counts, "size": [height, width], "order": "C", "top": top, "left": left}
        return Shape(name, "mask", values, layer)
    kind, least = _POINTS[thing.tag]
    points = [float(value) for pair in thing.attrib["points"].split(";") for value in pair.split(",")]
    return Shape(name, kind, [points], layer) if len(points) >= 2 * least else None  # type: ignore[arg-type]
