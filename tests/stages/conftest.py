"""The project that tests of evaluation sets work in."""

from pathlib import Path

import numpy as np
import pytest

from tests.stages.village import make_pair, write


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    rng = np.random.default_rng(0)
    for index in range(4):
        for split in ("train", "val"):
            ids = np.arange(3, dtype=np.uint8)
            make_pair(tmp_path / "sets/city", f"images/{split}", f"labels/{split}", f"{index}.png", rng, ids)
    for index in range(3):
        values = np.array([0, 1, 2, 255], np.uint8)
        make_pair(tmp_path / "sets/village", "photos", "labels", f"v{index}.png", rng, values)
    write()
    return tmp_path
