"""One life of a training: begun, watched, and ended by SIGKILL where its doom says."""

import atexit
import contextlib
import ctypes
import json
import math
import mmap
import os
import re
import signal
import subprocess
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subjects import StormError, Subject

PLACES = ("start-up", "training", "journal", "write", "fsync", "rename")  # the order is that of a byte below
LIFE_SECONDS = 900  # no life lasts longer


@dataclass(frozen=True)
class Doom:
    """How a life shall end: after some seconds by the parent's hand, or at the n-th call in a place by its own."""

    seconds: float | None = None
    trained: bool = False  # the seconds begin with the first step
    place: str | None = None
    call: int = 0
    part: float = 0.5  # of the bytes that are written before; the call itself is made when it is above one half

    def is_due(self, age: float, start: float) -> bool:
        """Whether the parent has to kill a life of this age, which began to train at `start`, inf: not yet."""
        return self.seconds is not None and age - (start if self.trained else 0) >= self.seconds


@dataclass
class Life:
    """What one life came to."""

    code: int
    place: str
    first: int | None  # step it began with
    last: int | None  # last step it finished
    out: str
    start: float  # seconds until it began to train; inf: it never did


class Watched:
    """In the child: notes where each thread is, for the parent to see, and keeps an appointment with death."""

    def __init__(self, seen: mmap.mmap, doom: Doom) -> None:
        self._seen, self._doom = seen, doom
        self._calls: Counter[str] = Counter()

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[bool]:
        """Be at a place; gives whether this is the end. If nobody acts on it before, it comes after the call."""
        thread = int(threading.current_thread() is not threading.main_thread())
        before = self._seen[thread]
        self._seen[thread] = PLACES.index(place)
        self._calls[place] += 1
        dies = place == self._doom.place and self._calls[place] == self._doom.call
        if dies and place in ("fsync", "rename") and self._doom.part < 0.5:
            self.die()
        yield dies
        if dies:
            self.die()
        self._seen[thread] = before

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def some(self, content: Any) -> Any:
        """The bytes that are written before death."""
        content = memoryview(content).cast("B")
        return content[: int(len(content) * self._doom.part)]

    def install(self) -> None:
        """Look over the shoulder of what writes files, of the journal, and of the training."""
        import gss.train.loop as loop
        from gss.results.journal import Journal

        fsync, replace, opened, append, seed = os.fsync, os.replace, Path.open, Journal._append, loop.seed_step
        watched = self

        class File:
            def __init__(self, file: Any) -> None:
                self._file = file

            def __getattr__(self, name: str) -> Any:
                return getattr(self._file, name)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                self._file.close()

            def write(self, content: Any) -> int:
                with watched.at("write") as dies:
                    self._file.write(watched.some(content) if dies else content)
                    if dies:
                        self._file.flush()
                return len(content)

        def watched_open(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
            file = opened(path, mode, *arguments, **keywords)
            return File(file) if mode == "xb" else file

        def journal_append(journal: Journal, event: Any) -> None:
            with watched.at("journal") as dies:
                if dies:
                    line = (json.dumps(event, default=str) + "\n").encode()
                    journal._file.write(watched.some(line))
                    journal._file.flush()
                else:
                    append(journal, event)

        def first_step(*arguments: Any) -> None:
            watched._seen[0] = PLACES.index("training")
            seed(*arguments)

        def watched_call(place: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any, **keywords: Any) -> Any:
                with watched.at(place):
                    return call(*arguments, **keywords)

            return made

        atexit.register(lambda: print("calls", json.dumps(watched._calls), flush=True))
        os.fsync, os.replace = watched_call("fsync", fsync), watched_call("rename", replace)
        Path.open = watched_open  # type: ignore[method-assign,assignment]
        Journal._append, loop.seed_step = journal_append, first_step  # type: ignore[method-assign]


def forked_life(subject: Subject, folder: Path, doom: Doom) -> Life:
    """Train in a child until its end, one way or the other."""
    seen = mmap.mmap(-1, 2)
    log = folder.with_suffix(".log")
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with the parent
        if os.getppid() != parent:
            os._exit(1)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        Watched(seen, doom).install()
        try:
            code = subject.live(folder)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]  # an interpreter's end, without the parent's open frames
        atexit._run_exitfuncs()
        os._exit(code)
    began, start, killed = time.monotonic(), math.inf, False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        age = time.monotonic() - began
        if age > LIFE_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise StormError(f"a life of more than {LIFE_SECONDS} s\n{log.read_text(errors='replace')[-3000:]}")
        if seen[0] == PLACES.index("training") and start == math.inf:
            start = age
        if doom.is_due(age, start) and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.002)
    place = PLACES[seen[1]] if seen[1] else PLACES[seen[0]]
    return _life(os.waitstatus_to_exitcode(status), place, log, start)


def _life(code: int, place: str, log: Path, start: float) -> Life:
    out = log.read_text(errors="replace")
    began = re.search(r"resumed from step (\d+)|(fresh start)", out)
    steps = re.findall(r"^step (\d+)/", out, flags=re.MULTILINE)
    first = None if began is None else int(began[1] or 0)
    return Life(code, place, first, int(steps[-1]) if steps else first, out, start)


def launched_life(subject: Subject, folder: Path, doom: Doom) -> Life:
    """Train under `gss launch` with two processes, and kill one of the four."""
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        launcher = subprocess.Popen(subject.launch(folder), cwd=subject.project, stdout=output, stderr=output)
    began, start, killed, family = time.monotonic(), math.inf, False, {"launcher": launcher.pid}
    while launcher.poll() is None:
        time.sleep(0.02)
        age = time.monotonic() - began
        if age > LIFE_SECONDS:
            launcher.kill()
            raise StormError(f"a life of more than {LIFE_SECONDS} s\n{log.read_text()[-3000:]}")
        if start == math.inf and "\nstep " in log.read_text(errors="replace"):
            start = age
        if doom.is_due(age, start) and not killed:
            family |= _family(launcher.pid)
            if doom.place in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(family[doom.place], signal.SIGKILL)
                    killed = True
    for pid in family.values():  # the orphans of a killed parent end by themselves
        while _alive(pid):
            if time.monotonic() - began > LIFE_SECONDS:
                raise StormError(f"process {pid} lives on")
            time.sleep(0.02)
    code = launcher.returncode
    if killed and code == 0:
        raise StormError(f"{doom.place} was killed, and the launch says 0")
    return _life(-signal.SIGKILL if killed else code, "start-up" if start == math.inf else "training", log, start)


def _family(launcher: int) -> dict[str, int]:
    """Pids of torchrun and of its workers."""
    found: dict[str, int] = {}
    for torchrun in _children(launcher):
        if b"gss.cluster.torchrun" in _proc(torchrun, "cmdline"):
            found["torchrun"] = torchrun
            for worker in _children(torchrun):
                if rank := re.search(rb"\0RANK=(\d)", _proc(worker, "environ")):
                    found[f"worker {int(rank[1])}"] = worker
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _read(task).split()]


def _proc(pid: int, name: str) -> bytes:
    return _read(Path(f"/proc/{pid}/{name}"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    return _proc(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])
