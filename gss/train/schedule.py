"""The learning rate: polynomial or cosine decay, warmed up linearly."""

import math

from gss.train.settings import LoopSettings


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Learning rate of the update with the zero-based number `step`, float64.

    Source:
        The published configurations: policy poly, linear warm-up. The warm-up multiplies the decayed value.
    """
    if settings.schedule == "cosine":
        share = (1 + math.cos(math.pi * step / settings.steps)) / 2
    else:
        share = (1 - step / settings.steps) ** settings.power
    rate = (settings.lr - settings.min_lr) * share + settings.min_lr
    if step < settings.warmup_steps:
        rate *= 1 - (1 - step / settings.warmup_steps) * (1 - settings.warmup_ratio)
    return rate
