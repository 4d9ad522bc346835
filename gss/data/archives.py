"""Unpacking the archives of a data set: the files its splits need and nothing else, whole folders or none."""

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gss.data.walk import composed, is_picture
from gss.errors import DataError, GssError
from gss.progress import Progress

_CHUNK = 1 << 20
_DISK_BLOCK = 4096
_MEGABYTE = 10**6
# What zipfile, tarfile and the decompressors raise for damaged, encrypted or unknown content.
_READ_ERRORS = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file in an archive that belongs in a folder of the data set.

    Args:
        entry: its ZipInfo or TarInfo.
        size: bytes, unpacked.
        folder: the folder that waits for it.
        target: the path it belongs at, below `folder`.
    """

    entry: Any
    size: int
    folder: Path
    target: Path


def checksum(path: Path, expected: str | None) -> str:
    """The checksum of a file as `algorithm:digits`; SHA-256 where none is expected.

    Args:
        expected: `sha256:...`, `sha1:...` or `md5:...`.

    Raises:
        DataError: the file has another checksum, or cannot be read.
    """
    algorithm = expected.partition(":")[0] if expected else "sha256"
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        progress = _Megabytes(f"verify {path.name}, MB:", path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                progress.add(len(chunk))
    except OSError as error:
        raise DataError(f"the archive cannot be read: {error.strerror}", where=path) from error
    found = f"{algorithm}:{digest.hexdigest()}"
    if expected and found != expected:
        raise DataError(
            f"the archive is damaged or another one: expected {expected}, found {found} ({path.stat().st_size} bytes)",
            where=path,
            todo="get it again; if it is the right one, correct or remove `checksum` in data.archives",
        )
    return found


def list_members(archive: Path, into: Path, wanted: Mapping[Path, set[str]]) -> list[Member]:
    """The files of an archive that belong in some folders, in the order of the archive.

    Args:
        archive: zip or tar, compressed or not.
        into: the folder its content belongs in.
        wanted: folder -> ends of file names (before the extension) that are needed in it.

    Raises:
        DataError: it cannot be read, or any of its members, needed or not, leads out of `into` or is no plain
            file or folder.
    """
    with _opened(archive) as (entries, _):
        members = []
        for entry in entries:
            name, is_plain, size = _describe(entry)
            path = PurePosixPath(composed(name.replace("\\", "/")))
            if path.is_absolute() or ".." in path.parts:
                raise _hostile(archive, f"the path {name!r}, which leads out of its folder")
            if not is_plain:
                raise _hostile(archive, f"{name!r}, which is a link or a device")
            target = into / path
            folder = next((folder for folder in wanted if target.is_relative_to(folder)), None)
            if folder is None or name.endswith("/"):
                continue
            if any(is_picture(target.relative_to(folder), suffix) for suffix in wanted[folder]):
                members.append(Member(entry, size, folder, target))
        return members


def unpack(archives: Sequence[tuple[Path, list[Member]]], work: Path) -> None:
    """Unpack members in a folder of work; each folder of the data set is moved into place when it is complete.

    Args:
        archives: archive and what to take from it.
        work: an empty folder on the disk of the data set.

    Raises:
        DataError: an archive is damaged, or two members are one file. GssError: no space, no permission.
    """
    members = [member for _, chosen in archives for member in chosen]
    twice = [target for target, count in Counter(member.target for member in members).items() if count > 1]
    if twice:
        holders = [str(archive) for archive, chosen in archives for member in chosen if member.target == twice[0]]
        raise DataError(f"the archives hold {twice[0]} more than once", where=", ".join(holders), todo="remove one")
    _require_space(members, work)
    waiting = Counter(member.folder for member in members)
    progress = _Megabytes("unpack, MB:", sum(member.size for member in members))
    places = {folder: work / str(number) for number, folder in enumerate(waiting)}
    for archive, chosen in archives:
        with _opened(archive) as (_, read):
            for member in chosen:
                place = places[member.folder]
                _copy(read(member.entry), place / member.target.relative_to(member.folder), progress)
                waiting[member.folder] -= 1
                if not waiting[member.folder]:
                    with _writing(member.folder):
                        member.folder.parent.mkdir(parents=True, exist_ok=True)
                        for hidden in os.listdir(member.folder) if member.folder.is_dir() else ():
                            os.rename(member.folder / hidden, place / hidden)  # only an empty folder is replaced
                        os.rename(place, member.folder)


def _copy(source: IO[bytes], path: Path, progress: "_Megabytes") -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    with source, file:
        while chunk := source.read(_CHUNK):
            with _writing(path):
                file.write(chunk)
                file.flush()  # a full disk shows here, not when the file is closed
            progress.add(len(chunk))


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[Any], Callable[[Any], IO[bytes]]]]:
    """All entries of an archive, and the function that opens one for reading."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield zipped.infolist(), zipped.open
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarred:
                yield tarred.getmembers(), tarred.extractfile  # type: ignore[misc]  # plain files give a reader
        else:
            raise ValueError("neither zip nor tar, or its end is missing")
    except _READ_ERRORS as error:
        size = archive.stat().st_size
        raise DataError(
            f"the archive cannot be read: {error} ({size} bytes)", where=archive, todo="get it again, whole"
        ) from error


def _describe(entry: zipfile.ZipInfo | tarfile.TarInfo) -> tuple[str, bool, int]:
    """Name (folders end with a slash), whether it is a plain file or folder, size."""
    if isinstance(entry, zipfile.ZipInfo):
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where another system than Unix made the archive
        return entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), entry.file_size
    return entry.name + "/" * entry.isdir(), entry.isfile() or entry.isdir(), entry.size


def _hostile(archive: Path, what: str) -> DataError:
    return DataError(
        f"the archive holds {what}; nothing was unpacked",
        where=archive,
        todo="get it from its source again; one of your own: pack plain files with relative paths",
    )


def _require_space(members: Sequence[Member], work: Path) -> None:
    needed = sum(-(-member.size // _DISK_BLOCK) * _DISK_BLOCK for member in members)
    free = shutil.disk_usage(work).free
    if needed > free:
        raise GssError(
            f"the data set needs {_gigabytes(needed)}, free are {_gigabytes(free)}",
            where=work.parent,
            todo="free some space, or put the data folder (GSS_DATA) on another disk",
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GssError(
            f"cannot unpack: {error.strerror}",
            where=path,
            todo="see to space and permissions, then run again: folders that are complete stay",
        ) from error


class _Megabytes:
    """Progress of bytes, shown in MB."""

    def __init__(self, title: str, num_bytes: int) -> None:
        self.progress, self.done = Progress(title, max(1, num_bytes // _MEGABYTE), "MB"), 0

    def add(self, count: int) -> None:
        self.done += count
        self.progress.show(self.done // _MEGABYTE)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
