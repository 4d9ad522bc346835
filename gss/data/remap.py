"""Guesses which label convention a data set follows when its ids do not fit the class table."""

from collections.abc import Mapping

import numpy as np

from gss.data.classes import IGNORE, NATIVE_IDS, ClassSpace, Colour, format_ids

_MANY_IDS = 24  # more unknown ids than this are no convention but damage


def propose_remap(
    native_pixels: np.ndarray, space: ClassSpace, colours: Mapping[int, Colour] | None = None
) -> str | None:
    """One line that names the pattern and the option that mends it, or None when all ids are known.

    Args:
        native_pixels: int64 [65536], pixels of every native id over all splits.
        colours: RGB of classes, where they are known.
    """
    found = {int(native) for native in np.flatnonzero(native_pixels)}
    table = space.table()
    unknown = sorted(native for native in found if table[native] < 0)
    if not unknown:
        return None
    last = space.num_classes
    if classes := _by_brightness(found, colours or {}):
        return (
            "remap: the ids are the brightness of the classes' colours, as after a conversion to grey: write the "
            f"labels again from their source, or set label_map: {format_map(classes)}"
        )
    if len(unknown) > _MANY_IDS:
        return (
            f"remap: {len(unknown)} unknown ids ({format_ids(np.array(unknown))}) look like grey values or like "
            "masks that were resized smoothly or compressed with loss: write the labels again from their source"
        )
    if classes := _evenly_spread(found, space):
        return (
            f"remap: the ids are {space.num_classes} evenly spread grey values for {space.num_classes} classes: if "
            f"they are the classes in this order set label_map: {format_map(classes)}"
        )
    is_plain = last > 1 and not space.reduce_zero_label and not space.label_map
    if unknown == [last] and is_plain and (0 not in found or found >= {*range(last)}):
        if 0 not in found:
            return (
                f"remap: the ids are 1..{last} and {space.num_classes} classes are named, all shifted by one: "
                "set reduce_zero_label: true (0 becomes ignored, k becomes k-1)"
            )
        return (
            f"remap: ids 0..{last} are one more than the {last} classes: if {last} is void "
            f"({_share(native_pixels, last)}) set label_map: {format_map({last: space.ignore_index})}; if 0 is void "
            f"({_share(native_pixels, 0)}) set reduce_zero_label: true"
        )
    entries = format_map(dict.fromkeys(unknown, space.ignore_index))
    shares = ", ".join(f"{native} {_share(native_pixels, native)}" for native in unknown)
    if len(unknown) == 1 and space.num_classes == 2:  # a mask of one object, whatever value that has
        return (
            f"remap: if {shares} is {space.names[1]} set label_map: {format_map({unknown[0]: 1})}; "
            f"if it is void {entries}"
        )
    return (
        f"remap: if these ids are void ({shares}) add label_map: {entries}; "
        "else give each the number of its class there, or add the class to the table"
    )


def format_map(entries: Mapping[int, int]) -> str:
    """A `label_map` as it is written in an experiment: `{0: 0, 255: 1}`, of many classes `{1000: ignore}`."""
    said = {native: IGNORE if target == NATIVE_IDS - 1 else target for native, target in entries.items()}
    return "{" + ", ".join(f"{native}: {target}" for native, target in said.items()) + "}"


def _by_brightness(found: set[int], colours: Mapping[int, Colour]) -> dict[int, int] | None:
    """Class of each id, when all ids are the grey values of the colours of classes, each of one."""
    if not 2 <= len(found) <= 256:
        return None
    grey = {label: round(0.299 * r + 0.587 * g + 0.114 * b) for label, (r, g, b) in colours.items()}
    near = {native: [label for label, value in grey.items() if abs(value - native) <= 1] for native in found}
    if any(len(labels) != 1 for labels in near.values()):
        return None
    return {native: label for native, (label,) in sorted(near.items()) if native != label}


def _evenly_spread(found: set[int], space: ClassSpace) -> dict[int, int] | None:
    """Class of each id, when there are as many ids as classes, evenly spread from 0 on: 0, 127, 255."""
    for ids in (sorted(found), sorted(found - {space.ignore_index})):
        step = ids[-1] / max(1, len(ids) - 1)
        is_even = all(abs(native - step * label) <= 1 for label, native in enumerate(ids))
        if len(ids) == space.num_classes > 2 and step > 2 and is_even:
            return {native: label for label, native in enumerate(ids) if native != label}
    return None


def _share(native_pixels: np.ndarray, native: int) -> str:
    return f"{100 * native_pixels[native] / native_pixels.sum():.2f} % of the pixels"
