"""Compares the photographs of a data set: what is said once for many, and what no single file shows."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from gss.data.cases import Cases, together
from gss.data.images import NEARLY_BLACK, ImageFacts, Orientation


@dataclass
class SplitImages:
    """What the photographs of a split are like.

    Attributes:
        files: number of photographs.
        oriented: those whose EXIF orientation is not upright, by its number.
        several: those with several pages or frames.
        dark: those without a value of `NEARLY_BLACK`, but not black.
        deep: those of 16 bits.
        brightest: largest value of all, 0..255.
        bits: that the values of those of 16 bits fill.
        more: those with channels that are not read.
        damaged: JPEGs of whose damaged data the decoder made something.
        fits: labels of those turned by a quarter that have the size of the picture as turned (apply) or as stored.
    """

    files: int = 0
    oriented: dict[int, Cases] = field(default_factory=lambda: defaultdict(Cases))
    several: Cases = field(default_factory=Cases)
    dark: Cases = field(default_factory=Cases)
    deep: Cases = field(default_factory=Cases)
    brightest: int = 0
    bits: int = 0
    more: Cases = field(default_factory=Cases)
    damaged: Cases = field(default_factory=Cases)
    fits: dict[Orientation, int] = field(default_factory=lambda: {"apply": 0, "stored": 0})

    def add(self, name: str, facts: ImageFacts) -> None:
        """Count one photograph."""
        self.files += 1
        self.brightest = max(self.brightest, facts.brightest)
        if facts.orientation != 1:
            self.oriented[facts.orientation].add(name)
        if facts.pictures > 1:
            self.several.add(name)
        if 0 < facts.brightest < NEARLY_BLACK:
            self.dark.add(name)
        if facts.bits > 0:
            self.deep.add(name)
            self.bits = max(self.bits, facts.bits)
        if facts.others:
            self.more.add(name)
        if facts.damage:
            self.damaged.add(name)


def judge(splits: Mapping[str, SplitImages], orientation: Orientation | None) -> tuple[list[str], list[str]]:
    """Faults and warnings, a line each.

    Args:
        orientation: what the configuration says of EXIF orientations.
    """
    faults, warnings = _orientations(splits, orientation)
    deep, bits = together(found.deep for found in splits.values()), max(found.bits for found in splits.values())
    too_deep = bool(deep) and bits <= 14
    if too_deep:
        faults.append(
            f"photographs of 16 bits whose values fill only {bits} (0..{2**bits - 1}): {deep}. The upper 8 of 16 bits "
            f"are read, here 0..{2**bits - 1 >> 8}: save them with 8 bits per channel, all multiplied by the same "
            f"factor, {255 / (2**bits - 1):.4g}"
        )
    for split, found in splits.items():
        if found.several:
            warnings.append(f"photographs of {split} with several pages or frames, the first is read: {found.several}")
        if found.more:
            warnings.append(
                f"photographs of {split} with a channel beside the colours that is not read, such as transparency or "
                f"infrared: {found.more}; colours beneath transparency are read as they are stored"
            )
        if found.damaged:
            warnings.append(
                f"photographs of {split} that are damaged JPEGs, parts of which may be grey or of other colours: "
                f"{found.damaged}; look at them, and replace them"
            )
        if too_deep or not found.files:
            continue
        if found.brightest < NEARLY_BLACK:
            faults.append(
                f"the photographs of {split} are nearly black, no value is above {found.brightest} of 255: are they "
                "scaled to 0..255, and is this not a folder of labels?"
            )
        elif found.dark:
            warnings.append(f"photographs of {split} without a value of {NEARLY_BLACK} of 255: {found.dark}")
    return faults, warnings


def _orientations(splits: Mapping[str, SplitImages], orientation: Orientation | None) -> tuple[list[str], list[str]]:
    by_number: dict[int, Cases] = defaultdict(Cases)
    for found in splits.values():
        for number, cases in found.oriented.items():
            by_number[number] = together((by_number[number], cases))
    oriented, files = together(by_number.values()), sum(found.files for found in splits.values())
    if not oriented:
        return [], []
    numbers = ", ".join(f"{cases.count} of number {number}" for number, cases in sorted(by_number.items()))
    carry = f"{oriented.count} of {files} photographs carry an EXIF orientation ({numbers}), e.g. {oriented.example}"
    if orientation is not None:
        done = "turned by it" if orientation == "apply" else "read as stored"
        return [], [f"{carry}; they are {done}, see data.exif_orientation"]
    apply, stored = (sum(found.fits[way] for found in splits.values()) for way in ("apply", "stored"))
    sizes = f". By size {apply} labels follow the turned picture, {stored} the stored one" if apply + stored else ""
    return [
        f"{carry}: viewers turn them, tools for labels do or do not. Look at one, and set data.exif_orientation: apply "
        f"where the labels follow the picture as viewers show it, stored where they follow its pixels as stored{sizes}"
    ], []
