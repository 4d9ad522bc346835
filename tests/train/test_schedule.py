from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings


def test_no_warmup_and_a_floor():
    settings = LoopSettings(steps=10, lr=1.0, warmup_steps=0, power=2.0, min_lr=0.5)
    assert learning_rate(0, settings) == 1.0
    assert learning_rate(5, settings) == 0.5 * 0.25 + 0.5
