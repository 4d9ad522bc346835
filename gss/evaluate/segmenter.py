"""What is evaluated, predicted, compared, exported and shown: a model of any recipe.

Letters: B batch, N classes; R, S size of the network input.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Segmenter(Protocol):
    """What is asked of a model, beside being an `nn.Module` in eval mode.

    Attributes:
        are_votes: its scores are probabilities already; else they are logits.
        extra_names: of the pictures that it can show beside a prediction, such as `maskige`. Kept in a folder of
            this name and an s; an `uncertainty_of_...` is grey, and nothing that a label could be painted as.
        protocol: what of it beside the inference decides the figures, JSON values.
    """

    training: bool

    @property
    def are_votes(self) -> bool: ...

    @property
    def extra_names(self) -> tuple[str, ...]: ...

    @property
    def protocol(self) -> Mapping[str, Any]: ...

    def normalise(self, image: Tensor) -> Tensor:
        """The network input, float [B, 3, R, S], of an image [B, 3, R, S] in 0..255."""
        ...

    def scores(self, image: Tensor) -> Tensor:
        """float [B, N, R, S], the larger the likelier, of a normalised image [B, 3, R, S]."""
        ...

    def extras(self, image: Tensor) -> Tensor:
        """The pictures of `extra_names`, float [B, 3 x their number, ., .] in 0..1, of a normalised image."""
        ...
