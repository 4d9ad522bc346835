"""Everything about stopping a training and saving it, so that the same command goes on."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gss.errors import CheckpointError, GssError, Interrupted
from gss.results.journal import Journal
from gss.train.checkpoint import CheckpointFolder
from gss.train.distributed import World
from gss.train.guard import FiniteGuard
from gss.train.saver import Saver
from gss.train.settings import LoopSettings
from gss.train.state import TrainState
from gss.train.stop import Clock, StopSignal, Wish


class Keeper:
    """Saves by plan and by the clock; stops for a signal, before the end of the job's time, and at what is no number.

    As a context manager it takes SIGTERM and SIGINT over, and leaves when all is written.

    Args:
        state: of the training.
        work: its folder; checkpoints are kept in `checkpoints/` below it.
        journal: of the main process; its lines are on the disk before a checkpoint of their step.

    Attributes:
        seconds: that the training waited for its checkpoints.
    """

    def __init__(
        self, state: TrainState, settings: LoopSettings, work: Path, journal: Journal | None, world: World
    ) -> None:
        self._state, self._settings, self._work, self._world = state, settings, work, world
        self._folder = CheckpointFolder(work / "checkpoints", settings.keep_last)
        self._saver = Saver(self._folder, journal)
        self._clock = Clock(settings) if world.is_main else None
        self._stop = StopSignal()
        self._inside = contextlib.ExitStack()
        self.guard = FiniteGuard(state.optimizer, world.device, self._saver.last_good, state.scale)
        self.seconds = 0.0

    def __enter__(self) -> "Keeper":
        self._inside.enter_context(self._stop.caught())
        self._inside.enter_context(self._saver)
        return self

    def __exit__(self, *error: Any) -> None:
        self._inside.__exit__(*error)

    def resume(self, target: int) -> int:
        """Go on from the last good checkpoint, the same in all processes, and say so; returns its step or 0.

        Raises:
            CheckpointError: it is past `target`, or belongs to other settings or another module.
        """
        step = 0
        if self._world.is_main:
            entry, reports = self._folder.find_latest()
            for report in reports:
                print(f"warning: {report}", flush=True)
            step = entry.step if entry is not None else 0
        step = self._world.from_main(step)
        if step:
            self._state.load(self._folder.load(step, map_location=self._world.device), where=self._folder.path)
            self._saver.resumed_from(step)
        self._banner(step, target)
        if step > target:
            raise CheckpointError(
                f"the last checkpoint is of step {step}, past the wanted step {target}",
                where=self._folder.path,
                todo="move the work folder away to train up to it again",
            )
        return step

    def require_time(self, step: int) -> None:
        """Stop when the end of the job's time is near already: a job that gains no step must not be repeated."""
        left = self._clock.short_of_time(self._saver.longest) if self._clock is not None else None
        if not self._world.max(left is not None):
            return
        seconds = self._world.from_main(round(left or 0))
        if Clock.any_step_done:  # by an earlier training of this process
            raise Interrupted(
                f"stopped before the end of the job's time, at step {step} of {self._settings.steps}; "
                "the same command goes on from there",
                step=step,
                deadline=True,
            )
        raise self._too_short(f"{seconds} s are left before the first step")

    def step_done(self, done: int, *, save: bool, last: bool) -> None:
        """Save after a step when it is time to, and stop when all processes or one of them have to.

        Args:
            save: in any case.
            last: no step follows: the checkpoint is waited for.

        Raises:
            Interrupted: a checkpoint of this step is written.
            GssError: a loss was not finite; the checkpoint before could not be written.
        """
        self._saver.check()
        wish = Wish.GO_ON if self._clock is None else self._clock.step_done(self._saver.longest)
        wish = Wish(self._world.max(wish if self._stop.name is None else Wish.STOP_FOR_SIGNAL))
        stops = wish >= Wish.STOP_FOR_DEADLINE
        if save or wish is not Wish.GO_ON:
            self.guard.check()
            began = time.perf_counter()
            content = self._state.content(done)
            if self._clock is not None:
                self._saver.save(done, content)
                self._clock.saved()
            if last or stops:
                self._all_written()
            self.seconds += time.perf_counter() - began
        if stops and not last:
            raise self._interrupted(wish, f"after step {done}", done)

    def between_images(self, step: int) -> None:
        """Stop in the validation after a step, whose checkpoint is begun, when this process has to.

        Raises:
            Interrupted: a signal came, or the end of the job's time is near.
            GssError: in all of its time, the job came no step further.
        """
        moment = f"in the validation after step {step}"
        if self._stop.name is not None:
            raise self._interrupted(Wish.STOP_FOR_SIGNAL, moment, step)
        if self._clock is not None and self._clock.short_of_time(self._saver.longest) is not None:
            if not Clock.any_step_done:
                raise self._too_short("the validation alone takes longer")
            raise self._interrupted(Wish.STOP_FOR_DEADLINE, moment, step)

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        """Around a validation: interrupted, no process leaves before the checkpoint is written; its time is no step."""
        try:
            yield
        except Interrupted:
            self._all_written()
            raise
        if self._clock is not None:
            self._clock.paused()

    def _all_written(self) -> None:
        self._saver.wait()
        self._world.barrier()

    def _interrupted(self, wish: Wish, moment: str, step: int) -> Interrupted:
        deadline = wish is Wish.STOP_FOR_DEADLINE
        reason = (
            "stopped before the end of the job's time"
            if deadline
            else f"stopped by {self._stop.name or 'a signal to another process'}"
        )
        return Interrupted(
            f"{reason} {moment} of {self._settings.steps}, which is saved in {self._folder.path}; "
            "the same command goes on from there",
            step=step,
            deadline=deadline,
        )

    def _too_short(self, found: str) -> GssError:
        return GssError(
            f"the time limit is too short: {found}, and "
            f"{self._settings.deadline_margin:g} s are kept for an end in good order",
            where=self._work,
            todo="give the stage more time (run.resources, minutes), or lower run.deadline_margin",
        )

    def _banner(self, start: int, target: int) -> None:
        """Say what is about to run."""
        if self._world.is_main:
            trained = sum(parameter.numel() for parameter in self._state.parameters)
            origin = f"resumed from step {start}" if start else "fresh start"
            print(
                f"training in {self._work}: {origin}, up to step {target} of {self._settings.steps}\n"
                f"{self._world.size} process(es) on {self._world.device.type}, {self._settings.precision}, "
                f"{trained:,} trained parameters",
                flush=True,
            )
