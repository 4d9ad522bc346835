"""Figures of merit against counting pixel by pixel and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score, precision_score, recall_score

from gss.data.metrics import class_iou, confusion, h_mean, scores

NUM_CLASSES = 6


def _random_pair(seed: int, shape=(23, 31)) -> tuple[np.ndarray, np.ndarray]:
    """Class 3 occurs nowhere, class 4 only in the label, class 5 only in the prediction; a tenth is ignored."""
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2, 4, 255], shape, p=[0.3, 0.3, 0.2, 0.1, 0.1]).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, label, rng.choice([0, 1, 2, 5], shape)).astype(np.uint8)
    prediction[(prediction == 4) | (prediction == 255)] = 5
    return prediction, label


def _count(prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    return confusion(torch.from_numpy(prediction), torch.from_numpy(label), NUM_CLASSES).numpy()


def test_confusion_equals_counting_pixel_by_pixel():
    prediction, label = _random_pair(0)
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for found, true in zip(prediction.ravel(), label.ravel(), strict=True):
        if true != 255:
            expected[true, found] += 1
    counts = _count(prediction, label)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_inputs_stay_unchanged(dtype):
    prediction, label = (torch.from_numpy(array).to(dtype) for array in _random_pair(1))
    before = prediction.clone(), label.clone()
    confusion(prediction, label, NUM_CLASSES)
    assert torch.equal(prediction, before[0]) and torch.equal(label, before[1])


def test_figures_equal_scikit_learn():
    prediction, label = _random_pair(2)
    valid = label != 255
    true, found = label[valid], prediction[valid]
    classes = list(range(NUM_CLASSES))
    counts = _count(prediction, label)
    np.testing.assert_array_equal(counts, confusion_matrix(true, found, labels=classes))
    result = scores(counts)
    options = {"labels": classes, "average": None, "zero_division": np.nan}
    _assert_equal_with_none(result.iou, jaccard_score(true, found, **{**options, "zero_division": 0}), absent={3})
    _assert_equal_with_none(result.acc, recall_score(true, found, **options), absent={3, 5})
    _assert_equal_with_none(result.precision, precision_score(true, found, **options), absent={3, 4})
    assert result.pixels == tuple(np.bincount(true, minlength=NUM_CLASSES).tolist())
    assert result.aAcc == pytest.approx((true == found).mean(), abs=1e-15)


def _assert_equal_with_none(ours, theirs, *, absent: set[int]):
    assert {index for index, value in enumerate(ours) if value is None} == absent
    for index, value in enumerate(ours):
        if value is not None:
            assert value == pytest.approx(theirs[index], abs=1e-15)


def test_nulls_are_left_out_of_the_means():
    counts = np.zeros((4, 4), np.int64)
    counts[0, 0], counts[0, 1], counts[1, 1] = 6, 2, 4  # class 2 and 3 occur nowhere
    counts[0, 3] = 2  # class 3 is only predicted
    result = scores(counts)
    assert result.iou == (0.6, 4 / 6, None, 0.0)
    assert result.acc == (0.6, 1.0, None, None)
    assert result.precision == (1.0, 4 / 6, None, 0.0)
    assert result.mIoU == pytest.approx((0.6 + 4 / 6 + 0) / 3)
    assert result.mAcc == pytest.approx(0.8)
    assert result.aAcc == pytest.approx(10 / 14)


def test_perfect_prediction_has_miou_one_and_nothing_labelled_has_none():
    label = np.array([[0, 1, 255]], np.uint8)
    perfect = scores(_count(np.array([[0, 1, 2]], np.uint8), label))
    assert (perfect.mIoU, perfect.mAcc, perfect.aAcc) == (1.0, 1.0, 1.0)
    nothing = scores(_count(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)))
    assert (nothing.mIoU, nothing.mAcc, nothing.aAcc) == (None, None, None)


def test_confusion_of_concatenated_batches_is_the_sum():
    pairs = [_random_pair(seed) for seed in range(5)]
    together = _count(*(np.concatenate(arrays) for arrays in zip(*pairs, strict=True)))
    np.testing.assert_array_equal(together, sum(_count(*pair) for pair in pairs))


def test_counts_beyond_float32_are_exact():
    big = np.array([[2**40 + 1, 1], [0, 2**24 + 1]], np.int64)
    result = scores(big)
    assert result.pixels == (2**40 + 2, 2**24 + 1)
    assert result.iou[0] == (2**40 + 1) / (2**40 + 2)


def test_iou_is_nan_only_for_classes_that_do_not_occur():
    found = class_iou(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(found, [6 / 9, 3 / 6, np.nan])


def test_harmonic_mean():
    assert h_mean([50, 60]) == pytest.approx(54.5455, abs=5e-5)
    assert h_mean([0.3, 0.3, 0.3]) == pytest.approx(0.3)
    assert h_mean([0.0, 0.9]) == 0.0
