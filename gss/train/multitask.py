"""A step along weighted gradients of several sources, each of its own loss."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gss.train import mgda
from gss.train.distributed import World
from gss.train.scaling import LossScale

SOLVERS: dict[str, Callable[[np.ndarray], mgda.Solution]] = {
    "mgda": mgda.projected_gradient,
    "mgda_fw": mgda.frank_wolfe,
}


class SourceGradients:
    """The gradients of one step, one vector for each source, in the parameters' precision.

    Args:
        module: whose parameters are trained.
        multitask: a name of `SOLVERS`.
    """

    def __init__(self, module: nn.Module, multitask: str, world: World) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._solve, self._world = SOLVERS[multitask], world
        self._rows: list[Tensor] = []

    def add(self, losses: Tensor) -> None:
        """Differentiate this process's shares of the sources' losses [S] of one micro-batch."""
        for number, loss in enumerate(losses):
            more = number + 1 < len(losses)
            found = torch.autograd.grad(loss, self._parameters, retain_graph=more, allow_unused=True)
            row = torch.cat([each.flatten() for each in found if each is not None])
            if number < len(self._rows):
                self._rows[number] += row
            else:
                self._rows.append(row)
        self._reached = [parameter for parameter, each in zip(self._parameters, found, strict=True) if each is not None]

    def combine(self, scale: LossScale | None) -> Tensor:
        """Give the parameters the gradient of the step, over all processes; what they gave is forgotten.

        Args:
            scale: of the losses, and so of these gradients; the weights do not depend on it.

        Returns:
            the weights of the sources, float64 [S], on the device; the host waits for it.
        """
        rows, self._rows = self._rows, []
        for row in rows:
            self._world.sum(row)
        products = torch.stack([torch.stack([a @ b for b in rows]) for a in rows]).double()
        if scale is not None:
            products /= scale.factor.double() ** 2
        with np.errstate(all="ignore"):  # gradients that are no numbers are found out by their norm
            weights, _ = self._solve(products.cpu().numpy())
        combined = rows[0].mul_(weights[0])
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            combined.add_(row, alpha=weight)
        parts = combined.split([parameter.numel() for parameter in self._reached])
        for parameter, part in zip(self._reached, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return torch.from_numpy(weights).to(combined.device)
