"""Delivers the journals of experiments to MLflow, while they are written or at any time after.

Training only appends to its journals; only this room imports MLflow. How far a store is served stands in
`work/mlflow.json` of an experiment. A delivery that broke off anywhere is repeated without doubling anything: points
keep their own times, runs are found again by a tag that was written down before they were made, models by their hash.
"""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from gss import __version__
from gss.config import Project, find_recipe, load_project
from gss.config.load import PROJECT
from gss.errors import GssError
from gss.files import read_json, sha256_json, write_json
from gss.layout import CONFIG, REPORT, WORK
from gss.proxy import by_proxy
from gss.tracking import overview
from gss.tracking.registry import register
from gss.tracking.source import PACKAGES, dataset_inputs, source_tags
from gss.tracking.store import (
    alone,
    experiment_id,
    open_store,
    sanitise,
    sqlite_file,
    tracking_uri,
    without_password,
)

RESULTS = Path("results")
_PLACES = ("work/stale/*/journal.jsonl", "work/*/journal.jsonl")  # of an experiment's journals, old ones first
_BATCH = 1000  # metrics MLflow takes at once
_PATIENCE_SECONDS = 120  # for another process that delivers
_LAST_SECONDS = 45  # a follower that shall end takes at most
_LAST_SECONDS_AWAY = 5  # the same when MLflow was away already
_PASS_SECONDS = 10  # one pass over all experiments is given up when MLflow fails and so much time is gone
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_WATCHED = (CONFIG, REPORT)  # what may change without a journal


def sync(folders: Sequence[Path] = ()) -> int:
    """Deliver what the journals of experiments hold and MLflow lacks.

    Args:
        folders: results folders of experiments; none: all below `results`.

    Returns:
        The number of experiments; all their numbers are in MLflow now.

    Raises:
        GssError: a folder is missing, or MLflow did not take everything; a later call goes on.
    """
    for folder in folders:
        if not folder.is_dir():
            raise GssError("no such folder", where=folder, todo="name results folders of experiments")
    deliveries = _Deliveries(folders)
    problem = deliveries.run(_PATIENCE_SECONDS)
    if problem:
        raise GssError(
            f"not everything was delivered to MLflow: {problem}",
            where=without_password(tracking_uri()),
            todo="mend this or set MLFLOW_TRACKING_URI, then run the same command again",
        )
    return len(deliveries.served)


def follow(folders: Sequence[Path] = (), interval: float = 10.0) -> None:
    """Deliver every `interval` seconds until SIGTERM or SIGINT, then once more.

    Standard output gets one line when MLflow is away, one when it is back, and one at the end if numbers still wait;
    standard error gets the whole story.
    """
    deliveries = _Deliveries(folders)
    stops = {signal.SIGTERM, signal.SIGINT}
    known: str | None = None
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        signal.alarm(_LAST_SECONDS_AWAY if known else _LAST_SECONDS)

    for number in stops:
        signal.signal(number, end)
    signal.signal(signal.SIGALRM, _raise_late)
    while True:
        last = ended
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*stops, signal.SIGALRM})
            problem = deliveries.run(_LAST_SECONDS if last else 0)
        except _Late:
            problem = known or "it took too long"
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {*stops, signal.SIGALRM})
        if problem and not known:
            store = without_password(tracking_uri())
            print(f"warning: not everything reaches {store}, it waits in the journals: {problem}", flush=True)
        elif known and not problem:
            print("MLflow has everything again", flush=True)
        if problem and problem != known:
            print(time.strftime("%Y-%m-%d %H:%M:%S"), deliveries.details, file=sys.stderr, flush=True)
        known = problem
        if last or (ended and problem):
            break
        if not ended and signal.sigtimedwait(stops, interval):
            end()
    if known:
        print("MLflow lacks numbers; to deliver them: gss mlflow-sync", flush=True)


class _Late(BaseException):
    """A follower that shall end takes too long; no `except Exception` of MLflow's holds it up."""


def _raise_late(*_: object) -> None:
    raise _Late


@dataclass
class _Delivered:
    """What a store holds of an experiment, as `work/mlflow.json` remembers it.

    Keys are "<configuration>" for a pipeline's run and "<configuration>/<stage>" for those below it.
    """

    origin: str = field(default_factory=lambda: uuid.uuid4().hex)  # tag of all runs made from this folder
    status: dict[str, str] = field(default_factory=dict)  # MLflow's word
    ended: dict[str, int] = field(default_factory=dict)  # when, ms
    names: dict[str, dict[str, str]] = field(default_factory=dict)  # names given to metrics, parameters and tags
    offsets: dict[str, int] = field(default_factory=dict)  # bytes delivered, by the journal's id
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of what pipelines' runs hold, by key and path
    shown: str = ""  # hash of all that the pipelines' runs and the registered model were made of


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


