"""Everything a training carries from step to step; what is not here must not influence it."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn

from gss.errors import CheckpointError
from gss.train.distributed import World, gather_buffers, restore_buffers
from gss.train.optim import MovingAverage, build_optimizer
from gss.train.progress import Meter
from gss.train.settings import LoopSettings

# may change between two parts of a training
FREE_SETTINGS = ("log_every", "save_every", "save_minutes", "keep_last", "deadline_margin", "deterministic", "machine")
_DEFAULTS = {field.name: field.default for field in fields(LoopSettings)}


class TrainState:
    """The trained module, its optimizer, its moving average, and the sums of the running log interval.

    Random states, the place in the schedule and the place in the data are functions of (seed, step).

    Args:
        module: on its device, in its precision.
        settings: of the loop.
    """

    def __init__(self, module: nn.Module, settings: LoopSettings) -> None:
        self.module, self._settings = module, settings
        self.optimizer = build_optimizer(module, settings)
        self.average = MovingAverage(module, settings.ema) if settings.ema is not None else None
        self.meter = Meter()

    @property
    def exported(self) -> nn.Module:
        """The module that holds the result."""
        return self.module if self.average is None else self.average.module

    def content(self, step: int, world: World) -> dict[str, Any]:
        """What a checkpoint of this step holds: tensors and plain values; every process calls it."""
        return {
            "step": step,
            "settings": asdict(self._settings),
            "model": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "meter": self.meter.state(world),
            "ema": None if self.average is None else self.average.module.state_dict(),
            "buffers": gather_buffers(self.module, world),
        }

    def load(self, content: Mapping[str, Any], world: World, *, where: Path) -> None:
        """Take over a checkpoint's content.

        Raises:
            CheckpointError: it was made with other settings or for another module.
        """
        self._require_same_settings(content["settings"], where)
        for theirs, mine in zip(content["optimizer"]["param_groups"], self.optimizer.param_groups, strict=False):
            theirs["fused"] = mine["fused"]  # a matter of this device, not of the checkpoint's
        try:
            self.module.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(content["ema"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit: {error}", where=where, todo="move the work folder away to train anew"
            ) from error
        self.meter.load(content["meter"], world)
        restore_buffers(self.module, content["buffers"], world)

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
