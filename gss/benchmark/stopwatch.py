"""Time, peak memory and multiply-adds of the phases of something that is done again and again."""

import contextlib
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

WAITING = "waiting for data"  # the phase whose share is said
WARM_UP = 2  # laps that are not timed; the second one counts multiply-adds
_ATTENTION = "_scaled_dot_product_flash_attention"
_FORMULAS = flop_registry | {  # torch has none for attention on CPUs; its arguments are those of the GPU's
    getattr(torch.ops.aten, f"{_ATTENTION}_for_cpu{end}"): flop_registry[getattr(torch.ops.aten, _ATTENTION + end)]
    for end in ("", "_backward")
}


@dataclass
class Phase:
    """What was measured of one phase.

    Args:
        seconds: of every timed lap.
        memory: bytes, the largest of all timed laps; everything that is allocated then, weights included.
        macs: multiply-adds of one lap: matrix products, convolutions and attention as they are executed.
    """

    seconds: list[float]
    memory: int = 0
    macs: float = 0.0


@dataclass(frozen=True)
class Section:
    """One measurement.

    Args:
        images: of a lap.
        phases: that make up a lap.
        precision: of the arithmetic; `special`: of phases that differ.
    """

    images: int
    phases: dict[str, Phase]
    precision: str = "fp32"
    special: dict[str, str] = field(default_factory=dict)

    def rows(self, whole: str, peaks: Mapping[str, float]) -> list[dict[str, Any]]:
        """The whole lap and, where there are several, its phases.

        Args:
            whole: name of the lap.
            peaks: multiply-adds per second of a matrix product by precision; a row's share of the peak is its time at
                the peak by its time.
        """
        phases = self.phases.values()
        laps = [sum(parts) for parts in zip(*(phase.seconds for phase in phases), strict=True)]
        at_peak = {
            name: phase.macs / peaks[self.special.get(name, self.precision)] for name, phase in self.phases.items()
        }
        lines = [
            (
                whole,
                Phase(laps, max(phase.memory for phase in phases), sum(phase.macs for phase in phases)),
                sum(at_peak.values()),
            )
        ]
        if len(phases) > 1:
            lines += [(f"  {name}", phase, at_peak[name]) for name, phase in self.phases.items()]
        found: list[dict[str, Any]] = []
        for name, phase, ideal in lines:
            median = statistics.median(phase.seconds)
            found.append(
                {
                    "name": name,
                    "seconds": median,
                    "spread": [min(phase.seconds), max(phase.seconds)],
                    "laps": len(phase.seconds),
                    "images_per_s": self.images / median if median else None,
                    "memory_mib": phase.memory / 2**20,
                    "gmac": phase.macs / 1e9,
                    "peak_share": ideal / median if median else None,
                }
            )
        if WAITING in self.phases:
            found[0]["waiting"] = sum(self.phases[WAITING].seconds) / sum(laps)
        return found


class Counter(TorchDispatchMode):
    """Floating-point operations by torch's formulas; its `FlopCounterMode` fails where a backward pass has another."""

    def __init__(self) -> None:
        super().__init__()
        self._flops = 0

    def take(self) -> int:
        """What was counted since the last call."""
        flops, self._flops = self._flops, 0
        return flops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode a linear layer arrives as one piece
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        result = func(*args, **kwargs)
        self._flops += formula(*args, **kwargs, out_val=result)
        return result


class Stopwatch:
    """Divides laps into phases; the device has finished a phase before the next one begins.

    Memory is that of torch's allocator on a GPU. On a CPU it is what the resident set of this process has grown by
    since the stopwatch was made: make it before the networks.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps = 0
        self._phases: dict[str, Phase] = {}
        self._phase: str | None = None
        self._began = 0.0
        self._counter: Counter | None = None
        with Counter():  # imports 70 MiB, which are not of what is measured
            torch.ones(1, 1) @ torch.ones(1, 1)
        reset_peak(device)
        self._before = 0 if device.type == "cuda" else peak(device)

    def laps(self, count: int) -> Iterator[int]:
        """Numbers of `WARM_UP` laps and of `count` timed ones; a lap is what happens until the next is asked for."""
        for number in range(WARM_UP + count):
            self._laps = number - WARM_UP + 1
            for phase in self._phases.values():
                phase.seconds += [0.0] * (self._laps > 0)
            with Counter() if number == 1 else contextlib.nullcontext() as self._counter:
                yield number
                self.enter(None)

    def enter(self, name: str | None) -> None:
        """End the present phase, if there is one, and begin another; None: what follows belongs to none."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._phase is not None:
            phase = self._phases.setdefault(self._phase, Phase([0.0] * max(self._laps, 0)))
            if self._laps > 0:
                phase.seconds[-1] += now - self._began
                phase.memory = max(phase.memory, peak(self._device) - self._before)
            if self._counter is not None:
                phase.macs += self._counter.take() / 2
        self._phase = name
        reset_peak(self._device)
        self._began = time.perf_counter()

    def around(self, owner: object, method: str, name: str, *, then: str | None = None) -> None:
        """Make every call of a method a phase of its own.

        Args:
            then: the phase after it; default: the one before it.
        """
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            before = self._phase
            self.enter(name)
            result = original(*arguments, **options)
            self.enter(then or before)
            return result

        setattr(owner, method, timed)

    @property
    def phases(self) -> dict[str, Phase]:
        """By name, in the order in which they ended first."""
        return self._phases


def reset_peak(device: torch.device) -> None:
    """From here on `peak` counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # where it is forbidden, peaks are those of all that was before, too
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(device: torch.device) -> int:
    """The most memory in bytes, that tensors had on a GPU, or that is resident of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak()


def resident_peak() -> int:
    """The most resident memory this process ever had, bytes; 0 where the system does not tell.

    Note:
        `ru_maxrss` begins with what the process that started this one held, and is never lower than that.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
