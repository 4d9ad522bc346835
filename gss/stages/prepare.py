"""Stage 0: unpack the archives of a data set whose folders are not there yet."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gss.cluster.lock import owner_lock
from gss.config import data_folder, data_set_folder
from gss.config.schema import Data
from gss.data.archives import Member, checksum, list_members, unpack
from gss.data.walk import is_hidden
from gss.errors import ConfigError, DataError
from gss.files import read_json, write_json
from gss.layout import PREPARED
from gss.stages.run import Run


def prepare(run: Run) -> None:
    """Unpack `data.archives` into the folders of the splits that are missing; write `data/prepared.json`.

    Several callers wait for one another. One that was interrupted leaves whole folders only; the next goes on.

    Raises:
        ConfigError: folders are missing, and archives, too.
        DataError: an archive has another checksum, is damaged, holds what an archive of a data set should not,
            or not what is missing.
    """
    data = run.experiment.data
    root = data_set_folder(data)
    wanted = _wanted(root, data)
    path = run.folder / PREPARED
    before = read_json(path) if path.is_file() else {"archives": [], "folders": {}}
    _refuse_late_archives(data, wanted, before["archives"])
    record: list[dict] = []
    sources = {folder: list(before["folders"].get(os.path.relpath(folder, root), [])) for folder in wanted}
    if _missing(wanted):
        _require_archives(wanted, data)
        with _alone(root) as work:
            if missing := _missing(wanted):  # nobody else unpacked them meanwhile
                record, found = _chosen(data, missing)
                sources |= {folder: [] for folder in missing}
                for (_, members), archive in zip(found, data.archives, strict=True):
                    for folder in {member.folder for member in members}:
                        sources[folder].append(archive.file)
                unpack(found, work)
                _say(f"unpacked {', '.join(str(folder) for folder in missing)}")
    if not record:
        _say(f"{root}: all folders of the splits are there, nothing is unpacked")
    with run.stage("prepare", {}):
        write_json(
            path,
            {
                "version": 1,
                "root": data.root,  # as the configuration names it
                "archives": record or before["archives"],
                "folders": {os.path.relpath(folder, root): files for folder, files in sources.items()},
            },
        )


def _refuse_late_archives(data: Data, wanted: dict[Path, set[str]], known: list[dict]) -> None:
    """Raise DataError when an archive was added to those unpacked before, and its files belong in folders that are
    there."""
    names = {(archive["file"], archive["into"]) for archive in known}
    there = {folder: ends for folder, ends in wanted.items() if folder not in _missing(wanted)}
    for archive in data.archives if known else ():
        path = data_folder() / archive.file
        if (archive.file, archive.into) in names or not path.is_file():
            continue
        late = [
            member for member in list_members(path, data_folder() / archive.into, there) if not member.target.exists()
        ]
        if late:
            folders = ", ".join(sorted({str(member.folder) for member in late}))
            raise DataError(
                f"the archive was added after others were unpacked; {len(late)} of its files are missing in {folders}",
                where=path,
                todo="unpack it there yourself, or move these folders away and run again: all are unpacked anew",
            )


def _say(line: str) -> None:
    print(line, flush=True)


def _wanted(root: Path, data: Data) -> dict[Path, set[str]]:
    """Outermost folders of the splits -> ends of the names that the check looks for in them."""
    wanted: dict[Path, set[str]] = {}
    for split in data.splits.values():
        wanted.setdefault(root / split.images, set()).add(data.image_suffix)
        if not data.annotations:  # only pictures are unpacked
            wanted.setdefault(root / split.labels, set()).add(data.label_suffix)
    return {
        folder: set().union(*(wanted[inner] for inner in wanted if inner.is_relative_to(folder)))
        for folder in wanted
        if not any(folder != outer and folder.is_relative_to(outer) for outer in wanted)
    }


def _missing(wanted: dict[Path, set[str]]) -> dict[Path, set[str]]:
    """Those that do not exist or hold nothing but what is hidden, such as `.DS_Store`."""
    return {folder: ends for folder, ends in wanted.items() if not (folder.is_dir() and _has_content(folder))}


def _has_content(folder: Path) -> bool:
    return not all(is_hidden(entry.name) for entry in folder.iterdir())


def _require_archives(wanted: dict[Path, set[str]], data: Data) -> None:
    archives = [data_folder() / archive.file for archive in data.archives]
    if archives and all(archive.is_file() for archive in archives):
        return
    missing = _missing(wanted)
    lines = [f"    folder {folder}{'  (missing)' if folder in missing else ''}" for folder in wanted]
    lines += [f"    archive {path}{'' if path.is_file() else '  (missing)'}" for path in archives]
    if data.generate:
        lines.append(f"    make it: gss toy-data {data_set_folder(data)}")
    if data.obtain:
        lines.append(f"    the data: {data.obtain}")
    absent = sum(not path.is_file() for path in archives)
    raise ConfigError(
        f"the data set is missing: {len(missing)} of {len(wanted)} folders, "
        + (f"and {absent} of the {len(archives)} archives that hold them" if archives else "and no data.archives"),
        where=data_set_folder(data),
        todo="\n".join(["put folders or archives there, or set GSS_DATA to the folder that holds them:", *lines]),
    )


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[Path]:
    """An empty folder in `root` to unpack in, for one process at a time; it is removed, `root` too if still empty."""
    work, existing = root / ".prepare", next(folder for folder in (root, *root.parents) if folder.exists())
    while True:
        with owner_lock(work, stopped=lambda: False) as descriptor:
            assert descriptor is not None
            lock = work / "lock"
            if not lock.exists() or not os.path.samestat(os.fstat(descriptor), lock.stat()):
                continue  # the one before removed it: this lock is nobody's any more
            try:
                unpacked = work / "unpacked"
                shutil.rmtree(unpacked, ignore_errors=True)  # of one that was killed
                unpacked.mkdir()
                yield unpacked
            finally:
                shutil.rmtree(work, ignore_errors=True)
                with contextlib.suppress(OSError):  # not empty: somebody waits, or folders are complete
                    for folder in (root, *root.parents):
                        if folder == existing:
                            break
                        folder.rmdir()
            return


def _chosen(data: Data, missing: dict[Path, set[str]]) -> tuple[list[dict], list[tuple[Path, list[Member]]]]:
    """What is known of every archive, and what to take from it."""
    record, found = [], []
    for archive in data.archives:
        path = data_folder() / archive.file
        digest = checksum(path, archive.checksum)
        record.append({"file": archive.file, "into": archive.into, "bytes": path.stat().st_size, "checksum": digest})
        found.append((path, list_members(path, data_folder() / archive.into, missing)))
    held = {member.folder for _, members in found for member in members}
    for folder, ends in missing.items():
        if folder not in held:
            names = " or ".join(f"*{end}.png" for end in sorted(ends))
            raise DataError(
                f"no archive holds files for {folder} ({names}, or another picture format)",
                where=", ".join(archive.file for archive in data.archives),
                todo="see `into` in data.archives and the folders in data.splits",
            )
    return record, found
