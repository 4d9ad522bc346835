"""BatchNorm in training on a CPU: ours, torch's channels-last kernel and torch's contiguous one, into bench/norm.md.

    MALLOC_MMAP_MAX_=0 python bench/norm.py  # as stages run; five turns each, one thread; minutes, up to 4 GB

Time: CPU seconds of forward and backward in one process, in turns; the ratio is of the fastest turns. Error: against
torch in double precision. Memory: resident peak beyond input and gradient, in a process of its own.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pairs import ROOT, child, head, line, machine, matrix_peak, write

PAGE = ROOT / "bench" / "norm.md"
SUBJECTS = {  # name -> maps [B, C, H, W]
    "X^-1 of CamVid": (8, 16, 512, 640),
    "X^-1 of toy": (8, 16, 256, 256),
    "X^-1 as published, one image of 720 x 960": (1, 128, 720, 960),
    "fusion of a latent prior": (4, 512, 64, 64),
    "level of a latent prior": (8, 64, 32, 32),
}
KINDS = ("ours", "channels-last", "contiguous")
TURNS = 5


def layer(kind: str, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any, Any]:
    """A norm, its input and the gradient of its output."""
    import torch
    from torch import nn

    from gss.nets.norm import BatchNorm2d

    torch.manual_seed(0)
    layout = torch.contiguous_format if kind == "contiguous" else torch.channels_last
    x, slope = (torch.randn(shape).add_(shift).to(dtype, memory_format=layout) for shift in (3.0, 0.5))
    return (BatchNorm2d if kind == "ours" else nn.BatchNorm2d)(shape[1], momentum=1.0), x.requires_grad_(), slope


def seconds(norm: Any, x: Any, slope: Any) -> float:
    """CPU seconds of one forward and backward pass."""
    x.grad = None
    began = time.process_time()
    norm(x).backward(slope)
    return time.process_time() - began


def errors(norm: Any, x: Any, slope: Any) -> list[float]:
    """Largest error over the channels: of the mean in standard deviations, of the variance relative, of the weight's
    gradient as a share of the magnitudes that it sums."""
    import torch

    norm.zero_grad()
    norm(x).backward(slope)
    columns = []
    for channel in range(x.shape[1]):
        values, slopes = (tensor.detach()[:, channel].double() for tensor in (x, slope))
        variance, mean = torch.var_mean(values)
        terms = slopes * (values - mean) / torch.sqrt(values.var(correction=0) + norm.eps)
        found = norm.running_mean[channel], norm.running_var[channel], norm.weight.grad[channel]
        columns.append(
            [(found[0] - mean) / variance.sqrt(), found[1] / variance - 1, (found[2] - terms.sum()) / terms.abs().sum()]
        )
    return torch.tensor(columns).abs().amax(0).tolist()


def rows(name: str, shape: tuple[int, ...]) -> list[str]:
    import torch

    table = []
    for dtype in (torch.float32, torch.bfloat16):
        layers = {kind: layer(kind, shape, dtype) for kind in KINDS}
        turns = [{kind: seconds(*layers[kind]) for kind in KINDS} for _ in range(TURNS)]
        best = {kind: min(turn[kind] for turn in turns) for kind in KINDS}
        precision = str(dtype).removeprefix("torch.")
        for kind in KINDS:
            memory = child(__file__, name, kind, "--precision", precision)["beyond"]
            found = [f"{error:.0e}" for error in errors(*layers[kind])]
            ratio = best[kind] / best["channels-last"]
            table.append(
                line(
                    f"{name}, {' x '.join(map(str, shape))}",
                    precision,
                    kind,
                    f"{1e3 * best[kind]:.1f}",
                    f"**{ratio:.2f}**",
                    str(memory),
                    *found,
                )
            )
            print(table[-1], flush=True)
    return table


def main() -> None:
    grammar = argparse.ArgumentParser(description=__doc__)
    grammar.add_argument("subject", nargs="?")
    grammar.add_argument("--measure")
    grammar.add_argument("--precision")
    given = grammar.parse_args()
    import torch

    from gss.benchmark.stopwatch import resident_peak

    torch.set_num_threads(1)
    if given.measure:
        parts = layer(given.measure, SUBJECTS[given.subject], getattr(torch, given.precision))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before = resident_peak()
        seconds(*parts)
        print(json.dumps({"beyond": (resident_peak() - before) // 2**20}))
        return
    table = [row for name, shape in SUBJECTS.items() for row in rows(name, shape)]
    headings = ("map", "type", "norm", "ms", "of channels-last", "MiB", "mean", "variance", "weight's gradient")
    write(PAGE, [machine(matrix_peak()), "", head(*headings), *table])


main()
