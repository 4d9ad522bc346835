"""What a training says of itself: means over the log interval, lines on the screen, metrics in the journal."""

import math
import os
import resource
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from gss.progress import clock
from gss.results.journal import Journal
from gss.train.distributed import World


class Meter:
    """Means since the last reading, gathered on the device.

    Its `state` goes into checkpoints: the first line after a restart speaks of the whole interval.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # name -> float64 [2]: sum, count
        self._before: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor | float) -> None:
        """Add a sum of values and their number, of this process."""
        total = total.detach().double()
        if not isinstance(count, Tensor):
            count = torch.full_like(total, count)  # unlike `torch.tensor`, this does not wait for the device
        pair = torch.stack([total, count.detach().double()])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def begin(self) -> None:
        """Note where a step begins that may be taken back."""
        self._before = dict(self._sums)

    def take_back(self, wanted: Tensor) -> None:
        """Forget what was added since `begin` if the bool [] on the device says so."""
        for name, pair in self._sums.items():
            before = self._before.get(name)
            self._sums[name] = torch.where(wanted, torch.zeros_like(pair) if before is None else before, pair)

    def state(self, world: World) -> dict[str, Tensor]:
        """The sums over all processes, on the CPU; every process calls it, none is changed."""
        return {name: world.sum(pair.clone()).cpu() for name, pair in self._sums.items()}

    def load(self, state: Mapping[str, Tensor], world: World) -> None:
        """Go on from a state: the main process carries what all had gathered."""
        self._sums = {
            name: (pair if world.is_main else torch.zeros_like(pair)).to(world.device) for name, pair in state.items()
        }

    def read(self, world: World) -> dict[str, float]:
        """The means over all processes, by name, and start anew; waits for the device. No value, no name."""
        means = {name: float(pair[0] / pair[1]) for name, pair in self.state(world).items() if pair[1] > 0}
        self._sums = {}
        return means


class Progress:
    """The clock of a training and its lines; it speaks in the main process only.

    Args:
        steps: where the training ends.
        first: step this process begins with.
    """

    def __init__(self, world: World, journal: Journal | None, *, steps: int, first: int) -> None:
        self._world, self._journal, self._steps = world, journal, steps
        self._bar = world.is_main and sys.stdout.isatty()
        self._start, self._first = time.perf_counter(), first
        self._interval, self._images, self._waited = self._start, 0, 0.0
        self._validating = 0.0

    def fetched(self, num_images: int, seconds: float) -> None:
        """Count the images of one step in all processes, and the time this process waited for them."""
        self._images += num_images * self._world.size
        self._waited += seconds

    def tick(self, step: int) -> None:
        """Move the bar of a terminal; at the first step, say how long starting took."""
        launched = os.environ.get("GSS_LAUNCHED")
        if launched is not None and self._world.is_main and step == self._first + 1:
            print(f"first step {time.time() - float(launched):.1f} s after the start of the job", flush=True)
        if self._bar:
            done = 20 * step // self._steps
            print(f"\r[{'#' * done}{'.' * (20 - done)}] {step}/{self._steps} ", end="", flush=True)

    def line(self, step: int, means: Mapping[str, float], rate: float) -> None:
        """One line on the screen and one in the journal about the steps since the last; all means are given."""
        now = time.perf_counter()
        seconds = now - self._interval
        speed, wait = self._images / seconds, self._waited / seconds
        left = (now - self._start) / (step - self._first) * (self._steps - step)
        self._interval, self._images, self._waited = now, 0, 0.0
        if not self._world.is_main:
            return
        print(
            f"{chr(13) if self._bar else ''}step {step}/{self._steps}  loss {means.get('train/loss', math.nan):.4g}  "
            f"lr {rate:.3g}  {speed:.1f} img/s  wait {wait:.0%}  mem {_memory(self._world.device)}  "
            f"ETA {clock(left)}",
            flush=True,
        )
        if self._journal is not None:
            self._journal.metrics(step, {**means, "train/lr": rate, "train/img_per_s": speed, "train/data_wait": wait})

    def validated(self, step: int, figures: Mapping[str, float], headline: str, seconds: float) -> None:
        """The figures of a validation in the journal, the headline on the screen; its time is no step's."""
        self._interval += seconds
        self._validating += seconds
        if self._world.is_main:
            print(f"step {step}/{self._steps}  {headline} in {clock(seconds)}", flush=True)
            if self._journal is not None:
                self._journal.metrics(step, figures)

    def end(self, schedule: int, saving: float) -> None:
        """The last line, about all steps of this process.

        Args:
            schedule: number of steps of the whole training.
            saving: seconds that it waited for its checkpoints.
        """
        seconds = time.perf_counter() - self._start
        if self._world.is_main:
            validation = f", validation {self._validating / seconds:.1%}" if self._validating else ""
            print(
                f"done: step {self._steps} of {schedule}; checkpoints took {saving / seconds:.1%}{validation} of "
                f"{clock(seconds)}",
                flush=True,
            )


def _memory(device: torch.device) -> str:
    """Largest memory so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.1f} GB"
