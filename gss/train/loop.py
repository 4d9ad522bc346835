"""The only training loop: it knows nothing of what it trains.

What differs between trainings is a *learner*, an nn.Module with
    terms    dict loss name -> weight, in a fixed order of k names;
    saved    the trained module: its state goes into checkpoints, its parameters are updated;
    counts(batch)         float64 [k]: over how many elements each term is a mean, from the labels alone;
    forward(batch, step)  sums float [k] of the terms, and statistics {name: (sum, count)}.
A batch is a dict of tensors; a step has one or more of them (micro-batches).
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gss._compat import import_timm
from gss.errors import CheckpointError, GssError, Interrupted
from gss.tracking.journal import Journal
from gss.train.checkpoint import CheckpointFolder
from gss.train.distributed import World, average_buffers, repeat_bits, seed_step
from gss.train.guard import FiniteGuard
from gss.train.optim import set_learning_rate
from gss.train.progress import Progress
from gss.train.saver import Saver
from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings
from gss.train.state import TrainState
from gss.train.stop import Clock, StopSignal, Wish

__all__ = ["Learner", "LoopSettings", "TrainResult", "train"]

Batch = Mapping[str, Tensor]
MakeBatches = Callable[[int], Iterable[Sequence[Batch]]]
Evaluate = Callable[[nn.Module, int], Mapping[str, float]]
EPS = float(torch.finfo(torch.float32).eps)  # the published losses divide by count + eps


class Learner(Protocol):
    """What the loop asks of an nn.Module that is to be trained; see the module docstring."""

    terms: dict[str, float]
    saved: nn.Module

    def counts(self, batch: Batch) -> Tensor:
        """Float64 [k]: elements of each term in a micro-batch."""


@dataclass(frozen=True)
class TrainResult:
    """Where a training stands: `step` updates done, `finished` when these are all, and the module to `export`
    (the moving average where one is kept; running statistics are this process's own)."""

    step: int
    finished: bool
    exported: nn.Module


def train(
    learner: nn.Module,
    make_batches: MakeBatches,
    settings: LoopSettings,
    *,
    work: Path,
    journal: Journal | None,
    world: World,
    until: int | None = None,
    evaluate: Evaluate | None = None,
) -> TrainResult:
    """Train a learner from the last checkpoint in `work`, if any, up to step `until`.

    The loss of a step is the weighted sum over terms of sum / (count + eps), with sums and counts over all
    processes and micro-batches: how the batch is divided does not change it (unless `settings.normalisation` is
    `local`). It does change what BatchNorm sees, one micro-batch at a time, of all processes on GPUs and of its own on
    CPUs, and which elements dropout and stochastic depth draw; what has none of these is trained alike to rounding.
    Everything random in a step depends on (seed, step, rank) alone, so an interrupted training that goes on ends with
    the same bits.

    Args:
        learner: see the module docstring; moved to the device and precision.
        make_batches: gives the steps' micro-batches of this process from a step on.
        work: folder of this training; checkpoints are kept in `checkpoints/` below it.
        journal: of the main process; None in the others.
        until: ends after this many steps of the schedule, with a checkpoint; default: all.
        evaluate: called in all processes with the module to export and the step after each planned checkpoint;
            returns metrics by name. It must not change the module.

    Raises:
        Interrupted: SIGTERM or SIGINT came, or the end of the job's time is near; a checkpoint of the step is written.
        GssError: the loss is not finite; a checkpoint cannot be written or belongs to other settings; the job's time is
            too short for a single step.
    """
    run = _Run(learner, settings, work, journal, world)
    target = until or settings.steps
    run.train(make_batches, target, evaluate)
    return TrainResult(target, target == settings.steps, run.state.exported)


class _Run:
    """The parts of one training and what is done with them."""

    def __init__(
        self, learner: nn.Module, settings: LoopSettings, work: Path, journal: Journal | None, world: World
    ) -> None:
        self.settings, self.work, self.journal, self.world = settings, work, journal, world
        self.dtype = torch.float64 if settings.precision == "fp64" else torch.float32
        if world.device.type == "cuda":
            repeat_bits(settings.deterministic)
        learner.to(world.device)  # the type stays: a tokenizer may be in lower precision
        if self.dtype == torch.float64:
            learner.double()
        if world.size > 1 and world.device.type == "cuda":
            # torch's own converter drops the activations that timm keeps inside its BatchNorm
            learner = import_timm().layers.convert_sync_batchnorm(learner)
        self.learner = cast(Learner, learner)
        self.model = learner if world.size == 1 else DistributedDataParallel(learner, forward_sync_buffers=False)
        self.weights = torch.tensor(list(self.learner.terms.values()), dtype=torch.float64, device=world.device)
        self.state = TrainState(self.learner.saved, settings)
        self.optimizer, self.meter = self.state.optimizer, self.state.meter
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.folder = CheckpointFolder(work / "checkpoints", settings.keep_last)
        self.saver = Saver(self.folder, journal)
        self.guard = FiniteGuard(self.optimizer, world.device, self.saver.last_good)
        self.clock = Clock(settings) if world.is_main else None

    def train(self, make_batches: MakeBatches, target: int, evaluate: Evaluate | None) -> None:
        """Steps up to `target`."""
        settings, world = self.settings, self.world
        start = self.resume(target)
        progress = Progress(world, self.journal, steps=target, first=start)
        if start == target or (start and start % settings.save_every == 0):
            self.evaluate(evaluate, start, progress)  # the stop may have come between checkpoint and evaluation
        if start == target:
            return
        self.require_time(start)

        batches = iter(make_batches(start))
        self.model.train()
        with StopSignal().caught() as stop, self.saver:
            for step in range(start, target):
                began = time.perf_counter()
                micro = [self.move(batch) for batch in next(batches)]
                progress.fetched(sum(map(_size, micro)), time.perf_counter() - began)
                if step == start:
                    self.warn_of_micro_batches(micro)

                rate = learning_rate(step, settings)
                set_learning_rate(self.optimizer, rate)
                seed_step(settings.seed, step, world.rank)

                loss = self.accumulate(micro, step)
                norm = self.gradient_norm()
                self.guard.watch(step, loss, norm)
                self.update(norm)

                done = step + 1
                progress.tick(done)
                wish = self.wish(stop)
                planned = done % settings.save_every == 0 or done == target
                if done % settings.log_every == 0 or done == settings.steps:
                    self.guard.check()
                    progress.line(done, self.meter.read(world), rate)
                if planned or wish is not Wish.GO_ON:
                    self.guard.check()
                    with progress.saving():
                        self.save(done)
                        if done == target or wish >= Wish.STOP_FOR_DEADLINE:
                            self.saver.wait()
                            world.barrier()
                if wish >= Wish.STOP_FOR_DEADLINE and done < target:
                    reason = (
                        "stopped before the end of the job's time"
                        if wish is Wish.STOP_FOR_DEADLINE
                        else f"stopped by {stop.name or 'a signal to another process'}"
                    )
                    raise Interrupted(
                        f"{reason} after step {done} of {settings.steps}, which is saved in "
                        f"{self.folder.path}; the same command goes on from there",
                        step=done,
                        deadline=wish is Wish.STOP_FOR_DEADLINE,
                    )
                if planned:
                    self.evaluate(evaluate, done, progress)
        progress.end(settings.steps)

    def wish(self, stop: StopSignal) -> Wish:
        """What all processes do at the end of this step: the one thing they agree on."""
        self.saver.check()
        wish = Wish.GO_ON if self.clock is None else self.clock.step_done(self.saver.longest)
        return Wish(self.world.max(wish if stop.name is None else Wish.STOP_FOR_SIGNAL))

    def require_time(self, start: int) -> None:
        """Stop when the end of the job's time is near already: a job that gains no step must not be repeated."""
        left = self.clock.short_of_time(self.saver.longest) if self.clock is not None else None
        if not self.world.max(left is not None):
            return
        seconds = self.world.from_main(round(left or 0))
        if Clock.any_step_done:  # by an earlier training of this process
            raise Interrupted(
                f"stopped before the end of the job's time, at step {start} of {self.settings.steps}; "
                "the same command goes on from there",
                step=start,
                deadline=True,
            )
        raise GssError(
            f"the time limit is too short: {seconds} s are left before the first step, and "
            f"{self.settings.deadline_margin:g} s are kept for an end in good order",
            where=self.work,
            todo="give the stage more time (run.resources, minutes), or lower run.deadline_margin",
        )

    def evaluate(self, evaluate: Evaluate | None, step: int, progress: Progress) -> None:
        """Measure the module as it would be exported now."""
        if evaluate is not None:
            exported = self.state.exported
            average_buffers(exported, self.world)
            progress.metrics(step, evaluate(exported.eval(), step))
            self.model.train()

    def warn_of_micro_batches(self, micro: Sequence[Batch]) -> None:
        """Say so where BatchNorm makes the result depend on how a step's batch is divided into micro-batches."""
        norms = sum(isinstance(module, _BatchNorm) and module.training for module in self.model.modules())
        if norms and len(micro) > 1 and self.world.is_main:
            seen = _size(micro[0]) * (self.world.size if self.world.device.type == "cuda" else 1)
            step = sum(map(_size, micro)) * self.world.size
            print(
                f"warning: accumulation {len(micro)}: {norms} BatchNorm layers see {seen} of a step's {step} images "
                "at a time, so the result is not that of accumulation 1",
                flush=True,
            )

    def move(self, batch: Batch) -> dict[str, Tensor]:
        """A batch on the device, its floats in the precision of the training."""
        return {
            name: value.to(self.world.device, self.dtype if value.is_floating_point() else None, non_blocking=True)
            for name, value in batch.items()
        }

    def accumulate(self, micro: Sequence[Batch], step: int) -> Tensor:
        """Gradients of the whole step's loss; returns this process's share of that loss, float64."""
        divisors = self.divisors(torch.stack([self.learner.counts(batch) for batch in micro]))
        total = torch.zeros_like(self.weights)
        for number, (batch, divisor) in enumerate(zip(micro, divisors, strict=True), start=1):
            ddp = self.model if isinstance(self.model, DistributedDataParallel) else None
            with ddp.no_sync() if ddp is not None and number < len(micro) else nullcontext():
                with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                    sums, stats = self.model(batch, step)
                terms = self.weights * sums / divisor  # [k]
                (terms.sum() * self.world.size).backward()  # DDP takes the mean over processes
            total += terms.detach()
            for name, (value, count) in stats.items():
                self.meter.add(f"train/{name}", value, count)
        size = self.world.size
        self.meter.add("train/loss", total.sum() * size, 1.0)
        for name, term in zip(self.learner.terms, total, strict=True):
            self.meter.add(f"train/loss_{name}", term * size, 1.0)
        return total.sum()

    def divisors(self, counts: Tensor) -> Tensor:
        """What the sums of this process's micro-batches are divided by, like `counts` float64 [micro-batches, k]."""
        if self.settings.normalisation == "local":
            return (counts + EPS) * (self.world.size * len(counts))
        return (self.world.sum(counts.sum(0)) + EPS).expand_as(counts)

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self.meter.add("train/grad_norm", norm, 1.0)
        return norm

    def update(self, norm: Tensor) -> None:
        """Clip, step, and let the average follow."""
        if self.settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.state.average is not None:
            self.state.average.update()

    def save(self, step: int) -> None:
        """Begin to write a checkpoint from the main process."""
        content = self.state.content(step, self.world)
        if self.clock is not None:
            self.saver.save(step, content)
            self.clock.saved()

    def resume(self, target: int) -> int:
        """Go on from the last good checkpoint, the same in all processes, and say so; returns its step or 0."""
        step = 0
        if self.world.is_main:
            entry, reports = self.folder.find_latest()
            for report in reports:
                print(f"warning: {report}", flush=True)
            step = entry.step if entry is not None else 0
        step = self.world.from_main(step)
        if step:
            self.state.load(self.folder.load(step, map_location=self.world.device), self.world, where=self.folder.path)
            self.saver.resumed_from(step)
        self.banner(step, target)
        if step > target:
            raise CheckpointError(
                f"the last checkpoint is of step {step}, past the wanted step {target}",
                where=self.folder.path,
                todo="move the work folder away to train up to it again",
            )
        return step

    def banner(self, start: int, target: int) -> None:
        """Say what is about to run."""
        if self.world.is_main:
            trained = sum(parameter.numel() for parameter in self.parameters)
            origin = f"resumed from step {start}" if start else "fresh start"
            print(
                f"training in {self.work}: {origin}, up to step {target} of {self.settings.steps}\n"
                f"{self.world.size} process(es) on {self.world.device.type}, {self.settings.precision}, "
                f"{trained:,} trained parameters",
                flush=True,
            )


def _size(batch: Batch) -> int:
    """Images in a micro-batch."""
    return len(next(iter(batch.values())))