class _Deliveries:
    """Passes over the journals of many experiments, cheap when nothing is new.

    Args:
        folders: results folders; none: all below `results`, also those that appear later.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.served: dict[Path, list[tuple[Path, int, int]]] = {}  # files, sizes and times when all was delivered
        self.details = ""  # of the last problem

    def run(self, patience: float) -> str | None:
        """Deliver all that is new; None, or what went wrong: whatever it was, it is not the training's business.

        Args:
            patience: seconds to wait for another process that delivers; 0: leave it the work.
        """
        problem = None
        began = time.monotonic()
        for folder in [seed for each in self.folders or sorted(RESULTS.glob("*")) for seed in _with_seeds(each)]:
            if problem and time.monotonic() - began > _PASS_SECONDS:
                break
            try:
                journals = [path for place in _PLACES for path in sorted(folder.glob(place))]
                watched = [*journals, *(path for name in _WATCHED if (path := folder / name).is_file())]
                state = [(path, found.st_size, found.st_mtime_ns) for path in watched if (found := path.stat())]
                if not journals or self.served.get(folder) == state:
                    continue
                with alone(folder / WORK / "mlflow.lock", patience):
                    _Delivery(folder, patience).deliver(journals)
                self.served[folder] = state
            except Timeout as error:
                if patience:
                    problem, self.details = "another process is still delivering", str(error)
            except Exception as error:
                problem, self.details = _in_short(error) + by_proxy(tracking_uri()), traceback.format_exc()
        return problem


class _Delivery:
    """One pass over the journals of an experiment."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder, self.patience, self.uri = folder, patience, tracking_uri()
        self.path = folder / WORK / "mlflow.json"
        self.database = sqlite_file(self.uri)
        # The same after the project was moved; without a password.
        self.store = f"sqlite:{os.path.relpath(self.database, folder)}" if self.database else without_password(self.uri)
        self.memory = read_json(self.path) if self.path.is_file() else {}
        self.runs: dict[str, str] = {}  # run ids by the keys of _Delivered

    def deliver(self, journals: list[Path]) -> None:
        """Bring what is new to the store; from the beginning where the store has lost a run."""
        self.done = _Delivered(**self.memory.get(self.store, {}))
        store_is_gone = self.database is not None and not self.database.is_file()
        news = [path for path in journals if store_is_gone or path.stat().st_size > self._offset(path)]
        results, upload = overview.Results.read(self.folder), _project().upload_models
        told = overview.tell(journals, find_recipe(results.recipe))
        shown = sha256_json([__version__, [vars(stage) for stage in told], vars(results), upload])
        if not news and self.done.shown == shown:
            return
        single = alone(Path(f"{self.database}.lock"), self.patience) if self.database else contextlib.nullcontext()
        with single:
            self.client = open_store(self.uri)
            self._find_runs(journals)
            if set(self.done.status) - set(self.runs):
                self.done, news = _Delivered(self.done.origin), journals
            self._save()  # the origin, before a run has it
            for path in news:
                self._ship(path)
            self._show(told, results, upload)
            self.done.shown = shown
            self._save()

    def _find_runs(self, journals: list[Path]) -> None:
        """The runs of this folder that the store has, also those whose making was the last thing that was done."""
        headers = [header for path in journals if (header := _header(path))]
        found = [self.client.get_experiment_by_name(name) for name in {_experiment_name(header) for header in headers}]
        experiments = [experiment.experiment_id for experiment in found if experiment]
        if not experiments:
            return
        for run in self.client.search_runs(experiments, f"tags.origin = '{self.done.origin}'", max_results=10_000):
            parent, stage = run.data.tags["config_sha256"][:8], run.data.tags["stage"]
            self.runs[parent if stage == "pipeline" else f"{parent}/{stage}"] = run.info.run_id

    def _offset(self, path: Path) -> int:
        header = _header(path)
        return self.done.offsets.get(header["journal"], 0) if header else 0

    def _ship(self, path: Path) -> None:
        header = _header(path)
        if header is None:
            return
        for chunk in _chunks(path, self._offset(path)):
            parent = header["config_sha256"][:8]
            stage = overview.EVALUATED.sub(r"\1", header["stage"])
            child = f"{parent}/{stage}"
            self._open_runs(header, parent, child, stage, chunk)
            self._log(child, header, chunk)
            self._set_status(child, chunk.status, chunk.last_time)
            self._set_status(parent, self._joint_status(parent), chunk.last_time)
            self.done.offsets[header["journal"]] = chunk.end_offset
            self._save()

    def _open_runs(self, header: dict[str, Any], parent: str, child: str, stage: str, chunk: _Chunk) -> None:
        """The pipeline's run and the stage's below it, made when they are first needed."""
        if child in self.runs:
            return
        start = chunk.metrics[0][2] if chunk.metrics else chunk.last_time
        tags = {
            "experiment": header["experiment"],
            "config_sha256": header["config_sha256"],
            "origin": self.done.origin,
        }
        experiment = experiment_id(self.client, _experiment_name(header))
        if parent not in self.runs:
            date = time.strftime("%Y-%m-%d", time.localtime(start / 1000))
            made = self.client.create_run(
                experiment, start, {**tags, "stage": "pipeline"}, f"pipeline/{header['experiment']}/{date}-{parent}"
            )
            self.runs[parent] = made.info.run_id
        made = self.client.create_run(
            experiment, start, {**tags, "stage": stage, "mlflow.parentRunId": self.runs[parent]}, stage
        )
        self.runs[child] = made.info.run_id

    def _log(self, child: str, header: dict[str, Any], chunk: _Chunk) -> None:
        """Everything of a chunk, into the stage's run; the data sets that it read into the pipeline's, too."""
        from mlflow.entities import Metric, Param, RunTag

        run, names = self.runs[child], self.done.names.setdefault(child, {})
        metrics = [Metric(sanitise(name, names), value, moment, step) for name, value, moment, step in chunk.metrics]
        present = self.client.get_run(run).data.params if chunk.params else {}  # MLflow refuses to change one
        params = [
            Param(key, str(value))
            for name, value in chunk.params.items()
            if (key := sanitise(name, names)) not in present
        ]
        packages = chunk.tags.pop(PACKAGES, None)
        tags = [RunTag(sanitise(name, names), str(value)) for name, value in chunk.tags.items()]
        tags += [RunTag(name, value) for name, value in source_tags(chunk.tags).items()]
        if metrics or params or tags:
            self.client.log_batch(run, metrics, params, tags)
        if packages:
            self.client.log_text(run, packages + "\n", f"{PACKAGES}.txt")
        if inputs := dataset_inputs(header["dataset"], header["stage"], chunk.tags):
            for each in (run, self.runs[child.partition("/")[0]]):
                self.client.log_inputs(each, inputs)
        for artifact in chunk.artifacts:
            path = self.folder / artifact
            if path.is_file():
                self.client.log_artifact(run, path, str(artifact.parent) if ".." not in artifact.parts else None)

    def _show(self, told: list[overview.Told], results: overview.Results, upload: bool) -> None:
        """What pipelines' runs show of their stages, and the registered model: MLflow's charts and lists leave out
        children of folded parents."""
        parents = {key: run for key, run in self.runs.items() if "/" not in key}
        recipe = find_recipe(results.recipe)
        model = register(self.client, self.folder, told, recipe, parents, self._put, upload=upload)
        for parent in parents:
            stages = overview.behind(told, parent)
            for path, sha in results.files(self.folder, stages, parent).items():
                self._put(parent, self.folder / path, str(Path(path).parent), sha)
            overview.show(self.client, self.runs[parent], parent, stages, results, self.done.names, model)

    def _put(self, parent: str, path: Path, place: str, sha: str) -> None:
        """A file into a folder of a pipeline's run, unless it is there with this content."""
        key = f"{parent}/{place}/{path.name}"
        if self.done.files.get(key) != sha:
            self.client.log_artifact(self.runs[parent], path, None if place == "." else place)
            self.done.files[key] = sha
            self._save()

    def _joint_status(self, parent: str) -> str:
        children = [status for key, status in self.done.status.items() if key.startswith(f"{parent}/")]
        return next((status for status in ("RUNNING", "FAILED", "KILLED") if status in children), "FINISHED")

    def _set_status(self, key: str, status: str, moment: int) -> None:
        changed = self.done.status.get(key, "RUNNING") != status
        last = max(moment, self.done.ended.get(key, 0))
        if status == "RUNNING" and changed:
            self.client.update_run(self.runs[key], status)
        elif status != "RUNNING" and (changed or last > self.done.ended.get(key, 0)):
            self.client.set_terminated(self.runs[key], status, last)
            self.done.ended[key] = last
        self.done.status[key] = status

    def _save(self) -> None:
        write_json(self.path, {**self.memory, self.store: vars(self.done)})


def _with_seeds(folder: Path) -> list[Path]:
    """A results folder and those of its seeds."""
    return [folder, *sorted(folder.glob("seed_*"))]


def _header(path: Path) -> dict[str, Any] | None:
    """The first line of a journal; None while it is being written."""
    with path.open("rb") as file:
        line = file.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _chunks(path: Path, offset: int) -> Iterator[_Chunk]:
    """The events from an offset on, in portions that MLflow takes at once; a torn last line is left for later."""
    with path.open("rb") as file:
        # What MLflow has must not vanish here when the power fails: a resumed training would write it with a new time.
        os.fsync(file.fileno())
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


def _in_short(error: BaseException) -> str:
    """The first cause in one line: `[Errno 111] Connection refused`, without the calls around it."""
    while not isinstance(error, GssError) and (cause := error.__cause__ or error.__context__):
        error = cause
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"


def _project() -> Any:
    """The block `mlflow` of config/config.yaml."""
    return (load_project() if PROJECT.is_file() else Project()).mlflow


def _experiment_name(header: dict[str, Any]) -> str:
    return f"gss/{header['dataset']}"
