"""Generative Semantic Segmentation."""
