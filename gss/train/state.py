"""Everything a training carries from step to step; what is not here must not influence it."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gss.errors import CheckpointError
from gss.train.distributed import World, average_buffers, gather_buffers, restore_buffers
from gss.train.optim import MovingAverage, build_optimizer, set_learning_rate
from gss.train.progress import Meter
from gss.train.scaling import LossScale
from gss.train.settings import LoopSettings

# may change between two parts of a training
FREE_SETTINGS = (
    "validate_every",
    "log_every",
    "save_every",
    "save_minutes",
    "keep_last",
    "deadline_margin",
    "profile",
    "deterministic",
    "machine",
)
_DEFAULTS = {field.name: field.default for field in fields(LoopSettings)}


@dataclass(frozen=True)
class Part:
    """Something that has state and influences the training: `state` gives it, tensors and plain values, in every
    process; `load` takes it back."""

    state: Callable[[], Any]
    load: Callable[[Any], object]


class Best:
    """The weights of the step with the highest score so far, on the CPU.

    Attributes:
        step: the first one with this score; 0: none was measured.
    """

    def __init__(self) -> None:
        self.step, self.score = 0, -math.inf
        self._weights: dict[str, Tensor] = {}

    def offer(self, step: int, score: float, module: nn.Module) -> bool:
        """Keep the weights of a module that scores higher than all before, and say whether it did.

        Args:
            module: which nobody changes any more.
        """
        if not score > self.score:
            return False
        self.load({"step": step, "score": score, "weights": module.state_dict()})
        return True

    def put_into(self, module: nn.Module) -> None:
        """Give a module the weights kept; none, none."""
        if self._weights:
            module.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "score": self.score, "weights": self._weights}

    def load(self, state: Mapping[str, Any]) -> None:
        self.step, self.score = state["step"], state["score"]
        self._weights = {name: tensor.cpu() for name, tensor in state["weights"].items()}


class TrainState:
    """The trained module, its optimizer, its moving average, its best step, and the sums of the running log interval.

    Random states, the place in the schedule and the place in the data are functions of (seed, step).

    Args:
        module: on its device, in its precision.
        settings: of the loop.

    Attributes:
        scale: of the loss, in fp16 alone.
        parts: all that has state, by its key in a checkpoint.
    """

    def __init__(self, module: nn.Module, settings: LoopSettings, world: World) -> None:
        self.module, self._settings, self._world = module, settings, world
        self.optimizer = build_optimizer(module, settings)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.average = MovingAverage(module, settings.ema) if settings.ema is not None else None
        self.best = Best() if settings.keep == "best" else None
        self.meter = Meter()
        self.scale = LossScale(world.device) if settings.precision == "fp16" else None
        self.parts = {
            "model": Part(module.state_dict, module.load_state_dict),
            "optimizer": Part(self.optimizer.state_dict, self._load_optimizer),
            "meter": Part(lambda: self.meter.state(world), lambda state: self.meter.load(state, world)),
            "buffers": Part(lambda: gather_buffers(module, world), lambda state: restore_buffers(module, state, world)),
        }
        if self.average is not None:
            self.parts["ema"] = Part(self.average.module.state_dict, self.average.load)  # behind what it follows
        if self.best is not None:
            self.parts["best"] = Part(self.best.state, self.best.load)
        if self.scale is not None:
            self.parts["scale"] = Part(self.scale.state, self.scale.load)
        self._before: list[tuple[Tensor, Tensor]] = []  # what a forward pass changes, and what it was

    def begin(self, rate: float) -> None:
        """Begin a step with a learning rate; with a scaled loss it may have to be taken back."""
        set_learning_rate(self.optimizer, rate)
        if self.scale is not None:
            self.meter.begin()
            norms = [part for part in self.module.modules() if isinstance(part, _BatchNorm)]
            self._before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients, which from here on are those of the loss itself, not of the scaled one."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.scale is not None:
            torch._foreach_mul_(gradients, 1 / self.scale.factor)
        norm = nn.utils.get_total_norm(gradients)
        self.meter.add("train/grad_norm", norm, 1.0)
        if self.scale is not None:
            self.scale.follow(norm)
        return norm

    def update(self, norm: Tensor) -> None:
        """Clip, step, and let the average follow; after gradients that overflowed, nothing of the step is left."""
        if self._settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self._settings.clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scale is not None:
            self._take_back(self.scale)
        if self.average is not None:
            self.average.update(self.scale.overflow if self.scale is not None else None)

    def exported(self) -> nn.Module:
        """A copy of what would be exported now, in float32 and eval mode, with running statistics of all processes.

        Every process calls it; nothing of the training changes.
        """
        module = copy.deepcopy(self._last).float().eval()
        average_buffers(module, self._world)
        return module

    def result(self) -> nn.Module:
        """What is exported at the end; the training does not go on from here. Every process calls it."""
        average_buffers(self._last, self._world)
        if self.best is not None:
            self.best.put_into(self._last)
        return self._last

    def content(self, step: int) -> dict[str, Any]:
        """What a checkpoint of this step holds: tensors and plain values; every process calls it."""
        parts = {name: part.state() for name, part in self.parts.items()}
        return {"step": step, "settings": asdict(self._settings), **parts}

    def load(self, content: Mapping[str, Any], *, where: Path) -> None:
        """Take over a checkpoint's content.

        Raises:
            CheckpointError: it was made with other settings or for another module.
        """
        self._require_same_settings(content["settings"], where)
        try:
            for name, part in self.parts.items():
                part.load(content[name])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit: {error}", where=where, todo="move the work folder away to train anew"
            ) from error

    @property
    def _last(self) -> nn.Module:
        """The module that holds the result of the last step."""
        return self.module if self.average is None else self.average.module

    def _take_back(self, scale: LossScale) -> None:
        """Undo what a forward pass left behind, if its gradients overflowed; the optimizer knows it by itself."""
        self.meter.take_back(scale.overflow)
        self.meter.add("train/skipped", scale.overflow, 1.0)
        self.meter.add("train/scale", scale.factor, 1.0)
        for buffer, before in self._before:
            buffer.copy_(torch.where(scale.overflow, before, buffer))

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        for theirs, mine in zip(state["param_groups"], self.optimizer.param_groups, strict=False):
            theirs["fused"] = mine["fused"]  # a matter of this device, not of the checkpoint's
        self.optimizer.load_state_dict(dict(state))

    def _require_same_settings(self, old: Mapping[str, Any], where: Path) -> None:
        now = asdict(self._settings)
        old = {**_DEFAULTS, **old}  # what a checkpoint of an earlier version does not name was as the default is
        different = [key for key in now if key not in FREE_SETTINGS and old.get(key) != now[key]]
        if different:
            changes = ", ".join(f"{key} {old.get(key)!r}, now {now[key]!r}" for key in different)
            raise CheckpointError(
                f"the checkpoint was made with other settings: {changes}",
                where=where,
                todo="move the work folder away to train anew, or undo the change",
            )
