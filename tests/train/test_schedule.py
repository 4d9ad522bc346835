import json
import os
from pathlib import Path

import pytest

from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings

PARITY = Path(os.environ.get("GSS_PARITY", Path(__file__).resolve().parents[3] / "shared" / "parity"))
TABLE = {
    (1.2e-4, 160000): {0: 1.2000000000345069e-10, 1: 8.011941925050134e-08, 750: 5.971880971875001e-05,
                       1499: 0.0001187964995792505, 1500: 0.000118875, 80000: 6e-05, 159999: 7.5e-10},
    (1.5e-3, 80000): {0: 1.5000000000431335e-09, 1: 1.001486481262517e-06, 750: 0.0007429694929687501,
                      1499: 0.0014709124884812626, 1500: 0.001471875, 40000: 0.00075, 79999: 1.875e-08},
    (7.5e-4, 40000): {0: 7.500000000215668e-10, 1: 5.007369812625085e-07, 750: 0.00036796911796875,
                      1499: 0.0007214124879812624, 1500: 0.000721875, 20000: 0.000375, 39999: 1.875e-08},
}


@pytest.mark.parametrize(("lr", "steps"), TABLE)
def test_published_learning_rates(lr, steps):
    settings = LoopSettings(steps=steps, lr=lr)
    for step, rate in TABLE[lr, steps].items():
        assert learning_rate(step, settings) == pytest.approx(rate, rel=1e-12)


def test_learning_rates_recorded_from_the_reference():
    if not (PARITY / "lr.json").is_file():
        pytest.skip(f"no lr.json at {PARITY}: set GSS_PARITY to run this test")
    for schedule in json.loads((PARITY / "lr.json").read_text())["schedules"].values():
        assert schedule["warmup"] == "linear"
        settings = LoopSettings(steps=schedule["max_iters"], lr=schedule["base_lr"], power=schedule["power"],
                                warmup_steps=schedule["warmup_iters"], warmup_ratio=schedule["warmup_ratio"],
                                min_lr=schedule["min_lr"])
        for step, rate in schedule["table"]:
            assert learning_rate(step, settings) == pytest.approx(rate, rel=1e-12)


def test_no_warmup_and_a_floor():
    settings = LoopSettings(steps=10, lr=1.0, warmup_steps=0, power=2.0, min_lr=0.5)
    assert learning_rate(0, settings) == 1.0
    assert learning_rate(5, settings) == 0.5 * 0.25 + 0.5
