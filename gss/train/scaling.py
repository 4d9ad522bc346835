"""The scale of the loss in fp16 training: large enough that small gradients are not rounded to 0."""

from collections.abc import Mapping

import torch
from torch import Tensor

START, INTERVAL = 2.0**16, 2000


class LossScale:
    """Factor of the loss, whose gradients are divided by it: halved when they overflow, doubled after long without.

    It lives on the device, and the host never waits for it. All processes see the same gradients, so it is the same in
    all.

    Attributes:
        factor: float32 [], a power of 2.
        overflow: bool [], whether the gradients of the last step were no numbers: its update has to be left out.

    Source: the policy of `torch.amp.GradScaler` and of apex, which caps the factor at 2^24.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), START, device=device)
        self.overflow = torch.zeros((), dtype=torch.bool, device=device)
        self._good = torch.zeros((), dtype=torch.int64, device=device)  # steps since the factor changed

    def follow(self, norm: Tensor) -> None:
        """Take note of one step by the norm of its gradients."""
        self.overflow.copy_(~torch.isfinite(norm))
        good = torch.where(self.overflow, 0, self._good + 1)
        grows = good == INTERVAL
        self.factor.mul_(torch.where(self.overflow, 0.5, torch.where(grows, 2.0, 1.0)))
        self._good.copy_(torch.where(grows, 0, good))

    def state(self) -> dict[str, Tensor]:
        return {"factor": self.factor, "good": self._good}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.factor.copy_(state["factor"])
        self._good.copy_(state["good"])
