"""The optimizers, the rules that give a parameter its decay and its rate, and the moving average of the weights."""

import copy
from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from gss.errors import ConfigError
from gss.train.settings import LoopSettings

BIAS_TABLES = ("relative_position_bias_table", "absolute_pos_embed")
PUBLISHED_NO_DECAY = (*BIAS_TABLES, "norm")


def decays(name: str, parameter: Tensor, rule: str) -> bool:
    """Whether weight decay acts on a parameter.

    Args:
        name: full dotted name of the parameter, without any wrapper's prefix.
        rule: `default` spares all parameters of at most one dimension and the bias tables; `published` spares
            the names that contain one of `PUBLISHED_NO_DECAY`, so that batch norms, `swin_ln` and biases decay;
            `vectors` spares parameters of one dimension and biases alone, so that bias tables and class tokens decay;
            `all` spares none.

    Source: `published`: GSS's configurations; `vectors`: CAE's layer-wise constructor of the optimizer; `all`: MSeg.
    """
    if rule == "all":
        return True
    if rule == "vectors":
        return parameter.ndim != 1 and not name.endswith(".bias")
    if rule == "published":
        return not any(part in name for part in PUBLISHED_NO_DECAY)
    return parameter.ndim > 1 and not any(part in name for part in BIAS_TABLES)


class Layered(Protocol):
    """A part of a trained module that knows how deep its parameters lie, for `layer_decay`.

    Attributes:
        num_layers: the depth of what follows the part, such as a head.
    """

    num_layers: int

    def layer_of(self, name: str) -> int:
        """Depth of a parameter by its name in the part: 0, the input, to `num_layers`."""


def lr_factors(module: nn.Module, settings: LoopSettings) -> dict[str, float]:
    """The multiple of the step's learning rate that each parameter is trained with, by its full dotted name.

    Below `backbone.` it is `backbone_lr_factor`; in a `Layered` part times `layer_decay` for each layer that follows.

    Raises:
        ConfigError: `layer_decay` without a part that has layers, or with one whose layers cannot be told apart.
    """
    factors = {
        name: settings.backbone_lr_factor if name.startswith("backbone.") else 1.0
        for name, _ in module.named_parameters()
    }
    if settings.layer_decay is None:
        return factors
    layered = [(path, cast(Layered, part)) for path, part in module.named_modules() if hasattr(part, "layer_of")]
    if not layered:
        raise ConfigError("`layer_decay`: no part of the trained network tells its layers apart")
    for path, part in layered:
        for name, _ in cast(nn.Module, part).named_parameters():
            full = f"{path}.{name}" if path else name
            factors[full] *= settings.layer_decay ** (part.num_layers - part.layer_of(name))
    return factors


def build_optimizer(module: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters of a module, grouped by decay and learning rate.

    Note:
        Each group holds `lr_factor`, the multiple of the step's learning rate it trains with. On CUDA and in fp16 the
        fused kernel is used: it alone can skip an update without the host's knowledge, see `gss.train.guard`. On CPUs
        it would round otherwise, and results of earlier versions would not come out again to the last bit.
    """
    factors = lr_factors(module, settings)
    grouped: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if decays(name, parameter, settings.decay_rule) else 0.0
            grouped.setdefault((decay, factors[name]), []).append(parameter)
    parameters = [each for group in grouped.values() for each in group]
    fused = settings.precision == "fp16" or any(each.is_cuda for each in parameters)
    groups = [
        {"params": group, "weight_decay": decay, "lr_factor": factor} for (decay, factor), group in grouped.items()
    ]
    if settings.optimizer == "sgd":
        momentum, nesterov = settings.momentum, settings.nesterov
        optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=momentum, nesterov=nesterov, fused=fused)
        if settings.precision == "fp16" and momentum:
            # torch 2.13 leaves the momentum uninitialised where the first update is skipped, and goes on from there
            for each in parameters:
                optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)
        return optimizer
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)


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
    def update(self, skipped: Tensor | None = None) -> None:
        """Follow the trained module by one update, unless the bool [] on the device says that there was none."""
        average: list[Tensor] = list(self.module.parameters())
        source: list[Tensor] = list(self.source.parameters())
        if skipped is None:
            torch._foreach_lerp_(average, source, 1 - self.decay)
        else:
            share = torch.where(skipped, 0.0, 1 - self.decay)
            for mine, theirs in zip(average, source, strict=True):
                mine.lerp_(theirs, share.to(mine.dtype))
        self._copy_buffers()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the average from a checkpoint, after the trained module: the buffers are that one's, which differ
        between processes, and the checkpoint's are those of one."""
        self.module.load_state_dict(state)
        self._copy_buffers()

    @torch.no_grad()
    def _copy_buffers(self) -> None:
        for mine, theirs in zip(self.module.buffers(), self.source.buffers(), strict=True):
            mine.copy_(theirs)
