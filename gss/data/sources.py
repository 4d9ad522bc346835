"""Joins what a scan found in each of several sources into one data set."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gss.data.check import repeated
from gss.data.classes import ClassSpace
from gss.data.manifest import Rows
from gss.data.native import NativeClasses, some

Found = tuple[dict, dict, list[str]]  # manifest, statistics and faults of `gss.data.check.scan`


def join(found: Mapping[str, Found]) -> Found:
    """One data set of the pairs of all sources; of a single source what was found in it, as it is.

    Args:
        found: by root, as the configuration names it; of the same classes.

    Returns:
        As of `scan`. Statistics of a split are sums over the sources, each of which stands beside them under `sources`,
        where its native ids are: they mean something else in another one. Warnings and faults name the root. `becomes`
        says what the ids or colours of each source are read as; a single one whose ids are those of the classes needs
        none.
    """
    becomes = {root: _becomes(manifest, statistics) for root, (manifest, statistics, _) in found.items()}
    if len(found) == 1:
        ((root, (manifest, statistics, faults)),) = found.items()
        if "native" in manifest["classes"]:
            statistics = {**statistics, "becomes": becomes}
        return {**manifest, "root": root}, statistics, faults
    manifests = {root: manifest for root, (manifest, _, _) in found.items()}
    splits = list(dict.fromkeys(split for manifest in manifests.values() for split in manifest["splits"]))
    manifest = {
        "version": 2,
        "sources": [_source(root, content) for root, content in manifests.items()],
        "splits": {
            split: _joined([m["splits"][split] for m in manifests.values() if split in m["splits"]]) for split in splits
        },
    }
    statistics = {
        "version": 1,
        "splits": {
            split: _summed([each["splits"][split] for _, each, _ in found.values() if split in each["splits"]])
            for split in splits
        },
        "sources": {root: each["splits"] for root, (_, each, _) in found.items()},
        "becomes": becomes,
    }
    faults = [f"{root}: {fault}" for root, (_, _, faults) in found.items() for fault in faults]
    summed = [f"{root}: {line}" for root, (_, each, _) in found.items() for line in each["faults"]]
    statistics["warnings"] = [*_repeated(manifests), *_warnings(found), *_unseen(statistics["splits"])]
    statistics["faults"] = summed or _one_to_learn(statistics["splits"])
    return manifest, statistics, faults or statistics["faults"]


def relabelled(root: str, found: Found, other: Found, split: str) -> Found:
    """A data set of one split and, as a further split, the same images with other labels.

    Args:
        root: of both.
        found, other: of the two labels, each of one split; of the same classes.
        split: what the second one is called.

    Returns:
        As of `join`; statistics are those of the first labels, but for `becomes`, which has both.
    """
    (manifest, statistics, faults), (second, second_statistics, second_faults) = found, other
    (rows,) = second["splits"].values()
    joined = {
        "version": 2,
        "sources": [_source(root, manifest), _source(root, {**second, "splits": {split: rows}})],
        "splits": {**manifest["splits"], split: rows},
    }
    becomes = {root: _becomes(manifest, statistics), f"{root}, {split}": _becomes(second, second_statistics)}
    only = [warning for warning in second_statistics["warnings"] if warning not in statistics["warnings"]]
    said = [*statistics["warnings"], *(f"{split}: {warning}" for warning in only)]
    faults = [*faults, *(f"{split}: {fault}" for fault in second_faults if fault not in faults)]
    first, other_lines = statistics["faults"], second_statistics["faults"]
    summed = [*first, *(f"{split}: {line}" for line in other_lines if line not in first)]
    return joined, {**statistics, "becomes": becomes, "warnings": said, "faults": summed}, faults


def _becomes(manifest: Mapping[str, Any], statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each native class of a source, and for ids that mean something without a name: id, name, colours where
    it is painted, pixels, and the class that it becomes, null where it is ignored."""
    space = ClassSpace.from_dict(manifest["classes"])
    table, native = space.table(), space.native or NativeClasses({})
    pixels: Counter[int] = Counter()
    for split in statistics["splits"].values():
        pixels.update({int(found): count for found, count in split["native_ids"].items()})
    names = {**native.names} | {found: "" for found in sorted(pixels.keys() - native.names) if table[found] >= 0}
    colours: dict[int, list[Sequence[int]]] = defaultdict(list)
    for colour, meant in (native.colours or {}).items():
        colours[meant].append(colour)
    return [
        {
            "id": found,
            "name": name,
            **({"colours": colours[found]} if native.are_painted else {}),
            "pixels": pixels[found],
            "becomes": None if table[found] == space.ignore_index else space.names[table[found]],
        }
        for found, name in names.items()
    ]


def _unseen(splits: Mapping[str, Any]) -> list[str]:
    unseen = {split: [row["name"] for row in found["classes"] if not row["images"]] for split, found in splits.items()}
    return [
        f"{len(names)} of {len(splits[split]['classes'])} classes never occur in {split}: {some(names)}"
        for split, names in unseen.items()
        if names
    ]


def _one_to_learn(splits: Mapping[str, Any]) -> list[str]:
    only = [row["name"] for row in splits["train"]["classes"] if row["images"]]
    one = f"the labels of train hold one class only ({', '.join(only)}): nothing can be learned from them"
    return [one] if len(only) == 1 else []


def _source(root: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    one = {key: manifest[key] for key in ("classes", "exif_orientation", "repeat") if key in manifest}
    return {"root": root, **one, "pairs": {split: len(rows) for split, rows in manifest["splits"].items()}}


def _joined(parts: Sequence[Rows]) -> Rows:
    rows = Rows()
    for part in parts:
        rows.extend(part)
    return rows


def _summed(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of a split over its sources."""
    sizes: Counter[str] = sum((Counter(part["sizes"]) for part in parts), Counter())
    return {
        **{key: sum(part[key] for part in parts) for key in ("images", "pixels", "ignored_pixels")},
        "sizes": dict(sorted(sizes.items())),
        "native_ids": {},
        "unknown_ids": {},
        "classes": [
            {**same[0], **{key: sum(each[key] for each in same) for key in ("pixels", "images")}}
            for same in zip(*(part["classes"] for part in parts), strict=True)
        ],
    }


def _repeated(manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Images that are there more than once, in one source or in several."""
    return repeated(
        {f"{split} of {root}": rows for root, m in manifests.items() for split, rows in m["splits"].items()}
    )


def _warnings(found: Mapping[str, Found]) -> list[str]:
    """Those of each source, without what `_repeated` says of all."""
    return [
        f"{root}: {warning}"
        for root, (manifest, statistics, _) in found.items()
        for warning in statistics["warnings"]
        if warning not in repeated(manifest["splits"])
    ]
