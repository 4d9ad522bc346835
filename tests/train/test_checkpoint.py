import contextlib
import json
import os
import resource
import signal
import subprocess

import pytest
import torch
from tiny_disk import tiny_disk
from tiny_learner import run

from gss.errors import CheckpointError, GssError
from gss.modelfile import save_model
from gss.results.work import open_work
from gss.train.checkpoint import CheckpointFolder

CPU = torch.device("cpu")


def folder_with(path, *steps, keep_last=3):
    folder = CheckpointFolder(path / "checkpoints", keep_last)
    for step in steps:
        folder.save(step, {"step": step, "weights": torch.full((100,), float(step))})
    return folder


def newest(folder):
    return max(folder.path.glob("step_*.pt"))


def damage(file, how):
    content = bytearray(file.read_bytes())
    match how:
        case "truncated":
            file.write_bytes(content[: len(content) // 2])
        case "bit-flipped":
            content[len(content) // 2] ^= 4
            file.write_bytes(content)
        case "empty":
            file.write_bytes(b"")
        case "missing":
            file.unlink()


def test_the_last_ones_are_kept(tmp_path):
    folder = folder_with(tmp_path, 5, 10, 15, 20, keep_last=2)
    assert [entry["step"] for entry in json.loads((folder.path / "checkpoints.json").read_text())["checkpoints"]] == [
        15,
        20,
    ]
    assert len(list(folder.path.glob("step_*.pt"))) == 2
    entry, reports = folder.find_latest()
    assert entry.step == 20 and reports == []
    assert folder.load(20, map_location=CPU)["weights"][0] == 20
    with pytest.raises(CheckpointError, match="no checkpoint of step 5"):
        folder.load(5, map_location=CPU)


def test_a_new_folder_has_none(tmp_path):
    assert CheckpointFolder(tmp_path / "none").find_latest() == (None, [])


@pytest.mark.parametrize("how", ["truncated", "bit-flipped", "empty", "missing"])
def test_a_damaged_newest_falls_back_and_says_why(tmp_path, how):
    folder = folder_with(tmp_path, 5, 10)
    name = newest(folder).name
    damage(newest(folder), how)
    entry, reports = folder.find_latest()
    assert entry.step == 5
    why = "the file is missing" if how == "missing" else "SHA-256 is"
    assert "checkpoint of step 10 cannot be used" in reports[0] and why in reports[0] and name in reports[0]
    assert reports[-1] == "going on from the checkpoint of step 5"
    assert folder.load(5, map_location=CPU)["step"] == 5
    folder.save(7, {"step": 7})
    assert folder.find_latest()[0].step == 7 and folder.find_latest()[1] == []


def test_all_damaged_starts_anew(tmp_path):
    folder = folder_with(tmp_path, 5, 10)
    for file in folder.path.glob("step_*.pt"):
        damage(file, "truncated")
    entry, reports = folder.find_latest()
    assert entry is None and reports[-1] == "no good checkpoint is left: starting from step 0"


@pytest.mark.parametrize("content", [b"", b'{"checkpoints": [{"step"', b"[]", b'{"checkpoints": [{"step": 3}]}', None])
def test_a_damaged_or_missing_list_costs_no_checkpoint(tmp_path, content):
    folder = folder_with(tmp_path, 5, 10)
    (folder.path / "checkpoints.json").unlink()
    if content is not None:
        (folder.path / "checkpoints.json").write_bytes(content)
    entry, reports = folder.find_latest()
    assert entry.step == 10
    assert any("checkpoints.json is damaged" in report for report in reports) == (content is not None)


def test_a_flipped_bit_in_the_list_costs_no_checkpoint(tmp_path):
    folder = folder_with(tmp_path, 5, 10)
    index = folder.path / "checkpoints.json"
    content = index.read_bytes()
    for place in range(len(content)):
        index.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        assert folder.find_latest()[0].step == 10, index.read_bytes()
    assert len(list(folder.path.glob("step_*.pt"))) == 2


@pytest.mark.parametrize("how", ["truncated", "bit-flipped", "empty", "missing"])
def test_without_a_list_a_damaged_newest_falls_back(tmp_path, how):
    folder = folder_with(tmp_path, 5, 10)
    (folder.path / "checkpoints.json").unlink()
    damage(newest(folder), how)
    entry, reports = folder.find_latest()
    assert entry.step == 5 and (how == "missing" or "SHA-256 is" in reports[0])


def test_left_over_temporary_files_are_swept(tmp_path):
    folder = folder_with(tmp_path, 5)
    (folder.path / ".step_00000010.x.tmp").write_bytes(b"half")
    folder.save(10, {"step": 10})
    assert not list(folder.path.glob(".*"))


def test_only_tensors_and_plain_values_are_loaded(tmp_path):
    class Foreign:
        pass

    Foreign.__module__, Foreign.__qualname__ = "os", "system"
    folder = folder_with(tmp_path, 5)
    folder.save(10, {"step": os.system})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        folder.load(10, map_location=CPU)


@pytest.mark.parametrize("how", ["truncated", "bit-flipped", "empty", "missing"])
def test_training_after_damage_ends_with_the_same_bits(tmp_path, capsys, how):
    run(tmp_path / "one")
    run(tmp_path / "two", until=12)
    damage(newest(CheckpointFolder(tmp_path / "two" / "checkpoints")), how)
    run(tmp_path / "two")
    out = capsys.readouterr().out
    assert "warning: checkpoint of step 12 cannot be used" in out and "resumed from step 10" in out
    one, two = (torch.load(tmp_path / name / "final.pt", weights_only=True) for name in ("one", "two"))
    assert all(one[name].equal(two[name]) for name in one)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        folder = folder_with(disk, 5)
        before = sorted(file.name for file in folder.path.iterdir())
        with pytest.raises(GssError, match=r"(?s)No space left on device.*step_00000010.*free some disk space"):
            folder.save(10, {"weights": torch.zeros(500_000)})
        assert sorted(file.name for file in folder.path.iterdir()) == before
        assert folder.find_latest()[0].step == 5 and folder.find_latest()[1] == []


def test_a_full_disk_is_named_where_a_model_is_written(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        for size in (70_000, 75_000, 500_000):  # 280 kB fit, the next 20 kB do not, and far too much
            with contextlib.suppress(GssError):
                save_model(disk / "model.pth", "gss_ff", {"weights": torch.zeros(size)}, {})
        with pytest.raises(GssError, match=r"(?s)No space left on device.*model\.pth"):
            save_model(disk / "model.pth", "gss_ff", {"weights": torch.zeros(500_000)}, {})


def test_a_limit_of_file_size_keeps_the_previous_checkpoint(tmp_path):
    folder = folder_with(tmp_path, 5)
    before = sorted(file.name for file in folder.path.iterdir())
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(GssError, match=r"(?s)File too large.*step_00000010.*ulimit -f"):
            folder.save(10, {"weights": torch.zeros(500_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(file.name for file in folder.path.iterdir()) == before
    assert folder.find_latest()[0].step == 5


def test_no_write_permission_is_named(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        folder = folder_with(disk, 5)
        open_work(disk / "stage", {"a": 1})
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(GssError, match=r"(?s)Read-only file system.*choose another results folder"):
            folder.save(10, {"step": 10})
        with pytest.raises(GssError, match=r"(?s)cannot move the files of another training away: Read-only file"):
            open_work(disk / "stage", {"a": 2})
        assert open_work(disk / "stage", {"a": 1}) is None and folder.find_latest()[0].step == 5


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "work").write_text("")
    with pytest.raises(GssError, match="a file stands where a folder is expected"):
        CheckpointFolder(tmp_path / "work" / "checkpoints").save(1, {})
    with pytest.raises(GssError, match="a file stands where a folder is expected"):
        open_work(tmp_path / "work", {"a": 1})


def test_own_work_is_kept(tmp_path):
    work = tmp_path / "work" / "posterior"
    assert open_work(work, {"config": {"lr": 1}, "inputs": ["a"]}) is None
    folder_with(work, 5)
    assert open_work(work, {"inputs": ["a"], "config": {"lr": 1}}) is None
    assert CheckpointFolder(work / "checkpoints").find_latest()[0].step == 5


def test_foreign_work_is_moved_and_the_keys_named(tmp_path):
    work = tmp_path / "work" / "posterior"
    for name in ("lock", "owners.jsonl"):
        work.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    open_work(work, {"config": {"lr": 1, "seed": 0, "old": 1}})
    folder_with(work, 5)
    message = open_work(work, {"config": {"lr": 2, "seed": 0}, "inputs": "x"})
    assert "config.lr 1 -> 2" in message and "config.old 1 -> None" in message and "inputs None -> 'x'" in message
    assert "seed" not in message
    (stale,) = (tmp_path / "work" / "stale").iterdir()
    assert stale.name.startswith("posterior-") and str(stale) in message
    assert CheckpointFolder(stale / "checkpoints").find_latest()[0].step == 5
    assert sorted(item.name for item in work.iterdir()) == ["fingerprint.json", "lock", "owners.jsonl"]
    open_work(work, {"config": {"lr": 1, "seed": 0, "old": 1}})
    open_work(work, {"config": {"lr": 3}})
    assert len(list((tmp_path / "work" / "stale").iterdir())) == 3


def test_work_without_fingerprint_is_foreign(tmp_path):
    work = tmp_path / "work" / "stage"
    folder_with(work, 5)
    assert "no readable fingerprint.json" in open_work(work, {"a": 1})
    assert (tmp_path / "work/stale/stage-unknown/checkpoints").is_dir()
