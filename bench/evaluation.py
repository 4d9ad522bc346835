"""Evaluation of one image on the CPU, ours against the oracle's: time, peak memory, and where ours goes.

    python bench/evaluation.py           # three runs of each in turns, every one in a process of its own; an hour
    python bench/evaluation.py ff-whole  # one of the subjects

The oracle (tests/oracle_evaluation.py) is the published computation written out plainly, on the same modules and
weights. Model: Swin-T, head widths 384/512/2048 with two blocks of 16 heads, full-size dVAE with random weights, 150
classes; X^-1 of nearest colours or of two blocks of width 128. One image of 683 x 512 (width x height) that was read
before, and its label, a tenth of it ignored; in one pass, or in windows of 512 x 512 every 341 pixels. Single
precision, one thread.
"""

import argparse
import collections
import contextlib
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from pairs import HEADINGS, ROOT, head, in_turns, line, machine, mark, matrix_peak, row, write

PAGE = ROOT / "bench" / "evaluation.md"
SUBJECTS = {
    "ff-whole": "GSS-FF, whole",
    "ff-slide": "GSS-FF, sliding",
    "ftw-whole": "GSS-FT-W, whole",
    "ftw-slide": "GSS-FT-W, sliding",
}
PHASES = ("network", "decoder", "X^-1, votes", "window sums, resize, argmax", "counting")
ROUNDS = 3
NUM_CLASSES, HEIGHT, WIDTH = 150, 512, 683
CROP, STRIDE = (512, 512), (341, 341)


def measure(subject: str, side: str) -> None:
    """Print the CPU seconds of evaluating an image, its multiply-adds, and the marks after import and at the end."""
    import numpy as np
    import oracle_evaluation
    import torch

    from gss._compat import import_timm
    from gss.data.device import normalise
    from gss.evaluate import inference, run
    from gss.train.distributed import setup

    import_timm()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    baseline = mark()
    variant, mode = subject.split("-")
    model = build(variant)
    mean, std = model.prior.backbone.mean, model.prior.backbone.std
    protocol = inference.Inference("slide", CROP, STRIDE) if mode == "slide" else inference.Inference()

    def plain(image: Any, label: Any) -> Any:
        normalised = normalise(torch.from_numpy(image).permute(2, 0, 1)[None], mean, std)
        windows = {"crop": CROP, "stride": STRIDE} if mode == "slide" else {}
        return oracle_evaluation.evaluate(model, normalised, label, **windows)[1]

    def ours(image: Any, label: Any) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            return run.evaluate_pairs(
                model, [0], NUM_CLASSES, setup(), read=lambda _: (image, label), inference=protocol
            ).confusion

    def picture(height: int, width: int) -> tuple[Any, Any]:
        random = np.random.default_rng(0)
        label = random.integers(0, NUM_CLASSES, (height, width), dtype=np.uint8)
        label[: height // 10] = 255
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8), label

    evaluate = plain if side == "oracle" else ours
    evaluate(*picture(64, 64))  # what happens once in a process
    spent: collections.Counter[str] = collections.Counter()
    for owner, method, name in (
        (model.prior, "tokens", "network"),
        (model.tokenizer, "decode", "decoder"),
        (model.posterior, "scores", "X^-1, votes"),
        (run, "predict", "prediction"),
        (run, "confusion", "counting"),
    ):
        watch(owner, method, name, spent)
    image, label = picture(HEIGHT, WIDTH)
    began = time.process_time()
    counts = evaluate(image, label)
    seconds, peak = time.process_time() - began, mark()
    assert counts.sum() == (label != 255).sum()
    spent[PHASES[3]] = spent.pop("prediction", 0.0) - sum(spent[name] for name in PHASES[:3])
    grid = inference.windows(HEIGHT, WIDTH, protocol.crop, protocol.stride)
    if mode == "whole":
        grid = [(slice(0, HEIGHT), slice(0, WIDTH))]
    result = {"seconds": seconds, "baseline": baseline, "peak": peak, "phases": dict(spent)}
    gmac = sum(multiply_adds(model, side, *(part.stop - part.start for part in window)) for window in grid) / 1e9
    print(json.dumps({**result, "gmac": gmac}))


def multiply_adds(model: Any, side: str, height: int, width: int) -> float:
    """Of one pass, by shapes alone; the model is empty afterwards. Nearest colours need none."""
    import oracle
    import torch

    from gss.benchmark.stopwatch import Counter
    from gss.nets import window
    from gss.recipes.gss.posterior import WindowPosterior

    model.to("meta")
    window._LARGE = sys.maxsize  # pieces of a map do the same, but ask for a device that computes
    image = torch.empty(1, 3, height, width, device="meta")
    with torch.inference_mode(), Counter() as counter:
        if side == "ours":
            rgb = model.rgb(image)
        else:
            logits, _ = oracle.head_logits(model.prior.head, model.prior.backbone(image))
            rgb = oracle.decode(model.tokenizer, logits.argmax(1))
        if isinstance(model.posterior, WindowPosterior):
            if side == "ours":
                model.posterior.scores(rgb, (height, width))
            else:
                oracle.window_scores(model.posterior, rgb)
    return counter.take() / 2


def watch(owner: object, method: str, name: str, spent: collections.Counter[str]) -> None:
    """Add the CPU seconds of every call of a method to `spent[name]`."""
    original: Callable[..., Any] = getattr(owner, method)

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        result = original(*arguments, **options)
        spent[name] += time.process_time() - began
        return result

    setattr(owner, method, timed)


def build(variant: str) -> Any:
    """The whole model; for FF the palette is random."""
    import torch

    from gss.nets.backbone import build_backbone
    from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
    from gss.recipes.gss.model import GSS
    from gss.recipes.gss.posterior import NearestPosterior, WindowPosterior
    from gss.recipes.gss.tokenizer.dvae import DVAE

    backbone = build_backbone("swin_tiny_patch4_window7_224")
    head = LatentPriorHead(backbone.channels, NUM_CLASSES, 8192, kind="ff" if variant == "ff" else "tokens")
    dvae = DVAE().requires_grad_(False).eval().to(memory_format=torch.channels_last)
    colours = torch.randint(0, 256, (NUM_CLASSES + 1, 3))
    posterior = NearestPosterior(colours) if variant == "ff" else WindowPosterior(NUM_CLASSES, depth=2)
    return GSS(LatentPrior(backbone, head), dvae, posterior).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each side (default: %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # ours or oracle
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.subjects[0], arguments.measure)
        return
    peak = matrix_peak()
    rows, shares = [head(*HEADINGS)], [head("CPU seconds of ours", *PHASES, "all")]
    for subject in arguments.subjects or SUBJECTS:
        pairs = in_turns(__file__, subject, arguments.rounds)
        rows.append(row(SUBJECTS[subject], pairs, peak))
        ours = [run for run, _ in pairs]
        cells = [median(run["phases"][name] for run in ours) for name in PHASES]
        whole = median(run["seconds"] for run in ours)
        shares.append(line(SUBJECTS[subject], *(f"{cell:.2f} ({cell / whole:.1%})" for cell in cells), f"{whole:.1f}"))
        print(rows[-1], shares[-1], sep="\n", flush=True)
        if not arguments.subjects:
            write(PAGE, [f"{machine(peak)} {arguments.rounds} runs.", "", *rows, "", *shares])


if __name__ == "__main__":
    main()
