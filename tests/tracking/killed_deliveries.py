"""Deliveries that are killed: `python -m killed_deliveries FOLDER SEED` writes two journals and delivers them at last.

First a delivery is killed after its first effect, the next after its second, ... until one comes through; then some
are killed at random moments while the journals grow.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

from gss.tracking import mlflow_sync
from gss.tracking.journal import Journal

EFFECTS = ("create_experiment", "create_run", "log_batch", "log_artifact", "update_run", "set_terminated")


class Killer:
    """Counts effects, and kills this process after one of them."""

    def __init__(self, after: int) -> None:
        self.left = after

    def watch(self, what: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            result = what(*arguments)
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return act


def deliver(folder: Path, *, effects: int = 0, seconds: float = 0) -> bool:
    """Deliver in a process of its own, killed after so many effects or so much time; whether it came through."""
    child = os.fork()
    if child == 0:
        killer = Killer(effects)
        mlflow_sync.write_json = killer.watch(mlflow_sync.write_json)
        for name in EFFECTS:
            setattr(mlflow.MlflowClient, name, killer.watch(getattr(mlflow.MlflowClient, name)))
        mlflow_sync.sync([folder])
        os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    header = {"experiment": folder.name, "dataset": "killed", "config_sha256": "ef" * 32}
    trained, evaluated = (Journal(folder / "work" / stage / "journal.jsonl", {**header, "stage": stage})
                          for stage in ("latent_prior", "evaluate_gss_ft_test"))
    trained.params({"lr": 0.1})
    trained.tags({"host": "here"})
    for step in range(1200):  # two chunks
        trained.metrics(step, {"train/loss": 1 / (step + 1)})
    trained.end("interrupted")
    table = folder / "evaluation" / "per_class.csv"
    table.parent.mkdir()
    table.write_text("sky,0.5\n")
    evaluated.metrics(0, {"test/mIoU": 0.5})
    evaluated.artifact(table)
    evaluated.end("finished")
    effects = 1
    while not deliver(folder, effects=effects):
        effects += 1
    killed = 0
    for step in range(1200, 1260):
        for name in ("loss", "lr", "accuracy"):
            trained.metrics(step, {f"train/{name}": 0.5})
        if step % 6 == 0:
            killed += not deliver(folder, seconds=rng.uniform(0.02, 0.3))
    trained.end("finished")
    mlflow_sync.sync([folder])
    print(f"{effects} {killed}")


if __name__ == "__main__":
    main()
