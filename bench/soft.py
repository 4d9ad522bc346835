"""Time and peak memory of a prediction with GSS's options on the CPU, beside the published method's.

    python bench/soft.py       # five runs of each in turns, every one in a process of its own; half an hour
    python bench/soft.py ftw   # one of the models

The models of `bench/step.py`, one image of 256 x 256, single precision, one thread. *hard*: the one token with the
highest score is decoded; *soft*: the mixture of all; *branch*: the scores of the pixel branch are added.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import apart
import page

PAGE, BEGIN = apart.ROOT / "bench" / "beyond.md", "<!-- cost -->\n"
HEADINGS = ("what", "s", "hard s", "time ratio (spread)", "MiB / hard MiB", "memory ratio")
MODELS = {"ff": "GSS-FF", "ftw": "GSS-FT-W"}
HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # what is freed goes back: the peak is of what is held
OPTIONS: dict[str, dict[str, float]] = {
    "hard": {},
    "soft": {"token_temperature": 1.0},
    "branch": {"pixel_weight": 1.0},
    "both": {"token_temperature": 1.0, "pixel_weight": 1.0},
}


def prediction(variant: str, side: str) -> Callable[[], Any]:
    """One image, in one pass."""
    import numpy as np
    import step
    import torch

    from gss.evaluate.inference import Inference, predict
    from gss.recipes.gss.model import GSS

    model = GSS(*step.modules(variant, "ours", "decoder", kind="ff"), **OPTIONS[side]).eval()
    image = np.random.default_rng(0).integers(0, 256, (step.SIDE, step.SIDE, 3), dtype=np.uint8)
    return lambda: predict(model, image, Inference(), device=torch.device("cpu"))


def measure(variant: str, side: str) -> None:
    """See `apart.measure`."""
    import gss.evaluate.inference  # the baseline counts what every run needs
    import gss.recipes.gss.model  # noqa: F401

    apart.measure(lambda: prediction(variant, side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (default: %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one of OPTIONS
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.models[0], arguments.measure)
        return
    rows = []
    for model in arguments.models or MODELS:
        turns = [
            {side: apart.child(__file__, model, "--measure", side, **HEAP) for side in OPTIONS}
            for _ in range(arguments.rounds)
        ]
        for side in list(OPTIONS)[1:]:
            times, memory = apart.compared([(turn[side], turn["hard"]) for turn in turns])
            rows.append((f"{MODELS[model]}, {side}", *times, *memory))
            print(page.line(rows[-1]), flush=True)
    if not arguments.models:
        machine = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one core. {arguments.rounds} runs."
        page.write(PAGE, "\n".join([machine, "", *page.table(HEADINGS, rows)]), BEGIN)


if __name__ == "__main__":
    main()
