"""Scalabel, the format of BDD100K: outlines with curves, and masks of runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gss.data.annotations.parsed import TOO_FEW, Parsed, Picture, read_json, reading, ring_is_area
from gss.data.annotations.shapes import Shape, box
from gss.errors import DataError

_ON_A_CURVE = 16  # points that take the place of a curve: off it by a hundredth of its length at most


def read_scalabel(path: Path, inside: str, classes: list[str]) -> Parsed:
    """A JSON file of many pictures, `frames`: `poly2d`, `rle`, or `box2d` where a label has neither.

    Every `poly2d` is taken for an area, also with `closed: false`, which BDD100K's files have for areas, too.

    Source:
        https://doc.scalabel.com/format.html
    """
    content, parsed = read_json(path), Parsed()
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list) or not all(isinstance(frame, dict) and "name" in frame for frame in frames):
        raise DataError("no Scalabel JSON: it has no list of frames with names", where=path)
    with reading(path):
        config = (content.get("config") or {}) if isinstance(content, dict) else {}
        parsed.classes = list(dict.fromkeys(_leaves(config.get("categories") or [])))
        for frame in frames:
            picture, shapes = str(frame["name"]), []
            for label in frame.get("labels") or []:
                name = str(label["category"])
                case = f"{picture} ({name})"
                if parsed.classes and name not in parsed.classes:
                    parsed.notes.fault("labels of a category that is not declared", case)
                elif shape := _shape(name, label):
                    shapes.append(shape)
                else:
                    parsed.notes.remark(TOO_FEW, case)
            size = frame.get("size") or config.get("imageSize")
            names = (picture, f"{frame['videoName']}/{picture}") if frame.get("videoName") else (picture,)
            size = (int(size["height"]), int(size["width"])) if size else None
            parsed.pictures.append(Picture(names, path, size, shapes))
    return parsed


def _leaves(categories: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Names of the categories that have none below them."""
    for category in categories:
        below = category.get("subcategories")
        yield from _leaves(below) if below else [str(category["name"])]


def _shape(name: str, label: dict[str, Any]) -> Shape | None:
    """None where it has no area."""
    if outlines := label.get("poly2d"):
        rings = [ring for ring in map(_ring, outlines) if ring_is_area(ring)]
        return Shape(name, "polygon", rings) if rings else None
    if runs := label.get("rle"):
        return Shape(name, "mask", {"how": "runs", "counts": runs["counts"], "size": runs["size"]})
    if corners := label.get("box2d"):
        # the lower right pixel is inside
        return Shape(name, "box", [box(corners["x1"], corners["y1"], corners["x2"] + 1, corners["y2"] + 1)])
    return None


def _ring(outline: dict[str, Any]) -> list[float]:
    """The vertices, with points of each curve in the place of its two control points (`C`)."""
    points, types = np.asarray(outline["vertices"], np.float64)[:, :2], str(outline["types"])
    if len(types) != len(points):
        raise ValueError(f"{len(points)} vertices and {len(types)} types")
    ring: list[float] = []
    at = 0
    while at < len(points):
        if types[at : at + 2] == "CC" and at:
            start, first, second, end = (points[k % len(points)] for k in range(at - 1, at + 3))
            t = np.linspace(0, 1, _ON_A_CURVE, endpoint=False)[1:, None]
            curve = (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3 * end
            ring += curve.ravel().tolist()
            at += 2
        else:
            ring += points[at].tolist()
            at += 1
    return ring
