"""How far the difference of two runs depends on which images were drawn: the paired bootstrap over images.

A run is the trainings with all its seeds, often one; its figures are their means.
Letters: I images, N classes, R resamples, F = 3 + N figures: mIoU, mAcc, aAcc, then the IoU of each class.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gss.data.metrics import Absent, Counted, divide, of_counted

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
HEADLINE = ("mIoU", "mAcc", "aAcc")
_BLOCK_NUMBERS = 1 << 22  # of 8 bytes, in the arrays of one block of resamples


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels of one training, all int64 [I, N].

    Args:
        intersection: pixels of an image that are right, by class.
        predicted: pixels predicted as the class where the label is not ignored.
        labelled: pixels of the class in the label.
        absent: what a class that is nowhere is in means.
        counted: the classes that are in means.
    """

    intersection: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray
    absent: Absent = "nan"
    counted: Counted = None

    @property
    def union(self) -> np.ndarray:
        return self.labelled + self.predicted - self.intersection

    def figures(self) -> np.ndarray:
        """float64 [F], fractions over all images; NaN where there is nothing to divide by."""
        sums = (array.sum(0)[None] for array in (self.intersection, self.union, self.labelled))
        return _figures(*sums, absent=self.absent, counted=self.counted)[0]


def mean_figures(run: Sequence[Counts]) -> np.ndarray:
    """float64 [F], means over the seeds of a run; NaN where one has no such figure."""
    return np.mean([counts.figures() for counts in run], axis=0)


def spread(run: Sequence[Counts]) -> np.ndarray:
    """float64 [F], standard deviations over the seeds of a run (n - 1); NaN of a single one."""
    figures = np.array([counts.figures() for counts in run])
    return figures.std(axis=0, ddof=1) if len(run) > 1 else np.full(figures.shape[1], np.nan)


@dataclass(frozen=True, eq=False)
class Differences:
    """Figures of a run minus those of the baseline, all float64 [F], fractions; NaN where a run has no such figure.

    Args:
        value: over all images.
        low, high: ends of the percentile interval of LEVEL.
        other_sign: share of resamples whose difference is zero or points the other way; NaN where `value` is zero.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    other_sign: np.ndarray

    @property
    def clear(self) -> np.ndarray:
        """bool [F]: the interval lies on one side of zero."""
        return (self.low > 0) | (self.high < 0)


def bootstrap(
    baseline: Sequence[Counts], run: Sequence[Counts], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Differences:
    """Draw the images anew many times, the same draw for all trainings, and look how the differences spread.

    A resample draws I images with replacement and computes each figure from the summed counts. Classes that a resample
    lacks are left out of its means, as in `gss.data.metrics`; the interval of a class is over the resamples that
    have it. Sums are exact: whole numbers below 2^53.

    Args:
        baseline, run: counts of each seed, of the same images in the same order, one or more.
        seed: of `numpy.random.PCG64`.
    """
    value = mean_figures(run) - mean_figures(baseline)
    drawn = np.concatenate(list(_resampled(baseline, run, resamples, seed)))  # [R, F]
    turned = np.where(np.isnan(drawn), np.nan, drawn * np.sign(value) <= 0)
    turned[:, value == 0] = np.nan
    outside = (1 - LEVEL) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any number give NaN: what is wanted
        low, high = np.nanquantile(drawn, (outside, 1 - outside), axis=0)
        other_sign = np.nanmean(turned, axis=0)
    return Differences(value, *(np.where(np.isnan(value), np.nan, found) for found in (low, high, other_sign)))


def _resampled(baseline: Sequence[Counts], run: Sequence[Counts], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Differences of the figures, float64 [b, F] for each block of b resamples."""
    trainings = [*run, *baseline]
    parts = [run[0].labelled, *(part for each in trainings for part in (each.intersection, each.union))]
    counts = np.concatenate(parts, axis=1).astype(np.float64)  # [I, (1 + 2 trainings) N]
    num_images = len(counts)
    rng = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _BLOCK_NUMBERS // (num_images + counts.shape[1]))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, num_images, (size, num_images)) + np.arange(size)[:, None] * num_images
        weights = np.bincount(drawn.ravel(), minlength=size * num_images).reshape(size, num_images)
        labelled, *sums = np.split(weights.astype(np.float64) @ counts, len(parts), axis=1)  # each [b, N]
        of = zip(sums[::2], sums[1::2], trainings, strict=True)
        figures = [
            _figures(right, union, labelled, absent=each.absent, counted=each.counted) for right, union, each in of
        ]
        yield np.mean(figures[: len(run)], axis=0) - np.mean(figures[len(run) :], axis=0)


def _figures(
    right: np.ndarray, union: np.ndarray, labelled: np.ndarray, *, absent: Absent, counted: Counted
) -> np.ndarray:
    """float [b, F] of summed counts [b, N]."""
    iou, acc = (of_counted(divide(right, whole), absent, counted) for whole in (union, labelled))
    every = divide(right.sum(1), labelled.sum(1))
    return np.concatenate([np.stack([_mean(iou), _mean(acc), every], axis=1), iou], axis=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is a number."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0).sum(-1), known.sum(-1))
