"""Files that appear whole or not at all, and the hashes that identify them."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from gss.errors import GssError

if TYPE_CHECKING:
    from pandas import DataFrame

REMEDIES = {
    errno.ENOSPC: "free some disk space or point the results folder at another disk, then run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run the same command again",
    errno.EFBIG: "the file system or a limit (ulimit -f) refuses files of this size: raise it, then run again",
    errno.EACCES: "give yourself write permission for this folder or choose another results folder",
    errno.EPERM: "give yourself write permission for this folder or choose another results folder",
    errno.EROFS: "this file system is read-only: choose another results folder",
    errno.ENOTDIR: "a file stands where a folder is expected: move it away",
    errno.EEXIST: "a file stands where a folder is expected: move it away",
}


def write_error(path: Path, error: OSError) -> GssError:
    """What to say when a file could not be written, with a remedy where one is known."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return GssError(f"cannot write: {reason}", where=path, todo=REMEDIES.get(error.errno or 0))


def write_atomic(path: Path, write: Callable[[BinaryIO], object], *, rename: Callable[[], Path] | None = None) -> None:
    """Write a file under a temporary name in its own folder and rename it into place.

    Args:
        path: final name; missing parent folders are made.
        write: called once with the open binary file.
        rename: called when all is on the disk; returns the final path where that depends on the content.

    Raises:
        GssError: the disk is full, read-only or forbidden; the old file, if any, is untouched and no
            temporary file stays behind.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # no longer than it has to be: names have 255 bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not by `tempfile`, whose files only their owner can read: the kernel gives what umask and ACLs say. A process
        # cannot even ask for its umask without changing it, for all of its threads.
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path if rename is None else rename())
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # torch covers the disk's error by one of its own
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise write_error(path, cause) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, see `write_atomic`."""
    write_atomic(path, lambda file: file.write(text.encode()))


def json_text(content: Any) -> str:
    """JSON as the files have it: indented, keys in the given order; NaN is refused."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, see `json_text`."""
    write_text(path, json_text(content))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        GssError: missing or damaged file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GssError("file not found", where=path, todo="run the stage that writes it") from error
    except (ValueError, OSError) as error:
        todo = "mend it, or move it away and run again"
        raise GssError(f"cannot be read as JSON: {error}", where=path, todo=todo) from error


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as the files have it: CSV with a heading; numbers in full, an empty cell for None and NaN."""
    import pandas as pd  # here and below: not for commands that have no table

    return pd.DataFrame(list(rows), columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically, see `table_text`."""
    write_text(path, table_text(columns, rows))


def read_table(path: Path, *, separator: Literal[",", "\t"] = ",") -> "DataFrame":
    """Read a table with a heading. Every cell is text, as a class may be called `NA` or `1`; one that is missing is "".

    Args:
        separator: between tabs, quotation marks are letters.

    Raises:
        GssError: the file is missing, or no table.
    """
    import pandas as pd

    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    try:
        table = pd.read_csv(
            path,
            sep=separator,
            quoting=quoting,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
        return table.fillna("")
    except FileNotFoundError as error:
        raise GssError("file not found", where=path, todo="run the stage that writes it") from error
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, OSError) as error:
        raise GssError(f"not readable as a table: {error}", where=path) from error


def replace_with_link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where the file system has them, else a copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.link")
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # rename(2) does nothing when both names are one file already
    except OSError:
        content = source.read_bytes()
        write_atomic(target, lambda file: file.write(content))


def remove(*paths: Path) -> None:
    """Take files and folders away, in this order, if they are there: what is replaced in several steps goes first, so
    that a kill leaves nothing of old beside something new.

    Raises:
        GssError: one cannot be removed.
    """
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(path, error) from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """SHA-256 of a JSON value, independent of key order and white space."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
