"""Fixtures shared by all rooms."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GSS_DATA", ROOT.parent / "shared" / "data"))
PARITY = Path(os.environ.setdefault("GSS_PARITY", str(ROOT.parent / "shared" / "parity")))


@pytest.fixture(scope="session")
def gss_data() -> Path:
    """Folder with `camvid/` and `weights/`; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data folder at {DATA}: set GSS_DATA to run this test")
    return DATA


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder with the numbers recorded from the published implementation; tests that need it are skipped without it."""
    if not PARITY.is_dir():
        pytest.skip(f"no recorded numbers at {PARITY}: set GSS_PARITY to run this test")
    return PARITY
