"""When to save and when to stop, besides the steps planned for it: by the clock, the deadline, a signal."""

import contextlib
import enum
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import ClassVar

from gss.cluster.deadline import Deadline
from gss.train.settings import LoopSettings


class Wish(enum.IntEnum):
    """What a process wants at the end of a step; the largest wish of all processes is done."""

    GO_ON = 0
    SAVE = 1
    STOP_FOR_DEADLINE = 2
    STOP_FOR_SIGNAL = 3


class Clock:
    """Time as the main process sees it, which alone decides by it.

    Args:
        settings: of the loop; `save_minutes` and `deadline_margin`.

    Attributes:
        any_step_done: whether any training of this process has made a step.
    """

    any_step_done: ClassVar[bool] = False

    def __init__(self, settings: LoopSettings) -> None:
        self._settings, self._deadline = settings, Deadline.of_this_job()
        self._saved = time.monotonic()
        self._last_step: float | None = None
        self._longest_step = 0.0

    def step_done(self, longest_save: float) -> Wish:
        """Note the end of a step, and say what the time asks for.

        Args:
            longest_save: seconds that a checkpoint took so far, from its begin to the file on the disk.
        """
        now = time.monotonic()
        if self._last_step is not None:  # the first one contains the loader's start
            self._longest_step = max(self._longest_step, now - self._last_step)
        self._last_step, Clock.any_step_done = now, True
        if self.short_of_time(longest_save) is not None:
            return Wish.STOP_FOR_DEADLINE
        return Wish.SAVE if now - self._saved >= 60 * self._settings.save_minutes else Wish.GO_ON

    def saved(self) -> None:
        """Note that a checkpoint was begun."""
        self._saved = time.monotonic()

    def paused(self) -> None:
        """Note that the time since the last step was not that of the next one."""
        self._last_step = None

    def short_of_time(self, longest_save: float) -> float | None:
        """Seconds left before the deadline, when they are too few for another step and an end in good order."""
        margin = max(self._settings.deadline_margin, 3 * longest_save + 2 * self._longest_step)
        left = self._deadline.seconds_left()
        return left if left < margin else None


class StopSignal:
    """Remembers the first SIGTERM or SIGINT; the loop looks at `name` between two steps.

    A handler that did more would meet the second signal, which torchrun sends, in the middle of saving.
    """

    name: str | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator["StopSignal"]:
        """Take the signals over inside; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name
