"""`gss launch`: runs a verb in one or many processes on one or many nodes, and brings its exit code home."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from gss.cluster import slurm
from gss.cluster.deadline import Deadline
from gss.cluster.exit import die_with, read_exit
from gss.cluster.lock import owner_lock, wait_for_writer
from gss.errors import GssError, OutputClosed

_SPARE_SECONDS = 60  # before the end of the job, for those who have waited for another one in vain
# What the processes of a stage start with, unless the environment says otherwise; measured in bench/step.md.
_FASTER = {
    # glibc gives large blocks back to the kernel and gets them zeroed anew for every tensor: 40 % of a CPU step.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    # A thread of OpenMP that waits for the others keeps its core busy for milliseconds, also where another program
    # could use it. So much less costs one alone nothing.
    "GOMP_SPINCOUNT": "10000",
}
# What describes the step this process runs in would be taken for wishes by the next srun.
_STEP_VARIABLES = ("SLURM_", "SRUN_", "SBATCH_", "PMI")
_JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_CONF")


def launch(
    nproc: int | None,
    command: Sequence[str],
    *,
    work: Path,
    nodes: int = 1,
    cpus: int | None = None,
    gpus: int | None = None,
    divided: int | None = None,
    log: Path | None = None,
    module: str = "gss",
) -> int:
    """Run `python -m <module> <command>` in `nodes` x `nproc` processes, and wait for their end.

    In a SLURM job they run on its nodes, otherwise all on this machine. Where there are GPUs each process has one of
    its own, and there are as many processes as that allows (`gss.cluster.gpus.share`).

    Only one launch at a time owns a work folder; a second one waits. SIGTERM and SIGINT are passed on once, as SIGTERM,
    so that the training stops in good order. If this process is killed, all its children are. A training that stopped
    because the time of its SLURM job was nearly over is put back into the queue under the same job number.

    Args:
        nproc: processes per node; None: one per GPU, without GPUs one.
        command: the verb with its arguments.
        work: the stage's work folder.
        nodes: nodes of the SLURM job to use.
        cpus: cores the processes of a node share; default: those of the job, or those this process may use.
        gpus: GPUs per node; 0: none, even where there are some; None: all that are there and, in a SLURM job, granted.
        divided: what the processes divide evenly among them, a batch; None: any number of processes will do.
        log: the file that is appended to, for the command that is printed when it stops early.
        module: what the processes run.

    Returns:
        0 done, 1 a fault of ours, 2 the user can mend it, 75 interrupted in good order.

    Raises:
        GssError: the work folder cannot be written; SLURM's commands fail; the SLURM job has fewer nodes.
    """
    number = slurm.job_id()
    job = slurm.read_job(number) if number else None
    stop, deadline = _StopSignal(), Deadline.of_this_job()

    def give_up() -> bool:
        return stop.received or deadline.seconds_left() < _SPARE_SECONDS

    with stop.caught():
        with owner_lock(work, stopped=give_up) as lock:
            if lock is None or not wait_for_writer(work, stopped=give_up):
                why = "stopped" if stop.received else "the time of this job ended"
                print(f"{why} while waiting for {work}", flush=True)
                return 75
            (work / "exit.json").unlink(missing_ok=True)
            if job is None:
                cores = cpus or len(os.sched_getaffinity(0))
                here = {name: count and nodes * count for name, count in (("nproc", nproc), ("gpus", gpus))}
                start = _torchrun(work, module, command, **here, cpus=cores, divided=divided)
            else:
                cores = cpus or job.cpus
                torchrun = _torchrun(work, module, command, nproc=nproc, gpus=gpus, cpus=cores, divided=divided)
                start = _srun(job, nodes, cores, gpus, torchrun)
            status = stop.run(start, _environment(job), keep_open=lock)
            left = read_exit(work)
        code = _exit_code(left, status, stopped=stop.received)
        if code == 75:
            if left is not None and left["deadline"] and job is not None and not stop.received:
                _requeue(job.id)
            options = {
                "nodes": nodes,
                "nproc": nproc,
                "gpus": gpus,
                "cpus": cpus,
                "divided": divided,
                "work": work,
                "log": log,
            }
            words = [str(word) for name, value in options.items() if value is not None for word in (f"--{name}", value)]
            again = ["gss", "launch", *words, "--", *command]
            print(f"to go on, run the same command again, or: {shlex.join(again)}", flush=True)
    return code


def _torchrun(work: Path, module: str, command: Sequence[str], **options: int | None) -> list[str]:
    """The processes of one node."""
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [sys.executable, "-m", "gss.cluster.torchrun", str(work), *given, "--", module, *command]


def _srun(job: slurm.Job, nodes: int, cpus: int, gpus: int | None, torchrun: list[str]) -> list[str]:
    """torchrun on each node, in a step of its own: signals of SLURM reach only the direct children of its daemon.

    The step overlaps the one this process may run in, which holds all cores and would have to end first.
    """
    if nodes > len(job.hosts):
        raise GssError(
            f"{nodes} nodes are wanted, SLURM job {job.id} has {len(job.hosts)}",
            where="gss launch --nodes",
            todo=f"submit the job with --nodes={nodes}, or unset SLURM_JOB_ID to use this machine alone",
        )
    step = [
        "srun",
        "--overlap",
        f"--jobid={job.id}",
        f"--nodes={nodes}",
        f"--nodelist={','.join(job.hosts[:nodes])}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cpus}",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        "--mpi=none",
        "--kill-on-bad-exit=1",
        "--quiet",
    ]
    if nodes == 1:
        return [*step, *torchrun]
    # The same on all nodes without talking; below the ports that outgoing connections get.
    port = 20000 + zlib.crc32(" ".join([job.id, *torchrun]).encode()) % 12000
    meeting = [f"--nodes={nodes}", f"--address={slurm.address(job.hosts[0])}", f"--port={port}"]
    return [*step, *torchrun[:3], *meeting, *torchrun[3:]]


def _environment(job: slurm.Job | None) -> Mapping[str, str]:
    """This environment, for the processes of a stage."""
    kept = dict(os.environ)
    if job is not None:
        kept = {
            name: value
            for name, value in kept.items()
            if name in _JOB_VARIABLES or not name.startswith(_STEP_VARIABLES)
        }
        kept["SLURM_RESTART_COUNT"] = str(job.restarts)  # lost on the way to this process
    kept["GSS_LAUNCHED"] = str(time.time())
    return {**_FASTER, **kept}


def _exit_code(left: Mapping[str, Any] | None, status: int, *, stopped: bool) -> int:
    """The code that was left, else the child's; a stop before anybody could say anything is orderly, too."""
    if left is not None:
        return left["code"]
    if stopped and status != 0:
        return 75
    return status if status in (0, 2, 75, OutputClosed.exit_code) else 1


