"""Small files beside pictures: lists that name those of a split, and what may be class tables."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from gss.init.folders import SPLITS, Folder, Pairing, Pictures, leads_to, split_of


def lists(root: Path, pairing: Pairing, files: Iterable[Path]) -> dict[str, Path]:
    """Lists that say which pairs are in which split, where there are some: `train` and another one.

    Args:
        files: texts below the root.
    """
    (listing,) = pairing.listings.values()
    names = {listing.pairs.images.name(key) for key in listing.pairs.keys}
    known = {_bare(name) for name in names}
    found: dict[str, tuple[float, Path]] = {}
    for path in files:
        split = split_of(path.stem)
        if path.suffix.lower() != ".txt" or not split:
            continue
        try:
            lines = [
                _bare(line.split()[0]) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError):
            continue
        share = sum(line in known for line in lines) / max(1, len(lines))
        if share > 0.9 and share > found.get(split, (0, path))[0]:
            found[split] = share, path
    return {split: found[split][1] for split in SPLITS if split in found} if "train" in found and len(found) > 1 else {}


def _bare(name: str) -> str:
    """The last part of a path without extension."""
    return os.path.splitext(os.path.basename(name))[0]


def small_files(pictures: Pictures, others: Collection[Path], depth: int = 3) -> list[Path]:
    """Files that may be class tables and lists: in the root, and in folders without pictures some levels below.

    Args:
        others: files that are something else.
    """
    full = {group.folder for group in pictures.stems}
    found = [
        pictures.root.joinpath(*folder, "classes.txt")
        for folder in full
        if "classes.txt" in pictures.texts.get(folder, ())
    ]
    folders: list[tuple[Path, Folder]] = [(pictures.root, ())]
    while folders:
        path, inside = folders.pop(0)
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            below = (*inside, entry.name)
            if entry.is_dir(follow_symlinks=False):
                counts = leads_to(Path(*below), pictures.only)
                if counts and len(below) <= depth and below not in full and not entry.name.startswith("."):
                    folders.append((Path(entry.path), below))
            elif Path(entry.path) not in others and entry.is_file() and entry.stat().st_size < 2**20:
                found.append(Path(entry.path))
    return found
