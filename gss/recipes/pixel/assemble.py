"""From an experiment to the metadata of a model file, and from there to the network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gss.data.classes import ClassSpace, default_colours
from gss.modelfile import ModelFile, described, load_strictly
from gss.recipes.pixel.experiment import PixelExperiment
from gss.recipes.pixel.network import PixelNetwork, build_pixel_network
from gss.stages.run import Run
from gss.stages.training import describe_use

PROTOCOL = ()  # what a model file says of its protocol beside keys of `evaluation`


def describe(run: Run[PixelExperiment], space: ClassSpace) -> dict[str, Any]:
    """What a model file says of classes, colours, architecture and use: plain values only."""
    meta = describe_use(run, space)
    meta["colours"] = meta["colours"] or default_colours(space.num_classes).tolist()
    return {**meta, "pixel": run.experiment.pixel.architecture()}


def build_network(meta: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> PixelNetwork:
    """The network a model file describes, freshly initialised.

    Args:
        weights: pretrained tensors of the backbone.
    """
    return build_pixel_network(len(meta["classes"]), weights=weights, **meta["pixel"])


def read_beside(locate: Callable[[str], Path]) -> None:
    """Nothing stands beside a model; see `gss.config.recipe.Recipe`."""


def build_segmenter(
    file: ModelFile, beside: None, *, protocol: Mapping[str, Any], where: str | Path, device: torch.device
) -> PixelNetwork:
    """The network of `pixel.pth` on a device, in eval mode.

    Raises:
        CheckpointError: this version cannot build what the file describes, or the tensors do not fit.
    """
    with described(file, where):
        network = build_network(file.meta)
    load_strictly(network, file.tensors, "pixel.", where=where)
    return network.to(device).eval()


def pack(file: ModelFile, beside: None, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Nothing stands beside a model in an export either."""
    return {}, {}


def unpack(sizes: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """What `pack` took apart."""
