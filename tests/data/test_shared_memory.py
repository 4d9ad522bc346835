import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gss.data.shared_memory import Demand

CROPS = Demand(samples=2, crop=(512, 512), accumulation=1, workers=4, processes=8)  # of a published experiment


def of_size(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    blocks = int(megabytes * 2**20 / 4096)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=blocks, f_bavail=blocks, f_frsize=4096))


def test_what_containers_give_is_compared_with_what_the_crops_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    micro_batch = 2 * 4 * 512 * 512 + 4 * 4096
    assert CROPS.micro_batch == micro_batch
    assert replace(CROPS, label_bytes=4).micro_batch == micro_batch + 2 * 3 * 512 * 512
    assert CROPS.bytes == 8 * (4 * 2 + 2) * micro_batch
    of_size(monkeypatch, 64)
    told = CROPS.shortage(tmp_path)
    assert told is not None and "67.1 MB free, 169.1 MB needed" in told and "8 training processes" in told
    of_size(monkeypatch, 200)
    assert CROPS.shortage(tmp_path) is None
    of_size(monkeypatch, 0)  # what a tmpfs without a limit says
    assert CROPS.shortage(tmp_path) is None


def test_without_workers_nothing_is_needed_not_even_the_folder(tmp_path: Path):
    assert "missing or cannot be written" in (CROPS.shortage(tmp_path / "none") or "")
    assert Demand(2, (512, 512), 1, workers=0, processes=8).shortage(tmp_path / "none") is None