def _requeue(job: str) -> None:
    """Put this job back into the queue, unless it is being ended already; a refusal is not the end of the world."""
    try:
        running = slurm.read_job(job).state == "RUNNING"
    except GssError as error:
        refusal: str | None = error.what
    else:
        print(f"SLURM job {job} goes back into the queue and will go on from the checkpoint", flush=True)
        refusal = slurm.requeue(job) if running else "it is being ended"
    if refusal is not None:
        print(f"SLURM job {job} was not put back into the queue: {refusal}", flush=True)


class _StopSignal:
    """SIGTERM or SIGINT: remembered, and passed on to the child."""

    def __init__(self) -> None:
        self.received = False
        self._child: subprocess.Popen[bytes] | None = None
        self._srun = self._passed_on = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Take the signals over inside."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._pass_on)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, keep_open: int) -> int:
        """Run a command in a session of its own, so that signals for our group reach it only through us."""
        parent, self._srun = os.getpid(), command[0] == "srun"
        # srun ends its processes when it is told to end; killed outright, it would leave that to SLURM
        last = signal.SIGTERM if self._srun else signal.SIGKILL
        try:
            self._child = subprocess.Popen(
                command,
                env=environment,
                start_new_session=True,
                pass_fds=[keep_open],
                stdin=subprocess.DEVNULL,
                preexec_fn=lambda: die_with(parent, last),
            )
        except FileNotFoundError as error:
            raise GssError(
                f"there is no command {command[0]} in PATH",
                todo="make SLURM's commands visible here, or unset SLURM_JOB_ID to use this machine alone",
            ) from error
        self._pass_on()  # it may have come before there was a child
        return self._child.wait()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._pass_on()

    def _pass_on(self, *_: object) -> None:
        """SIGTERM to torchrun, once. srun would kill its processes: it gets SIGUSR1, which it loses while it starts."""
        if not self.received or self._child is None:
            return
        if self._srun:
            self._child.send_signal(signal.SIGUSR1)
            signal.setitimer(signal.ITIMER_REAL, 2)
        elif not self._passed_on:
            self._passed_on = True
            self._child.send_signal(signal.SIGTERM)
