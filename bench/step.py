"""Time and peak memory of a training step and of a prediction on the CPU: ours, the oracle's, the published ones.

    python bench/step.py           # five runs of each in turns, every one in a process of its own; half an hour
    python bench/step.py ff-train  # one of the subjects

The oracle (tests/oracle.py) is the published computation written out plainly, on the same modules and weights.
Model: Swin-T, head widths 384/512/2048 with two blocks of 16 heads, full-size dVAE with random weights, 150 classes,
one image of 256 x 256; X^-1 with one block of width 128 behind a frozen prior. Single precision, one thread.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "bench" / "step.md"
SUBJECTS = {  # name, peak of the published implementation in MiB
    "ff-train": ("GSS-FF, training step", 3049),
    "ff-predict": ("GSS-FF, prediction", 2769),
    "ftw-train": ("X^-1 (window), training step", 3912),
    "ftw-predict": ("GSS-FT-W, prediction", 2782),
}
ROUNDS = 5
SIDES = ("ours", "oracle")
NUM_CLASSES, SIDE = 150, 256
BEGIN, END = "<!-- measured -->\n", "<!-- end -->"


def mark() -> int:
    """High-water mark of this process's resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(subject: str, *, plain: bool, count: bool) -> None:
    """Print the seconds of a second step and the marks after import and after the first; or multiply-adds of a step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import gss.evaluate.inference  # the baseline counts what every run needs
    import gss.models.training
    import gss.train.optim  # noqa: F401
    from gss._compat import import_timm

    import_timm()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    baseline = mark()
    variant, task = subject.split("-")
    step = prediction(variant, plain) if task == "predict" else training_step(variant, plain)
    with FlopCounterMode(display=False) if count else contextlib.nullcontext() as counter:
        step()
    if count:
        print(json.dumps({"gmac": counter.get_total_flops() / 2e9}))
        return
    peak = mark()
    began = time.process_time()
    step()
    seconds = time.process_time() - began
    print(json.dumps({"seconds": seconds, "baseline": baseline, "peak": peak}))


def matrix_peak() -> float:
    """GMAC/s of a large matrix product on one core, in single precision: the best of five."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(2048, 2048)
    times = []
    for _ in range(6):
        began = time.process_time()
        a @ a
        times.append(time.process_time() - began)
    return 2048**3 / 1e9 / min(times)


def modules(variant: str, half: str | None) -> tuple[Any, Any, Any]:
    """Latent prior, tokenizer and X^-1; for FF the palette's colours are those of X^-1.

    Args:
        half: of the tokenizer, which a stage of ours keeps.
    """
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
    return LatentPrior(backbone, head), dvae.keep(half) if half else dvae, posterior


def prediction(variant: str, plain: bool) -> Callable[[], Any]:
    """Prediction of one image, in one pass."""
    import numpy as np
    import oracle
    import torch

    from gss.data.device import normalise
    from gss.evaluate.inference import Inference, predict
    from gss.models.gss import GSS

    model = GSS(*modules(variant, None if plain else "decoder")).eval()
    mean, std = model.prior.backbone.mean, model.prior.backbone.std
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if plain:
        normalised = normalise(torch.from_numpy(image).permute(2, 0, 1)[None], mean, std)
        return lambda: oracle.predict(model, normalised)
    return lambda: predict(model, image, Inference(), mean=mean, std=std, device=torch.device("cpu"))


def training_step(variant: str, plain: bool) -> Callable[[], None]:
    """Forward, backward and update for one image, a tenth of whose label is ignored."""
    import oracle
    import torch

    from gss.models.training import LatentPriorLearner, PosteriorLearner
    from gss.train.optim import build_optimizer
    from gss.train.settings import LoopSettings

    prior, dvae, posterior = modules(variant, None if plain else {"ff": "encoder"}.get(variant, "decoder"))
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

    def sums() -> torch.Tensor:
        if not plain:
            return learner(batch, 0)[0]
        image = learner.finished_image(batch)
        if variant == "ff":
            return oracle.latent_prior_losses(prior, dvae, posterior.colours, image, batch["label"])
        return oracle.posterior_loss(prior, dvae, posterior, image, batch["label"]).view(1)

    def step() -> None:
        (weights * sums() / learner.counts(batch)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def child(subject: str, *words: str) -> dict[str, float]:
    """What `measure` prints in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), subject, "--measure", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def row(subject: str, best: float) -> str:
    """Medians of the pairs, the spread of their ratios, and the share of the matrix peak."""
    name, published = SUBJECTS[subject]
    counts = [child(subject, side, "count")["gmac"] for side in SIDES]
    pairs = [[child(subject, side) for side in SIDES] for _ in range(ROUNDS)]
    ours, plain = ({key: statistics.median(run[key] for run in side) for key in side[0]}
                   for side in zip(*pairs, strict=True))
    times = sorted(a["seconds"] / b["seconds"] for a, b in pairs)
    memory = (ours["peak"] - ours["baseline"]) / (plain["peak"] - plain["baseline"])
    shares = [count / side["seconds"] / best for count, side in zip(counts, (ours, plain), strict=True)]
    return (
        f"| {name} | {ours['seconds']:.1f} | {plain['seconds']:.1f} | **{statistics.median(times):.2f}** "
        f"({times[0]:.2f}–{times[-1]:.2f}) | {counts[0]:.0f} / {counts[1]:.0f} | "
        f"{shares[0]:.0%} / {shares[1]:.0%} | "
        f"{ours['peak'] - ours['baseline']:.0f} / {plain['peak'] - plain['baseline']:.0f} | **{memory:.2f}** | "
        f"{ours['peak']:.0f} | {ours['peak'] / published:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)  # ours or oracle, [count]
    arguments = parser.parse_args()
    if arguments.measure:
        side, *count = arguments.measure
        measure(arguments.subjects[0], plain=side == "oracle", count=bool(count))
        return
    best = matrix_peak()
    rows = [
        f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, one core: {2 * best:.0f} GFLOP/s "
        "in a matrix product of 2048 x 2048.",
        "",
        "| what | s | oracle s | time ratio (spread) | GMAC / oracle's | share of peak / oracle's | MiB / oracle's | "
        "memory ratio | whole process MiB | of the published |",
        "|---|" + "---:|" * 9,
    ]
    for subject in arguments.subjects or SUBJECTS:
        rows.append(row(subject, best))
        print(rows[-1], flush=True)
    if not arguments.subjects:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + "\n".join(rows) + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
