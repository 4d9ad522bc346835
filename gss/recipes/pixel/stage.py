"""The stage that trains the network."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from gss.files import sha256_file
from gss.layout import MANIFEST
from gss.modelfile import save_model, tensors_sha256
from gss.recipes.pixel.assemble import build_network, describe
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.learner import build_learner
from gss.recipes.pixel.network import PixelNetwork
from gss.results.journal import Journal
from gss.stages.run import Run
from gss.stages.training import (
    balance_inputs,
    class_weights,
    deliver,
    is_missing,
    pretrained,
    tell_pretrained,
    train_network,
)
from gss.train.distributed import World
from gss.use.start import go_on, start_files


def pixel(run: Run[PixelExperiment], world: World) -> None:
    """Train the network and write `pixel.pth`."""
    config, output = run.experiment.pixel, run.folder / "pixel.pth"
    finished = run.work("pixel") / "finished.pth"
    weights = pretrained(config.backbone) if world.is_main else None  # the others read them when they train
    files = (run.folder / MANIFEST, *start_files(config.start_from))
    inputs = run.inputs(*files, world=world) | balance_inputs(run, config.training)
    if weights:
        inputs["pretrained weights"] = tensors_sha256(weights)
    with run.stage("pixel", inputs, world=world) as journal:
        if is_missing(finished, world):
            _train(run, world, journal, finished, weights, inputs)
        if journal is not None:
            deliver(finished, output)
            journal.tags({"file": str(output), "sha256": sha256_file(output)})


def _train(
    run: Run[PixelExperiment],
    world: World,
    journal: Journal | None,
    finished: Path,
    weights: dict[str, Tensor] | None,
    inputs: dict[str, str],
) -> None:
    config = run.experiment.pixel
    meta = describe(run, run.space)
    torch.manual_seed(run.experiment.seed)
    network = build_network(meta, weights if world.is_main else pretrained(config.backbone))
    if world.is_main:
        tell_pretrained(network.backbone, config.backbone.weights)
    key = "pixel.start_from"
    go_on(network, config.start_from, "pixel.", meta, build_network, key=key, quiet=not world.is_main)
    learner = build_learner(run.experiment, network, class_weights(run, config.training.class_balance))
    exported, origin = train_network(
        run,
        "pixel",
        learner,
        run.manifest.pairs("train"),
        config.steps,
        world,
        journal,
        segmenter=lambda module: cast(PixelNetwork, module),
    )
    if world.is_main:
        tensors = {f"pixel.{name}": tensor for name, tensor in exported.state_dict().items()}
        provenance = {**run.provenance("pixel", inputs), **origin}
        save_model(finished, "pixel", tensors, {**meta, "step": config.steps, "provenance": provenance})
    world.barrier()
