"""Generative Semantic Segmentation (CVPR 2023) as a reproducible workflow."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from gss.use.predictor import Predictor

__version__ = "0.1.0"


def load(path: "str | Path", device: "str | torch.device" = "cpu") -> "Predictor":
    """A trained model, ready to predict; see `gss.use.predictor.load`."""
    from gss.use import predictor  # imports torch, which `gss --help` does without

    return predictor.load(path, device)
