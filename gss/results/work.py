"""Work folders that are one's own."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.files import read_json, sha256_json, write_json
from gss.text import differences

STALE = "stale"
KEPT_STALE = 3
_TOLD = {"fingerprint.json", "journal.jsonl"}
LAUNCHER_FILES = {"lock", "writer.lock", "owners.jsonl", "exit.json"}


def open_work(work: Path, fingerprint: Mapping[str, Any], older: Mapping[str, Any] | None = None) -> str | None:
    """Make sure that what lies in a work folder belongs to this configuration and these inputs.

    Foreign content is moved to `stale/<stage>-<hash>` beside the work folder and never used; of those of a stage the
    last `KEPT_STALE` are kept whole, of older ones only fingerprint and journal. The launcher's own files (lock, owner,
    exit code) stay.

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
        _bound(target.parent, work.name)
        message = f"{work} held another training ({_difference(old, fingerprint)}); it was moved to {target}"
    write_json(record, fingerprint)
    return message


def spare_files(work: Path) -> Iterator[Path]:
    """What of a work folder takes room that nothing but the stage itself has use for: not what results and MLflow are
    shown with, and not what is a model of the results under another name."""
    for path in sorted(work.rglob("*")):
        if path.is_file() and path.name not in {*LAUNCHER_FILES, *_TOLD} and path.stat().st_nlink == 1:
            yield path


def _bound(stale: Path, stage: str) -> None:
    """Keep the last ones of a stage whole, of the others what was told of them."""
    own = [
        path
        for path in stale.iterdir()
        if re.fullmatch(rf"{re.escape(stage)}-([0-9a-f]{{8}}|unknown)(-\d+)?", path.name)
    ]
    for folder in sorted(own, key=lambda path: path.stat().st_mtime_ns)[:-KEPT_STALE]:
        for path in spare_files(folder):
            with contextlib.suppress(OSError):  # it may belong to somebody else; nothing depends on it
                path.unlink()


def _stale_folder(work: Path, name: str) -> Path:
    """A new name below `stale/`."""
    base, number = work.parent / STALE / f"{work.name}-{name}", 1
    target = base
    while target.exists():
        number += 1
        target = base.with_name(f"{base.name}-{number}")
    return target


def _difference(old: Any, new: Mapping[str, Any]) -> str:
    """The keys in which two fingerprints differ, with both values."""
    if not isinstance(old, dict):
        return "no readable fingerprint.json"
    return "different: " + ", ".join(differences(old, new, absent="None"))
