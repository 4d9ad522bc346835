"""Python's garbage collector, which need not look through imported packages."""

import atexit
import gc

FULL_PASSES = 100  # one after so many over the middle of three generations; Python: 10


def spare_modules() -> None:
    """Start and end this process sooner.

    torch and timm are half a million objects, of which none becomes garbage. Python goes through all of them six times
    while they are imported and once more in the end: two fifths of the CPU seconds (bench/step.md). Young objects are
    collected as always.
    """
    gc.set_threshold(*gc.get_threshold()[:2], FULL_PASSES)
    atexit.register(gc.freeze)
