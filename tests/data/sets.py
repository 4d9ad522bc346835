"""A small data set as users have it, for tests to change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gss.data.check import scan
from gss.data.classes import ClassSpace, Colour
from gss.data.images import Orientation
from gss.data.pairing import SplitFolders

SIZE = 24, 32
FILES = {"train": 6, "val": 3}
BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 255, 0)
SHORT = (BLACK, RED, GREEN)  # colours of the three classes

Write = Callable[[str, int, np.ndarray], np.ndarray]
"""Split, number and ids 0, 1, 2 of a label -> what its file holds."""


@dataclass
class Set:
    """A data set, sound until it is changed: six train and three val pairs, three classes, nothing ignored."""

    root: Path
    classes: Sequence[str] = ("bg", "a", "b")
    colours: tuple[Colour, ...] | None = None
    space: dict = field(default_factory=dict)
    folders: dict = field(default_factory=dict)
    orientation: Orientation | None = None

    def __post_init__(self) -> None:
        for split, count in FILES.items():
            for number in range(count):
                self.write("images", split, number, photograph(split, number))
                self.write("labels", split, number, ids(number))

    def path(self, kind: str, split: str, number: int, ending: str = ".png") -> Path:
        return self.root / kind / split / f"f{number}{ending}"

    def write(self, kind: str, split: str, number: int, pixels: np.ndarray, **options: object) -> None:
        path = self.path(kind, split, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)

    def relabel(self, change: Write, palette: Callable[[str, int], Sequence[Colour]] | None = None) -> None:
        for split, count in FILES.items():
            for number in range(count):
                picture = Image.fromarray(change(split, number, ids(number)).astype(np.uint8))
                if palette is not None and (colours := palette(split, number)):
                    picture = picture.convert("P")
                    picture.putpalette([value for colour in colours for value in colour])
                picture.save(self.path("labels", split, number))

    def check(self) -> tuple[dict, list[str], list[str]]:
        """Manifest, warnings and faults."""
        space = ClassSpace(tuple(self.classes), self.colours, **self.space)
        splits = {
            split: SplitFolders(**{"images": f"images/{split}", "labels": f"labels/{split}", **self.folders})
            for split in FILES
        }
        manifest, statistics, faults = scan(self.root, splits, space, orientation=self.orientation)
        return manifest, statistics["warnings"], faults

    def pairs(self) -> int:
        return sum(map(len, self.check()[0]["splits"].values()))


def photograph(split: str, number: int) -> np.ndarray:
    """Smooth, so that JPEG changes little, and never dark."""
    coarse = np.random.default_rng((len(split), number)).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    coarse[0, 0] = 255
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def ids(number: int) -> np.ndarray:
    """Background 0, an upper square 1, a lower one 2: no symmetry, and most of it background."""
    label = np.zeros(SIZE, np.uint8)
    label[2:10, 3 + number : 12 + number] = 1
    label[14:20, 8 + number : 16 + number] = 2
    return label


def of(table: Sequence[int]) -> Write:
    """All files with other values for 0, 1 and 2."""
    return lambda split, number, label: np.array(table, np.uint8)[label]


def mixed(odd: Sequence[int], even: Sequence[int]) -> Write:
    return lambda split, number, label: np.array(odd if number % 2 else even, np.uint8)[label]


def by_split(train: Sequence[int], val: Sequence[int]) -> Write:
    return lambda split, number, label: np.array(train if split == "train" else val, np.uint8)[label]


def few(rare: Sequence[int], usual: Sequence[int]) -> Write:
    """One label of val differs."""
    return lambda split, number, label: np.array(rare if (split, number) == ("val", 2) else usual, np.uint8)[label]
