"""What the readers of annotation files give: pictures with their shapes, in whatever format these were."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gss.data.annotations.notes import Notes
from gss.data.annotations.shapes import Shape
from gss.errors import DataError

TOO_FEW = "shapes of too few points, which have no area, left out"


@dataclass(frozen=True)
class Picture:
    """An annotated picture.

    Args:
        names: of its file below the folder of images, the likeliest first; without extension where that is not known.
        file: the annotation file.
        size: height and width, as the annotation has them; None: it says nothing of them.
        shapes: in the order of the file.
        is_relative: coordinates are shares of width and height.
        is_embedded: the file holds the picture, too.
    """

    names: tuple[str, ...]
    file: Path
    size: tuple[int, int] | None
    shapes: list[Shape]
    is_relative: bool = False
    is_embedded: bool = False

    def about(self, shape: Shape) -> str:
        """What messages call a shape."""
        return f"{self.names[0]} ({shape.name})"


@dataclass
class Parsed:
    """What an annotation file holds.

    Args:
        classes: those that it declares, in its order; where it declares none those of shapes are.
    """

    classes: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is none.
    """
    with reading(path):
        return json.loads(path.read_bytes())


def read_xml(path: Path) -> ElementTree.Element:
    """The content of an XML file.

    Raises:
        DataError: it is none.
    """
    with reading(path):
        return ElementTree.fromstring(path.read_bytes())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what is wrong with the content of an annotation file into a DataError."""
    try:
        yield
    except ElementTree.ParseError as error:
        raise DataError(f"no XML: {error}", where=path) from error
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, KeyError):
            reason = f"{error} is missing"
        raise DataError(reason, where=path) from error


def flat(points: Any) -> list[float]:
    """`[[x, y], ...]` as `[x, y, ...]`.

    Raises:
        ValueError, TypeError: they are no such list.
    """
    return [float(value) for x, y in points for value in (x, y)]


def ring_is_area(ring: list[float]) -> bool:
    """Whether a ring has three points at least."""
    return len(ring) >= 6
