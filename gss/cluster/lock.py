"""One writer per work folder, also on file systems where flock does not reach other hosts.

A lock file is held by flock, which the kernel lets go however the holder dies. It names its holder, who touches it
every `HEARTBEAT_SECONDS`. Where flock is refused, or where the file names a holder on another host although flock was
granted (some mounts keep flock to one host), the newcomer waits until SLURM has forgotten the holder's job or, where
SLURM cannot say, until the file has not been touched during three heartbeats of waiting.
Times of different clocks are never compared.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gss.cluster import slurm
from gss.errors import GssError

HEARTBEAT_SECONDS = 30.0
_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 5.0  # without flock: two newcomers see each other's name within this time
_Owner = dict[str, Any]


@contextlib.contextmanager
def owner_lock(work: Path, *, stopped: Callable[[], bool]) -> Iterator[int | None]:
    """Hold `work/lock`, the launcher's; wait while another process holds it, and say who.

    Args:
        stopped: asked while waiting; True gives up.

    Yields:
        The descriptor of the lock, for a child that shall hold it too; None after giving up.

    Raises:
        GssError: the work folder cannot be written.
    """
    with _held(work / "lock", stopped) as descriptor:
        yield descriptor


@contextlib.contextmanager
def writer_lock(work: Path) -> Iterator[None]:
    """Hold `work/writer.lock`, that of the process that writes; both ends are noted in `work/owners.jsonl`.

    A writer may outlive its launcher: whoever comes next waits here.

    Raises:
        GssError: the work folder cannot be written.
    """
    with _held(work / "writer.lock", lambda: False):
        _note(work, "taken")
        try:
            yield
        finally:
            _note(work, "released")


def wait_for_writer(work: Path, *, stopped: Callable[[], bool]) -> bool:
    """Wait until nobody holds `work/writer.lock`, and forget who did; False after giving up as `stopped` said so."""
    with _opened(work / "writer.lock") as descriptor:
        if _wait(work / "writer.lock", descriptor, stopped) is None:
            return False
        os.ftruncate(descriptor, 0)  # the next writer need not watch the same dead one again
        return True


def is_held(work: Path) -> bool:
    """Whether a process works in this folder, by the names in its locks; nothing is written and nobody is held up.

    One of another host has to have touched its lock during the last three heartbeats, by the clocks of both.
    """
    for path in (work / "writer.lock", work / "lock"):
        owner, touched = _owner(path), _touched(path)
        if owner is not None and touched is not None:
            is_here = owner["host"] == _host()
            if (
                Path("/proc", str(owner["pid"])).exists()
                if is_here
                else time.time() - touched / 1e9 < 3 * HEARTBEAT_SECONDS
            ):
                return True
    return False


@contextlib.contextmanager
def _held(path: Path, stopped: Callable[[], bool]) -> Iterator[int | None]:
    """A lock file held inside; None inside after giving up."""
    owner, done = _this_process(), threading.Event()
    with _opened(path) as descriptor:
        while True:
            flocked = _wait(path, descriptor, stopped)
            if flocked is None:
                yield None
                return
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
            if flocked:
                break
            time.sleep(_SETTLE_SECONDS)
            if _owner(path) == owner:
                break
        heart = threading.Thread(target=_beat, args=(path, owner, done), name="heartbeat", daemon=True)
        heart.start()
        try:
            yield descriptor
        finally:
            done.set()
            heart.join()
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough while forked processes have it, too


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise GssError(
            f"cannot use the work folder: {error.strerror}",
            where=path.parent,
            todo="make it writable, or choose another results folder",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(path: Path, descriptor: int, stopped: Callable[[], bool]) -> bool | None:
    """Wait until the lock may be taken: whether flock holds it now, or None after giving up."""
    watch, said, began = _Watch(), False, time.monotonic()
    while True:
        flocked = _flock(descriptor)
        owner = _owner(path)
        if flocked is not False:
            near = flocked and owner is not None and owner["host"] == _host()
            if owner is None or near or watch.gone(path, owner):
                return bool(flocked)
        if not said and (owner is not None or time.monotonic() - began > 2):  # it may be writing its name just now
            doubt = (
                ""
                if flocked is False
                else (f"; flock cannot tell whether it lives, so this may take {3 * HEARTBEAT_SECONDS:.0f} s")
            )
            print(f"{path.parent} is in use by {_words(owner)}; waiting for its end{doubt}", flush=True)
            said = True
        if stopped():
            return None
        time.sleep(_POLL_SECONDS)


def _flock(descriptor: int) -> bool | None:
    """Whether flock was granted; None where the file system has no flock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOLCK, EOPNOTSUPP, ENOSYS: what network file systems say instead
        return None
    return True


class _Watch:
    """Finds out whether the owner that a file names is gone, without flock's help."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = self._ask = 0.0
        self._listed: bool | None = None

    def gone(self, path: Path, owner: _Owner) -> bool:
        """Whether SLURM has forgotten the owner's job or, where it cannot say, three heartbeats of ours saw none."""
        now, seen = time.monotonic(), (owner, _touched(path))
        if seen != self._seen:
            self._seen, self._since = seen, now
        mine = _this_process()
        foreign = owner["job"] and owner["job"] != mine["job"] and owner["cluster"] == mine["cluster"]
        if foreign and now >= self._ask:
            self._ask, self._listed = now + HEARTBEAT_SECONDS, slurm.is_listed(owner["job"])
        if foreign and self._listed is not None:
            return not self._listed  # a suspended job has no heartbeat either, and may wake up
        return now - self._since > 3 * HEARTBEAT_SECONDS


def _beat(path: Path, owner: _Owner, done: threading.Event) -> None:
    """Touch the file again and again; die when another one has taken it over (after a pause of this whole host)."""
    while not done.wait(HEARTBEAT_SECONDS):
        now = _owner(path)
        if now is not None and now != owner:
            print(f"error: {path} was taken over by {_words(now)}; this process must not write any more", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.utime(path)


def _touched(path: Path) -> int | None:
    """Time of the last change, nanoseconds; the file is opened because network file systems look anew only then."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return None


def _owner(path: Path) -> _Owner | None:
    """Whom a lock file names; None when it was left in good order, or is just being written."""
    with contextlib.suppress(OSError, ValueError):
        owner = json.loads(path.read_text(encoding="utf-8"))
        return owner if isinstance(owner, dict) and owner.keys() == _this_process().keys() else None
    return None


def _this_process() -> _Owner:
    return {
        "host": _host(),
        "pid": os.getpid(),
        "job": slurm.job_id(),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
        "since": _now(),
        "name": uuid.uuid4().hex,
    }


def _note(work: Path, event: str) -> None:
    """One line more in `owners.jsonl`."""
    me = _this_process()
    line = {"t": _now(), "event": event, **{key: me[key] for key in ("host", "pid", "job", "restarts")}}
    with contextlib.suppress(OSError), (work / "owners.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")  # a full disk must not end a training for this


def _words(owner: _Owner | None) -> str:
    if owner is None:
        return "an unnamed process"
    job = f", SLURM job {owner['job']}" if owner["job"] else ""
    return f"process {owner['pid']} on {owner['host']}{job}, since {owner['since']}"


def _host() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()  # a node's name in SLURM may be another


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
