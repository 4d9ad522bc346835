"""YOLO: a text file for each picture, a line for each shape, in shares of width and height."""

from pathlib import Path

from gss.data.annotations.parsed import TOO_FEW, Parsed, Picture, reading
from gss.data.annotations.shapes import Shape, box


def read_yolo(path: Path, inside: str, classes: list[str]) -> Parsed:
    """A text file: number of the class, then the outline, or four numbers of a box: centre, width, height.

    A file without a line is a picture without a shape.

    Source:
        https://docs.ultralytics.com/datasets/segment/
    """
    parsed, shapes = Parsed(classes=list(classes)), []
    with reading(path):
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if not line.strip():
                continue
            first, *values = line.split()
            case, index, xy = f"{inside}{path.name}, line {number}", int(float(first)), list(map(float, values))
            if not 0 <= index < len(classes):
                parsed.notes.fault("lines of a class without a name", f"{case}: {first}")
            elif len(xy) == 4:
                x, y, width, height = xy
                corners = box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                shapes.append(Shape(classes[index], "box", [corners]))
            elif len(xy) % 2:
                parsed.notes.fault("lines with half a point", case)
            elif len(xy) < 6:
                parsed.notes.remark(TOO_FEW, f"{case} ({classes[index]})")
            else:
                shapes.append(Shape(classes[index], "polygon", [xy]))
        parsed.pictures = [Picture((f"{inside}{path.stem}",), path, None, shapes, is_relative=True)]
    return parsed
