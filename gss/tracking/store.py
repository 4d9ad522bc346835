"""A store of MLflow: where it is, how it is opened, who may write to it, which names it takes."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# A dead server must not hold anyone up: MLflow's own defaults try for minutes.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else the SQLite file in the project folder, where `mlflow ui` looks."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def without_password(uri: str) -> str:
    return re.sub(r"//[^@/]*@", "//", uri)


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def alone(path: Path, patience: float) -> Iterator[None]:
    """Hold a lock file; raises Timeout after `patience` seconds. Without it where the file system has no locks."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def open_store(uri: str) -> Any:
    """A client of the store; a new SQLite store is made under a temporary name, by one process: see `alone`.

    Two processes that open a missing one at the same time break it for good (MLflow 3.17).
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        fresh = database.with_name(f"{database.name}.new")
        fresh.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # `mlflow ui` began one meanwhile
            os.link(fresh, database)
        fresh.unlink()
    return MlflowClient(uri)


def experiment_id(client: Any, name: str) -> str:
    """The id of an experiment, made when it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
    return found.experiment_id


def sanitise(name: str, known: dict[str, str]) -> str:
    """A name that MLflow accepts and that no other name has.

    Synonyms after `;` are cut off, other characters become `_`, equal results get a number.

    Args:
        name: of a metric, parameter or tag.
        known: the names given so far, by their originals; `name` is added.
    """
    if name not in known:
        parts = [re.sub(r"^\.|[^\w.\- :]", "_", part) or "_" for part in name.split(";")[0].split("/")]
        clean = "/".join(parts)[:240].rstrip("/")
        taken, number = set(known.values()), 1
        while (unique := clean if number == 1 else f"{clean}_{number}") in taken:
            number += 1
        known[name] = unique
    return known[name]
