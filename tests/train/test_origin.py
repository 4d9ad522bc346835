"""A loss that is no number: the message names where it began, found by computing that step once more."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_learner import ALONE, SETTINGS, TinyLearner, make_batches
from torch import Tensor, nn

from gss.train.guard import NotFinite
from gss.train.loop import LoopSettings, train


class Spoilt(nn.Module):
    """Spoils what passes, or its gradient, from some call on.

    Args:
        calls: that are left alone.
    """

    def __init__(self, calls: int, forward: float = 1.0, backward: float = 1.0) -> None:
        super().__init__()
        self.calls, self.factors = calls, (forward, backward)

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls >= 0:
            return x
        made = x * self.factors[0]
        if made.requires_grad and self.factors[1] != 1:
            made.register_hook(lambda gradient: gradient * self.factors[1])
        return made


def stopped(folder: Path, spoil: nn.Module | None = None, weights: float | None = None, **options) -> str:
    learner = TinyLearner(**options)
    if spoil is not None:
        learner.saved[2] = spoil
    if weights is not None:
        nn.init.constant_(learner.saved[4].weight, weights)
    with pytest.raises(NotFinite) as caught:
        settings = LoopSettings(**{**SETTINGS, "steps": 10})
        train(learner, make_batches(), settings, work=folder, journal=None, world=ALONE)
    return str(caught.value.where)


def test_the_first_module_whose_output_is_no_number_is_named(tmp_path: Path) -> None:
    found = stopped(tmp_path, Spoilt(3, forward=math.inf))
    assert found.startswith("first in the output of saved.2 (Spoilt); last good checkpoint: ")


def test_arithmetic_of_the_loss_is_told_from_modules(tmp_path: Path) -> None:
    assert stopped(tmp_path, poison=3).startswith("first in the output of the loss itself (TinyLearner); ")


def test_a_gradient_is_followed_from_the_loss_back(tmp_path: Path) -> None:
    found = stopped(tmp_path, Spoilt(3, backward=math.nan))
    assert found.startswith(
        "the loss is finite; its first gradient that is not is that by the output of saved.2 (Spoilt); "
    )


def test_weights_that_are_none_come_before_all(tmp_path: Path) -> None:
    found = stopped(tmp_path, weights=math.nan)
    assert found.startswith("the weights saved.4.weight are not finite before this step; ")


def test_the_step_is_the_one_that_failed(tmp_path: Path) -> None:
    """Batches, order and micro-batches are those of that step, however far the training has come."""
    seen: list[int] = []
    learner = TinyLearner(poison=7)
    with pytest.raises(NotFinite, match="at step 7") as caught:
        settings = LoopSettings(**{**SETTINGS, "steps": 10})
        batches = make_batches(accumulation=2, seen=seen)
        train(learner, batches, settings, work=tmp_path, journal=None, world=ALONE)
    assert seen[-8:] == list(range(56, 64)) and caught.value.step == 7


def test_a_fault_that_does_not_come_again_is_said_to(tmp_path: Path) -> None:
    class Once(Spoilt):
        def forward(self, x: Tensor) -> Tensor:
            self.calls -= 1
            return x * math.nan if self.calls == -1 else x

    assert stopped(tmp_path, Once(3)).startswith("the same step computed once more is finite; ")


def test_all_processes_say_the_same(tmp_path: Path) -> None:
    """Loss and gradient are no numbers in both; where it began knows one."""
    code = """
import sys, os, math, torch
sys.path[:0] = {path!r}
from pathlib import Path
from tiny_learner import TinyLearner, make_batches, SETTINGS
from gss.train.distributed import worker
from gss.train.guard import NotFinite
from gss.train.loop import LoopSettings, train

class Here(torch.nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return x * math.inf if os.environ["RANK"] == "1" and self.calls > 2 else x

folder = Path({folder!r})
with worker(folder) as world:
    learner = TinyLearner()
    learner.saved[2] = Here()
    try:
        train(learner, make_batches(world), LoopSettings(**SETTINGS), work=folder, journal=None, world=world)
    except NotFinite as error:
        (folder / f"said_{{world.rank}}").write_text(f"{{error}}")
"""
    script = tmp_path / "both.py"
    script.write_text(code.format(path=sys.path, folder=str(tmp_path)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, str(script)], check=True)
    said = [(tmp_path / f"said_{rank}").read_text() for rank in (0, 1)]
    assert all(re.search(r"at step 2;(.|\n)*first in the output of saved\.2 \(Here\)", each) for each in said)
