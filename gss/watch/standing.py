"""How far the jobs behind an experiment's results are, by what they leave: records, journals, locks and logs."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from gss.cluster.lock import is_held
from gss.config import Experiment, Job, Stage
from gss.files import sha256_file
from gss.layout import WORK, labels_of_set, of_set
from gss.results.journal import last_event
from gss.results.records import made_by, record_file
from gss.watch.log import Reading, read_log

SILENT_SECONDS = 90  # a job that holds no lock and has written nothing for so long is not taken for running
REPORT = Job("report", "report")
Stamp = tuple[int, int]  # of a file: time of its last change, bytes


@dataclass(frozen=True)
class Standing:
    """How far a job is.

    Args:
        left: seconds until its end, of one that waits from its beginning; None: not known.
        text: what it does now, or why it ended.
    """

    job: Job
    state: Literal["done", "runs", "failed", "stopped", "waits"]
    left: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Watched:
    """The jobs of one results folder.

    Args:
        name: what the experiment is run by.
        folder: `results/<name>`.
        experiment: its configuration; None: only the page of all seeds lies here.
    """

    name: str
    folder: Path
    experiment: Experiment | None

    def look(self) -> list[Standing]:
        """How its jobs stand now, in the order of the chain. A few files are looked up for each, and read if new."""
        found: list[Standing] = []
        for job in (*(self.experiment.jobs() if self.experiment else ()), REPORT):
            found.append(self._standing(job, [each for each in found if each.state != "done"]))
        segments = _segments(found)
        rates = [rate for each, steps in segments.items() if (rate := self._rate(each, steps))]
        for number, each in enumerate(found):
            if each.state in ("waits", "stopped", "failed"):
                found[number] = replace(each, left=self._expected(each.job, segments.get(each, 0), rates[-1:]))
        return found

    def _standing(self, job: Job, undone: Sequence[Standing]) -> Standing:
        log, work = self.folder / "logs" / f"{job.name}.log", self.folder / WORK / job.work
        if self._is_made(job, undone):
            return Standing(job, "done", 0.0)
        comes_later = any(each.job.work == job.work for each in undone)  # segments share a folder
        written, record = _stamp(log), _stamp(record_file(self.folder, job.name))
        if comes_later or written is None:
            return Standing(job, "waits")
        journal, reading = work / "journal.jsonl", _reading(log, written)
        noted = _stamp(journal)
        end = _last_event(journal, noted).get("end")
        age = max(0.0, time.time() - max(written, noted or written)[0] / 1e9)
        is_old = record is not None and record[0] + 1e9 > written[0]  # of what was made before
        goes_on = age < SILENT_SECONDS and not (is_old or reading.fault or end == "interrupted")
        if goes_on or is_held(work):
            return Standing(job, "runs", reading.left and max(0.0, reading.left - age), reading.text)
        if reading.fault:
            return Standing(job, "failed", text=reading.fault)
        return Standing(job, "waits" if is_old or end == "finished" else "stopped", text=reading.text)

    def _is_made(self, job: Job, undone: Sequence[Standing]) -> bool:
        """Whether the record of a job is of today's settings, and of the inputs that are there."""
        path = record_file(self.folder, job.name)
        stamp = _stamp(path) or _stamp(self.folder / WORK / job.work / "journal.jsonl")
        record = _made_by(self.folder, job.name, stamp) if stamp else None
        if record is None or record["settings"] != self._settings(job):
            return False
        # Rows of splits are taken for what they are until a check that runs again has found others.
        coming = [pattern for each in undone for pattern in self._makes(each.job)]
        if any(fnmatch(name, pattern) for name in record["inputs"] for pattern in coming):
            return False
        assert stamp is not None
        newer = [
            (path, split, digest)
            for name, digest in record["inputs"].items()
            for file, _, split in [name.partition("#")]
            if (found := _stamp(path := self.folder / file)) and found[0] > stamp[0]
        ]
        return all(_sha256(path, _stamp(path), split) == digest for path, split, digest in newer)

    def _settings(self, job: Job) -> dict[str, Any]:
        return {} if self.experiment is None or job is REPORT else self.experiment.slice(job.stage, job.split)

    def _row(self, job: Job) -> Stage | None:
        """The row of a job's stage; the report has none."""
        return None if self.experiment is None or job is REPORT else self.experiment.kind.stage(job.stage)

    def _makes(self, job: Job) -> tuple[str, ...]:
        """The files that a job leaves, as patterns."""
        if job.stage == "check" and job.split:
            return of_set(job.split)
        if job.stage == "labels" and job.split:
            return (labels_of_set(job.split),)
        row = self._row(job)
        return row.makes if row else ()

    def _expected(self, job: Job, steps: int, rates: Sequence[float]) -> float | None:
        """Seconds that a job will take: as long as it took before, here or with another seed; of the segment of a
        training as long as its steps take in another one; what is short is not waited for."""
        if (took := self._took(job)) is not None:
            return took
        if steps and rates:
            return steps * rates[0]
        row = self._row(job)
        return None if row and row.in_processes else 0.0

    def _took(self, job: Job) -> float | None:
        folders = [self.folder, *(self.folder.parent.glob("seed_*") if self.folder.name.startswith("seed_") else ())]
        for folder in folders:
            path = folder / "benchmarks" / f"{job.name}.tsv"
            if stamp := _stamp(path):
                return _benchmark(path, stamp)
        return None

    def _rate(self, standing: Standing, steps: int) -> float | None:
        """Seconds for a step of a training that runs or has run."""
        if standing.state == "done" and (took := self._took(standing.job)):
            return took / steps
        if standing.state != "runs":
            return None
        reading = read_log(self.folder / "logs" / f"{standing.job.name}.log")
        if reading.left and reading.until and reading.step is not None and reading.until > reading.step:
            return reading.left / (reading.until - reading.step)
        return None


def seconds_left(standings: Sequence[Standing]) -> tuple[float, list[str]]:
    """Seconds until all is done as far as they are known, and the jobs of which nothing is known.

    What waits is divided among as many as run now.
    """
    open_ones = [each for each in standings if each.state != "done"]
    known = [each.left for each in open_ones if each.left is not None]
    at_once = max(1, sum(each.state == "runs" for each in open_ones))
    return max([sum(known) / at_once, *known]), list(
        dict.fromkeys(each.job.name for each in open_ones if each.left is None)
    )


def _segments(standings: Sequence[Standing]) -> dict[Standing, int]:
    """The steps of each segment of a training."""
    found: dict[Standing, int] = {}
    before = 0
    for each in standings:
        if each.job.until is not None:
            found[each] = each.job.until - before
            before = each.job.until
    return found


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)


@lru_cache
def _reading(log: Path, stamp: Stamp) -> Reading:
    return read_log(log)


@lru_cache
def _last_event(journal: Path, stamp: Stamp | None) -> dict[str, Any]:
    return last_event(journal)


@lru_cache(1024)
def _made_by(folder: Path, name: str, stamp: Stamp) -> dict[str, Any] | None:
    return made_by(folder, name)


@lru_cache
def _sha256(path: Path, stamp: Stamp | None, split: str) -> str:
    """Of a file, or of the rows of a split in the manifest; empty where it has none."""
    if not split:
        return sha256_file(path)
    from gss.data.manifest import read_manifest

    manifest = read_manifest(path)
    return manifest.split_sha256(split) if split in manifest.splits else ""


@lru_cache(1024)
def _benchmark(path: Path, stamp: Stamp) -> float | None:
    """Seconds that a job took, as Snakemake notes them."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        return float(rows[-1]["s"])
    except (IndexError, KeyError, ValueError):
        return None
