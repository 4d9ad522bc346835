"""`make lint` says the same where the demo has run as in a fresh clone."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_folders_that_runs_leave_change_no_verdict(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for sources in ("bench", "tests", "envs"):
        shutil.copytree(ROOT / sources, tmp_path / sources, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("data", "results", "mlruns", "numpy", "project"):
        (tmp_path / folder).mkdir()
    command = [sys.executable, "-m", "ruff", "check", "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
