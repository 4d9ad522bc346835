"""The only training loop: it knows nothing of what it trains."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gss.results.journal import Journal
from gss.train.distributed import World, seed_step
from gss.train.keeper import Keeper
from gss.train.learner import Batch
from gss.train.objective import EPS, Objective, size_of
from gss.train.origin import explained
from gss.train.progress import Progress
from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings
from gss.train.state import TrainState
from gss.train.trace import Trace
from gss.train.validation import Validate, Validation

__all__ = ["EPS", "LoopSettings", "MakeBatches", "TrainResult", "train"]

MakeBatches = Callable[[int], Iterable[Sequence[Batch]]]


@dataclass(frozen=True)
class TrainResult:
    """Where a training stands, and what it exports.

    Args:
        step: updates done.
        finished: whether these are all.
        exported: the module, the moving average where one is kept, with running statistics of all processes.
        exported_step: of its weights: `step`, or with `keep: best` the best one before.
        score: of the best one.
    """

    step: int
    finished: bool
    exported: nn.Module
    exported_step: int
    score: float | None = None


def train(
    learner: nn.Module,
    make_batches: MakeBatches,
    settings: LoopSettings,
    *,
    work: Path,
    journal: Journal | None,
    world: World,
    until: int | None = None,
    validate: Validate | None = None,
) -> TrainResult:
    """Train a learner from the last checkpoint in `work`, if any, up to step `until`.

    What is minimised: `gss.train.objective.Objective`. Everything random in a step depends on (seed, step, rank) alone,
    so an interrupted training that goes on ends with the same bits.

    Args:
        learner: a `gss.train.learner.Learner`; moved to the device and precision.
        make_batches: gives the steps' micro-batches of this process from a step on.
        work: folder of this training; checkpoints are kept in `checkpoints/` below it.
        journal: of the main process; None in the others.
        until: ends after this many steps of the schedule, with a checkpoint; default: all.
        validate: measures what would be exported, every `settings.validate_every` steps.

    Raises:
        Interrupted: SIGTERM or SIGINT came, or the end of the job's time is near; a checkpoint of the step is written.
        NotFinite: the loss or its gradient is no number; says where that began.
        GssError: a checkpoint cannot be written or belongs to other settings; the job's time is
            too short for a single step.
    """
    target = until or settings.steps
    objective = Objective(learner, settings, world)
    state = TrainState(objective.learner.saved, settings, world)
    keeper = Keeper(state, settings, work, journal, world)
    start = keeper.resume(target)
    progress = Progress(world, journal, steps=target, first=start)
    validation = Validation(validate, state, settings, keeper, progress)
    trace = Trace(settings.profile, work / "trace.json", world)
    with keeper, explained(objective, make_batches, settings.seed, world, state.scale), trace:
        validation.after(start)  # the stop may have come between the checkpoint and the end of the validation
        if start < target:
            keeper.require_time(start)
            batches = iter(make_batches(start))
            objective.model.train()
        for step in range(start, target):
            began = time.perf_counter()
            micro = [objective.move(batch) for batch in next(batches)]
            progress.fetched(sum(map(size_of, micro)), time.perf_counter() - began)
            if step == start:
                objective.warn_of_micro_batches(micro)

            rate = learning_rate(step, settings)
            state.begin(rate)
            seed_step(settings.seed, step, world.rank)

            loss = objective.backward(micro, step, state.meter, state.scale)
            norm = state.gradient_norm()
            keeper.guard.watch(step, loss, norm)
            state.update(norm)
            trace.step()

            done = step + 1
            progress.tick(done)
            if done % settings.log_every == 0 or done == settings.steps:
                keeper.guard.check()
                progress.line(done, state.meter.read(world), rate)
            save = done % settings.save_every == 0 or done == target or validation.due(done)
            keeper.step_done(done, save=save, last=done == target)
            validation.after(done)
        if start < target:
            progress.end(settings.steps, keeper.seconds)
    exported = state.result()
    best = state.best
    exported_step, score = (best.step, best.score) if best is not None and best.step else (target, None)
    return TrainResult(target, target == settings.steps, exported, exported_step, score)
