"""Deliveries that are killed: `python -m killed_deliveries FOLDER SEED` writes journals and delivers them at last.

First a delivery is killed after its first effect, the next after its second, ... until one comes through, and again
when the merged model has been measured; then some are killed at random moments while the journals grow.
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

from gss.files import sha256_file, write_text
from gss.results.journal import Journal
from gss.tracking import mlflow_sync

EFFECTS = (
    "create_experiment",
    "create_run",
    "log_batch",
    "log_artifact",
    "update_run",
    "set_terminated",
    "set_experiment_tag",
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "update_model_version",
)


class Killer:
    """Counts effects, and kills this process after one of them."""

    def __init__(self, after: int) -> None:
        self.left = after

    def watch(self, what: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            result = what(*arguments, **options)
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


def until_it_comes_through(folder: Path) -> int:
    """Kill deliveries after one effect, two, ...; how many one that was not killed had."""
    effects = 1
    while not deliver(folder, effects=effects):
        effects += 1
    return effects


def main() -> None:
    folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    header = {"experiment": folder.name, "dataset": "killed", "config_sha256": "ef" * 32}
    trained, merged, evaluated = (
        Journal(folder / "work" / stage / "journal.jsonl", {**header, "stage": stage})
        for stage in ("latent_prior", "merge", "evaluate_gss_ft_test")
    )
    model = folder / "gss_ft.pth"
    model.write_text("weights")
    merged.tags({"sha256": sha256_file(model)})
    merged.end("finished")
    write_text(folder / "report.html", f'<meta name="config-sha256" content="{"ef" * 32}">')
    write_text(Path("config/config.yaml"), "mlflow: {upload_models: true}")
    trained.params({"lr": 0.1})
    trained.tags({"host": "here"})
    for step in range(1200):  # two chunks
        trained.metrics(step, {"train/loss": 1 / (step + 1)})
    trained.end("interrupted")
    effects = until_it_comes_through(folder)
    table = folder / "evaluation" / "gss_ft" / "test" / "per_class.csv"
    write_text(table, "sky,0.5\n")
    evaluated.tags({"input gss_ft.pth": sha256_file(model)})
    evaluated.metrics(0, {"test/mIoU": 0.5})
    evaluated.artifact(table)
    evaluated.end("finished")
    effects += until_it_comes_through(folder)
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
