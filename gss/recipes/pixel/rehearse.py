"""Before anything trains: the network built without its numbers."""

import torch
from torch import nn

from gss.checkpoints import read_backbone_weights, timm_tag
from gss.config import data_folder
from gss.data.classes import ClassSpace
from gss.evaluate.inference import Inference
from gss.recipes.pixel.assemble import build_network, describe
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.network import build_pixel_network
from gss.stages.rehearse import META, images_at_once, naming, size_of_input
from gss.stages.run import Run
from gss.stages.training import loop_settings
from gss.train.optim import lr_factors


def rehearse(run: Run[PixelExperiment], space: ClassSpace) -> None:
    """See `gss.stages.rehearse.rehearse`: build the network on torch's `meta` device, send a batch through it."""
    experiment, tensors = run.experiment, None
    backbone = experiment.pixel.backbone
    with naming("pixel.backbone"):
        if (backbone.weights or "").startswith("timm:"):  # downloaded when it is needed
            timm_tag(backbone.name, str(backbone.weights))
        elif backbone.weights:
            read = read_backbone_weights(backbone.name, backbone.weights, data_folder())
            tensors = {name: value.to(META) for name, value in read.items()}
        with META:
            network = build_network(describe(run, space), tensors)
    with naming("pixel.training"):
        lr_factors(network, loop_settings(run, experiment.pixel.training, experiment.pixel.steps))
    with naming("augment.crop, and the images per process of pixel.training"):
        network.of_all_heads(torch.empty(images_at_once(experiment, "pixel"), 3, *experiment.augment.crop, device=META))
    with naming("evaluation"), torch.no_grad():
        protocol = experiment.evaluation
        Inference(protocol.mode, protocol.crop, protocol.stride, protocol.scale, protocol.flip)
        network.eval()(torch.empty(1, 3, *size_of_input(experiment), device=META))


def largest(experiment: PixelExperiment, num_classes: int) -> tuple[nn.Module, str, int] | None:
    """The network, the key of its training, and how many model files it comes into."""
    return build_pixel_network(num_classes, **experiment.pixel.architecture()), experiment.trainings["pixel"], 1
