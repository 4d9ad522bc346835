"""What checkpoints cost a training: how long it waits for them, and how busy the thread that writes them is.

    python bench/checkpoints.py [--folder FOLDER]    # writes its table into bench/checkpoints.md; 8 GB, two minutes

The states are real (weights, both moments of AdamW), the disk is that of FOLDER, the steps are not made: a state of the
size of ADE20K's takes minutes per step on a CPU. Their time is stated, and with it the share follows.
"""

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gss.config import load_experiment
from gss.recipes.gss.build import build_latent_prior
from gss.train.checkpoint import CheckpointFolder
from gss.train.distributed import World
from gss.train.saver import Saver
from gss.train.settings import LoopSettings
from gss.train.state import TrainState

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- cost -->\n", "<!-- end of cost -->"
ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
SAVES = 3


@dataclass(frozen=True)
class Subject:
    """An experiment's latent prior: classes, and the seconds that a step takes."""

    experiment: str
    num_classes: int
    step_seconds: float
    source: str


SUBJECTS = (
    Subject("toy", 6, 0.15, "two processes on two cores"),
    Subject("ade20k", 150, 0.80, "eight GPUs at 40 TFLOP/s each, docs/published.md"),
)


class TimedFolder(CheckpointFolder):
    """Notes the seconds, and the seconds of a core, that its last writing took."""

    seconds = core_seconds = 0.0

    def save(self, step: int, state, *, before: Callable[[], None] | None = None) -> Path:  # type: ignore[no-untyped-def]
        began, began_core = time.perf_counter(), time.thread_time()
        path = super().save(step, state, before=before)
        self.seconds, self.core_seconds = time.perf_counter() - began, time.thread_time() - began_core
        return path


def prior(subject: Subject) -> nn.Module:
    """The network with random weights."""
    experiment = load_experiment(subject.experiment)
    config, backbone = experiment.latent_prior, experiment.latent_prior.backbone
    with torch.device("meta"):
        module = build_latent_prior(
            backbone.name,
            subject.num_classes,
            experiment.tokenizer.vocab_size,
            backbone_options=backbone.options,
            channels=config.channels,
            seg_channels=config.seg_channels,
            cls_channels=config.cls_channels,
            swin_depth=config.swin_depth,
            num_heads=config.num_heads,
        )
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_()
    return module


def measure(subject: Subject, folder: Path) -> str:
    """A row of the table."""
    module = prior(subject)
    state = TrainState(module, LoopSettings(steps=10, lr=1e-4), ALONE)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoints = TimedFolder(folder / subject.experiment, keep_last=1)
    waits = []
    with Saver(checkpoints, None) as saver:
        for step in range(SAVES):
            began = time.perf_counter()
            saver.save(step, state.content(step))
            waits.append(time.perf_counter() - began)
            saver.wait()
    assert threading.active_count() == 1
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    (file,) = checkpoints.path.glob("step_*.pt")
    size = file.stat().st_size / 2**20
    every = load_experiment(subject.experiment).run.save_every
    interval = every * subject.step_seconds
    first, later = waits[0], min(waits[1:])
    return (
        f"| {subject.experiment} | {size:,.0f} | {memory:,.0f} | {first:.2f} | {later:.3f} "
        f"| {checkpoints.seconds:.2f} | {checkpoints.core_seconds:.2f} "
        f"| {every} x {subject.step_seconds} s: {subject.source} "
        f"| **{later / interval:.3%}** | {(later + checkpoints.core_seconds) / interval:.2%} "
        f"| {(later + checkpoints.seconds) / interval:.2%} |"
    )


def main() -> None:
    grammar = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    grammar.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder's")
    torch.set_num_threads(1)
    rows = [
        "| experiment | file, MiB | more peak memory, MiB | copy, the first, s | copy, s | writing, s "
        "| of these busy, s | between two checkpoints "
        "| share of time | if the writer's work delayed the training | if it waited |",
        "|---|" + "---:|" * 6 + "---|" + "---:|" * 3,
    ]
    with tempfile.TemporaryDirectory(dir=grammar.parse_args().folder) as folder:
        for subject in SUBJECTS:
            rows.append(measure(subject, Path(folder)))
            print(rows[-1], flush=True)
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(head + BEGIN + "\n".join(rows) + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
