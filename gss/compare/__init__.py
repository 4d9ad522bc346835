"""Evaluations of the same images beside each other: which differences are more than the choice of images."""
