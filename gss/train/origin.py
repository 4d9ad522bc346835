"""Where the numbers of a step ceased to be numbers: the step once more, with a look at every module."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gss.train.distributed import World, seed_step
from gss.train.guard import NotFinite
from gss.train.learner import Batch
from gss.train.objective import Objective
from gss.train.progress import Meter
from gss.train.scaling import LossScale

_PLACES = 10**6  # more than modules or parameters there are, and than calls of modules in a step
_WEIGHT, _OUTPUT, _GRADIENT, _OF_WEIGHT = 4, 3, 2, 1  # what is found; the larger, the nearer to the cause


@contextlib.contextmanager
def explained(
    objective: Objective,
    make_batches: Callable[[int], Iterable[Sequence[Batch]]],
    seed: int,
    world: World,
    scale: LossScale | None,
) -> Iterator[None]:
    """An error about a step that is no number says where it began.

    Args:
        make_batches, seed: of the training, whose weights are still those before that step.
        scale: of the loss, as the step had it.
    """
    try:
        yield
    except NotFinite as error:
        micro = [objective.move(batch) for batch in next(iter(make_batches(error.step)))]
        seed_step(seed, error.step, world.rank)
        where = f"{origin(objective, micro, error.step, world, scale)}; {error.where}"
        raise NotFinite(error.what, where=where, todo=error.todo, step=error.step) from None


def origin(objective: Objective, micro: Sequence[Batch], step: int, world: World, scale: LossScale | None) -> str:
    """Where a step meets the first number that is none, in words; every process calls it.

    Weights before the step come first, then outputs of modules in the order in which they are made, then gradients of
    these outputs, from the loss back, then those of the weights.
    """
    learner = cast(nn.Module, objective.learner)
    modules, parameters = list(learner.named_modules()), list(learner.named_parameters())
    found = [(_WEIGHT, 0, place) for place, (_, each) in enumerate(parameters) if _is_bad(each)][:1]
    learner.zero_grad(set_to_none=True)
    with contextlib.ExitStack() as hooks:
        for place, (_, module) in enumerate(modules):
            hooks.callback(module.register_forward_hook(_Look(place, found)).remove)
        objective.backward(micro, step, Meter(), scale)
    of_weights = [(_OF_WEIGHT, 0, place) for place, (_, each) in enumerate(parameters) if _is_bad(each.grad)]
    codes = [(kind * _PLACES + _PLACES - 1 - order) * _PLACES + place for kind, order, place in (*found, *of_weights)]
    code = world.max(max(codes, default=0))  # of whichever process
    kind, place = code // _PLACES**2, code % _PLACES
    if not kind:
        return "the same step computed once more is finite"
    name, each = (modules if kind in (_OUTPUT, _GRADIENT) else parameters)[place]
    called = f"{name or 'the loss itself'} ({type(each).__name__})"
    return {
        _WEIGHT: f"the weights {name} are not finite before this step",
        _OUTPUT: f"first in the output of {called}",
        _GRADIENT: f"the loss is finite; its first gradient that is not is that by the output of {called}",
        _OF_WEIGHT: f"first in the gradient of the weights {name}",
    }[kind]


class _Look:
    """A hook that notes what a module gives that is no number, and gradients of it."""

    def __init__(self, place: int, found: list[tuple[int, int, int]]) -> None:
        self.place, self.found = place, found

    def __call__(self, module: nn.Module, given: Any, made: Any) -> None:
        for tensor in _tensors(made):
            if _is_bad(tensor):
                self.found.append((_OUTPUT, len(self.found), self.place))
            elif tensor.requires_grad:
                tensor.register_hook(self._gradient)

    def _gradient(self, gradient: Tensor) -> None:
        if _is_bad(gradient):
            self.found.append((_GRADIENT, len(self.found), self.place))


def _is_bad(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def _tensors(made: Any) -> Iterator[Tensor]:
    """The tensors in what a module gives."""
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, Mapping):
        for each in made.values():
            yield from _tensors(each)
    elif isinstance(made, Sequence) and not isinstance(made, str):
        for each in made:
            yield from _tensors(each)
