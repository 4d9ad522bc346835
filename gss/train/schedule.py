"""The learning rate: polynomial decay, warmed up linearly."""

from gss.train.settings import LoopSettings


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Learning rate of the update with the zero-based number `step`, float64.

    Source:
        The published configurations: policy poly, linear warm-up. The warm-up multiplies the decayed value.
    """
    progress = 1 - step / settings.steps
    rate = (settings.lr - settings.min_lr) * progress**settings.power + settings.min_lr
    if step < settings.warmup_steps:
        rate *= 1 - (1 - step / settings.warmup_steps) * (1 - settings.warmup_ratio)
    return rate
