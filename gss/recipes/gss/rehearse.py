"""Before anything trains: what `posterior.experiment` lends, and the networks built without their numbers."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from gss.checkpoints import read_backbone_weights, read_checkpoint, timm_tag
from gss.config import data_folder, folder_name
from gss.data.classes import ClassSpace
from gss.errors import CheckpointError, ConfigError, DataError
from gss.evaluate.inference import inferences
from gss.recipes.gss.assemble import build_posterior, build_prior, describe
from gss.recipes.gss.exchange import load_published
from gss.recipes.gss.experiment import GSSExperiment, Tokenizer
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.learners import LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.model import require_pixel_branch
from gss.recipes.gss.stages.exchange import Kind, build_for
from gss.recipes.gss.stages.palette import start_palette
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.untrained import random_networks
from gss.stages.rehearse import META, STEPS, images_at_once, naming, size_of_input, warn_of_larger_images
from gss.stages.run import Run
from gss.stages.training import loop_settings
from gss.train.optim import lr_factors

_WINDOW = 56  # side of a maskige that is one window of X^-1 and one of the latent prior


def rehearse(run: Run[GSSExperiment], space: ClassSpace) -> None:
    """See `gss.stages.rehearse.rehearse`."""
    _build(run, space, _lender(run, space) or run.experiment)


def _lender(run: Run[GSSExperiment], space: ClassSpace) -> GSSExperiment | None:
    """The experiment that `posterior.experiment` names."""
    name = run.experiment.posterior.experiment
    if name is None:
        return None
    where = "posterior.experiment"
    if name == folder_name(run.workflow or run.folder):
        raise ConfigError(f"{name!r} names itself", where=where, todo="leave the key out")
    try:
        other = Run.open(name, results=run.results)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.what}", where=error.where, todo=error.todo) from error
    if other.experiment.recipe != run.experiment.recipe:
        what = f"{name!r} is of recipe {other.experiment.recipe!r}, which has no X^-1"
        raise ConfigError(what, where=where, todo="name an experiment of recipe 'gss'")
    if other.experiment.posterior.experiment:
        known = other.experiment.posterior.experiment
        raise ConfigError(f"{name!r} has its X^-1 from {known!r} itself", where=where, todo=f"name {known!r}")
    with contextlib.suppress(DataError, ConfigError):  # its data may be elsewhere: its own check says so
        theirs = other.declared_space().names
        if theirs != space.names:
            raise CheckpointError(
                f"{name!r} has other classes: {_differ(theirs, space.names)}",
                where=where,
                todo="name an experiment with the same classes in the same order",
            )
    return other.experiment


def _differ(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    if len(theirs) != len(ours):
        return f"{len(theirs)}, not {len(ours)}"
    return next(f"class {i} is {a!r}, not {b!r}" for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)


def _build(run: Run[GSSExperiment], space: ClassSpace, lender: GSSExperiment) -> None:
    """Build the networks on torch's `meta` device and send a batch through them, as training and evaluation do."""
    experiment, config = run.experiment, run.experiment.latent_prior
    named = experiment.palette
    if named.strategy == "maximal":  # which takes long; any colours will do
        named = named.model_copy(update={"strategy": "grid"})
    palette = start_palette(named, space)
    sizes = lender.tokenizer if lender.tokenizer.source == "train" else Tokenizer()  # those of OpenAI's files
    with META:
        dvae = DVAE(sizes.vocab_size, sizes.n_hid, sizes.n_init, sizes.blocks_per_group)
    described = describe(run, space, palette, dvae)
    backbone, tensors = config.backbone, None
    with naming("latent_prior.backbone"):
        if backbone.weights and not config.checkpoint:
            if backbone.weights.startswith("timm:"):  # downloaded when it is needed
                timm_tag(backbone.name, backbone.weights)
            else:
                read = read_backbone_weights(backbone.name, backbone.weights, data_folder())
                tensors = {name: value.to(META) for name, value in read.items()}
        with META:
            prior = build_prior(described, tensors)
    with naming("latent_prior.training"):
        lr_factors(prior, loop_settings(run, config.training, config.milestones[-1]))
    with naming("posterior"), META:
        x_inverse = build_posterior({**described, "posterior": experiment.posterior.architecture()})
        x_inverse(torch.zeros(2, 3, _WINDOW, _WINDOW))
    kinds: dict[str, Kind] = {"latent_prior": "gss_ff", "posterior": "posterior"}
    for part, kind in kinds.items():
        file = getattr(experiment, part).checkpoint
        if file:
            state = read_checkpoint(data_folder() / file)
            with naming(f"{part}.checkpoint"), META:
                _, prior_part, x_part = build_for(run, described, kind, state)
            load_published(state, prior_part, x_part, where=data_folder() / file)
            if prior_part is not None:
                require_pixel_branch(prior_part.head, experiment.evaluation.pixel_weight)
    with naming("augment.crop, and the images per process of latent_prior.training"):
        images = images_at_once(experiment, "latent_prior")
        _through(prior, torch.empty(images, 3, *experiment.augment.crop, device=META))
    warn_of_larger_images(experiment, prior.backbone.input_size)
    with naming("evaluation"), torch.no_grad():
        inferences(experiment.evaluation)
        image = torch.empty(1, 3, *size_of_input(experiment), device=META)
        _through(prior.eval(), prior.backbone.fit(image))


