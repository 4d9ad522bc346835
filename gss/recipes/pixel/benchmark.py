"""What `gss benchmark` measures: the network with random weights."""

from collections.abc import Iterator
from typing import Any

import torch

from gss.benchmark.stopwatch import Stopwatch
from gss.recipes.pixel import rehearse
from gss.recipes.pixel.assemble import build_network, describe
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import PixelNetwork
from gss.stages.run import Run
from gss.train.distributed import World


def sections(experiment: PixelExperiment) -> Iterator[tuple[str, str, Any, str]]:
    """Nothing beside trainings and models."""
    yield from ()


def learner(
    run: Run[PixelExperiment], stage: str, world: World, watch: Stopwatch
) -> tuple[PixelLearner, dict[str, str]]:
    """What the stage trains, watched, and the precision of phases that is not the training's."""
    return rehearse.learner(run, run.space, stage, world.device), {}


def segmenter(
    run: Run[PixelExperiment], model: str, device: torch.device, watch: Stopwatch
) -> tuple[PixelNetwork, dict[str, str]]:
    """The network on its device, watched, and the precision of phases that is not fp32."""
    torch.manual_seed(run.experiment.seed)
    network = build_network(describe(run, run.space)).to(device).eval()
    watch.around(network, "scores", "network: scores of the classes")
    return network, {}
