"""AdamW with the decay rules, and the moving average of the weights."""

import copy

import torch
from torch import Tensor, nn

from gss.train.settings import LoopSettings

BIAS_TABLES = ("relative_position_bias_table", "absolute_pos_embed")
PUBLISHED_NO_DECAY = (*BIAS_TABLES, "norm")


def decays(name: str, parameter: Tensor, rule: str) -> bool:
    """Whether weight decay acts on a parameter.

    Args:
        name: full dotted name of the parameter, without any wrapper's prefix.
        rule: `default` spares all parameters of at most one dimension and the bias tables; `published` spares
            the names that contain one of `PUBLISHED_NO_DECAY`, so that batch norms, `swin_ln` and biases decay.
    """
    if rule == "published":
        return not any(part in name for part in PUBLISHED_NO_DECAY)
    return parameter.ndim > 1 and not any(part in name for part in BIAS_TABLES)


def build_optimizer(module: nn.Module, settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a module, grouped by decay and learning rate.

    Note:
        Each group holds `lr_factor`, the multiple of the step's learning rate it trains with. On CUDA the fused
        kernel is used: it alone can skip an update without the host's knowledge, see `gss.train.guard`. On CPUs it
        would round otherwise, and results of earlier versions would not come out again to the last bit.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if decays(name, parameter, settings.decay_rule) else 0.0
            factor = settings.backbone_lr_factor if name.startswith("backbone.") else 1.0
            groups.setdefault((decay, factor), []).append(parameter)
    on_cuda = any(parameter.is_cuda for group in groups.values() for parameter in group)
    return torch.optim.AdamW(
        [{"params": group, "weight_decay": decay, "lr_factor": factor} for (decay, factor), group in groups.items()],
        lr=settings.lr,
        betas=settings.betas,
        fused=on_cuda,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its multiple of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


class MovingAverage:
    """Exponential moving average of a module's parameters; its buffers are copied.

    Args:
        module: the trained module; the average starts at its weights.
        decay: the average moves by (1 - decay) of the difference at each update.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.source, self.decay = module, decay
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the trained module by one update."""
        average: list[Tensor] = list(self.module.parameters())
        source: list[Tensor] = list(self.source.parameters())
        torch._foreach_lerp_(average, source, 1 - self.decay)
        for mine, theirs in zip(self.module.buffers(), self.source.buffers(), strict=True):
            mine.copy_(theirs)
