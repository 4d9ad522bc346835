"""Files appear whole or not at all."""

import csv
import errno
import io
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from gss.errors import GssError
from gss.files import (
    read_json,
    read_table,
    replace_with_link,
    sha256_file,
    sha256_json,
    table_text,
    write_atomic,
    write_json,
    write_table,
)


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


NAMES = ["a", "b,c", 'd"e', "f\ng", " h ", "NA", "nan", "None", "True", "1", "", "道路"]
VALUES = [None, 0.1 + 0.2, 1 / 3, 1e-07, 1e22, -0.0, 12345678901234567890, True, False, np.float64(0.1), np.int64(5)]


def test_a_table_has_the_bytes_of_the_csv_module() -> None:
    rows = [(name, value, other) for name in NAMES for value, other in zip(VALUES, VALUES[::-1], strict=True)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("class", "v,1", "w"), *rows])
    assert table_text(("class", "v,1", "w"), rows) == text.getvalue()
    assert table_text(("class", "iou"), []) == "class,iou\n"
    assert table_text(("class", "iou"), [("a", float("nan")), ("b", 3)]) == "class,iou\na,\nb,3\n"


def test_a_table_is_read_as_the_text_it_is(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ("class", "iou"), [(name, 1 / 3) for name in NAMES])
    found = read_table(tmp_path / "a.csv")
    assert list(found) == ["class", "iou"] and list(found["class"]) == NAMES and set(found["iou"]) == {repr(1 / 3)}
    (tmp_path / "b.tsv").write_bytes(b'\xef\xbb\xbfs\tm"a\r\nNA\t"1\r\n2\r\n')
    assert read_table(tmp_path / "b.tsv", separator="\t").to_dict("list") == {"s": ["NA", "2"], 'm"a': ['"1', ""]}


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "file not found"), (b"\xff\xfe,", "not readable"), (b"a,b\n1,2\n1,2,3\n", "not readable")],
)
def test_what_is_no_table_is_one_clear_error(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GssError, match=said):
        read_table(path)


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
