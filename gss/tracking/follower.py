"""The process that delivers to MLflow beside a Snakemake call; Snakemake's handlers start and end it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

LOG = Path("results") / "mlflow.log"
_END_SECONDS = 60  # it ends by itself after 45, and after 5 where MLflow is away


class Follower:
    """`gss mlflow-sync --follow` for all experiments, as long as this process lives.

    It writes warnings where Snakemake writes, and the rest to `results/mlflow.log`. However it fares, the jobs do
    not notice.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a session of its own: a terminal's Ctrl-C ends Snakemake first, then Snakemake ends it."""
        command = [sys.executable, "-m", "gss", "mlflow-sync", "--follow", "--parent", str(os.getpid())]
        # The process inherits the mask: a stop waits until it can deliver.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            LOG.parent.mkdir(exist_ok=True)
            with LOG.open("ab") as log:
                self._process = subprocess.Popen(command, stdout=2, stderr=log, start_new_session=True)
        except OSError as error:
            print(f"warning: nothing is delivered to MLflow now: {error}", file=sys.stderr, flush=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        """Let it deliver what is left, and wait for its end."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
            return
        print(f"MLflow took more than {_END_SECONDS} s; to deliver what is left: gss mlflow-sync", file=sys.stderr)
        self._process.kill()
        self._process.wait()
