"""What is changed in Snakemake itself: what it takes results for, and what it shows of a failed job.

Both have no option there. The rules call these functions, so Snakemake is imported inside them.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gss.cluster.log import last_lines
from gss.results.records import made_by
from gss.text import differences

_SHOWN_LINES = 30


def trust_records() -> None:
    """Let Snakemake judge results by the records that lie beside them (`gss.results.records`), where there are some.

    Its own memory in `.snakemake` knows nothing of results that were copied here, nor of what was made by hand, and
    takes both for what today's configuration makes.
    """
    from snakemake.persistence import (  # type: ignore[import-untyped]
        NO_PARAMS_CHANGE,
        ParamsChange,
        PersistenceBase,
    )

    own_memory, own_changes, own_checksums = (
        PersistenceBase.has_metadata,
        PersistenceBase.params_changed,
        PersistenceBase.input_checksums,
    )

    class Changed(ParamsChange):  # type: ignore[misc]
        """Names the keys of the configuration; Snakemake's own lists all old values, then all new ones."""

        def __str__(self) -> str:
            return ", ".join(sorted(self.only_new))

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
        return Changed(only_new={*found}, files={*job.output}) if found else NO_PARAMS_CHANGE

    def input_checksums(self: PersistenceBase, job: Any, input_path: Any) -> set[Any]:
        known = own_checksums(self, job, input_path) - {None}
        if known or (record := _record(job)) is None:
            return known
        digest = record["inputs"].get(os.path.relpath(input_path, _results_of(job)))
        return {f"sha256:{digest}"} if digest else set()

    PersistenceBase.has_metadata = has_metadata
    PersistenceBase.params_changed = params_changed
    PersistenceBase.input_checksums = input_checksums


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


def _record(job: Any) -> dict[str, Any] | None:
    """The record of what a job of Snakemake makes, as it was made last."""
    return made_by(_results_of(job), Path(job.log[0]).stem) if job.log else None


def _results_of(job: Any) -> Path:
    return Path(job.log[0]).parents[1]
