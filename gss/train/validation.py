"""Validation while training: what would be exported is measured, and nothing of the training changes."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from gss.train.keeper import Keeper
from gss.train.progress import Progress
from gss.train.settings import LoopSettings
from gss.train.state import TrainState

SCORE = "val/mIoU"  # of the measured figures: which step is the best

Validate = Callable[[nn.Module, Callable[[], None]], Mapping[str, float]]
"""Measures a module, in eval mode, in all processes together; calls the function it is given between two images, which
raises when the training has to stop, and then raises in all processes. Returns the same figures in all."""


class Validation:
    """Measures the module as it would be exported after every `validate_every` steps, and after the last one.

    The checkpoint of such a step is begun before: what cuts a validation off costs no step, and it is done again.
    """

    def __init__(
        self,
        validate: Validate | None,
        state: TrainState,
        settings: LoopSettings,
        keeper: Keeper,
        progress: Progress,
    ) -> None:
        self._validate, self._state, self._settings = validate, state, settings
        self._keeper, self._progress = keeper, progress

    def due(self, step: int) -> bool:
        """Whether a step is followed by a validation."""
        every = self._settings.validate_every if self._validate is not None else 0
        return every > 0 and step > 0 and (step % every == 0 or step == self._settings.steps)

    def after(self, step: int) -> None:
        """Measure where it is due, and keep the weights if they are the best."""
        if not self.due(step):
            return
        assert self._validate is not None
        began = time.perf_counter()
        module = self._state.exported()
        with self._keeper.validating():
            figures = self._validate(module, partial(self._keeper.between_images, step))
        best = self._state.best
        is_best = best is not None and best.offer(step, figures.get(SCORE, -math.inf), module)
        note = " (the best so far)" if is_best else ""
        self._progress.validated(
            step, figures, f"{SCORE} {figures.get(SCORE, math.nan):.4f}{note}", time.perf_counter() - began
        )
