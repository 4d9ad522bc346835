"""When this process has to be done."""

import math
import os
import threading
import time
from collections.abc import Callable

from gss.cluster import slurm
from gss.errors import GssError

_REFRESH_SECONDS = 600.0  # administrators extend limits; asking costs the controller something


class Deadline:
    """The moment at which this process will be ended, asked for again from time to time without making anyone wait.

    Args:
        ask: gives the moment, epoch seconds, or inf; None when it cannot be known now.
    """

    def __init__(self, ask: Callable[[], float | None]) -> None:
        self._ask, self._end, self._due = ask, math.inf, 0.0
        self._refresh()

    @classmethod
    def of_this_job(cls) -> "Deadline":
        """The environment's GSS_DEADLINE (epoch seconds), else the end of this SLURM job, else none.

        Raises:
            GssError: GSS_DEADLINE is not a number.
        """
        given, job = os.environ.get("GSS_DEADLINE"), slurm.job_id()
        if given:
            try:
                end = float(given)
            except ValueError as error:
                raise GssError(
                    f"GSS_DEADLINE is {given!r}, not a number of seconds since 1970",
                    todo="unset it, or: export GSS_DEADLINE=$(date -d '2 hours' +%s)",
                ) from error
            return cls(lambda: end)
        return cls(lambda: math.inf if job is None else _end_of(job))

    def seconds_left(self) -> float:
        """Seconds until the moment, negative when it has passed; inf without a deadline."""
        if time.monotonic() > self._due:
            self._due = time.monotonic() + _REFRESH_SECONDS
            threading.Thread(target=self._refresh, name="deadline", daemon=True).start()
        return self._end - time.time()

    def _refresh(self) -> None:
        self._due = time.monotonic() + _REFRESH_SECONDS
        end = self._ask()
        if end is not None:
            self._end = end
        else:
            self._due = time.monotonic() + _REFRESH_SECONDS / 10


def _end_of(job: str) -> float | None:
    try:
        end = slurm.read_job(job).end
    except GssError as error:
        print(f"warning: the end of SLURM job {job} is not known: {error.what}", flush=True)
        return None
    return math.inf if end is None else end
