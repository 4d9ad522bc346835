"""Files appear whole or not at all."""

import errno
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from gss.errors import GssError
from gss.files import read_json, replace_with_link, sha256_file, sha256_json, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def broken(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(GssError, match="No space left") as error:
        write_atomic(path, broken)
    assert str(path) in str(error.value)
    assert "free some disk space" in str(error.value)
    assert read_json(path) == {"old": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    write_json(tmp_path / ("图" * 83 + ".json"), 1)  # 254 bytes
    assert len(list(tmp_path.iterdir())) == 1


def test_a_limit_of_the_system_is_one_clear_error(tmp_path: Path) -> None:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(GssError, match="cannot write"):
            write_atomic(tmp_path / "big", lambda file: file.write(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(GssError, match="a file stands where a folder is expected"):
        write_json(tmp_path / "results" / "x.json", 1)


def test_permissions_are_the_users_also_with_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask belongs to the process: a thread that touches it makes the files of the others writable for all."""
    path, before = tmp_path / "a.json", os.umask(0o027)
    try:
        write_json(path, 1)
        assert path.stat().st_mode & 0o777 == 0o640
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask of all threads was changed"))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: write_json(tmp_path / f"{number}.json", number), range(40)))
    finally:
        monkeypatch.undo()
        assert os.umask(before) == 0o027
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}


def test_nan_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", float("nan"))


def test_linked_file_survives_the_removal_of_the_other(tmp_path: Path) -> None:
    source, target = tmp_path / "work" / "final", tmp_path / "final"
    write_json(source, [1, 2])
    for _ in range(2):
        replace_with_link(source, target)
        assert sha256_file(source) == sha256_file(target)
    target.unlink()
    assert read_json(source) == [1, 2]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["work"]


def test_hash_of_json_ignores_the_order_of_keys() -> None:
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1}) != sha256_json({"a": 1, "b": [3]})
