"""A `Segmenter` of anything that has scores."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gss.data.device import normalise


class Normalised:
    """A model whose input is normalised with given numbers; `rgb` of the model is what it shows beside.

    Args:
        model: with `scores`, and `rgb` where pictures are asked for. mean, std: three numbers each, in units of 0..255.
    """

    extra_names, protocol = ("maskige",), {}

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float], are_votes: bool = False) -> None:
        self.model, self.mean, self.std, self.are_votes = model, mean, std, are_votes
        self.training = model.training

    def normalise(self, image: Tensor) -> Tensor:
        return normalise(image, self.mean, self.std)

    def scores(self, image: Tensor) -> Tensor:
        return self.model.scores(image)

    def extras(self, image: Tensor) -> Tensor:
        return self.model.rgb(image)
