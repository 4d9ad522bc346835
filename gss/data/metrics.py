"""Figures of merit, all derived from one integer confusion matrix.

Letters: N classes; H, W size of the label. The definitions are those of the `mIoU` metric of mmsegmentation,
counted in int64 instead of float32. Pages of results use this module without loading torch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gss.data.classes import ignore_index

if TYPE_CHECKING:
    from torch import Tensor

Absent = Literal["nan", "zero"]
"""What a class with the fraction 0/0 is in means: left out, or 0."""
Counted = frozenset[int] | None
"""The classes that have figures and are in means; None: all."""


def confusion(prediction: "Tensor", label: "Tensor", num_classes: int, *, abstains: bool = False) -> "Tensor":
    """Count every pair of true and predicted class.

    Args:
        prediction: integer [H, W] (or any shape), 0..N-1.
        label: integer, same shape and device, 0..N-1 or `ignore_index(N)` (counted nowhere).
        abstains: predictions may be `ignore_index(N)`, no class.

    Returns:
        int64 [N, N], [label, prediction], on the CPU; [N, N + 1] with `abstains`, no class last.
    """
    import torch

    assert prediction.shape == label.shape, f"prediction {prediction.shape}, label {label.shape}"
    columns = num_classes + abstains
    if abstains:
        prediction = torch.where(prediction == ignore_index(num_classes), num_classes, prediction.long())
    assert prediction.numel() == 0 or int(prediction.max()) < columns, "a predicted id is no class"
    is_ignored = label == ignore_index(num_classes)
    rows = torch.where(is_ignored, num_classes, label.long())  # ignored pixels fill an extra row
    bins = rows.mul_(columns).add_(prediction)
    counts = torch.bincount(bins.flatten(), minlength=(num_classes + 1) * columns)
    return counts.view(num_classes + 1, columns)[:num_classes].cpu()


@dataclass(frozen=True)
class Scores:
    """Per-class fractions and their means; None where a fraction is 0/0.

    Args:
        iou: pixels in label and prediction / pixels in either; None: the class is in neither.
        acc: share of the label's pixels that were found (recall); None: the class is not in the label.
        precision: share of the predicted pixels that are right; None: the class was never predicted.
        pixels: pixels of the class in the label.
        aAcc: share of all labelled pixels that are right; None: no pixel is labelled.
    """

    iou: tuple[float | None, ...]
    acc: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    pixels: tuple[int, ...]
    aAcc: float | None

    @property
    def mIoU(self) -> float | None:
        """Mean over the classes that occur in label or prediction."""
        return _mean(self.iou)

    @property
    def mAcc(self) -> float | None:
        """Mean over the classes that occur in the label."""
        return _mean(self.acc)


def scores(counts: np.ndarray, absent: Absent = "nan", counted: Counted = None) -> Scores:
    """All figures of a confusion matrix.

    Args:
        counts: int64 [N, N], [label, prediction], or [N, N + 1] with pixels that are predicted as no class.
        absent: `zero`: an IoU or accuracy that is 0/0 is 0, and in the means.
        counted: classes outside have neither IoU nor accuracy.
    """
    right, labelled, predicted = np.diag(counts), counts.sum(1), counts.sum(0)[: len(counts)]
    iou, acc = (of_counted(each, absent, counted) for each in (class_iou(counts), divide(right, labelled)))
    return Scores(
        iou=_known(iou),
        acc=_known(acc),
        precision=_known(divide(right, predicted)),
        pixels=tuple(labelled.tolist()),
        aAcc=_known(divide(right.sum(), labelled.sum())[None])[0],
    )


def of_counted(fractions: np.ndarray, absent: Absent, counted: Counted) -> np.ndarray:
    """float64 [..., N] of fractions, NaN where 0/0: what they are in means, NaN where they are left out."""
    found = np.nan_to_num(fractions, nan=0.0 if absent == "zero" else np.nan)
    if counted is not None:
        found[..., [index for index in range(found.shape[-1]) if index not in counted]] = np.nan
    return found


def class_iou(counts: np.ndarray) -> np.ndarray:
    """float64 [N]: IoU of each class of a confusion matrix, NaN for a class in neither label nor prediction."""
    right = np.diag(counts)
    return divide(right, counts.sum(0)[: len(counts)] + counts.sum(1) - right)


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64 shares, of the shape of both, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def h_mean(values: Sequence[float]) -> float:
    """Harmonic mean of one or more values above 0.

    Raises:
        ValueError: one is 0: there is none.
    """
    if min(values) <= 0:
        raise ValueError(f"no harmonic mean of {min(values)}")
    return len(values) / sum(1 / value for value in values)


def _known(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in values.tolist())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
