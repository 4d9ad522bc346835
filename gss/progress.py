"""How far a long piece of work is: one line that rewrites itself on a terminal, plain lines in a log file."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

LINE_SECONDS, BAR_SECONDS = 5.0, 0.2  # between two lines, between two states of the bar
Item = TypeVar("Item")


class Progress:
    """Pieces done, speed and time left of work whose length is known.

    Args:
        title: first words of the line.
        total: number of pieces.
        unit: name of a piece, for the speed: `img` is shown as `12.3 img/s`.
        quiet: say nothing, as all but the main process of many do.
    """

    def __init__(self, title: str, total: int, unit: str, *, quiet: bool = False) -> None:
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self._is_terminal = sys.stdout.isatty()
        self._start = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        """Say that `done` pieces are done, when it is time to; always when all are."""
        now = time.monotonic()
        finished = done >= self.total
        wait = BAR_SECONDS if self._is_terminal else LINE_SECONDS
        if self.quiet or done == 0 or (not finished and now - self._shown < wait):
            return
        self._shown = now
        seconds = max(now - self._start, 1e-9)
        left = seconds / done * (self.total - done)
        moment = f"in {clock(seconds)}" if finished else f"ETA {clock(left)}"
        line = f"{self.title} {done}/{self.total}  {done / seconds:.1f} {self.unit}/s  {moment}"
        if self._is_terminal:
            print(f"\r{line}\x1b[K", end="\n" if finished else "", flush=True)
        else:
            print(line, flush=True)


def track(items: Iterable[Item], title: str, total: int, unit: str, *, quiet: bool = False) -> Iterator[Item]:
    """The items, one after the other; an item counts as done when the next one is asked for. See `Progress`."""
    progress = Progress(title, total, unit, quiet=quiet)
    for done, item in enumerate(items, 1):
        yield item
        progress.show(done)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as `1:02:03` or `2:03`; begun seconds count."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
