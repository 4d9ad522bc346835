"""What a step costs in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

Measured = dict[str, Any]  # of one side: `seconds` of CPU time, `baseline` and `peak` (MiB), `gmac`


def measure(prepare: Callable[[], Callable[[], Any]], *, count: bool = False) -> None:
    """Print the marks after import and after a first step and the CPU seconds of a second one; or multiply-adds.

    Args:
        prepare: makes the step; what every run needs is imported before.
    """
    import torch

    from gss._compat import import_timm
    from gss.benchmark.stopwatch import Counter, resident_peak

    import_timm()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    baseline = resident_peak() >> 20
    step = prepare()
    if count:
        with Counter() as counter:
            step()
        print(json.dumps({"gmac": counter.take() / 2e9}))
        return
    step()
    peak = resident_peak() >> 20
    began = time.process_time()
    step()
    seconds = time.process_time() - began
    print(json.dumps({"seconds": seconds, "baseline": baseline, "peak": peak}))


def compared(pairs: Sequence[tuple[Measured, Measured]]) -> tuple[list[str], list[str]]:
    """Cells of a table on two sides that ran in turns: both medians of the seconds, and median and spread of their
    ratios; both medians of the MiB beyond the imports, and their ratio."""
    seconds = [median(run["seconds"] for run in side) for side in zip(*pairs, strict=True)]
    memory = [median(run["peak"] - run["baseline"] for run in side) for side in zip(*pairs, strict=True)]
    times = sorted(ours["seconds"] / theirs["seconds"] for ours, theirs in pairs)
    return (
        [*(f"{value:.1f}" for value in seconds), f"**{median(times):.2f}** ({times[0]:.2f}–{times[-1]:.2f})"],
        [f"{memory[0]:.0f} / {memory[1]:.0f}", f"**{memory[0] / memory[1]:.2f}**"],
    )


def child(script: str, *arguments: str, **more: str) -> Measured:
    """What a script prints in a fresh process with one thread.

    Args:
        more: of the environment.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"} | more
    command = [sys.executable, script, *arguments]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
