"""`gss smoke` of an experiment for the doctor: a process of its own, which prints one JSON line for each finding.

Called as `python -m gss.doctor.trial RESULTS EXPERIMENT`.
"""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

from gss.cluster.exit import die_with
from gss.doctor.findings import fail, ok, warn
from gss.errors import GssError
from gss.smoke import WARNING, smoke


def main(results: Path, name: str) -> None:
    """Try all stages; what is written goes with this process, however it is ended."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            verdict = smoke(name, results=results)
        found = ok(name, verdict.removeprefix(f"{name}: "))
    except GssError as error:
        found = fail(name, f"{error.what}{f' ({error.where})' if error.where else ''}", error.todo or "")
    warnings = [line.strip().removeprefix(WARNING) for line in said.getvalue().splitlines() if WARNING in line]
    for finding in [*(warn(name, line) for line in warnings), found]:
        print(json.dumps(vars(finding)), flush=True)


if __name__ == "__main__":
    die_with(os.getppid(), signal.SIGTERM)
    main(Path(sys.argv[1]), sys.argv[2])
