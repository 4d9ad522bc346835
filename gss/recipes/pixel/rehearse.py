"""Before anything trains: the network built without its numbers."""

from typing import Any

import torch
from torch import Tensor, nn

from gss.checkpoints import read_backbone_weights, read_checkpoint, timm_tag
from gss.config import data_folder
from gss.config.schema import Backbone
from gss.data.classes import ClassSpace
from gss.evaluate.inference import inferences
from gss.recipes.pixel.assemble import build_network, describe
from gss.recipes.pixel.exchange import load_published
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.learner import PixelLearner, build_learner
from gss.recipes.pixel.network import build_pixel_network
from gss.stages.rehearse import META, STEPS, images_at_once, naming, size_of_input, warn_of_larger_images
from gss.stages.run import Run
from gss.stages.training import loop_settings
from gss.train.optim import lr_factors


def rehearse(run: Run[PixelExperiment], space: ClassSpace) -> None:
    """See `gss.stages.rehearse.rehearse`: build the network on torch's `meta` device, send a batch through it."""
    experiment, config = run.experiment, run.experiment.pixel
    with naming("pixel.backbone"):
        tensors = None if config.checkpoint else _weights(config.backbone)
        with META:
            network = build_network(describe(run, space), tensors)
    if config.checkpoint:
        path = data_folder() / config.checkpoint
        with naming("pixel.checkpoint"):
            load_published(read_checkpoint(path), network, where=path)
    with naming("pixel.training"):
        lr_factors(network, loop_settings(run, config.training, config.steps))
    with naming("augment.crop, and the images per process of pixel.training"):
        images = images_at_once(experiment, "pixel")
        if (experiment.made_for("pixel") or 1) > 1:  # several GPUs normalise over the images of all
            images = max(images, 2)
        network.of_all_heads(torch.empty(images, 3, *experiment.augment.crop, device=META))
    warn_of_larger_images(experiment, network.backbone.input_size)
    with naming("evaluation"), torch.no_grad():
        inferences(experiment.evaluation)
        network.eval().scores(torch.empty(1, 3, *size_of_input(experiment), device=META))


def _weights(backbone: Backbone) -> dict[str, Tensor] | None:
    """Pretrained tensors without their numbers; None: there are none, or they are downloaded when they are needed."""
    if not backbone.weights:
        return None
    if backbone.weights.startswith("timm:"):
        timm_tag(backbone.name, backbone.weights)
        return None
    read = read_backbone_weights(backbone.name, backbone.weights, data_folder())
    return {name: value.to(META) for name, value in read.items()}


def learner(run: Run[PixelExperiment], space: ClassSpace, stage: str, device: torch.device) -> PixelLearner:
    """What the stage trains, with random weights."""
    torch.manual_seed(run.experiment.seed)
    weights = torch.ones(space.num_classes) if run.experiment.pixel.training.class_balance else None
    return build_learner(run.experiment, build_network(describe(run, space)), weights)


def short(experiment: PixelExperiment) -> dict[str, Any]:
    """See `gss.smoke`: the values of a training of no length."""
    return {"pixel.steps": STEPS}


def largest(experiment: PixelExperiment, num_classes: int) -> tuple[nn.Module, str, int] | None:
    """The network, the key of its training, and how many model files it comes into; None where it is imported."""
    if experiment.pixel.checkpoint:
        return None
    return build_pixel_network(num_classes, **experiment.pixel.architecture()), experiment.trainings["pixel"], 1
