"""Waiting for loader processes: one that has ended, stands still or reads for ever is a clear error, not silence."""

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from gss.data.shared_memory import FEWER, REMEDY
from gss.errors import GssError

LOOK_SECONDS = 5  # how often a training that waits for its workers looks whether they live
NOTE_SECONDS, SILENCE_SECONDS = 60, 600  # so long they may deliver nothing until it is said, and until it is an error

Item = TypeVar("Item")


def start(batches: DataLoader) -> Iterator[Any]:
    """The items of a DataLoader; that a worker has ended is found out by who waits for it, and nowhere else."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        items = iter(batches)
    except OSError as error:
        raise GssError(f"loader processes cannot be started: {error.strerror}", todo=FEWER) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)  # torch's raises wherever the training happens to be
    return items


def next_item(items: Iterator[Item], watch: "Watch") -> Item | GssError:
    """The next micro-batch, or why there is none: returned, because a traceback of torch's keeps the workers alive."""
    watch.wait += 1
    try:
        while True:
            try:
                return next(items)
            except (RuntimeError, OSError, EOFError) as error:  # torch's and multiprocessing's, for everything
                if watch.verdict is not None:
                    return GssError(
                        watch.verdict,
                        todo="look whether the data set's disk or file server answers, then run the same command again",
                    )
                for worker in watch.workers:
                    if worker.exitcode is not None:
                        return _ended(worker)
                if re.search("open files|ancdata", str(error)):
                    what = "too many open files: loader processes hand over each batch as some"
                    return GssError(what, todo=f"raise the limit (ulimit -n), or {FEWER}")
                if not str(error).startswith("DataLoader timed out"):
                    raise
    finally:
        watch.wait += 1


class Watch(threading.Thread):
    """Says when the loader has delivered nothing for long, and at last ends its workers.

    That frees a training even from a stopped worker, whose half a message it may be reading. Looks are counted, not
    seconds: a job that was suspended as a whole has not waited.

    Args:
        workers: the loader's.

    Attributes:
        wait: counted up at the begin and at the end of each wait.
        verdict: why the workers were ended.
        over: set when the loader is.
    """

    def __init__(self, workers: Sequence[BaseProcess]) -> None:
        super().__init__(name="loader watch", daemon=True)
        self.workers, self.wait, self.over = workers, 0, threading.Event()
        self.verdict: str | None = None
        if workers:
            self.start()

    def run(self) -> None:
        """Look again and again."""
        seen = looks = 0
        while not self.over.wait(LOOK_SECONDS):
            looks = looks + 1 if self.wait == seen and seen % 2 else 0
            seen, silent = self.wait, looks * LOOK_SECONDS
            if silent >= SILENCE_SECONDS:
                self.verdict = f"the loader has delivered nothing for {silent} s: {_state(self.workers)}"
                for worker in self.workers:
                    worker.kill()
                return
            if silent == NOTE_SECONDS:
                print(f"waiting for the loader for {silent} s: {_state(self.workers)}", flush=True)


def _ended(worker: BaseProcess) -> GssError:
    """What to say of a worker that is no more."""
    code = worker.exitcode or 0
    if code == -signal.SIGBUS:
        return GssError(f"loader process {worker.pid} was ended by SIGBUS: shared memory ran out", todo=REMEDY)
    if code == -signal.SIGKILL:
        return GssError(
            f"loader process {worker.pid} was ended by SIGKILL, most often because memory ran out",
            todo=f"give the stage more memory (run.resources.STAGE.memory_mb, or the container's), or {FEWER}",
        )
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return GssError(
        f"loader process {worker.pid} ended with {how}; the lines above may say why",
        todo=f"run the same command again, or {FEWER}",
    )


def _state(workers: Sequence[BaseProcess]) -> str:
    """What the kernel says of each worker: its state, and the files it is reading."""
    return "; ".join(f"process {worker.pid} {_doing(Path(f'/proc/{worker.pid}'))}" for worker in workers)


def _doing(process: Path) -> str:
    try:
        state = re.search(r"State:\s+\w \((.+)\)", (process / "status").read_text())
        opened = [
            (process / "fd" / info.name).readlink()
            for info in (process / "fdinfo").iterdir()
            if re.search(r"^flags:\s+\d*[04]$", info.read_text(), re.MULTILINE)  # for reading only
        ]
    except OSError:
        return "is in an unknown state"
    files = [str(path) for path in opened if path.is_absolute() and path.parts[1] not in ("dev", "proc")]
    return f"is in state {state[1] if state else '?'!r}{', reading ' if files else ''}{', '.join(files)}"
