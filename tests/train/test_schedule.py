import math

import pytest

from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings


def test_no_warmup_and_a_floor():
    settings = LoopSettings(steps=10, lr=1.0, warmup_steps=0, power=2.0, min_lr=0.5)
    assert learning_rate(0, settings) == 1.0
    assert learning_rate(5, settings) == 0.5 * 0.25 + 0.5


def test_cosine_falls_by_half_a_wave_after_its_warmup():
    settings = LoopSettings(steps=8, lr=1.0, schedule="cosine", min_lr=0.2, warmup_steps=2, warmup_ratio=0.5)
    assert [learning_rate(step, settings) for step in (2, 4, 8)] == pytest.approx(
        [0.2 + 0.8 * (1 + 0.5**0.5) / 2, 0.6, 0.2], rel=1e-15
    )
    assert learning_rate(0, settings) == 0.5
    assert learning_rate(1, settings) == pytest.approx(0.75 * (0.2 + 0.8 * (1 + math.cos(math.pi / 8)) / 2), rel=1e-15)
