"""What a training step on four balanced sources costs, against one on as many samples of a single data set.

    python bench/merge.py              # a minute or two
    python bench/merge.py --rounds 40

A synthetic data set of four folders, all images of one size; network: EfficientNet-Lite0 with the plain head. The sides
take turns step by step in one process with one thread, each with a network, an optimizer and a loader of its own; CPU
seconds of loading (read, decode, augment) and of the whole step (loading, transfer, forward, backward, update).
"""

import argparse
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import page

PAGE = Path(__file__).resolve().parent / "merge.md"
HEADINGS = ("what", "loading, s", "ratio (spread)", "step, s", "ratio (spread)")
SOURCES, PAIRS, SIDE, CROP, BATCH, CLASSES = 4, 24, 384, 128, 8, 19
SIDES = {
    "one": "one source",
    "repeat": "four, `sampling: repeat`",
    "balanced": "four, `sampling: balanced`",
    "mgda": "four, `multitask: mgda`",
}

Step = Callable[[], tuple[float, float]]  # takes one, and gives the CPU seconds of its loading and of all of it


def write_sets(folder: Path) -> None:
    """Four folders of photographs like noise and labels of squares, and an experiment for each side."""
    import cv2
    import numpy as np
    import yaml

    from gss.data.images import write_png

    rng = np.random.default_rng(0)
    for source in range(SOURCES):
        for index in range(PAIRS):
            ids = np.kron(rng.integers(0, CLASSES, (SIDE // 32, SIDE // 32)), np.ones((32, 32), int)).astype(np.uint8)
            image = cv2.resize(rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8), (SIDE, SIDE))
            for split in ("train", "val"):
                if split == "train" or index < 2:
                    write_png(folder / f"sets/{source}/images/{split}/{index}.png", image)
                    write_png(folder / f"sets/{source}/labels/{split}/{index}.png", ids)
    both = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
    data: dict[str, Any] = {"root": "0", "classes": [f"class {k}" for k in range(CLASSES)], "splits": both}
    several = {"sources": [{"root": str(k), "splits": {"train": both["train"]}} for k in range(1, SOURCES)]}
    sides = {
        "one": ({}, {}),
        "repeat": (several, {}),
        "balanced": ({**several, "sampling": "balanced"}, {}),
        "mgda": ({**several, "sampling": "balanced"}, {"multitask": "mgda"}),
    }
    for name, (more, training) in sides.items():
        path = folder / "config/experiments" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "recipe": "pixel",
            "data": {**data, **more},
            "augment": {"base_scale": [SIDE, SIDE], "crop": [CROP, CROP]},
            "pixel": {
                "backbone": {"name": "efficientnet_lite0"},
                "training": {"batch_size": BATCH, "warmup_steps": 0, **training},
            },
            "run": {"workers": 0},
        }
        path.write_text(yaml.safe_dump(content))


def steps_of(name: str) -> Step:
    """The steps of a side, as the training loop takes them."""
    import torch

    from gss.recipes.pixel.assemble import build_network, describe
    from gss.recipes.pixel.learner import build_learner
    from gss.stages.run import Run
    from gss.stages.training import loop_settings, make_loader
    from gss.train.distributed import World
    from gss.train.objective import Objective
    from gss.train.state import TrainState

    run, world = Run.open(name), World(0, 1, 0, torch.device("cpu"))
    training, settings = run.experiment.pixel.training, loop_settings(run, run.experiment.pixel.training, 1000)
    torch.manual_seed(0)
    objective = Objective(build_learner(run.experiment, build_network(describe(run, run.space)), None), settings, world)
    objective.model.train()
    state = TrainState(objective.learner.saved, settings, world)
    batches: Iterator[Any] = iter(make_loader(run, run.manifest.pairs("train"), training, world)(0))

    def step() -> tuple[float, float]:
        began = time.process_time()
        loaded = next(batches)
        loading = time.process_time() - began
        micro = [objective.move(batch) for batch in loaded]
        state.begin(1e-4)
        objective.backward(micro, 0, state.meter)
        state.update(state.gradient_norm())
        return loading, time.process_time() - began

    return step


def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """By side, what its steps cost; the order within a round is drawn, for a step pays for what the one before left."""
    import torch

    from gss.cli import main as gss

    torch.set_num_threads(1)
    for name in SIDES:
        if gss(["check", name]):
            raise SystemExit("the data set cannot be used")
    steps = {name: steps_of(name) for name in SIDES}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    order = random.Random(0)
    for number in range(-2, rounds):  # the first two warm up
        for name in order.sample(list(SIDES), len(SIDES)):
            cost = steps[name]()
            if number >= 0:
                found[name].append(cost)
    return found


def row(name: str, found: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Medians of a side and of its ratios to the single source, with the middle half of these."""
    cells = [SIDES[name]]
    for mine, theirs in zip(zip(*found[name], strict=True), zip(*found["one"], strict=True), strict=True):
        ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        quarter = len(ratios) // 4
        cells += [
            f"{median(mine):.3f}",
            f"**{median(ratios):.3f}** ({ratios[quarter]:.2f}–{ratios[-1 - quarter]:.2f})",
        ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24, help="steps of each side (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_sets(Path(folder))
        os.chdir(folder)
        os.environ["GSS_DATA"] = f"{folder}/sets"
        found = measure(arguments.rounds)
    rows = [row(name, found) for name in SIDES]
    machine = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one core. {arguments.rounds} rounds."
    print(*map(page.line, rows), sep="\n")
    page.write(PAGE, "\n".join([machine, "", *page.table(HEADINGS, rows)]))


if __name__ == "__main__":
    main()
