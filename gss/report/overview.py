"""What the check found in a data set: a table for the terminal, and a page with pictures."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gss.data.classes import default_colours
from gss.data.manifest import Manifest, evenly_spaced
from gss.evaluate.pictures import overlay
from gss.report.details import counted
from gss.report.html import image_uri, write_page
from gss.text import css, percent

PICTURES = 16
SIDE = 400  # longer side of a picture, pixels


def table(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Pixels, images and share of every class by split, what is ignored, and the sizes of the images, as lines.

    Args:
        statistics: as the check writes them.
    """
    found = counted(statistics, [None] * len(next(iter(statistics["splits"].values()))["classes"]))
    splits = found["splits"]
    rows = [["", *(head for split in splits for head in (split["name"], "pixels", "images"))]]
    for row in found["classes"]:
        of = [(row["share"][name], row["of"][name]) for name in found["names"]]
        rows.append([row["name"], *_cells((share, each["pixels"], each["images"]) for share, each in of)])
    rows.append(["ignored", *_cells((split["ignored"], split["ignored_pixels"], None) for split in splits)])
    rows.append(["all", *_cells((None, split["pixels"], split["images"]) for split in splits)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        yield "  ".join([first.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]).rstrip()
    for split in splits:
        sizes = [f"{size.replace(' × ', 'x')} ({images})" for size, images in split["sizes"]]
        more = [f"{split['more_sizes']} more"] if split["more_sizes"] else []
        yield f"sizes in {split['name']} (height x width): {', '.join([*sizes, *more]) or 'none'}"


def _cells(columns: Iterable[tuple[float | None, int, int | None]]) -> Iterator[str]:
    for share, pixels, images in columns:
        yield from (percent(share, 2, unit=" %", nothing=""), str(pixels), "" if images is None else str(images))


def write_overview(path: Path, manifest: Manifest, statistics: Mapping[str, Any], title: str) -> None:
    """Write a page: the table, and some pictures of each split, evenly spaced, with their labels over them.

    Raises:
        GssError: a file of the data set cannot be read, or the page cannot be written.
    """
    space = manifest.space
    colours = np.asarray(default_colours(space.num_classes) if space.colours is None else space.colours, np.uint8)
    pictures = []
    for number, split in enumerate(manifest.splits):
        pairs = manifest.pairs(split)
        share = PICTURES * (number + 1) // len(manifest.splits) - PICTURES * number // len(manifest.splits)
        for pair in (pairs[index] for index in evenly_spaced(len(pairs), share)):
            picture = overlay(pair.read_image(), pair.read_label(), colours, SIDE)
            source = image_uri(picture, format="JPEG", quality=85)
            pictures.append({"split": split, "name": pair.image.name, "source": source})
    part = counted(statistics, [css(colour) for colour in colours])
    write_page(path, "overview.html", title=f"{title}: data", name=title, part=part, pictures=pictures)
