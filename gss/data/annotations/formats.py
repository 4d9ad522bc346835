"""The formats of annotation files."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from gss.data.annotations.coco import read_instances, read_panoptic
from gss.data.annotations.cvat import read_cvat
from gss.data.annotations.labelme import read_labelme, read_labelme_xml
from gss.data.annotations.parsed import Parsed
from gss.data.annotations.scalabel import read_scalabel
from gss.data.annotations.yolo import read_yolo

Overlap = Literal["last", "smallest", "error"]


class Format(NamedTuple):
    """A format.

    Args:
        read: what a file holds: of its path, the folder that it lies in below that of the labels (`a/b/` or ``), and
            the names of classes, where the files have numbers alone.
        ending: of its files.
        overlap: which of two shapes has a pixel, where nobody says otherwise.
    """

    read: Callable[[Path, str, list[str]], Parsed]
    ending: str
    overlap: Overlap


# `last`: each tool shows and exports its shapes in their order, the later ones above. In YOLO's text files the order
# means nothing; its own training paints the larger masks first.
FORMATS: dict[str, Format] = {
    "coco": Format(read_instances, ".json", "last"),
    "coco_panoptic": Format(read_panoptic, ".json", "last"),
    "labelme": Format(read_labelme, ".json", "last"),
    "labelme_xml": Format(read_labelme_xml, ".xml", "last"),
    "cvat": Format(read_cvat, ".xml", "last"),
    "scalabel": Format(read_scalabel, ".json", "last"),
    "yolo": Format(read_yolo, ".txt", "smallest"),
}
