"""Fixtures shared by all rooms."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser import Browser

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("GSS_DATA", ROOT.parent / "shared" / "data"))
PARITY = Path(os.environ.setdefault("GSS_PARITY", str(ROOT.parent / "shared" / "parity")))
CASES = Path(os.environ.get("GSS_CASES", ROOT.parent / "shared" / "cases"))
LONGEST = (  # files, by the minutes they take
    "slurm/test_interruptions.py",
    "workflow/test_pipeline.py",
    "train/test_validation.py",
    "workflow/test_pixel.py",
    "train/test_processes.py",
    "cluster/test_launch_slurm.py",
    "tracking/test_servers.py",
    "benchmark/test_gpu_script.py",
    "use/test_onnx.py",
    "test_output.py",
    "workflow/test_dag.py",
    "workflow/test_mlflow.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: of two workers neither is alone in the end."""
    rank = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in rank)
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


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


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder with `make.py`, which writes data sets that users have; tests that need it are skipped without it."""
    if not CASES.is_dir():
        pytest.skip(f"no cases at {CASES}: set GSS_CASES to run this test")
    return CASES


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium; tests that need it are skipped where it is not installed."""
    from browser import start

    opened = start()
    yield opened
    opened.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where tests put pictures of pages; GSS_SCREENSHOTS names a folder that outlives the tests."""
    return Path(os.environ.get("GSS_SCREENSHOTS", tmp_path))
