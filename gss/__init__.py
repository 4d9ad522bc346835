"""Generative Semantic Segmentation (CVPR 2023) as a reproducible workflow."""

__version__ = "0.1.0"
