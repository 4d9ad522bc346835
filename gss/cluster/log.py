"""A log that outlives the starts of a job, and what of it is worth showing."""

import os
import re
import sys
import time
from pathlib import Path

from gss.cluster import slurm
from gss.files import write_error

_START = re.compile(r"--- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d on .*: gss ")
_LAST_BYTES = 100_000


def keep_log(path: Path) -> None:
    """Append what this process and its children print to `all_starts/<name>` beside a log, and let the log point there.

    Snakemake deletes the logs a rule declares before it starts its job, also when the job is a retry, was requeued, or
    runs beside one that a killed Snakemake has left behind. So what it deletes is a link.

    Args:
        path: the log; a file of this name is replaced.

    Raises:
        GssError: the folder cannot be written.
    """
    kept = path.parent / "all_starts" / path.name
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(kept, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        link = path.with_name(f".{path.name}.{os.getpid()}")
        link.symlink_to(kept.relative_to(path.parent))
        link.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    for standard in (1, 2):
        os.dup2(file, standard)
    os.close(file)
    job = f", SLURM job {slurm.job_id()}" if slurm.job_id() else ""
    print(
        f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} on {os.uname().nodename}{job}: gss {' '.join(sys.argv[1:])}",
        flush=True,
    )


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, of the latest start of its job.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    begin = max((number for number, line in enumerate(lines) if _START.match(line)), default=0)
    return lines[begin:][-count:]
