"""The journal of a stage: one JSON line per event, appended by one process, read by whoever ships it to MLflow.

The first line is a header: `journal` (an id of its own) and what the stage says about itself. Then, in any order:
`{"t": ms, "step": n, "m": {name: value}}`, `{"t": ms, "params": {...}}`, `{"t": ms, "tags": {...}}`,
`{"t": ms, "artifact": path}`, seen from the experiment's folder, and
`{"t": ms, "end": "finished" | "failed" | "interrupted"}`.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gss.errors import GssError, Interrupted
from gss.text import flatten

_LAST_BYTES = 100_000  # more than the longest line has


class Journal:
    """Append-only journal. A resumed stage opens the same file again and writes only what is new.

    As a context manager it writes how what happens inside ends.

    Args:
        path: the file; a last line torn by a crash is cut off.
        header: first line of a new journal; an old journal keeps its own.

    Raises:
        GssError: the file cannot be written, or holds something else.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._last_step: dict[str, int] = {}
        self._known: dict[str, dict[str, Any]] = {"params": {}, "tags": {}, "figures": {}}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+")
            events = self._recover()
        except OSError as error:
            raise self._failure(error) from error
        if not events:
            events = [{"journal": uuid.uuid4().hex, **header}]
            self._append(events[0])
        self.header = events[0]
        for event in events[1:]:
            self._remember(event)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics of a step.

        Values of a name that already has this step or a later one are left out: a restart repeats the steps after
        its checkpoint, with the same values.
        """
        new = {name: value for name, value in values.items() if step > self._last_step.get(name, -1)}
        if new:
            self._event({"step": step, "m": new})

    def figures(self, values: Mapping[str, float]) -> None:
        """Write final figures of the stage, as step 0; those of a repeated stage only where they differ: the last
        ones count."""
        new = {name: value for name, value in values.items() if self._known["figures"].get(name) != value}
        if new:
            self._event({"step": 0, "m": new})

    def params(self, values: Mapping[str, Any]) -> None:
        """Write parameters; nested ones become `outer.inner`, known ones are left out."""
        self._new("params", values)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Write tags; those that stand as given are left out."""
        self._new("tags", values)

    def artifact(self, path: Path) -> None:
        """Name a file that belongs to the run; the journal is `<experiment>/work/<stage>/<file>`."""
        self._event({"artifact": os.path.relpath(path, self.path.parents[2])})

    def end(self, status: str) -> None:
        """Write how this run of the stage ended: `finished`, `failed` or `interrupted`."""
        self._event({"end": status})
        self.sync()

    def ended_by(self, error: BaseException | None) -> None:
        """Write the end an exception makes; one that may come from a full disk is not covered by a second one."""
        if error is None:
            self.end("finished")
        else:
            with contextlib.suppress(GssError):
                self.end("interrupted" if isinstance(error, Interrupted) else "failed")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.ended_by(error)

    def sync(self) -> None:
        """Bring all lines to the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _new(self, kind: str, values: Mapping[str, Any]) -> None:
        known = self._known[kind]
        new = {name: value for name, value in flatten(values).items() if name not in known or known[name] != value}
        if new:
            self._event({kind: new})

    def _event(self, event: dict[str, Any]) -> None:
        self._append({"t": time.time_ns() // 1_000_000, **event})
        self._remember(event)

    def _remember(self, event: Mapping[str, Any]) -> None:
        for name in event.get("m", ()):
            self._last_step[name] = max(event["step"], self._last_step.get(name, -1))
        for kind, known in self._known.items():
            known.update(event.get(kind, {}))
        if event.get("step") == 0:
            self._known["figures"].update(event["m"])

    def _append(self, event: Mapping[str, Any]) -> None:
        """Write one line with a single system call, so that a reader never meets half of it for long."""
        try:
            self._file.write((json.dumps(event, ensure_ascii=False, default=str) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def _recover(self) -> list[dict[str, Any]]:
        """The events in the file, after cutting off a torn last line."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        return _parse(self.path, whole)

    def _failure(self, error: OSError) -> GssError:
        return GssError(
            f"cannot write the journal: {error.strerror}",
            where=self.path,
            todo="make room or make the folder writable, then run the same command again",
        )


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal, the header first; empty when there is none yet.

    Raises:
        GssError: a line is not JSON.
    """
    content = path.read_bytes() if path.is_file() else b""
    return _parse(path, content[: content.rfind(b"\n") + 1])


def last_event(path: Path) -> dict[str, Any]:
    """The last whole line of a journal, without reading the others; empty when there is none that can be read."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_BYTES))
        *_, line = file.read().rpartition(b"\n")[0].splitlines()
        return dict(json.loads(line))
    return {}


def _parse(path: Path, content: bytes) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError as error:
        raise GssError(f"not a journal: {error}", where=path, todo="move it away; a new one will be begun") from error
