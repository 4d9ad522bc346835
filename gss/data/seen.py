"""A cheap look at the files of a data set: whether some are new, gone or changed, by their names, sizes and times."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gss.data.pairing import SplitFolders, list_pairs
from gss.errors import DataError
from gss.files import sha256_file

_MOST_READ = 2**31  # bytes of files that differ in their times alone: more are taken for changed


def look(root: Path, splits: Mapping[str, SplitFolders], beside: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the files of a data set look like from outside.

    Args:
        root: folder of the data set.
        beside: further files of a split, relative to the root.

    Returns:
        JSON value. `place`: number of the folder in its file system; times say nothing of a copy elsewhere. `splits`:
        of each whose folders are there the number of `files`, hashes of their `names` and sizes and of these with
        `times`, and the `newest` time.
    """
    found = {}
    for split in splits:
        names, times, files, newest = hashlib.sha256(), hashlib.sha256(), 0, 0
        try:
            for name, size, time in _files(root, split, splits, beside.get(split, ())):
                known = f"{name}\0{size}\n".encode("utf-8", "surrogateescape")
                names.update(known)
                times.update(known + str(time).encode())
                files, newest = files + 1, max(newest, time)
        except (OSError, DataError):  # where nothing can be seen there is nothing to say
            continue
        digests = {"names": names.hexdigest(), "times": times.hexdigest()}
        found[split] = {"files": files, **digests, "newest": newest}
    return {"place": os.stat(root).st_ino if found else 0, "splits": found}


def changed(then: Mapping[str, Any], now: Mapping[str, Any], is_touched: Callable[[str, int], bool]) -> dict[str, str]:
    """By split with other files what there was and what there is, in words.

    Args:
        then, now: what `look` found.
        is_touched: whether the files of a split that are newer than a time are what they were.
    """
    found: dict[str, str] = {}
    for split, new in now["splits"].items():
        old = then["splits"].get(split)
        if old is None:
            continue
        before = f"{old['files']} files of {split}"
        if new["names"] != old["names"]:
            found[split] = f"{before}, now {new['files']} with other names or sizes"
        elif new["times"] != old["times"] and now["place"] == then["place"] and not is_touched(split, old["newest"]):
            found[split] = f"{before}, now with other times"
    return found


def are_same(
    root: Path,
    split: str,
    splits: Mapping[str, SplitFolders],
    newest: int,
    digests: Mapping[str, str],
    beside: Sequence[str] = (),
) -> bool:
    """Whether files that are newer than a time have the content that they had; False where that cannot be told.

    Args:
        newest: nanoseconds.
        digests: SHA-256 by name.
        beside: as of `look`.
    """
    newer = [(name, size) for name, size, time in _files(root, split, splits, beside) if time > newest]
    if not newer or sum(size for _, size in newer) > _MOST_READ:
        return False
    return all(digests.get(name) == sha256_file(root / name) for name, _ in newer)


def _files(
    root: Path, split: str, splits: Mapping[str, SplitFolders], beside: Sequence[str] = ()
) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of each file that belongs to a split, by name; of those that cannot be read -1.

    Raises:
        OSError, DataError: there is no such folder or list.
    """
    folders = splits[split]
    for folder in (folders.images, folders.labels):
        os.stat(root / folder)
    pairs = list_pairs(root, split, splits).pairs
    if folders.labelled_only:  # labels were made, of what is beside
        names = [pairs.images.name(key) for key in pairs.keys]
    else:
        names = [of.name(key) for of in (pairs.images, pairs.labels) for key in sorted(of.extensions)]
    for name in (*names, *beside):
        try:
            state = os.stat(os.path.join(root, name))
            yield name, state.st_size, state.st_mtime_ns
        except OSError:
            yield name, -1, 0
