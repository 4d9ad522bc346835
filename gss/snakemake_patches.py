"""What is changed in Snakemake itself: what it takes results for, and what it shows of a failed job.

Both have no option there. The rules call these functions, so Snakemake is imported inside them.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gss.cluster.log import last_lines
from gss.config import all_stages
from gss.errors import GssError
from gss.files import sha256_file
from gss.layout import MANIFEST, STATISTICS
from gss.results.records import made_by, of_split
from gss.text import differences
from gss.workflow import other_files

if TYPE_CHECKING:
    from gss.data.manifest import Manifest

_SHOWN_LINES = 30
_CHECKS = ("check", "check_set")  # rules


def trust_records() -> None:
    """Let Snakemake judge results by the records that lie beside them (`gss.results.records`), where there are some.

    Its own memory in `.snakemake` knows nothing of results that were copied here, nor of what was made by hand, and
    takes both for what today's configuration makes.
    """
    from snakemake.persistence import NO_PARAMS_CHANGE, PersistenceBase  # type: ignore[import-untyped]

    own_memory, own_changes, own_checksums, own_restore = (
        PersistenceBase.has_metadata,
        PersistenceBase.params_changed,
        PersistenceBase.input_checksums,
        PersistenceBase.restore_output,
    )

    def has_metadata(self: PersistenceBase, job: Any) -> bool:
        return _record(job) is not None or own_memory(self, job)

    def params_changed(self: PersistenceBase, job: Any, file: Any = None) -> Any:
        record = _record(job)
        if record is None:
            return own_changes(self, job, file)
        made, now = dict(record["settings"]), dict(job.params.get("config", {}))
        looked_into = job.params.get("oracles")
        if looked_into is not None:
            made |= {name: sha for name, sha in record["inputs"].items() if name.startswith("..")}
            now |= looked_into
        found = differences(made, now, absent="default")
        return _change(found, job) if found else NO_PARAMS_CHANGE

    def input_checksums(self: PersistenceBase, job: Any, input_path: Any) -> set[Any]:
        record = _record(job)
        if record is not None and (digest := _as_read(record, _results_of(job), Path(input_path))):
            return {f"sha256:{digest}"}
        known = own_checksums(self, job, input_path) - {None}
        if known or record is None:
            return known
        digest = record["inputs"].get(os.path.relpath(input_path, _results_of(job)))
        return {f"sha256:{digest}"} if digest else set()

    def restore_output(self: PersistenceBase, path: Path) -> bool:
        is_kept: bool = self._get_backup_path(path).exists()  # of what is made for the first time it would warn
        return is_kept and own_restore(self, path)

    PersistenceBase.restore_output = restore_output
    PersistenceBase.has_metadata = has_metadata
    PersistenceBase.params_changed = params_changed
    PersistenceBase.input_checksums = input_checksums


def look_at_data() -> None:
    """Let Snakemake check data sets again whose files are others than the check saw, and make again what depends on the
    splits that they are in.

    It would make again all that comes after the check, trainings for a photograph that is only measured. Which of the
    splits were read says the record of what was made.
    """
    from snakemake.dag import DAG  # type: ignore[import-untyped]

    own_update = DAG.update_needrun

    async def update_needrun(self: DAG, create_inventory: bool = False) -> None:
        await own_update(self, create_inventory)
        if not self.workflow.is_main_process:
            return
        needed, queue = self._needrun, deque[Any]()
        causes: dict[Any, set[str]] = {}  # the splits for which a job is added

        def add(job: Any, cause: set[str]) -> None:
            if job not in needed and not self.finished(job):
                needed.add(job)
                queue.append(job)
                causes[job] = cause

        for job in [job for job in self.jobs if job.rule.name in _CHECKS]:
            if job not in needed and not self.finished(job) and (found := _other_files(job)):
                self.reason(job).params_changed = _change(found.values(), job)
                add(job, {*found})
        while queue:
            job = queue.popleft()
            for maker, files in self._dependencies[job].items():
                if missing := [file async for file in maker.missing_output(files)]:
                    self.reason(maker).missing_output.update(missing)
                    add(maker, causes[job])
            for reader, files in self.depending[job].items():
                if _is_other(job, causes[job], reader, files):
                    self.reason(reader).updated_input_run.update(files)
                    add(reader, causes[job])
        if causes:
            for job in needed:
                self._n_until_ready[job] = sum(maker in needed for maker in self._dependencies[job])
            self._len = len(self._finished | needed)

    DAG.update_needrun = update_needrun


def show_last_lines() -> None:
    """Let Snakemake show the end of a failed job's log, not the hours before it."""
    from snakemake import logging  # type: ignore[import-untyped]

    def show_logs(logs: Iterable[str]) -> Iterator[str]:
        for log in logs:
            try:
                lines = last_lines(Path(log), _SHOWN_LINES)
            except OSError as error:
                yield f"Logfile {log}: {error.strerror}"
                continue
            yield f"Logfile {log}, the last {len(lines)} lines:"
            yield from ("=" * 80, *lines, "=" * 80)

    logging.show_logs = show_logs


def _change(texts: Iterable[str], job: Any) -> Any:
    """What Snakemake says of a job whose settings or data are others; its own words list all old values, then all new
    ones."""
    from snakemake.persistence import ParamsChange

    class Changed(ParamsChange):  # type: ignore[misc]
        def __str__(self) -> str:
            return ", ".join(sorted(self.only_new))

    return Changed(only_new={*texts}, files={*job.output})


def _record(job: Any) -> dict[str, Any] | None:
    """The record of what a job of Snakemake makes, as it was made last."""
    return made_by(_results_of(job), Path(job.log[0]).stem) if job.log else None


def _other_files(check: Any) -> dict[str, str]:
    """What has changed in a data set since its check; nothing is known of one before checks looked."""
    seen = (_record(check) or {}).get("seen")
    if seen is None:
        return {}
    return other_files(check.wildcards.experiment, getattr(check.wildcards, "split", None), seen)


def _is_other(made: Any, splits: set[str], reader: Any, files: Iterable[str]) -> bool:
    """Whether what a job makes again for other files in some splits is something else for one that reads it."""
    if made.rule.name in _CHECKS:
        read = _splits_of(_record(reader) or {})
        return not read or not splits.isdisjoint(read)
    row = all_stages().get(made.rule.name)
    if row is None or not row.learns or not splits.isdisjoint(row.learns):
        return True
    return any(Path(file).is_relative_to(_results_of(made) / row.figures) for file in files)


def _splits_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The splits that something was made of, and their hashes; none where the record says nothing of splits."""
    names = {name: name.removeprefix(of_split("")) for name in record.get("inputs", {})}
    return {split: record["inputs"][name] for name, split in names.items() if split != name}


def _as_read(record: Mapping[str, Any], results: Path, path: Path) -> str:
    """What the hash of a file that the check makes has to be where its reader read some splits; empty of others."""
    splits = _splits_of(record)
    if not splits or path not in (results / MANIFEST, results / STATISTICS):
        return ""
    with contextlib.suppress(GssError, OSError):
        manifest = _manifest(results / MANIFEST, os.stat(results / MANIFEST).st_mtime_ns)
        if all(manifest.split_sha256(split) == digest for split, digest in splits.items()):
            return sha256_file(path)
    return "0" * 64


@cache
def _manifest(path: Path, time: int) -> "Manifest":
    from gss.data.manifest import read_manifest

    return read_manifest(path)


def _results_of(job: Any) -> Path:
    return Path(job.log[0]).parents[1]
