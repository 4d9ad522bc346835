"""Delivers the journals of an experiment to MLflow, while it runs or at any time after.

Training only appends to its journals; this is the one module that imports MLflow. What was delivered is remembered
per store in `work/mlflow.json`; points keep their own times, so that a delivery that broke off can be repeated.
"""

import json
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gss.files import read_json, write_json

_BATCH = 1000  # metrics MLflow takes at once
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_EVALUATED = re.compile(r"(evaluate_.+)_(?:val|test)")  # one run for the splits of a model
_HEADLINE = re.compile(r"(?:val|test)/(?:mIoU|mAcc|aAcc)")
# A dead server must not hold anyone up: MLflow's own defaults try for minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
             "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def sync(folder: Path) -> bool:
    """Deliver what the journals below `folder/work` hold and MLflow lacks.

    Args:
        folder: results folder of an experiment.

    Returns:
        Whether all of it was delivered; if not, one warning says why, and a later call goes on.
    """
    problem = _attempt(folder)
    if problem:
        print(f"warning: MLflow not reached, the numbers wait in {folder}/work: {problem}", flush=True)
    return problem is None


def follow(folder: Path, interval: float = 10.0) -> None:
    """Deliver every `interval` seconds until SIGTERM or SIGINT, then once more. Warns once while MLflow is away."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # they wait for the end of a delivery
    warned = ended = False
    while not ended:
        ended = signal.sigtimedwait(signals, interval) is not None
        if not warned:
            warned = not sync(folder)
        elif _attempt(folder) is None:
            print("MLflow answers again; all numbers are delivered", flush=True)
            warned = False


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else the SQLite file in the project folder, where `mlflow ui` looks."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


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


@dataclass
class _Delivered:
    """What a store holds of an experiment, as `work/mlflow.json` remembers it."""

    runs: dict[str, str] = field(default_factory=dict)  # "<configuration>" or "<configuration>/<stage>" -> run id
    status: dict[str, str] = field(default_factory=dict)  # the same keys -> MLflow's status
    names: dict[str, dict[str, str]] = field(default_factory=dict)  # the same keys -> given names
    offsets: dict[str, list[Any]] = field(default_factory=dict)  # "<stage>/<file>" -> [journal id, bytes]


@dataclass
class _Chunk:
    """Events of one journal that are delivered together, and where they end in the file."""

    end_offset: int
    last_time: int  # ms
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)  # name, value, time, step
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)
    status: str = "RUNNING"

    def add(self, event: dict[str, Any]) -> None:
        self.last_time = event.get("t", self.last_time)
        self.metrics += [(name, float(value), event["t"], event["step"]) for name, value in event.get("m", {}).items()]
        self.params |= event.get("params", {})
        self.tags |= event.get("tags", {})
        self.artifacts += [Path(event["artifact"])] if "artifact" in event else []
        self.status = _STATUS[event["end"]] if "end" in event else "RUNNING"


def _attempt(folder: Path) -> str | None:
    """Deliver; None, or what went wrong: whatever it was, it is not the training's business."""
    journals = sorted([*folder.glob("work/*/journal.jsonl"), *folder.glob("work/stale/*/journal.jsonl")])
    if not journals:
        return None
    try:
        with FileLock(folder / "work" / "mlflow.lock", timeout=10):
            _Delivery(folder).deliver(journals)
    except Timeout:
        return None  # another process delivers
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return None


