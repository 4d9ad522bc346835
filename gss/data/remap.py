"""Guesses which label convention a data set follows when its ids do not fit the class table."""

import numpy as np

from gss.data.classes import IGNORE_INDEX, ClassSpace, format_ids

_MANY_IDS = 24  # more unknown ids than this are no convention but damage


def propose_remap(native_pixels: np.ndarray, space: ClassSpace) -> str | None:
    """One line that names the pattern and the option that mends it, or None when the ids fit.

    Args:
        native_pixels: int64 [256], pixels of every native id over all splits.
    """
    found = {int(native) for native in np.flatnonzero(native_pixels)}
    unknown = sorted(native for native in found if space.table()[native] < 0)
    if not unknown:
        return _binary_mask(found, space)
    last = space.num_classes
    if len(unknown) > _MANY_IDS:
        return (
            f"remap: {len(unknown)} unknown ids ({format_ids(np.array(unknown))}) look like grey values or like "
            "masks that were resized smoothly or compressed with loss: write the labels again from their source"
        )
    if unknown == [last] and not space.reduce_zero_label and not space.label_map:
        if 0 not in found:
            return (
                f"remap: the ids are 1..{last} and {space.num_classes} classes are named, all shifted by one: "
                "set reduce_zero_label: true (0 becomes ignored, k becomes k-1)"
            )
        return (
            f"remap: ids 0..{last} are one more than the {last} classes: if {last} is void "
            f"({_share(native_pixels, last)}) set label_map: {{{last}: {IGNORE_INDEX}}}; if 0 is void "
            f"({_share(native_pixels, 0)}) set reduce_zero_label: true"
        )
    entries = ", ".join(f"{native}: {IGNORE_INDEX}" for native in unknown)
    shares = ", ".join(f"{native} {_share(native_pixels, native)}" for native in unknown)
    return (
        f"remap: if these ids are void ({shares}) add label_map: {{{entries}}}; "
        "else give each the number of its class there, or add the class to the table"
    )


def _binary_mask(found: set[int], space: ClassSpace) -> str | None:
    is_binary = found == {0, IGNORE_INDEX} and space.num_classes > 1 and IGNORE_INDEX not in space.label_map
    if not is_binary:
        return None
    return (
        "remap: all labels hold only 0 and 255, like a binary mask, but 255 means ignored: if 255 is class 1 "
        f"({space.names[1]}) set label_map: {{0: 0, {IGNORE_INDEX}: 1}}"
    )


def _share(native_pixels: np.ndarray, native: int) -> str:
    return f"{100 * native_pixels[native] / native_pixels.sum():.2f} % of the pixels"
