"""One writer per work folder."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.files import read_json, write_json

_POLL_SECONDS = 0.5


@contextlib.contextmanager
def owner_lock(work: Path, *, stopped: Callable[[], bool]) -> Iterator[int | None]:
    """Hold `work/lock`; wait while another process holds it, and say who.

    The kernel frees the lock when its holders die, however they die. `owner.json` beside it is for people.

    Args:
        stopped: asked while waiting; True gives up.

    Yields:
        The descriptor of the lock, for a child that shall hold it too; None after giving up.

    Raises:
        GssError: the work folder cannot be written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(work / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise GssError(f"cannot use the work folder: {error.strerror}", where=work,
                       todo="make it writable, or choose another results folder") from error
    try:
        if not _wait(descriptor, work, stopped):
            yield None
            return
        write_json(work / "owner.json", {"host": socket.gethostname(), "pid": os.getpid(),
                                         "job": os.environ.get("SLURM_JOB_ID"), "started": _now()})
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(descriptor: int, work: Path, stopped: Callable[[], bool]) -> bool:
    """Whether the lock was got."""
    said = False
    while not stopped():
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if not said:
            print(f"{work} is in use by {_owner(work)}; waiting for its end", flush=True)
            said = True
        time.sleep(_POLL_SECONDS)
    return False


def _owner(work: Path) -> str:
    """Who holds the lock, in words."""
    owner: dict[str, Any] = {}
    with contextlib.suppress(GssError):
        owner = read_json(work / "owner.json")
    job = f", SLURM job {owner['job']}" if owner.get("job") else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{job}, started {owner.get('started', '?')}"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
