"""Stage 5: train the network that predicts tokens from the photograph (GSS-FF)."""

from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from gss.errors import ConfigError
from gss.layout import MANIFEST
from gss.modelfile import save_model, tensors_sha256
from gss.recipes.gss.assemble import build_prior, describe, frozen_tokenizer, options
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.layout import GSS_FF, PALETTE, TOKENIZER, milestone
from gss.recipes.gss.learners import LatentPriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.palette.palette import read_palette
from gss.recipes.gss.posterior import NearestPosterior
from gss.recipes.gss.tokenizer.dvae import DVAE
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


def latent_prior(run: Run[GSSExperiment], world: World, until: int | None = None) -> None:
    """Train up to a milestone and write its model file.

    Args:
        until: a step of `latent_prior.milestones`; default: the last one, whose file is `gss_ff.pth`.
    """
    config = run.experiment.latent_prior
    steps = config.milestones[-1]
    until = until or steps
    if until not in config.milestones:
        raise ConfigError(f"step {until} is no milestone; they are {list(config.milestones)}")
    work = run.work("latent_prior")
    output = run.folder / (GSS_FF if until == steps else milestone(until))
    before = [run.folder / milestone(step) for step in config.milestones if step < until][-1:]
    finished = work / f"step_{until}.pth"
    weights = (
        pretrained(run.experiment.latent_prior.backbone) if world.is_main else None
    )  # the others read them when they train
    files = (run.folder / file for file in (MANIFEST, PALETTE, TOKENIZER))
    inputs = run.inputs(*files, *start_files(config.start_from), world=world)
    inputs |= balance_inputs(run, config.training)
    if weights:
        inputs["pretrained weights"] = tensors_sha256(weights)
    rule = None if until == steps else f"latent_prior_{until}"
    with run.stage("latent_prior", inputs, world=world, rule=rule, looked_into=before) as journal:
        if is_missing(finished, world):
            _train(run, world, journal, finished, until, weights, inputs)
        if world.is_main:
            deliver(finished, output)


def _train(
    run: Run[GSSExperiment],
    world: World,
    journal: Journal | None,
    finished: Path,
    until: int,
    weights: dict[str, Tensor] | None,
    inputs: dict[str, str],
) -> None:
    config = run.experiment.latent_prior
    colours = read_palette(run.folder / PALETTE)
    tokenizer = frozen_tokenizer(run, "encoder", world.device)
    meta = describe(run, run.space, colours, tokenizer)
    torch.manual_seed(run.experiment.seed)
    prior = build_prior(meta, weights=weights if world.is_main else pretrained(run.experiment.latent_prior.backbone))
    if world.is_main:
        tell_pretrained(prior.backbone, config.backbone.weights)
    go_on(
        prior,
        config.start_from,
        "prior.",
        meta,
        build_prior,
        key="latent_prior.start_from",
        of_tokens=("head.conv_seg.weight", "head.conv_seg.bias"),
        quiet=not world.is_main,
    )
    learner = LatentPriorLearner(
        prior,
        tokenizer,
        torch.from_numpy(colours.colours),
        class_weights=class_weights(run, config.training.class_balance),
    )

    @cache
    def decoder() -> DVAE:
        return frozen_tokenizer(run, "decoder", world.device)

    def segmenter(module: nn.Module) -> GSS:
        protocol = run.experiment.protocol()
        nearest = NearestPosterior(torch.from_numpy(colours.colours), protocol["vote_temperature"]).to(world.device)
        return GSS(cast(LatentPrior, module), decoder(), nearest, **options(protocol, colours.colours.tolist())).eval()

    steps = config.milestones[-1]
    exported, origin = train_network(
        run,
        "latent_prior",
        learner,
        run.manifest.pairs("train"),
        steps,
        world,
        journal,
        segmenter=segmenter,
        until=until,
    )
    if world.is_main:
        tensors = {f"prior.{name}": tensor for name, tensor in exported.state_dict().items()}
        provenance = {**run.provenance("latent_prior", inputs), **origin}
        save_model(finished, "gss_ff", tensors, {**meta, "step": until, "provenance": provenance})
    world.barrier()
