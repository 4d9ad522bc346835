"""What the comparisons with the oracle share: runs in turns, each in a process of its own, and the row they make.

A script that is called with `SUBJECT --measure SIDE`, SIDE one of `SIDES`, prints one line of JSON with `seconds` of
CPU time, `baseline` and `peak` (MiB, see `mark`) and `gmac`; further keys are its own.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "oracle")
BEGIN, END = "<!-- measured -->\n", "<!-- end -->"
HEADINGS = (
    "what",
    "s",
    "oracle s",
    "time ratio (spread)",
    "GMAC / oracle's",
    "share of peak / oracle's",
    "MiB / oracle's",
    "memory ratio",
)

Run = dict[str, Any]


def mark() -> int:
    """High-water mark of this process's resident memory, MiB."""
    from gss.benchmark.stopwatch import resident_peak

    return resident_peak() // 2**20


def matrix_peak(precision: str = "float32") -> float:
    """GMAC/s of a large matrix product on one core: the best of five."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(2048, 2048, dtype=getattr(torch, precision))
    times = []
    for _ in range(6):
        began = time.process_time()
        a @ a
        times.append(time.process_time() - began)
    return 2048**3 / 1e9 / min(times)


def in_turns(script: str, subject: str, rounds: int, sides: Sequence[str] = SIDES) -> list[tuple[Run, ...]]:
    """What the sides print, round by round."""
    return [tuple(child(script, subject, side) for side in sides) for _ in range(rounds)]


def child(script: str, subject: str, side: str, *more: str) -> Run:
    """What a script prints in a fresh process with one thread."""
    command = [sys.executable, str(Path(script).resolve()), subject, "--measure", side, *more]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def row(name: str, pairs: list[tuple[Run, ...]], peak: float, own_peak: float | None = None) -> str:
    """Medians of ours and the oracle, the median and spread of the pairs' ratios, the shares of the matrix peak.

    Args:
        peak: GMAC/s of a matrix product; `own_peak`: in the precision of ours, where that is another one.
    """
    ours, plain = (
        {key: statistics.median(run[key] for run in side) for key in ("seconds", "baseline", "peak", "gmac")}
        for side in zip(*pairs, strict=True)
    )
    times = sorted(a["seconds"] / b["seconds"] for a, b in pairs)
    memory = [side["peak"] - side["baseline"] for side in (ours, plain)]
    shares = [ours["gmac"] / ours["seconds"] / (own_peak or peak), plain["gmac"] / plain["seconds"] / peak]
    return line(
        name,
        f"{ours['seconds']:.1f}",
        f"{plain['seconds']:.1f}",
        f"**{statistics.median(times):.2f}** ({times[0]:.2f}–{times[-1]:.2f})",
        f"{ours['gmac']:.0f} / {plain['gmac']:.0f}",
        f"{shares[0]:.0%} / {shares[1]:.0%}",
        f"{memory[0]:.0f} / {memory[1]:.0f}",
        f"**{memory[0] / memory[1]:.2f}**",
    )


def line(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(*headings: str) -> str:
    """The first two lines of a table; figures stand on the right."""
    return f"{line(*headings)}\n|---|{'---:|' * (len(headings) - 1)}"


def machine(peak: float) -> str:
    """Date, processor and the speed it was measured to have."""
    return (
        f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, one core: {2 * peak:.0f} "
        "GFLOP/s in a matrix product of 2048 x 2048."
    )


def write(page: Path, lines: list[str]) -> None:
    """Put the lines where the page keeps what was measured."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2])
