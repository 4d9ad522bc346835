"""What label files hold, before anything says what it means."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from gss.data.images import inspect_label, read_colours
from gss.data.manifest import evenly_spaced
from gss.data.processes import in_order
from gss.errors import DataError, shown
from gss.init.tables import Colour
from gss.progress import track

MOST_READ = 1000  # labels
_MOST_VALUES = 4096  # of a file: more are no classes
_FEW, _CHANGES = 32, 0.2  # colours, and the share of neighbours that differ, up to which a picture looks like a label


def looks_like_label(path: Path) -> bool | None:
    """Whether a picture is flat areas and not a photograph; None: it cannot be read."""
    try:
        with Image.open(path) as file:
            if file.mode in ("1", "P"):
                return True
            pixels = np.atleast_3d(np.asarray(file))  # H W C
    except Exception:  # of damaged files Pillow raises what happens to happen; the check names them
        return None
    changes = np.any(pixels[:, 1:] != pixels[:, :-1], axis=2)
    if changes.size and changes.mean() < _CHANGES:
        return True
    return len(np.unique(pixels.reshape(-1, pixels.shape[2]) @ (1 << 16 * np.arange(pixels.shape[2])))) <= _FEW


class Content(NamedTuple):
    """What one label holds.

    Args:
        ids: of pixels; None: it is painted.
        colours: RGBA of each id of an indexed file, or those of a painted one.
        counts: pixels of each.
        fault: why it cannot be read; empty: it can.
    """

    ids: list[int] | None
    colours: list[Colour]
    counts: list[int]
    fault: str = ""


def content(path: Path) -> Content:
    """Read one label, whatever it holds."""
    try:
        ids, palette = inspect_label(path)
    except DataError as error:
        try:
            rgba = read_colours(path)
        except DataError:
            return Content(None, [], [], f"{path.name}: {error.what}")
        codes, counts = np.unique(np.ascontiguousarray(rgba).view(np.uint32), return_counts=True)
        if len(codes) > _MOST_VALUES:
            return Content(None, [], [], f"{path.name}: {len(codes)} colours, as of a photograph")
        return Content(None, list(map(tuple, codes[:, None].view(np.uint8).tolist())), counts.tolist())
    pixels = np.bincount(ids.ravel())
    found = np.flatnonzero(pixels)
    if len(found) > _MOST_VALUES:
        return Content(None, [], [], f"{path.name}: {len(found)} values, measurements and no ids")
    colours = [] if palette is None else [(*colour, 255) for colour in palette[found].tolist()]
    return Content(found.tolist(), colours, pixels[found].tolist())


@dataclass
class Labels:
    """What the labels of a data set hold, as far as they were read.

    Args:
        read: files that were read; `total`: all there are.
        pixels: of each id.
        colours: pixels of each RGBA colour, of painted labels.
        palettes: colours of each id in indexed files.
        kinds: files that hold ids, and painted ones.
        sets: which ids stand together in a file.
        faults: why files cannot be read.
    """

    total: int
    read: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    colours: Counter[Colour] = field(default_factory=Counter)
    palettes: dict[int, set[Colour]] = field(default_factory=lambda: defaultdict(set))
    kinds: Counter[str] = field(default_factory=Counter)
    sets: set[frozenset[int]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def add(self, found: Content) -> None:
        """Count one file."""
        self.read += 1
        if found.fault:
            self.faults.append(shown(found.fault))
        elif found.ids is None:
            self.kinds["painted"] += 1
            self.colours.update(dict(zip(found.colours, found.counts, strict=True)))
        else:
            self.kinds["ids"] += 1
            self.pixels.update(dict(zip(found.ids, found.counts, strict=True)))
            self.sets.add(frozenset(found.ids))
            for native, colour in zip(found.ids, found.colours, strict=False):
                self.palettes[native].add(colour)

    @property
    def how_many(self) -> str:
        """As text: all, or how many of them."""
        return f"all {self.total} labels" if self.read == self.total else f"{self.read} of {self.total} labels"


def read(paths: Sequence[Path], *, workers: int, most: int = MOST_READ) -> Labels:
    """Read labels, of many an evenly spaced part."""
    chosen = [paths[index] for index in evenly_spaced(len(paths), most)]
    labels = Labels(len(paths))
    number = len(chosen)
    contents = in_order(
        content, ((path,) for path in chosen), workers=workers, total=number, key="cores of this process"
    )
    for found in track(contents, "reading labels", number, "label"):
        labels.add(found)
    return labels


def plain(colours: Iterable[Colour]) -> dict[Colour, Colour]:
    """Colours without transparency where it says nothing: where no two differ in it alone."""
    colours = list(colours)
    opaque = len({colour[:3] for colour in colours}) == len(colours)
    return {colour: colour[:3] if opaque else colour for colour in colours}
