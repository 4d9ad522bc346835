"""Stops a training whose gradient is no longer a number before it can spoil the weights."""

from collections.abc import Callable

import torch
from torch import Tensor

from gss.errors import GssError


class FiniteGuard:
    """Watches loss and gradient norm of every step.

    On the CPU `watch` raises at once. On CUDA that would make the host wait for the device in every step; there
    it raises a flag on the device with which the fused optimizer skips this and all later updates, and `check`
    raises at the next moment the host reads the device anyway.

    Args:
        optimizer: its updates are held back.
        device: of loss and norm.
        last_good: says where the last good checkpoint is.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, last_good: Callable[[], str]) -> None:
        self._bad_step = torch.full((), -1.0, device=device)  # first bad step, -1 while all is well
        self._flag = torch.zeros((), device=device)
        self._at_once = device.type == "cpu"
        if not self._at_once:
            optimizer.found_inf = self._flag  # type: ignore[attr-defined]  # read by fused optimizers
        self._last_good = last_good

    def watch(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take note of one step before its update."""
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self._bad_step.copy_(torch.where(finite | (self._flag > 0), self._bad_step, step))
        self._flag.copy_(torch.where(finite, self._flag, 1.0))
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Raise if any step was bad; waits for the device.

        Raises:
            GssError: names the step and the last good checkpoint.
        """
        bad = int(self._bad_step)
        if bad >= 0:
            raise GssError(
                f"the loss or its gradient is not finite at step {bad}; training stopped before this update",
                where=f"last good checkpoint: {self._last_good()}",
                todo="lower `lr` or set `clip_norm` (and with precision bf16 try fp32), then run again",
            )
