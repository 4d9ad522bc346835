"""Stops a training whose gradient is no longer a number before it can spoil the weights."""

from collections.abc import Callable

import torch
from torch import Tensor

from gss.errors import GssError
from gss.train.scaling import LossScale


class NotFinite(GssError):
    """A step whose loss or gradient is no number.

    Args:
        step: which; the weights are still those before it.
    """

    def __init__(self, what: str, *, where: str, todo: str | None, step: int) -> None:
        super().__init__(what, where=where, todo=todo)
        self.step = step


class FiniteGuard:
    """Watches loss and gradient norm of every step.

    On the CPU `watch` raises at once. On CUDA that would make the host wait for the device in every step; there
    it raises a flag on the device with which the fused optimizer skips this and all later updates, and `check`
    raises at the next moment the host reads the device anyway.

    With a scaled loss, gradients overflow now and then: the update of such a step alone is skipped, and it is bad only
    when there is nothing left to take from the scale.

    Args:
        optimizer: its updates are held back.
        device: of loss and norm.
        last_good: says where the last good checkpoint is.
        scale: of the loss; None: it is not scaled.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        last_good: Callable[[], str],
        scale: LossScale | None = None,
    ) -> None:
        self._bad_step = torch.full((), -1.0, device=device)  # first bad step, -1 while all is well
        self._flag = torch.zeros((), device=device)
        self._at_once = device.type == "cpu"
        if optimizer.defaults["fused"]:
            optimizer.found_inf = self._flag  # type: ignore[attr-defined]  # other optimizers do not read it
        self._last_good, self._scale = last_good, scale

    def watch(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take note of one step before its update."""
        good = updates = torch.isfinite(loss) & torch.isfinite(norm)
        if self._scale is not None:
            good = torch.where(self._scale.overflow, self._scale.factor >= 1, good)
        self._bad_step.copy_(torch.where(good | (self._bad_step >= 0), self._bad_step, step))
        self._flag.copy_((self._bad_step >= 0) | ~updates)
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Raise if any step was bad; waits for the device.

        Raises:
            NotFinite: names the step and the last good checkpoint.
        """
        bad = int(self._bad_step)
        if bad >= 0:
            raise NotFinite(
                f"the loss or its gradient is not finite at step {bad}; training stopped before this update",
                where=f"last good checkpoint: {self._last_good()}",
                todo="lower `lr` or set `clip_norm` (and with precision bf16 or fp16 try fp32), then run again",
                step=bad,
            )
