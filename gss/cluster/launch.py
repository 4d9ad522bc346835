"""`gss launch`: runs a verb in one or many processes under torchrun, and brings its exit code home."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from gss.cluster.exit import die_with, read_exit
from gss.cluster.lock import owner_lock

_FOLLOWER_SECONDS = 20
# glibc gives large blocks back to the kernel and gets them zeroed anew for every tensor: 40 % of a CPU training step.
_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def launch(nproc: int, command: Sequence[str], *, work: Path, cpus: int | None = None, gpus: int | None = None,
           follow: Sequence[str] | None = None, module: str = "gss") -> int:
    """Run `python -m <module> <command>` in `nproc` processes on this machine, and wait for their end.

    Only one launch at a time owns a work folder; a second one waits. SIGTERM and SIGINT are passed on once, as
    SIGTERM, so that the training stops in good order. If this process is killed, all its children are.

    Args:
        nproc: processes; one per GPU, or any number on the CPU.
        command: the verb with its arguments.
        work: the stage's work folder.
        cpus: cores the processes share; default: those this process may use.
        gpus: GPUs they may use; 0: none, even where there are some; default: all that are visible.
        follow: a command that runs beside the training, such as the follower that ships the journal; it is ended
            with the training, and how it fares does not matter.
        module: what the processes run.

    Returns:
        0 done, 1 a fault of ours, 2 the user can mend it, 75 interrupted in good order.

    Raises:
        GssError: the work folder cannot be written.
    """
    stop = _StopSignal()
    with stop.caught(), owner_lock(work, stopped=lambda: stop.received) as lock:
        if lock is None:
            print(f"stopped while waiting for {work}", flush=True)
            return 75
        (work / "exit.json").unlink(missing_ok=True)
        torchrun = [sys.executable, "-m", "gss.cluster.torchrun", "--standalone", f"--nproc-per-node={nproc}",
                    "-m", module, *command]
        with _beside(follow):
            status = stop.run(torchrun, _environment(nproc, cpus, gpus), keep_open=lock)
        code = _exit_code(work, status, stopped=stop.received)
    if code == 75:
        again = ["gss", "launch", "--nproc", str(nproc), "--work", str(work), "--", *command]
        print(f"to go on, run the same command again, or: {shlex.join(again)}", flush=True)
    return code


def _exit_code(work: Path, status: int, *, stopped: bool) -> int:
    """The code the workers left, else torchrun's; a stop before a worker could say anything is orderly, too."""
    left = read_exit(work)
    if left is not None and left["code"] == 75 and status not in (0, 75) and not stopped:
        (work / "exit.json").unlink()  # said by a process that torchrun stopped because another one had died
        return 1
    if left is not None:
        return left["code"]
    if stopped and status != 0:
        return 75
    return status if status in (0, 2, 75) else 1


def _environment(nproc: int, cpus: int | None, gpus: int | None) -> Mapping[str, str]:
    """This environment with the cores divided among the processes: Snakemake sets all of them for each."""
    threads = max(1, (cpus or len(os.sched_getaffinity(0))) // nproc)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if gpus == 0 else {}
    return {**_MALLOC, **os.environ, **dict.fromkeys(_THREADS, str(threads)), **hidden}


class _StopSignal:
    """SIGTERM or SIGINT: remembered, and passed on to the child once."""

    def __init__(self) -> None:
        self.received = False
        self._child: subprocess.Popen[bytes] | None = None
        self._passed_on = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Take the signals over inside."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, keep_open: int) -> int:
        """Run a command in a session of its own, so that a terminal's Ctrl-C reaches it only through us."""
        parent = os.getpid()
        self._child = subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[keep_open],
                                       preexec_fn=lambda: die_with(parent))
        self._pass_on()  # it may have come before there was a child
        return self._child.wait()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._pass_on()

    def _pass_on(self) -> None:
        if self.received and self._child is not None and not self._passed_on:
            self._passed_on = True
            self._child.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def _beside(command: Sequence[str] | None) -> Iterator[None]:
    """Run a command beside what happens inside; its end and its failure are its own affair."""
    parent = os.getpid()
    child = None
    if command is not None:
        try:
            child = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: die_with(parent))
        except OSError as error:
            print(f"cannot start {command[0]}: {error.strerror}; going on without it", flush=True)
    try:
        yield
    finally:
        if child is not None:
            child.terminate()
            try:
                child.wait(_FOLLOWER_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{shlex.join(command or ())} did not end within {_FOLLOWER_SECONDS} s; killed", flush=True)
                child.kill()
                child.wait()
