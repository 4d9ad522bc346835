"""Models for tests of inference: their output is known from the colours of the image."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.data.device import normalise
from gss.evaluate.inference import Inference, resize_image

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the network sees the raw levels 0..255
CPU = torch.device("cpu")
WHOLE = Inference()
ALONE = SimpleNamespace(rank=0, size=1, device=CPU, sum=lambda tensor: tensor, any=lambda flag: flag)


class ColourVotes(nn.Module):
    """One-hot votes: the red level is the class."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.seen: list[tuple[int, ...]] = []
        self.eval()

    def scores(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        return F.one_hot(image[:, 0].long(), self.num_classes).permute(0, 3, 1, 2).float()


class Position(nn.Module):
    """Scores that depend on the place in the window: overlapping windows disagree."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.eval()

    def scores(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        generator = torch.Generator().manual_seed(height * 1000 + width)
        return torch.rand(1, self.num_classes, height, width, generator=generator) + image[:, :1] / 255


def network_input(image: np.ndarray, inference: Inference) -> Tensor:
    """Resized and normalised image, float32 [1, 3, R, S]."""
    pixels = torch.from_numpy(resize_image(image, inference.scale)).permute(2, 0, 1)[None]
    return normalise(pixels, MEAN, STD)


class Decoder(nn.Module):
    """A maskige of `factor` times the image's size, rounded up to a grid of `cell` image pixels as tokens are; what is
    decoded depends on the place in the window."""

    def __init__(self, cell: int = 4, factor: int = 2) -> None:
        super().__init__()
        self.cell, self.factor = cell, factor
        self.eval()

    def rgb(self, image: Tensor) -> Tensor:
        height, width = (self.factor * self.cell * -(-side // self.cell) for side in image.shape[2:])
        generator = torch.Generator().manual_seed(height * 1000 + width)
        shade = F.interpolate(image, (height, width), mode="bilinear") / 255
        return 0.8 * shade + 0.3 * torch.rand(1, 3, height, width, generator=generator)


def class_image(ids: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] image that `ColourVotes` reads as `ids`."""
    return np.repeat(ids[..., None], 3, axis=2).astype(np.uint8)


class Convolution(nn.Module):
    """A small real network with fixed random weights."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, num_classes, 3, 1, 1)]
        self.layers = nn.Sequential(*layers).requires_grad_(False)
        for weight in self.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
        self.eval()

    def scores(self, image: Tensor) -> Tensor:
        return F.interpolate(self.layers(image / 255), image.shape[2:], mode="bilinear", align_corners=False)


def read_case(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label number `index`: sizes differ, 5 classes, some pixels ignored."""
    rng = np.random.default_rng(index)
    height, width = rng.integers(20, 60, 2)
    label = rng.integers(0, 6, (height, width))
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), np.where(label == 5, 255, label).astype(np.uint8)
