"""What all image encoders have in common.

Letters: B batch, H W size of the image, C_i channels of level i (0..3).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gss.nets.keys import KeyReport
from gss.nets.norm import correct_batch_norms

LEVELS = 4
STRIDES = (4, 8, 16, 32)
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation, in units of 0..255


class Backbone(nn.Module):
    """A timm model with four maps, made uniform: normalised image [B, 3, H, W] -> four maps
    [B, C_i, ceil(H / stride_i), ceil(W / stride_i)] at strides 4, 8, 16 and 32.

    Args:
        features: the timm model; its BatchNorms get right sums.
        norm_eval: BatchNorm uses its stored statistics in training too; its scale and offset are trained.

    Attributes:
        architecture: timm's name of the model.
        channels: C_0..C_3, from stride 4 to the coarsest.
        mean, std: three numbers each, in units of 0..255: the normalisation the model was made for.
        num_layers: of what follows the encoder, see `layer_of`.
        input_size: (height, width) of the only images it takes; None: any.
        pretrained: what became of the keys of the weights it started with, where they were not its own.
    """

    channels: tuple[int, ...]
    num_layers: int
    input_size: tuple[int, int] | None = None
    pretrained: KeyReport | None = None

    def __init__(self, features: Any, *, norm_eval: bool = False) -> None:
        super().__init__()
        self.architecture: str = features.default_cfg["architecture"]
        self.mean = tuple(255 * value for value in features.default_cfg["mean"])
        self.std = tuple(255 * value for value in features.default_cfg["std"])
        correct_batch_norms(features)
        self.features: nn.Module = features.to(memory_format=torch.channels_last)
        self.norm_eval = norm_eval
        self._frozen: list[str] = []

    def freeze(self, modules: list[nn.Module]) -> None:
        """Train these no more, and keep them in eval mode."""
        for module in modules:
            module.requires_grad_(False)
        self._frozen = [name for name, module in self.named_modules() if any(module is one for one in modules)]
        self.train()

    @abstractmethod
    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Start with pretrained tensors, under timm's names or published ones.

        Raises:
            CheckpointError: they lack a tensor, or have another shape.
        """

    def fit(self, image: Tensor) -> Tensor:
        """An image as the encoder takes it: a smaller one padded to `input_size` with the mean, below and to the right.

        Raises:
            ConfigError: it is larger.
        """
        return image

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Depth of a parameter by its name here, for `layer_decay`: from 0, the first that sees the image, to
        `num_layers`.

        Raises:
            ConfigError: the layers of this encoder cannot be told apart.
        """

    def train(self, mode: bool = True) -> "Backbone":
        """Training mode for what is trained; frozen parts and, with `norm_eval`, BatchNorm stay in eval mode."""
        super().train(mode)
        for name in self._frozen:  # looked for anew: synchronising BatchNorm over processes replaces modules
            self.get_submodule(name).eval()
        if self.norm_eval:
            for module in self.features.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def level_sizes(height: int, width: int, strides: Sequence[int] = STRIDES) -> list[tuple[int, int]]:
    """Sizes of the four maps of an image."""
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def cropped(maps: list[Tensor], sizes: list[tuple[int, int]]) -> list[Tensor]:
    """The maps of an image, from those of the image padded below and to the right."""
    return [x[..., :rows, :columns] for x, (rows, columns) in zip(maps, sizes, strict=True)]