class _Delivery:
    """One pass over the journals of an experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, tracking_uri()
        self.path = folder / "work" / "mlflow.json"
        self.store = re.sub(r"//[^@/]*@", "//", self.uri)  # without a password
        database = _sqlite_file(self.uri)
        store_is_gone = database is not None and not database.is_file()
        self.memory = read_json(self.path) if self.path.is_file() and not store_is_gone else {}
        self.done = _Delivered(**self.memory.get(self.store, {}))

    def deliver(self, journals: list[Path]) -> None:
        news = [path for path in journals if path.stat().st_size > self._offset(path)]
        if not news:
            return
        self.client = _client(self.uri)
        if not self._runs_exist():  # deleted there: deliver all again
            self.done, news = _Delivered(), journals
        for path in news:
            self._ship(path)

    def _offset(self, path: Path) -> int:
        journal, offset = self.done.offsets.get(self._key(path), ("", 0))
        header = _header(path)
        return offset if header and header["journal"] == journal else 0

    def _key(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"

    def _runs_exist(self) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return all(self.client.get_run(run).info.lifecycle_stage == "active" for run in self.done.runs.values())
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _ship(self, path: Path) -> None:
        header = _header(path)
        if header is None:
            return
        for chunk in _chunks(path, self._offset(path)):
            parent = header["config_sha256"][:8]
            stage = _EVALUATED.sub(r"\1", header["stage"])
            child = f"{parent}/{stage}"
            self._open_runs(header, parent, child, stage, chunk)
            metrics = self._log(child, chunk)
            self._copy_to_parent(parent, stage, metrics)
            self._set_status(child, chunk.status, chunk.last_time)
            self._set_status(parent, self._joint_status(parent), chunk.last_time)
            self.done.offsets[self._key(path)] = [header["journal"], chunk.end_offset]
            self._save()

    def _open_runs(self, header: dict[str, Any], parent: str, child: str, stage: str, chunk: _Chunk) -> None:
        """The pipeline's run and the stage's below it, made when they are first needed."""
        if child in self.done.runs:
            return
        start = chunk.metrics[0][2] if chunk.metrics else chunk.last_time
        tags = {"experiment": header["experiment"], "config_sha256": header["config_sha256"]}
        experiment = _experiment_id(self.client, f"gss/{header['dataset']}")
        if parent not in self.done.runs:
            date = time.strftime("%Y-%m-%d", time.localtime(start / 1000))
            made = self.client.create_run(experiment, start, {**tags, "stage": "pipeline"},
                                          f"pipeline/{header['experiment']}/{date}-{parent}")
            self.done.runs[parent] = made.info.run_id
        made = self.client.create_run(
            experiment, start, {**tags, "stage": stage, "mlflow.parentRunId": self.done.runs[parent]}, stage)
        self.done.runs[child] = made.info.run_id
        self._save()

    def _log(self, child: str, chunk: _Chunk) -> list[Any]:
        """Everything of a chunk, into the stage's run; returns the metrics under their names there."""
        from mlflow.entities import Metric, Param, RunTag

        run, names = self.done.runs[child], self.done.names.setdefault(child, {})
        metrics = [Metric(sanitise(name, names), value, moment, step) for name, value, moment, step in chunk.metrics]
        present = self.client.get_run(run).data.params if chunk.params else {}  # MLflow refuses to change one
        params = [Param(key, str(value)) for name, value in chunk.params.items()
                  if (key := sanitise(name, names)) not in present]
        tags = [RunTag(sanitise(name, names), str(value)) for name, value in chunk.tags.items()]
        if metrics or params or tags:
            self.client.log_batch(run, metrics, params, tags)
        for artifact in chunk.artifacts:
            if artifact.is_file():
                inside = artifact.is_relative_to(self.folder)
                place = str(artifact.parent.relative_to(self.folder)) if inside else None
                self.client.log_artifact(run, artifact, place)
        return metrics

    def _copy_to_parent(self, parent: str, stage: str, metrics: list[Any]) -> None:
        """GSS-FT's final figures, and GSS-FF's headline: MLflow's charts leave out children of folded parents."""
        from mlflow.entities import Metric

        if stage == "evaluate_gss_ft":
            copied = metrics
        elif stage == "evaluate_gss_ff":
            copied = [Metric(f"gss_ff/{metric.key}", metric.value, metric.timestamp, metric.step)
                      for metric in metrics if _HEADLINE.fullmatch(metric.key)]
        else:
            return
        if copied:
            self.client.log_batch(self.done.runs[parent], copied)

    def _joint_status(self, parent: str) -> str:
        children = [status for key, status in self.done.status.items() if key.startswith(f"{parent}/")]
        return next((status for status in ("RUNNING", "FAILED", "KILLED") if status in children), "FINISHED")

    def _set_status(self, key: str, status: str, moment: int) -> None:
        if self.done.status.get(key, "RUNNING") != status:
            if status == "RUNNING":
                self.client.update_run(self.done.runs[key], status)
            else:
                self.client.set_terminated(self.done.runs[key], status, moment)
        self.done.status[key] = status

    def _save(self) -> None:
        write_json(self.path, {**self.memory, self.store: vars(self.done)})


def _header(path: Path) -> dict[str, Any] | None:
    """The first line of a journal; None while it is being written."""
    with path.open("rb") as file:
        line = file.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _chunks(path: Path, offset: int) -> Iterator[_Chunk]:
    """The events from an offset on, in portions that MLflow takes at once; a torn last line is left for later."""
    with path.open("rb") as file:
        file.seek(offset)
        chunk = _Chunk(offset, int(1000 * path.stat().st_mtime))
        for line in file:
            if not line.endswith(b"\n"):
                break
            event = json.loads(line)
            if len(chunk.metrics) + len(event.get("m", ())) > _BATCH and chunk.metrics:
                yield chunk
                chunk = _Chunk(chunk.end_offset, chunk.last_time)
            chunk.add(event)
            chunk.end_offset += len(line)
    if chunk.end_offset > offset:
        yield chunk


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _client(uri: str) -> Any:
    """A client of the store; a new SQLite store is made first, by one process and under a temporary name.

    Two processes that open a missing one at the same time break it for good (MLflow 3.17).
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    database = _sqlite_file(uri)
    if database is not None:
        with FileLock(f"{database}.init.lock"):
            if not database.is_file():
                fresh = database.with_name(f"{database.name}.new")
                fresh.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                fresh.replace(database)
            MlflowClient(uri).search_experiments(max_results=1)
    return MlflowClient(uri)


def _experiment_id(client: Any, name: str) -> str:
    """The id of an experiment, made when it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
    return found.experiment_id
