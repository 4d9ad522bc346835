"""Peak memory of training and prediction on the CPU, against the published implementation.

    python bench/memory.py                     # every run in a process of its own; writes bench/memory.md, ten minutes
    python bench/memory.py --against FOLDER    # the time of a step as a multiple of another checkout's; writes that

Model: Swin-T, head widths 384/512/2048 with two blocks of 16 heads, full-size dVAE with random weights, 150 classes,
one image of 256 x 256; X^-1 with one block of width 128 behind a frozen prior. Single precision, one thread.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "bench" / "memory.md"
RUNS = {  # what is run, peak of the published implementation in MiB
    "ff-1": ("FF, 1 training step", 3049),
    "ff-2": ("FF, 2 training steps", 3721),
    "ff-predict": ("FF, prediction of one image, whole", 2769),
    "ftw-1": ("FT-W, 1 training step", 3912),
    "ftw-predict": ("FT-W, prediction, whole", 2782),
}
TIMED = {
    "ff-2": "FF, training step",
    "ff-predict": "FF, prediction",
    "ftw-1": "FT-W, training step",
    "ftw-predict": "FT-W, prediction",
}
LAUNCHED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)}  # as `gss launch` sets them
ROUNDS = 3
NUM_CLASSES, SIDE = 150, 256


def mark() -> int:
    """High-water mark of this process's resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(run: str, rounds: int) -> None:
    """Print the marks after import, after build and at the end; with `rounds` the CPU seconds of a step instead."""
    import torch

    import gss.evaluate.inference  # the baseline counts what every run needs
    import gss.models.training
    import gss.train.optim  # noqa: F401
    from gss._compat import import_timm

    import_timm()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    baseline = mark()
    variant, task = run.split("-")
    step = prediction(variant) if task == "predict" else training_step(variant)
    built, seconds = mark(), []
    for _ in range(rounds + 1 if rounds else 2 if task == "2" else 1):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    print(statistics.median(seconds[1:]) if rounds else f"{baseline} {built} {mark()}")


def modules(variant: str) -> tuple[Any, Any, Any]:
    """Latent prior, tokenizer and X^-1; for FF the palette's colours are those of X^-1."""
    import torch

    from gss.models.backbone import build_backbone
    from gss.models.latent_prior import LatentPrior, LatentPriorHead
    from gss.models.posterior import NearestPosterior, WindowPosterior
    from gss.tokenizer.dvae import DVAE

    ff = variant == "ff"
    backbone = build_backbone("swin_tiny_patch4_window7_224", drop_path=0.3 if ff else 0.0)
    head = LatentPriorHead(backbone.channels, NUM_CLASSES, 8192, kind="ff" if ff else "tokens")
    dvae = DVAE().requires_grad_(False).eval().to(memory_format=torch.channels_last)
    colours = torch.randint(0, 256, (NUM_CLASSES + 1, 3))
    posterior = NearestPosterior(colours) if ff else WindowPosterior(NUM_CLASSES, depth=1)
    return LatentPrior(backbone, head), dvae, posterior


def prediction(variant: str) -> Callable[[], None]:
    """Prediction of one image."""
    import torch

    from gss.evaluate.inference import Inference, predict
    from gss.models.gss import GSS

    model = GSS(*modules(variant)).eval()
    backbone = model.prior.backbone
    image = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8).numpy()

    def step() -> None:
        predict(model, image, Inference(), mean=backbone.mean, std=backbone.std, device=torch.device("cpu"))

    return step


def training_step(variant: str) -> Callable[[], None]:
    """Forward, backward and update for one image, a tenth of whose label is ignored."""
    import torch

    from gss.models.training import LatentPriorLearner, PosteriorLearner
    from gss.train.optim import build_optimizer
    from gss.train.settings import LoopSettings

    prior, dvae, posterior = modules(variant)
    learner = (
        LatentPriorLearner(prior, dvae, posterior.colours)
        if variant == "ff"
        else PosteriorLearner(prior, dvae, posterior)
    ).train()
    optimizer = build_optimizer(learner.saved, LoopSettings(steps=100, lr=1e-3))
    weights = torch.tensor(list(learner.terms.values()), dtype=torch.float64)
    label = torch.randint(0, NUM_CLASSES, (1, SIDE // 8, SIDE // 8), dtype=torch.uint8)
    label[:, :, :3] = 255
    batch = {
        "image": torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8),
        "label": label.repeat_interleave(8, 1).repeat_interleave(8, 2),
        "valid": torch.tensor([[SIDE, SIDE]]),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]),
    }

    def step() -> None:
        sums, _ = learner(batch, 0)
        (weights * sums / learner.counts(batch)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def child(run: str, folder: Path, *, rounds: int = 0, launched: bool = False) -> list[float]:
    """Numbers that `measure` prints in a fresh process, with the package of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--run", run, "--rounds", str(rounds)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1", **(LAUNCHED if launched else {})}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in done.stdout.split()]


def memory_table() -> list[str]:
    """Rows of marks in MiB."""
    head = "| run | baseline | after build | peak | published | ratio | peak under `gss launch` |"
    rows = [head, "|---|" + "---:|" * 6]
    for run, (name, published) in RUNS.items():
        baseline, built, peak = child(run, ROOT)
        launched = child(run, ROOT, launched=True)[2]
        figures = f"{baseline:.0f} | {built:.0f} | **{peak:.0f}** | {published} | {100 * peak / published:.0f} %"
        rows.append(f"| {name} | {figures} | {launched:.0f} |")
        print(rows[-1], flush=True)
    return rows


def time_table(other: Path) -> list[str]:
    """Rows of CPU times as multiples of another checkout's, measured in turns."""
    rows = ["| step | CPU time, other checkout = 1 |", "|---|---:|"]
    for run, name in TIMED.items():
        pairs = [[child(run, folder, rounds=1)[0] for folder in (ROOT, other)] for _ in range(ROUNDS)]
        rows.append(f"| {name} | {statistics.median(ours / theirs for ours, theirs in pairs):.2f} |")
        print(rows[-1], pairs, flush=True)
    return rows


def write(table: str, rows: list[str]) -> None:
    """Put a table between its two marks in the page."""
    begin, end = f"<!-- {table} -->\n", f"<!-- end of {table} -->"
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}{chr(10).join(rows)}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout whose time of a step is the unit")
    parser.add_argument("--run", choices=RUNS, help="measure one run in this process and print the numbers")
    parser.add_argument("--rounds", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        measure(arguments.run, arguments.rounds)
    elif arguments.against:
        write("time", time_table(arguments.against))
    else:
        write("memory", memory_table())


if __name__ == "__main__":
    main()
