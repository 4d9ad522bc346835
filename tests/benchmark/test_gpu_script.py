"""`bench/gpu.py`, which nobody runs for months, still runs: with small networks, here. No test looks at a time."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench" / "gpu.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_all_parts_run_and_become_a_page(script: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "all", "--small", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    parts = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in script.PARTS}
    failed = {row["name"]: row["failed"] for part in parts.values() for row in part["rows"] if "failed" in row}
    assert not failed
    assert [row["name"] for row in parts["switches"]["rows"]] == list(script.OF_TRAINING)
    assert [row["name"] for row in parts["prediction-switches"]["rows"]] == list(script.OF_PREDICTION)
    first, *timed = parts["prediction"]["rows"]
    assert first["classes that are the same"] > 0.99 and first["token loss, relative difference"] < 1e-4
    assert {row["name"] for row in timed} == {"GSS-FT, fp32, ours", "GSS-FT, fp32, oracle"}
    assert all(0 <= row["waiting"] <= 1 for row in parts["loading"]["rows"])

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end -->\nafter\n")
    script.write_page(tmp_path, script.PARTS, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    for name in script.PARTS:
        assert f"## {name}" in text
    assert "| optimiser step |" in text and "times the oracle at a batch of 4" in text and "| bfloat16 |" in text


@pytest.mark.parametrize("limit", [1, 2, 5, 64, 67, 100, 255, 300])
def test_the_largest_batch_is_found_to_an_eighth(script: ModuleType, limit: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= limit

    found = script.largest(fits, 2, 256)
    assert found <= limit and (found == 0) == (limit < 2)
    assert not found or min(limit, 256) - found <= max(1, found // 8)
    assert len(tried) == len(set(tried)) <= 11 and max(tried) <= 256


def test_a_row_that_fails_says_why_and_costs_no_other(script: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"name": "one", "batch": 64, "failed": "out of memory: CUDA out of memory"},
        {"name": "two", "batch": 2, "seconds": 0.1, "images_per_s": 20.0},
    ]
    lines = [script.line(script.cells(row)) for row in rows]
    assert "out of memory" in lines[0] and "20.0" in lines[1]
    assert len({line.count("|") for line in lines}) == 1
