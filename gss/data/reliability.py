"""Calibration of a model: whether its confidence is that of being right, and whether its uncertainty finds its errors.

Letters: N classes; H, W size of the label. Confidence is the probability of the class that won; uncertainty the entropy
of all probabilities, divided by log N. Pages of results use this module without loading torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gss.data.classes import ignore_index
from gss.data.metrics import divide

if TYPE_CHECKING:
    from torch import Tensor

BINS = 15
"""Equal bins of confidence, (0, 1/15] to (14/15, 1]."""
STEPS = 256
"""Steps of uncertainty, those of an 8-bit picture of it."""
UNIT = 2**16
"""Confidence is counted in whole parts of this size: sums of them do not depend on their order."""


@dataclass(frozen=True)
class Reliability:
    """Exact counts over labelled pixels, and the figures that follow from them.

    Args:
        confidence: int64 [N, BINS, 3], by predicted class and confidence: pixels, right ones among them, and the sum of
            their confidence in units of 1 / UNIT.
        uncertainty: int64 [STEPS, 2], by uncertainty: pixels, and wrong ones among them.

    Source: ECE and its bins: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """

    confidence: np.ndarray
    uncertainty: np.ndarray

    @property
    def ECE(self) -> float | None:
        """Expected calibration error of all pixels: mean over them of |accuracy - mean confidence| of their bin."""
        return _known(calibration_error(self.confidence.sum(0)))

    @property
    def class_ECE(self) -> tuple[float | None, ...]:
        """The same over the pixels predicted as each class; None: the class was never predicted."""
        return tuple(_known(value) for value in calibration_error(self.confidence))

    @property
    def errors_in_most_uncertain_tenth(self) -> float | None:
        """Share of the wrong pixels that are in the most uncertain tenth of all pixels; None: none is wrong.

        Note: of the step of uncertainty in which the tenth ends, wrong pixels count in proportion.
        """
        pixels, wrong = self.uncertainty[::-1].T  # the most uncertain first
        tenth, before = pixels.sum() / 10, pixels.cumsum() - pixels
        share = np.clip(divide(tenth - before, pixels), 0, 1)
        return _known(divide(np.nansum(share * wrong)[None], wrong.sum()[None])[0])


def calibration_error(counts: np.ndarray) -> np.ndarray:
    """float64 [...]: ECE of counts [..., BINS, 3], see `Reliability`; NaN where there are no pixels."""
    pixels, right, confidence = np.moveaxis(counts, -1, 0)
    return divide(np.abs(right * UNIT - confidence).sum(-1) / UNIT, pixels.sum(-1))


def count(
    prediction: "Tensor", confidence: "Tensor", uncertainty: "Tensor", label: "Tensor", num_classes: int
) -> tuple["Tensor", "Tensor"]:
    """The counts of an image, see `Reliability`.

    Args:
        prediction: integer [H, W] (or any shape), 0..N-1.
        confidence, uncertainty: float32, same shape and device, 0..1.
        label: integer, same shape and device, 0..N-1 or `ignore_index(N)` (counted nowhere).

    Returns:
        int64 [N, BINS, 3] and [STEPS, 2], on the CPU.
    """
    import torch

    is_ignored, is_right = label == ignore_index(num_classes), prediction == label
    units = (confidence * UNIT).int()  # rounded down, so that a border is in the bin below it
    bins = torch.div(units * BINS, UNIT, rounding_mode="floor").clamp_(max=BINS - 1)
    size = num_classes * BINS
    bins.add_(prediction, alpha=BINS).masked_fill_(is_ignored, size)  # ignored pixels fill an extra one
    pixels = torch.bincount((2 * bins + is_right).flatten(), minlength=2 * size + 2)[: 2 * size].view(-1, 2)
    sums = torch.bincount(bins.flatten(), units.flatten().double(), minlength=size + 1)[:size]  # whole numbers: exact
    by_class = torch.stack([pixels.sum(1), pixels[:, 1], sums.long()], dim=1).view(num_classes, BINS, 3)
    steps = (uncertainty * (STEPS - 1)).round_().int().masked_fill_(is_ignored, STEPS)
    found = torch.bincount((2 * steps + ~is_right).flatten(), minlength=2 * STEPS + 2)[: 2 * STEPS].view(-1, 2)
    return by_class.cpu(), torch.stack([found.sum(1), found[:, 1]], dim=1).cpu()


def _known(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
