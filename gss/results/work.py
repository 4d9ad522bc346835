"""Work folders that are one's own."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.files import read_json, sha256_json, write_json
from gss.text import flatten

LAUNCHER_FILES = {"lock", "writer.lock", "owners.jsonl", "exit.json"}


def open_work(work: Path, fingerprint: Mapping[str, Any], older: Mapping[str, Any] | None = None) -> str | None:
    """Make sure that what lies in a work folder belongs to this configuration and these inputs.

    Foreign content is moved to `stale/<stage>-<hash>` beside the work folder, never used and never deleted. The
    launcher's own files (lock, owner, exit code) stay.

    Args:
        work: the stage's work folder.
        fingerprint: JSON value of all that the content depends on.
        older: how an earlier version would have said the same.

    Returns:
        A message that says which keys differ and where the old content is; None when nothing was moved.

    Raises:
        GssError: the folder cannot be written.
    """
    record = work / "fingerprint.json"
    content = [item for item in (work.iterdir() if work.is_dir() else ()) if item.name not in LAUNCHER_FILES]
    old: Any = None
    with contextlib.suppress(GssError):
        old = read_json(record)
    known = sha256_json(old)
    if known == sha256_json(fingerprint):
        return None
    message = None
    if content and (older is None or known != sha256_json(older)):
        target = _stale_folder(work, "unknown" if old is None else sha256_json(old)[:8])
        try:
            target.mkdir(parents=True)
            for item in content:
                os.replace(item, target / item.name)
        except OSError as error:
            raise GssError(
                f"cannot move the files of another training away: {error.strerror}",
                where=work,
                todo="make the folder and its parent writable, or move its content yourself",
            ) from error
        message = f"{work} held another training ({_difference(old, fingerprint)}); it was moved to {target}"
    write_json(record, fingerprint)
    return message


def _stale_folder(work: Path, name: str) -> Path:
    """A new name below `stale/`."""
    base, number = work.parent / "stale" / f"{work.name}-{name}", 1
    target = base
    while target.exists():
        number += 1
        target = base.with_name(f"{base.name}-{number}")
    return target


def _difference(old: Any, new: Mapping[str, Any]) -> str:
    """The keys in which two fingerprints differ, with both values."""
    if not isinstance(old, dict):
        return "no readable fingerprint.json"
    before, now = flatten(old), flatten(new)
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "different: " + ", ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in keys)
