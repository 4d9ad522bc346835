"""Keys that would mend a data set, found among the files that lie beside it: tables of colours, lists of images."""

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from gss.data.native import read_native_classes
from gss.data.pairing import Files, Listing, SplitFolders, listed_name
from gss.errors import DataError


def colour_table(root: Path, label: str) -> str:
    """The keys that read painted labels, where a table in the folder of the data set has all colours of one of them;
    else nothing.

    Args:
        label: the file, relative to the root.
    """
    with Image.open(root / label) as file:
        rgba = np.asarray(file.convert("RGBA"))
    for path in sorted((*root.glob("*.csv"), *root.glob("*.tsv"))):
        with contextlib.suppress(DataError):
            read_native_classes(path, painted=True).ids(rgba)
            keys = f"encoding: colours, native_classes: {path.name}"
            return f"the labels are painted in the colours of {path.name}: set {keys} in the section data"
    return ""


def lists(
    root: Path, folders: Mapping[str, SplitFolders], listings: Mapping[str, Listing]
) -> tuple[list[str], list[str]]:
    """What lists in the folder of the data set would mend.

    Returns:
        Of splits with images that have no label, and of splits that are the same files.
    """
    free = {
        split: listing.pairs.images
        for split, listing in listings.items()
        if folders[split].list is None and folders[split].divide is None
    }
    found = {split: path for split, images in free.items() if (path := _list_of(root, split, images))}

    def key(split: str) -> str:
        return f"list: {found[split].absolute()} in data.splits.{split}" if split in found else f"a `list` for {split}"

    missing = [
        f"{path.name} names the images of {split} that count: set {key(split)}"
        for split, path in found.items()
        if listings[split].lacks_labels
    ]
    same = [
        f"{one} and {other} are the same files: set {key(one)}, {key(other)}"
        for one, other in itertools.combinations(free, 2)
        if free[one].extensions and free[one].folder == free[other].folder
    ]
    return missing, same


def _list_of(root: Path, split: str, images: Files) -> Path | None:
    """The text file called like a split in the folder of the data set, or up to two folders below, most lines of which
    name its images."""
    for pattern in ("", "*/", "*/*/"):
        for path in sorted(root.glob(f"{pattern}{split}.txt")):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                lines = path.read_text(encoding="utf-8-sig").splitlines()
                names = [listed_name(line.split()[0], images) for line in lines if line.strip()]
                known = sum(images.key(name + images.suffix) in images.extensions for name in names)
                if 2 * known > len(names):
                    return path
    return None