def _through(prior: LatentPrior, image: Tensor) -> None:
    maps = prior.backbone(image)
    fused = prior.head.fuse(maps)
    prior.head.pixel_logits(maps, fused)
    prior.head.hidden(fused[:, :, : _WINDOW // 8, : _WINDOW // 8])


def learner(
    run: Run[GSSExperiment], space: ClassSpace, stage: str, device: torch.device
) -> LatentPriorLearner | PosteriorLearner:
    """What the stage trains, with random weights; the tokenizer is on the device."""
    experiment = run.experiment
    prior, dvae, module, colours = random_networks(run, space, experiment.posterior.variant, device)
    weights = torch.ones(space.num_classes) if experiment.at(experiment.trainings[stage]).class_balance else None
    if stage == "latent_prior":
        return LatentPriorLearner(prior, dvae, colours, class_weights=weights)
    return PosteriorLearner(
        prior,
        dvae,
        module,
        class_weights=weights,
        reference=experiment.numerics == "reference",
    )


def short(experiment: GSSExperiment) -> dict[str, Any]:
    """See `gss.smoke`: the values of trainings of no length; the milestone that X^-1 is trained behind stays one."""
    start, steps = experiment.posterior.start_step, experiment.milestones[-1]
    is_early = start not in (None, steps)
    grid = {"palette.strategy": "grid"} if experiment.palette.strategy == "maximal" else {}  # which takes long
    refined = experiment.reconstruction
    return {
        **grid,
        "tokenizer.train.steps": STEPS,
        "reconstruction.max_rounds": min(refined.max_rounds, 1),
        "reconstruction.retrain_steps": min(refined.retrain_steps, STEPS),
        "reconstruction.refine_images": STEPS,
        "latent_prior.milestones": [1, STEPS] if is_early else [STEPS],
        "posterior.start_step": 1 if is_early else None,
        "posterior.steps": STEPS,
    }


def largest(experiment: GSSExperiment, num_classes: int) -> tuple[nn.Module, str, int] | None:
    """The largest network that trains here, the key of its training, and how many model files it comes into."""
    config = experiment.latent_prior
    if config.checkpoint:
        return None
    meta = {"classes": range(num_classes), "vocab_size": experiment.tokenizer.vocab_size}
    network = build_prior({**meta, "latent_prior": config.architecture()})
    return network, experiment.trainings["latent_prior"], len(config.milestones) + 1  # each milestone, and gss_ft.pth
