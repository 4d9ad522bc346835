"""Shapes as annotators draw them, and the pixels that they cover.

Coordinates are pixels from the upper left corner of the picture, x to the right, y down; the centre of pixel (row,
column) is x = column + 0.5, y = row + 0.5. A shape covers the pixels whose centre lies inside of it. Of two areas with
a common edge each centre belongs to one: neither a gap nor an overlap is left between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from gss.data.annotations.masks import read_mask

Kind = Literal["polygon", "box", "ellipse", "line", "point", "mask"]


@dataclass(frozen=True)
class Shape:
    """One shape of an annotation.

    Args:
        name: of its class.
        kind: what it is; decides what `values` are: of `polygon` and `box` rings `[x0, y0, x1, y1, ...]`, each of which
            is filled by itself (even-odd); of `ellipse` the centre, both radii and an angle in degrees, clockwise; of
            `line` runs of vertices; of `point` one `[x0, y0, ...]`; of `mask` those of
            `gss.data.annotations.masks.read_mask`.
        values: plain lists and numbers.
        layer: what is painted over shapes of lower layers, where the order of the file counts.
    """

    name: str
    kind: Kind
    values: Any = field(default_factory=list)
    layer: int = 0


class Covered(NamedTuple):
    """The pixels of a shape: bool [h, w], and where its upper left pixel is in the picture."""

    mask: np.ndarray
    top: int
    left: int


def covered(shape: Shape, size: tuple[int, int], line_width: float) -> Covered:
    """The pixels of a picture that a shape covers.

    Args:
        size: height and width of the picture; what lies outside of it is cut off.
        line_width: pixels across of lines and points, which have no area; their ends are round.

    Raises:
        DataError: a mask that is damaged or of another size.
    """
    if shape.kind == "mask":
        return _without_rim(*read_mask(shape.values, size))
    if shape.kind == "ellipse":
        return _filled([_ellipse(*shape.values)], size)
    if shape.kind in ("line", "point"):
        runs = [_pairs(run) for run in shape.values]
        segments = [run[[k, min(k + 1, len(run) - 1)]] for run in runs for k in range(max(len(run) - 1, 1))]
        if shape.kind == "point":
            segments = [vertex[[0, 0]] for run in runs for vertex in np.split(run, len(run))]
        return _near(segments, size, line_width / 2)
    return _filled([_pairs(ring) for ring in shape.values], size)


def box(x0: float, y0: float, x1: float, y1: float, degrees: float = 0.0) -> list[float]:
    """The ring of a rectangle, turned clockwise about its centre."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    if degrees:
        corners = _turned(corners - corners.mean(0), degrees) + corners.mean(0)
    return corners.ravel().tolist()


def vertices(shape: Shape) -> np.ndarray:
    """[n, 2]: the outermost x and y of a shape, for those that may lie outside of the picture; none of a mask."""
    if shape.kind == "mask":
        return np.empty((0, 2))
    rings = [_ellipse(*shape.values)] if shape.kind == "ellipse" else [_pairs(ring) for ring in shape.values]
    return np.concatenate([np.empty((0, 2)), *rings])


def _pairs(ring: Sequence[float]) -> np.ndarray:
    return np.asarray(ring, np.float64).reshape(-1, 2)


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    across, down = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    return points[:, :1] * across + points[:, 1:] * down


def _ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> np.ndarray:
    """[360, 2]: a ring of vertices, off an ellipse of 1000 pixels by less than a tenth of one."""
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    return np.array([x, y]) + _turned(np.stack([rx * np.cos(angles), ry * np.sin(angles)], 1), degrees)


def _window(points: np.ndarray, size: tuple[int, int], margin: float = 1.0) -> tuple[int, int, int, int]:
    """Rows and columns of the picture that some points span: top, bottom, left, right, the second ones not included."""
    low, high = points.min(0) - margin, points.max(0) + margin
    top, bottom = (int(np.clip(value, 0, size[0])) for value in (math.floor(low[1]), math.ceil(high[1])))
    left, right = (int(np.clip(value, 0, size[1])) for value in (math.floor(low[0]), math.ceil(high[0])))
    return top, bottom, left, right


def _filled(rings: Sequence[np.ndarray], size: tuple[int, int]) -> Covered:
    """The pixels inside of any of the rings."""
    top, bottom, left, right = _window(np.concatenate(rings), size)
    found = np.zeros((bottom - top, right - left), bool)
    for ring in rings:
        found |= _inside(ring - (left, top), found.shape)
    return Covered(found, top, left)


def _inside(ring: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """bool [h, w]: centres inside of a ring by the even-odd rule, row by row: each edge that a row of centres crosses
    turns inside and outside round for all centres to the right of it."""
    height, width = size
    start, end = ring, np.roll(ring, -1, axis=0)
    start, end = np.where(start[:, 1:] <= end[:, 1:], start, end), np.where(start[:, 1:] <= end[:, 1:], end, start)
    # Rows whose centre is in [y of the upper end, y of the lower end): a vertex counts for one of its two edges.
    first = np.clip(np.ceil(start[:, 1] - 0.5), 0, height).astype(int)
    counts = np.clip(np.ceil(end[:, 1] - 0.5), 0, height).astype(int) - first
    edge = np.repeat(np.arange(len(ring)), counts)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    crossing = start[edge, 0] + slope * (rows + 0.5 - start[edge, 1])
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
    turns = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(turns[:, :width], axis=1) % 2 == 1


def _near(segments: Sequence[np.ndarray], size: tuple[int, int], radius: float) -> Covered:
    """The pixels whose centre is no farther than a radius from a segment."""
    top, bottom, left, right = _window(np.concatenate(segments), size, radius + 1)
    found = np.zeros((bottom - top, right - left), bool)
    for segment in segments:
        t, b, l, r = _window(segment, size, radius + 1)  # the sides, as above
        y, x = np.mgrid[t:b, l:r] + 0.5
        start, way = segment[0], segment[1] - segment[0]
        length = max(float(way @ way), 1e-12)
        along = np.clip(((x - start[0]) * way[0] + (y - start[1]) * way[1]) / length, 0, 1)
        distance = np.hypot(x - start[0] - along * way[0], y - start[1] - along * way[1])
        found[t - top : b - top, l - left : r - left] |= distance <= radius
    return Covered(found, top, left)


def _without_rim(mask: np.ndarray, top: int, left: int) -> Covered:
    """No more of a mask than its pixels need."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Covered(mask[:0, :0], top, left)
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Covered(part, top + int(rows[0]), left + int(columns[0]))
