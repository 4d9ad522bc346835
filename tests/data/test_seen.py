"""What a look from outside tells of the files of a data set: new, gone, changed, or the same."""

import os
import shutil
from pathlib import Path

import pytest

from gss.data.pairing import SplitFolders
from gss.data.seen import are_same, changed, look
from gss.files import sha256_file


def never(split: str, newest: int) -> bool:
    return False


def kinds(tiny, then: dict, is_touched=never) -> dict[str, str]:
    return changed(then, look(tiny.root, tiny.splits, {}), is_touched)


def test_a_look_is_the_same_as_long_as_nothing_changes(tiny):
    first = look(tiny.root, tiny.splits, {})
    assert first == look(tiny.root, tiny.splits, {}) and kinds(tiny, first) == {}
    assert {split: each["files"] for split, each in first["splits"].items()} == {"train": 8, "val": 4}


def new(tiny) -> None:
    shutil.copy(tiny.image("val/e"), tiny.image("val/g"))


def new_label(tiny) -> None:
    shutil.copy(tiny.label("val/e"), tiny.label("val/g"))


def gone(tiny) -> None:
    tiny.label("val/e").unlink()


def renamed(tiny) -> None:
    tiny.image("val/e").rename(tiny.image("val/x"))


def longer(tiny) -> None:
    before = os.stat(tiny.image("val/e"))
    with tiny.image("val/e").open("ab") as file:
        file.write(b"x")
    os.utime(tiny.image("val/e"), ns=(before.st_atime_ns, before.st_mtime_ns))


def other_form(tiny) -> None:
    tiny.image("val/e").rename(tiny.image("val/e").with_suffix(".png"))


@pytest.mark.parametrize("change", [new, new_label, gone, renamed, longer, other_form])
def test_names_and_sizes_tell_which_split_is_another(tiny, change):
    then = look(tiny.root, tiny.splits, {})
    change(tiny)
    found = kinds(tiny, then)
    assert list(found) == ["val"] and found["val"].endswith(" with other names or sizes")


def test_files_that_are_no_data_do_not_count(tiny):
    then = look(tiny.root, tiny.splits, {})
    (tiny.root / "images/val/.ipynb_checkpoints").mkdir()
    shutil.copy(tiny.image("val/e"), tiny.root / "images/val/.ipynb_checkpoints/e.jpg")
    (tiny.root / "images/val/notes.txt").write_text("x")
    tiny.splits["val"] = SplitFolders("images/val", "labels/val", list=tiny.root / "val.txt")
    (tiny.root / "val.txt").write_text("e\nf\n")
    shutil.copy(tiny.image("val/e"), tiny.image("val/not_listed"))
    assert kinds(tiny, then) == {}


def test_times_alone_ask_for_the_content(tiny):
    then = look(tiny.root, tiny.splits, {})
    path = tiny.label("train/a")
    digests = {path.relative_to(tiny.root).as_posix(): sha256_file(path)}

    def is_touched(split: str, newest: int) -> bool:
        return are_same(tiny.root, split, tiny.splits, newest, digests)

    path.touch()
    assert kinds(tiny, then, is_touched) == {}
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert kinds(tiny, then, is_touched) == {"train": "8 files of train, now with other times"}
    os.utime(path, (1, 1))  # set back: nothing tells which file it was
    assert kinds(tiny, then, is_touched) == {"train": "8 files of train, now with other times"}


def test_many_bytes_are_not_read(tiny, monkeypatch):
    tiny.label("train/a").touch()
    monkeypatch.setattr("gss.data.seen._MOST_READ", 10)
    monkeypatch.setattr("gss.data.seen.sha256_file", lambda path: pytest.fail("read"))
    assert not are_same(tiny.root, "train", tiny.splits, 0, {})


def test_times_say_nothing_of_a_copy(tiny, tmp_path: Path):
    then = look(tiny.root, tiny.splits, {})
    shutil.copytree(tiny.root, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(tiny.root)
    tiny.root = tmp_path / "copy"
    assert kinds(tiny, then) == {}
    tiny.image("train/a").unlink()
    assert list(kinds(tiny, then)) == ["train"]


def test_where_nothing_can_be_seen_nothing_is_said(tiny):
    then = look(tiny.root, tiny.splits, {})
    shutil.rmtree(tiny.root / "images/val")
    assert kinds(tiny, then) == {}
    shutil.rmtree(tiny.root)
    assert look(tiny.root, tiny.splits, {}) == {"place": 0, "splits": {}}


def test_files_that_labels_are_made_of_count(tiny):
    (tiny.root / "a.json").write_text("{}")
    then = look(tiny.root, tiny.splits, {"val": ["a.json"]})
    (tiny.root / "a.json").write_text("{ }")
    assert list(changed(then, look(tiny.root, tiny.splits, {"val": ["a.json"]}), never)) == ["val"]
