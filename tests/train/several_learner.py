"""A program that trains a network on the sets of `several_sets`: `python -m several_learner FOLDER '["repeat", ...]'`.

The current folder has the experiment `mine`, checked; BatchNorms use their stored statistics.
"""

import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from gss.recipes.pixel.assemble import build_network, describe
from gss.recipes.pixel.learner import PixelLearner
from gss.results.journal import Journal
from gss.stages.run import Run
from gss.stages.training import loop_settings, make_loader
from gss.train.distributed import World, worker
from gss.train.loop import train

WAYS = {
    "repeat": ["data.sampling=repeat"],
    "balanced": [],
    "mgda": ["pixel.training.multitask=mgda"],
    "mgda_fw": ["pixel.training.multitask=mgda_fw"],
    # The transformer's other maps have parameters that stay idle; AdamW would divide its tiny gradients by their size.
    "psp": ["pixel.head=psp", "pixel.backbone.name=test_vit", "pixel.training.optimizer=sgd"],
}


class Learner(PixelLearner):
    def train(self, mode: bool = True) -> "Learner":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def run(folder: Path, way: str, world: World) -> None:
    """Train in a folder; it leaves `final.pt`, each process `seen_RANK.pt`, the batches."""
    run = Run.open("mine", WAYS[way])
    training = run.experiment.pixel.training
    torch.manual_seed(0)
    learner = Learner(build_network(describe(run, run.space)))
    make, seen = make_loader(run, run.manifest.pairs("train"), training, world), []

    def batches(step: int) -> Iterable[list[dict[str, Tensor]]]:
        for micro in make(step):
            seen.append(micro)
            yield micro

    settings = loop_settings(run, training, run.experiment.pixel.steps)
    with Journal(folder / "journal.jsonl", {}) if world.is_main else contextlib.nullcontext() as journal:
        result = train(learner, batches, settings, work=folder, journal=journal, world=world)
    torch.save(seen, folder / f"seen_{world.rank}.pt")
    if world.is_main:
        torch.save(result.exported.state_dict(), folder / "final.pt")


def main() -> None:
    folder, ways = Path(sys.argv[1]), json.loads(sys.argv[2])
    with worker(folder) as world:
        torch.set_num_threads(1)
        for way in ways:
            (folder / way).mkdir(exist_ok=True)
            run(folder / way, way, world)


if __name__ == "__main__":
    main()
