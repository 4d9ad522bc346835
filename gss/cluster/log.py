"""A log that outlives the starts of a job."""

import os
import sys
import time
from pathlib import Path

from gss.cluster import slurm
from gss.files import write_error


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
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} on {os.uname().nodename}{job}: gss {' '.join(sys.argv[1:])}",
          flush=True)
