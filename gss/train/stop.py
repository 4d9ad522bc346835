"""The wish to stop, as the loop sees it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


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
