"""How a process that torchrun started ends: with its launcher, and with a reason that reaches the caller."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from gss.errors import GssError, Interrupted, OutputClosed

TORCHRUN_PID = "GSS_TORCHRUN_PID"
LAUNCHED_IN = "GSS_LAUNCHED_IN"  # the work folder of the launcher, which a verb of several stages ends in, too
_PR_SET_PDEATHSIG = 1


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies, however the parent dies (Linux; else nothing).

    torchrun's workers and our torchrun have sessions of their own: no signal to a group reaches them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), number)


def die_with_torchrun() -> None:
    """Be killed when the torchrun that started this process dies; nothing outside torchrun."""
    if TORCHRUN_PID in os.environ:
        die_with(int(os.environ[TORCHRUN_PID]))


def write_exit(work: Path, code: int, reason: str, *, step: int | None = None, deadline: bool = False) -> bool:
    """Leave `exit.json` for the launcher, unless another process of this job already did; success leaves none.

    Args:
        deadline: the job's time was nearly over: it should go on in a new one.

    Returns:
        Whether this process was the first; the first knows the cause, the others only suffer from it.
    """
    path = work / "exit.json"
    record = {
        "code": code,
        "reason": reason,
        "step": step,
        "rank": int(os.environ.get("RANK", 0)),
        "deadline": deadline,
    }
    with contextlib.suppress(OSError):
        work.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(record))  # at once: nobody is killed in the middle of it
    except FileExistsError:
        return False
    except OSError:  # the disk may be what failed; the exit code travels through torchrun, too
        with contextlib.suppress(OSError):
            path.unlink()
    return True


def read_exit(work: Path) -> dict[str, Any] | None:
    """What `write_exit` left, if anything."""
    try:
        return json.loads((work / "exit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def worker_exit(work: Path) -> Iterator[None]:
    """Around what a worker does: turns its end into `exit.json`, one message and the exit code.

    SIGTERM and SIGINT raise `Interrupted`, except where the training loop has taken them over.

    Raises:
        SystemExit: with the exit code of a `GssError` or of `Interrupted`, 1 after any other exception.
    """
    die_with_torchrun()
    work = Path(os.environ.get(LAUNCHED_IN, work))
    if TORCHRUN_PID not in os.environ:
        with contextlib.suppress(OSError):
            (work / "exit.json").unlink()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _raise_interrupted)
    try:
        yield
    except Interrupted as stop:
        leave(work, stop.exit_code, str(stop), step=stop.step, deadline=stop.deadline)
    except OutputClosed as closed:
        leave(work, closed.exit_code, "")
    except GssError as error:
        leave(work, error.exit_code, f"error: {error}")
    except Exception:
        leave(work, 1, traceback.format_exc())


def leave(work: Path, code: int, reason: str, *, step: int | None = None, deadline: bool = False) -> NoReturn:
    """End this process; the first process of a job that does so also tells why."""
    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun sends them again while we write
        signal.signal(number, signal.SIG_IGN)
    if write_exit(work, code, reason, step=step, deadline=deadline) and reason:
        with contextlib.suppress(GssError):  # nobody reads it
            print(reason, file=sys.stderr, flush=True)
    raise SystemExit(code)


def _raise_interrupted(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command starts it again", step=0)
