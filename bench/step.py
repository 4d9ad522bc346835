"""Time and peak memory of a training step and of a prediction on the CPU: ours, the oracle's, the published ones.

    python bench/step.py           # five runs of each in turns, every one in a process of its own; half an hour
    python bench/step.py ff-train  # one of the subjects

The oracle (tests/oracle.py) is the published computation written out plainly, on the same modules and weights.
Model: Swin-T, head widths 384/512/2048 with two blocks of 16 heads, full-size dVAE with random weights, 150 classes,
one image of 256 x 256; X^-1 with one block of width 128 behind a frozen prior. Single precision, one thread; where the
CPU has bf16, ours also with `tokenizer.precision: bf16` and, in training, `training.precision: bf16`.
"""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import apart
import page
from apart import ROOT, Measured

PAGE = ROOT / "bench" / "step.md"
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
SUBJECTS = {  # name, peak of the published implementation in MiB
    "ff-train": ("GSS-FF, training step", 3049),
    "ff-predict": ("GSS-FF, prediction", 2769),
    "ftw-train": ("X^-1 (window), training step", 3912),
    "ftw-predict": ("GSS-FT-W, prediction", 2782),
}
ROUNDS = 5
BF16 = "bf16"
NUM_CLASSES, SIDE = 150, 256


def measure(subject: str, side: str, *, count: bool) -> None:
    """See `apart.measure`."""
    import gss.evaluate.inference  # the baseline counts what every run needs
    import gss.recipes.gss.learners
    import gss.train.optim  # noqa: F401

    variant, task = subject.split("-")
    apart.measure(lambda: (prediction if task == "predict" else training_step)(variant, side), count=count)


def modules(variant: str, side: str, half: str, *, kind: str = "") -> tuple[Any, Any, Any]:
    """Latent prior, tokenizer and X^-1; for FF the palette's colours are those of X^-1.

    Args:
        half: of the tokenizer, which a stage of ours keeps.
        kind: of the latent prior's head; default: that of the variant.
    """
    import torch

    from gss.nets.backbone import build_backbone
    from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
    from gss.recipes.gss.posterior import NearestPosterior, WindowPosterior
    from gss.recipes.gss.tokenizer.dvae import DVAE

    ff = variant == "ff"
    backbone = build_backbone("swin_tiny_patch4_window7_224", drop_path=0.3 if ff else 0.0)
    head = LatentPriorHead(backbone.channels, NUM_CLASSES, 8192, kind=kind or ("ff" if ff else "tokens"))
    dvae = DVAE().requires_grad_(False).eval().to(memory_format=torch.channels_last)
    if side == BF16:
        dvae.lower_precision(torch.bfloat16)
    colours = torch.randint(0, 256, (NUM_CLASSES + 1, 3))
    posterior = NearestPosterior(colours) if ff else WindowPosterior(NUM_CLASSES, depth=1)
    return LatentPrior(backbone, head), dvae if side == "oracle" else dvae.keep(half), posterior


def prediction(variant: str, side: str) -> Callable[[], Any]:
    """Prediction of one image, in one pass."""
    import numpy as np
    import oracle
    import torch

    from gss.data.device import normalise
    from gss.evaluate.inference import Inference, predict
    from gss.recipes.gss.model import GSS

    model = GSS(*modules(variant, side, "decoder")).eval()
    mean, std = model.prior.backbone.mean, model.prior.backbone.std
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if side == "oracle":
        normalised = normalise(torch.from_numpy(image).permute(2, 0, 1)[None], mean, std)
        return lambda: oracle.predict(model, normalised)
    return lambda: predict(model, image, Inference(), device=torch.device("cpu"))


def training_step(variant: str, side: str) -> Callable[[], None]:
    """Forward, backward and update for one image, a tenth of whose label is ignored."""
    import oracle
    import torch

    from gss.recipes.gss.learners import LatentPriorLearner, PosteriorLearner
    from gss.train.optim import build_optimizer
    from gss.train.settings import LoopSettings

    prior, dvae, posterior = modules(variant, side, "encoder" if variant == "ff" else "decoder")
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
        "valid": torch.tensor([[0, 0, SIDE, SIDE]]),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]),
    }

    def sums() -> torch.Tensor:
        if side != "oracle":
            with torch.autocast("cpu", torch.bfloat16, enabled=side == BF16):
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


def matrix_peak(precision: str) -> float:
    """GMAC/s of a large matrix product on one core, by CPU seconds as everything here: the best of six."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(2048, 2048, dtype=getattr(torch, precision))
    times = []
    for _ in range(6):
        began = time.process_time()
        a @ a
        times.append(time.process_time() - began)
    return 2048**3 / 1e9 / min(times)


def row(name: str, pairs: list[tuple[Measured, Measured]], peaks: tuple[float, float]) -> tuple[str, ...]:
    """Medians of a side of ours and the oracle, median and spread of the pairs' ratios, shares of the matrix peaks.

    Args:
        peaks: GMAC/s of a matrix product in the precision of either side.
    """
    seconds, gmac = (
        [median(run[key] for run in side) for side in zip(*pairs, strict=True)] for key in ("seconds", "gmac")
    )
    shares = [work / time / peak for work, time, peak in zip(gmac, seconds, peaks, strict=True)]
    times, memory = apart.compared(pairs)
    return (name, *times, f"{gmac[0]:.0f} / {gmac[1]:.0f}", f"{shares[0]:.0%} / {shares[1]:.0%}", *memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each side (default: %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # ours, bf16 or oracle
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.subjects[0], arguments.measure, count=arguments.count)
        return
    from gss.recipes.gss.assemble import cpu_has_bf16

    peaks = {"ours": matrix_peak("float32")} | ({BF16: matrix_peak("bfloat16")} if cpu_has_bf16() else {})
    machine = (
        f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, one core: {2 * peaks['ours']:.0f} "
        f"GFLOP/s in a matrix product of 2048 x 2048. {arguments.rounds} runs."
    )
    sides, rows, processes = [*peaks, "oracle"], [], []
    for subject in arguments.subjects or SUBJECTS:
        name, published = SUBJECTS[subject]
        counts = {side: apart.child(__file__, subject, "--measure", side, "--count") for side in sides}
        turns = [
            {side: apart.child(__file__, subject, "--measure", side) | counts[side] for side in sides}
            for _ in range(arguments.rounds)
        ]
        for side, peak in peaks.items():
            title = name if side == "ours" else f"{name}, {side}"
            rows.append(row(title, [(turn[side], turn["oracle"]) for turn in turns], (peak, peaks["ours"])))
        whole = median(turn["ours"]["peak"] for turn in turns)
        processes.append((name, f"{whole:.0f}", f"{published}", f"{whole / published:.2f}"))
        print(*map(page.line, (*rows[-len(peaks) :], processes[-1])), sep="\n", flush=True)
        if not arguments.subjects:
            tables = (
                page.table(HEADINGS, rows),
                page.table(("whole process, MiB", "ours", "published", "ratio"), processes),
            )
            page.write(PAGE, "\n".join([machine, "", *tables[0], "", *tables[1]]))


if __name__ == "__main__":
    main()
