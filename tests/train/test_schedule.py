import math

import pytest
import torch

from gss.train.optim import set_learning_rate
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


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-10),
        (1, 6.676618e-8),
        (750, 4.976567e-5),
        (1499, 9.899708e-5),
        (1500, 9.90625e-5),
        (80_000, 5e-5),
        (159_999, 6.25e-10),
    ],
)
def test_published_rates_of_cae(step, rate):
    """UPerNet on CAE-B: 160 000 steps, base rate 1e-4."""
    settings = LoopSettings(steps=160_000, lr=1e-4, warmup_steps=1500, warmup_ratio=1e-6)
    assert learning_rate(step, settings) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(("step", "rate"), [(0, 3.697206e-13), (1500, 3.662545e-7), (80_000, 1.848603e-7)])
def test_published_rates_of_cae_at_its_input(step, rate):
    """Layer decay 0.65 over the 13 layers that follow the patch embedding."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr_factor": 0.65**13}])
    settings = LoopSettings(steps=160_000, lr=1e-4, warmup_steps=1500, warmup_ratio=1e-6)
    set_learning_rate(optimizer, learning_rate(step, settings))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(("number", "rate"), [(1, 1e-2), (250_001, 5.3589e-3), (499_995, 3.726e-7)])
def test_published_rates_of_mseg(number, rate):
    """Of the updates counted from 1: 500 000 steps, base rate 0.01, power 0.9, no warm-up."""
    settings = LoopSettings(steps=500_000, lr=0.01, power=0.9, warmup_steps=0)
    assert learning_rate(number - 1, settings) == pytest.approx(rate, rel=2e-4 if rate < 1e-6 else 1e-5)
