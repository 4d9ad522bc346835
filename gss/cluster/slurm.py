"""What the launcher asks of SLURM, through its own commands."""

import os
import re
import subprocess
from dataclasses import dataclass

from gss.errors import GssError

_SECONDS = 15  # a busy controller takes some; one that is gone must not hold up an answer that can be done without


@dataclass(frozen=True)
class Job:
    """A SLURM job.

    Args:
        id: its number.
        state: RUNNING, PENDING, COMPLETING, ...
        hosts: its nodes in SLURM's order, whichever of them this process sees.
        cpus: its cores on each node.
        end: when its time is over, epoch seconds; None: no limit, or not started.
        restarts: how often it was requeued.
    """

    id: str
    state: str
    hosts: list[str]
    cpus: int
    end: float | None
    restarts: int


def job_id() -> str | None:
    """The SLURM job this process belongs to, if any."""
    return os.environ.get("SLURM_JOB_ID") or None


def read_job(job: str) -> Job:
    """What SLURM knows of a job.

    Raises:
        GssError: SLURM's commands are missing or fail.
    """
    line = _call("scontrol", "show", "job", "-o", job)
    nodes, end = _field(line, "NodeList"), _field(line, "EndTime")
    hosts = [] if nodes in ("", "(null)") else _call("scontrol", "show", "hostnames", nodes).split()
    return Job(
        job,
        _field(line, "JobState"),
        hosts,
        int(_field(line, "NumCPUs")) // max(1, len(hosts)),
        float(end) if end.isdigit() else None,
        int(_field(line, "Restarts") or 0),
    )


def address(host: str) -> str:
    """Where a node can be reached; its name need not resolve.

    Raises:
        GssError: SLURM's commands are missing or fail.
    """
    return _field(_call("scontrol", "show", "node", "-o", host), "NodeAddr") or host


def requeue(job: str) -> str | None:
    """Have SLURM start a job anew; returns why it would not."""
    try:
        _call("scontrol", "requeue", job)
    except GssError as error:
        return error.what
    return None


def is_listed(job: str) -> bool | None:
    """Whether a job waits, runs or is being ended; None where SLURM does not answer."""
    try:
        return bool(_call("squeue", "-h", "-j", job, "-o", "%T").strip())
    except GssError as error:
        return False if "Invalid job id" in error.what else None  # ended long ago


def _call(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},
        )  # of any time zone
    except FileNotFoundError as error:
        raise GssError(
            f"this is SLURM job {job_id()}, but there is no command {command[0]} in PATH",
            todo="make SLURM's commands visible here, or unset SLURM_JOB_ID to use this machine alone",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise GssError(
            f"SLURM did not answer `{' '.join(command)}` within {_SECONDS} s",
            todo="run the same command again when SLURM answers",
        ) from error
    if done.returncode != 0:
        raise GssError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}", todo="run the same command again when SLURM answers"
        )
    return done.stdout


def _field(line: str, name: str) -> str:
    found = re.search(rf"(?:^| ){name}=(\S*)", line)
    return found[1] if found else ""
