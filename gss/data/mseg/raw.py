"""From the labels that data sets are published with to ids of MSeg's classes of each set.

Source: ways of mseg-dataset/mseg-api; where these take what is no class for class 0, here it is an error.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from gss.config import shipped
from gss.data.classes import IGNORE, ClassSpace, format_ids, read_classes
from gss.data.images import read_image, read_native_label
from gss.data.mseg.sets import RELABELLED, SETS
from gss.data.native import NativeClasses, read_native_classes, some
from gss.data.taxonomy import read_taxonomy
from gss.errors import DataError

IGNORED = 255
Segments = Mapping[int, int]
"""Of a panoptic label: id of a segment -> its category."""


@dataclass(frozen=True)
class Table:
    """From ids to ids.

    Args:
        classes: what the first are, for messages.
        ids: int32 [65536], -1 where there is no class.
    """

    classes: str
    ids: np.ndarray

    def of(self, label: np.ndarray) -> np.ndarray:
        """uint8 [H, W] of a label, uint8 or uint16 [H, W].

        Raises:
            DataError: ids that are no class, with their pixels.
        """
        pixels = np.bincount(label.ravel(), minlength=len(self.ids))
        unknown = np.flatnonzero((pixels > 0) & (self.ids < 0))
        if len(unknown):
            found, allowed = format_ids(unknown), format_ids(np.flatnonzero(self.ids >= 0))
            raise DataError(
                f"ids found that are no class of {self.classes}: {found} ({pixels[unknown].sum()} pixels); "
                f"allowed: {allowed}"
            )
        return self.ids.astype(np.uint8)[label]


def class_list(name: str) -> Path:
    """The shipped table of the classes of a set, or of its raw labels."""
    path = shipped("classes", f"mseg/{name}")
    assert path is not None
    return path


def class_names(name: str) -> tuple[str, ...]:
    """The classes of a set, in the order of their ids."""
    return read_classes(class_list(name))[0]


def taxonomy() -> Path:
    """The shipped table from the classes of all sets to the universal ones."""
    path = shipped("taxonomies", "mseg")
    assert path is not None
    return path


def semseg_table(name: str) -> Table:
    """From the ids of raw labels, or what their colours mean, to the classes of the set: those of the same names."""
    names, native = class_names(name), raw_classes(name)
    rest: Any = names.index(SETS[name].rest) if SETS[name].rest else IGNORE
    label_map = {index: names.index(each) if each in names else rest for index, each in native.names.items()}
    return Table(SETS[name].raw_classes, ClassSpace(names, label_map=label_map, native=native).table())


def relabelled_table(name: str) -> Table:
    """From the classes of a set to those after relabelling: these are named by the universal classes."""
    after = class_names(name + RELABELLED)
    becomes = read_taxonomy(taxonomy(), name, "universal").targets
    ids = np.full(1 << 16, -1, np.int32)
    for index, each in enumerate(class_names(name)):
        ids[index] = after.index(becomes[each]) if becomes[each] in after else IGNORED
    ids[IGNORED] = IGNORED
    return Table(name, ids)


def raw_classes(name: str) -> NativeClasses:
    """What raw labels hold."""
    found = SETS[name]
    return read_native_classes(class_list(found.raw_classes), painted=found.kind == "colours")


@dataclass(frozen=True)
class Raw:
    """The raw labels of a set."""

    kind: str
    native: NativeClasses
    table: Table

    @classmethod
    def of(cls, name: str) -> "Raw":
        return cls(SETS[name].kind, raw_classes(name), semseg_table(name))

    def read(self, path: Path, segments: Segments) -> np.ndarray:
        """uint8 [H, W]: classes of the set, 255 where ignored.

        Args:
            segments: of a panoptic label.

        Raises:
            DataError: the file cannot be read, or holds what is no class.
        """
        if self.kind == "panoptic":
            return self._panoptic(path, segments)
        if self.kind == "polygons":
            return self.table.of(self._painted(path))
        return self.table.of(read_native_label(path, self.native))

    def _panoptic(self, path: Path, segments: Segments) -> np.ndarray:
        ids = panoptic_ids(path)
        found, inverse, pixels = np.unique(ids, return_inverse=True, return_counts=True)
        categories = np.array([segments.get(int(segment), -1) for segment in found])
        strange = (categories < 0) & (found > 0)  # 0: nothing
        if strange.any():
            segment = f"{some([str(each) for each in found[strange]])} ({pixels[strange].sum()} pixels)"
            raise DataError(f"segments that the JSON does not name: {segment}")
        named = np.isin(categories, [index for index, name in self.native.names.items() if name != "unlabeled"])
        if (wrong := (found > 0) & ~named).any():
            known = format_ids(np.unique(categories[wrong]))
            raise DataError(f"categories that are no class: {known} ({pixels[wrong].sum()} pixels)")
        classes = self.table.ids[np.maximum(categories, 0)]
        return np.where(found > 0, classes, IGNORED).astype(np.uint8)[inverse].reshape(ids.shape)

    def _painted(self, path: Path) -> np.ndarray:
        """Raw ids of polygons, painted one after the other: uint8 [H, W]."""
        ids = {name: index for index, name in self.native.names.items()}
        polygons = read_polygons(path)
        picture = Image.new("L", polygons.size, ids["unlabeled"])
        draw = ImageDraw.Draw(picture)
        for polygon in polygons.all:
            if polygon.deleted or len(polygon.points) < 3:
                continue
            label = polygon.label if polygon.label in ids else polygon.label.removesuffix("group")
            if label not in ids:
                raise DataError(f"a polygon of {polygon.label!r}, which is no class of {self.table.classes}")
            draw.polygon(polygon.points, fill=ids[label])
        return np.asarray(picture)


def panoptic_ids(path: Path) -> np.ndarray:
    """int32 [H, W]: the segments of COCO's PNG files, R + 256 G + 65536 B."""
    return read_image(path, "stored").astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)


def read_panoptic(path: Path) -> dict[str, Segments]:
    """The segments of each label by its file's name.

    Raises:
        DataError: missing or damaged file.
    """

    def small(value: dict[str, Any]) -> Any:
        """Of hundreds of megabytes only what is needed stays."""
        if "category_id" in value:
            return value["id"], value["category_id"]
        return (value["file_name"], dict(value["segments_info"])) if "segments_info" in value else value

    with _reading(path):
        return dict(json.loads(path.read_bytes(), object_hook=small)["annotations"])


class Polygon(NamedTuple):
    """A polygon of a label.

    Args:
        number: its `id`, or the place in the file where it has none.
        points: its corners, (x, y).
    """

    number: int
    label: str
    points: list[tuple[float, float]]
    deleted: bool


class Polygons(NamedTuple):
    """Those of a label, in the order of the file, and its size (width, height)."""

    size: tuple[int, int]
    all: list[Polygon]


def read_polygons(path: Path) -> Polygons:
    """Polygons as of Cityscapes and IDD.

    Raises:
        DataError: missing or damaged file.
    """
    with _reading(path):
        content = json.loads(path.read_bytes())
        polygons = [
            Polygon(
                thing.get("id", index),
                str(thing["label"]),
                [(float(x), float(y)) for x, y in thing["polygon"]],
                bool(thing.get("deleted")),
            )
            for index, thing in enumerate(content["objects"])
        ]
        return Polygons((int(content["imgWidth"]), int(content["imgHeight"])), polygons)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what is wrong with a JSON file into a DataError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, KeyError):
            reason = f"{error} is missing"
        raise DataError(f"the file cannot be read: {reason}", where=path) from error
