import json
import os
from pathlib import Path

import pytest

from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings

PARITY = Path(os.environ.get("GSS_PARITY", Path(__file__).resolve().parents[3] / "shared" / "parity"))


def test_learning_rates_recorded_from_the_reference():
    if not (PARITY / "lr.json").is_file():
        pytest.skip(f"no lr.json at {PARITY}: set GSS_PARITY to run this test")
    for schedule in json.loads((PARITY / "lr.json").read_text())["schedules"].values():
        assert schedule["warmup"] == "linear"
        settings = LoopSettings(steps=schedule["max_iters"], lr=schedule["base_lr"], power=schedule["power"],
                                warmup_steps=schedule["warmup_iters"], warmup_ratio=schedule["warmup_ratio"],
                                min_lr=schedule["min_lr"])
        for step, rate in schedule["table"]:
            assert learning_rate(step, settings) == pytest.approx(rate, rel=1e-12, abs=0)


def test_no_warmup_and_a_floor():
    settings = LoopSettings(steps=10, lr=1.0, warmup_steps=0, power=2.0, min_lr=0.5)
    assert learning_rate(0, settings) == 1.0
    assert learning_rate(5, settings) == 0.5 * 0.25 + 0.5
