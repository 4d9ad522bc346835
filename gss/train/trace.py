"""What a few steps of a training do, call by call: a trace for chrome://tracing or Perfetto."""

import contextlib
import os
from pathlib import Path
from typing import Any

from torch import profiler

from gss.files import write_error
from gss.train.distributed import World

_BEFORE = 2  # steps that are not like the others: allocations, and the profiler's own warm-up


class Trace:
    """As a context manager around the steps of a training it traces some of them, in the main process.

    Args:
        steps: how many, behind the first two; 0: none.
        path: the file, written when they are done.
    """

    def __init__(self, steps: int, path: Path, world: World) -> None:
        self._path, self._profiler = path, None
        if steps and world.is_main:
            kinds = [profiler.ProfilerActivity.CPU]
            kinds += [profiler.ProfilerActivity.CUDA] if world.device.type == "cuda" else []
            schedule = profiler.schedule(wait=_BEFORE - 1, warmup=1, active=steps, repeat=1)
            self._profiler = profiler.profile(activities=kinds, schedule=schedule, on_trace_ready=self._write)
        self._inside = contextlib.ExitStack()

    def __enter__(self) -> "Trace":
        if self._profiler is not None:
            self._inside.enter_context(self._profiler)
        return self

    def __exit__(self, *error: Any) -> None:
        self._inside.close()

    def step(self) -> None:
        """A step has ended."""
        if self._profiler is not None:
            self._profiler.step()

    def _write(self, traced: profiler.profile) -> None:
        self._profiler = None
        draft = self._path.with_name(f".{self._path.name}.tmp")
        try:
            traced.export_chrome_trace(str(draft))
            os.replace(draft, self._path)
        except OSError as error:
            raise write_error(self._path, error) from error
        print(f"trace: {self._path}, for chrome://tracing or Perfetto", flush=True)
