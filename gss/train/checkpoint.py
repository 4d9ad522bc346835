"""Checkpoints that are whole or absent."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from gss.errors import CheckpointError, GssError
from gss.files import read_json, sha256_file, write_atomic, write_json

_NAME = re.compile(r"step_(\d+)-([0-9a-f]{16})\.pt")


@dataclass(frozen=True, order=True)
class Entry:
    """One checkpoint as its file name describes it: the step, and the first 16 hex digits of the SHA-256."""

    step: int
    file: str
    sha256: str


class CheckpointFolder:
    """The last checkpoints of a training. One process writes; any may load.

    A file's name carries the beginning of its SHA-256, `checkpoints.json` lists the names: a file that is damaged, or
    listed and gone, is noticed, and a damaged list costs no checkpoint.

    Args:
        path: the folder; it is made by the first `save`.
        keep_last: number of checkpoints kept.
    """

    def __init__(self, path: Path, keep_last: int = 2) -> None:
        self.path, self.keep_last = path, keep_last
        self._index = path / "checkpoints.json"

    def save(self, step: int, state: Mapping[str, Any], *, before: Callable[[], None] | None = None) -> Path:
        """Write a checkpoint, list it, and delete those no longer kept; in this order, so that one always stands.

        Args:
            state: tensors and plain values.
            before: called when the content is on the disk, before the file appears.

        Raises:
            GssError: disk full or not writable; earlier checkpoints stand.
        """
        path = self.path / f"step_{step:08d}.pt"

        def write(file: BinaryIO) -> None:
            nonlocal path
            hashing = _Hashing(file)
            torch.save(dict(state), cast(BinaryIO, hashing))
            path = path.with_stem(f"{path.stem}-{hashing.digest.hexdigest()[:16]}")

        def appear() -> Path:
            if before is not None:
                before()
            return path

        write_atomic(path, write, rename=appear)
        earlier = [entry for entry in self._entries()[0] if entry.step < step and (self.path / entry.file).is_file()]
        kept = [*earlier, _entry(path.name)][-self.keep_last :]
        write_json(
            self._index, {"version": 1, "checkpoints": [{"step": entry.step, "file": entry.file} for entry in kept]}
        )
        self._sweep({entry.file for entry in kept})
        return path

    def find_latest(self) -> tuple[Entry | None, list[str]]:
        """The newest checkpoint whose content is what was written, and what was wrong with newer ones.

        A damaged file is renamed to `<name>.damaged`.
        """
        entries, reports = self._entries()
        for entry in reversed(entries):
            fault = self._fault(entry)
            if fault is None:
                if reports:
                    reports.append(f"going on from the checkpoint of step {entry.step}")
                return entry, reports
            reports.append(f"checkpoint of step {entry.step} cannot be used: {fault} ({self.path / entry.file})")
        if reports:
            reports.append("no good checkpoint is left: starting from step 0")
        return None, reports

    def load(self, step: int, *, map_location: torch.device) -> dict[str, Any]:
        """Load the checkpoint of a step that `find_latest` found good.

        Raises:
            CheckpointError: there is none, or it holds more than tensors and plain values.
        """
        for entry in reversed(self._entries()[0]):
            path = self.path / entry.file
            if entry.step == step and path.is_file():
                try:
                    return torch.load(path, map_location=map_location, weights_only=True)
                except Exception as error:
                    raise CheckpointError(
                        f"the checkpoint cannot be loaded: {error}",
                        where=path,
                        todo="move it away to go on from the one before",
                    ) from error
        raise CheckpointError(f"no checkpoint of step {step}", where=self.path)

    def _entries(self) -> tuple[list[Entry], list[str]]:
        """Checkpoints listed or lying in the folder, by step, and what was wrong with the list."""
        files = {file.name for file in self.path.glob("step_*.pt") if _NAME.fullmatch(file.name)}
        reports = []
        if self._index.exists():
            try:
                listed = {entry["file"] for entry in read_json(self._index)["checkpoints"]}
                if not all(map(_NAME.fullmatch, listed)):
                    raise ValueError("names that no checkpoint has")
                files |= listed
            except (GssError, KeyError, TypeError, ValueError):
                reports.append(f"{self._index} is damaged; the checkpoints are found by their names")
        return sorted(map(_entry, files)), reports

    def _fault(self, entry: Entry) -> str | None:
        """What is wrong with a file; a damaged one is put aside."""
        path = self.path / entry.file
        if not path.is_file():
            return "the file is missing"
        try:
            found = sha256_file(path)
        except OSError as error:
            found = f"unreadable ({error.strerror})"
        if found.startswith(entry.sha256):
            return None
        with contextlib.suppress(OSError):
            os.replace(path, path.with_name(f"{path.name}.damaged"))
        return f"SHA-256 is {found[:16]}... instead of {entry.sha256}..., {path.name} was renamed to *.damaged"

    def _sweep(self, kept: set[str]) -> None:
        """Delete checkpoints not kept, and temporary files of killed processes."""
        for file in [*self.path.glob("step_*.pt"), *self.path.glob(".*.tmp")]:
            if file.name not in kept:
                file.unlink(missing_ok=True)


class _Hashing:
    """A file to write to that takes the sum of what passes: no second copy of a checkpoint is held in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.flush = file, file.flush
        self.digest = hashlib.sha256()

    def write(self, content: memoryview) -> int:
        self.digest.update(content)
        return self._file.write(content)


def _entry(file: str) -> Entry:
    match = _NAME.fullmatch(file)
    assert match is not None
    return Entry(int(match[1]), file, match[2])
