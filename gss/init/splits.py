"""Which pairs are trained on and which are measured: keys of the section `data`."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gss.config import data_folder
from gss.data.divide import Division
from gss.data.pairing import SplitFolders
from gss.errors import DataError
from gss.init.folders import SPLITS, Pairing
from gss.init.plan import Plan

_SHARES = {"test": 0.15, "val": 0.15}
_FEW = 20  # pairs, of which `val` alone is divided
_MANY = 10_000
_ENOUGH = 2000  # pairs that measure as well as more would, in less time
_FEWEST_FILMS = 5
_FILM = r"^(.*?)\d+$"  # what stands before the number of a frame
_SEEDS = 100


def decide_splits(plan: Plan, pairing: Pairing, lists: dict[str, Path], root: Path) -> dict[str, int]:
    """Set `splits`, how names pair, and `divide` where there are none.

    Args:
        lists: files that name the images of each split; none: folders, or nothing, say it.

    Returns:
        Number of pairs in each split.

    Raises:
        DataError: files without partner, or splits without anything to train on.
    """
    _refuse_faults(pairing, lists, root)
    one = pairing.one
    for key in ("image_suffix", "label_suffix"):
        if getattr(one, key):
            plan.put(f"data.{key}", getattr(one, key), "what these names end in, and their partners do not")
    if one.label_name:
        plan.put("data.label_name", list(one.label_name), "where the names of photographs and labels differ")
    if lists:
        folders = _folders(one.images, one.labels)
        splits = {split: {**folders, "list": placed(path)} for split, path in lists.items()}
        plan.put("data.splits", splits, f"lists that lie there: {', '.join(path.name for path in lists.values())}")
        return {
            split: sum(map(bool, map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())))
            for split, path in lists.items()
        }
    return put_splits(
        plan, pairing.splits, {split: listing.pairs.keys for split, listing in pairing.listings.items()}, root
    )


def put_splits(
    plan: Plan, splits: Mapping[str, SplitFolders], keys: Mapping[str, Sequence[str]], root: Path
) -> dict[str, int]:
    """Set `splits`, and `divide` where no `val` lies there; see `decide_splits`.

    Args:
        splits: `all`, or those that lie there.
        keys: what their pairs are divided by.
    """
    found = {split: _folders(folders.images, folders.labels) for split, folders in splits.items()}
    sizes = {split: len(own) for split, own in keys.items()}
    missing = [split for split in ("val", "test") if split not in found]
    given = f"{sum(sizes.values())} pairs"
    if "all" in found:
        found = {"train": found["all"]}
    elif "train" in found:
        given = f"they lie there: {', '.join(f'{split} {size}' for split, size in sizes.items())} pairs"
    else:
        what = f"{' and '.join(found)} lie there, and no train"
        raise DataError(what, where=root, todo="name the folders of what to train on")
    plan.put("data.splits", found, given)
    if "val" not in missing:
        return sizes
    whole = "all" if "all" in sizes else "train"
    made = _divide(plan, keys[whole], missing)
    return {**{split: size for split, size in sizes.items() if split != whole}, **made}


def _divide(plan: Plan, keys: Sequence[str], missing: Sequence[str]) -> dict[str, int]:
    """Set `divide`; returns the number of pairs in each split."""
    if len(keys) < _FEW:
        shares = {"val": 0.25}
        why = f"{len(keys)} pairs are too few for a test split besides"
    else:
        shares = {
            split: min(share, round(_ENOUGH / len(keys), 4)) for split, share in _SHARES.items() if split in missing
        }
        why = "no split lies there"
        if len(keys) * max(_SHARES.values()) > _ENOUGH:
            why += f"; about {_ENOUGH} pairs measure as well as more would"
    if len(keys) <= len(shares):
        what = f"{len(keys)} pair{'s' * (len(keys) > 1)}: too few to train and to measure"
        raise DataError(what, where="data.splits", todo="add photographs with labels")
    group, told = _films(keys)
    seeds = range(_SEEDS if len(keys) <= _MANY else 1)  # of many, any seed comes near the shares
    seed = min(seeds, key=lambda seed: (_miss(Division(shares, seed, group), keys), seed))
    parts = Division(shares, seed, group).divide(keys)
    counts = ", ".join(f"{split} {len(parts[split])}" for split in SPLITS if split in parts)
    divide: dict[str, Any] = {split: shares[split] for split in ("val", "test") if split in shares}
    if seed:
        divide["seed"] = seed
    if group:
        divide["group"] = group
    plan.put("data.divide", divide, f"{why}; by names, so that none moves when others come ({counts}); {told}")
    return {split: len(part) for split, part in parts.items()}


def _films(keys: Sequence[str]) -> tuple[str | None, str]:
    """The expression that keeps frames of a film together, and what to say of it."""
    films = Counter(found[1] if (found := re.search(_FILM, key)) else key for key in keys)
    if len(films) > len(keys) / 2:
        return None, "names show no films"
    if len(films) < _FEWEST_FILMS:
        return None, (
            f"names number {len(films)} series: if these are films, neighbouring frames are in several splits, and the "
            "scores too good: name folders of each split, or what tells films apart in `group`"
        )
    return _FILM, f"what stands before the last number tells {len(films)} films apart, each of which stays together"


def _miss(division: Division, keys: Sequence[str]) -> float:
    """How far the shares are from those wished, at most."""
    try:
        parts = division.divide(keys)
    except DataError:
        return 1.0
    return max(abs(len(parts[split]) / len(keys) - share) for split, share in division.shares.items())


def _folders(images: str, labels: str) -> dict[str, str]:
    return {"images": images, "labels": labels}


def placed(path: Path) -> str:
    """A path as experiments name it: relative to the folder of data sets where it is in it, else absolute."""
    base = data_folder().resolve()
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def _refuse_faults(pairing: Pairing, lists: dict[str, Path], root: Path) -> None:
    """Raise DataError where the check would find files without partner, or two of one name."""
    faults = [fault for listing in pairing.listings.values() for fault in listing.faults]
    if faults and not lists:
        shown = "\n".join(f"    {fault}" for fault in faults[:5])
        more = f"\n    and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(
            f"{pairing.shown()}; without partner, or there twice:\n{shown}{more}",
            where=root,
            todo="move them away, complete them, or name folders: gss init NAME PHOTOGRAPHS LABELS",
        )
