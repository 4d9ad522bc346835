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
    with pytest.raises(ValueError, match=r"no harmonic mean of 0\.0"):
        h_mean([0.0, 0.9])


# mIoU in percent, and their published harmonic mean: MSeg's tables of test and of training sets
PUBLISHED = [
    ((73.4, 43.3, 58.7, 38.2, 47.6, 33.4), 45.8),
    ((35.4, 23.9, 52.6, 38.6, 41.6, 42.9), 36.9),
    ((22.5, 13.6, 82.1, 55.4, 67.7, 2.1), 9.3),
    ((14.6, 6.5, 72.1, 41.2, 51.0, 1.6), 6.5),
    ((14.4, 7.1, 70.7, 52.2, 54.5, 1.4), 6.1),
    ((13.3, 6.8, 76.1, 30.1, 57.6, 1.7), 6.8),
    ((10.0, 4.3, 0.1, 1.9, 1.1, 42.6), 0.3),
    ((70.7, 42.7, 83.3, 62.0, 67.0, 48.2), 59.2),
    ((70.2, 42.7, 82.0, 62.7, 65.5, 43.2), 57.6),
    ((68.5, 41.7, 82.9, 61.1, 66.7, 46.7), 58.0),
    ((76.4, 45.9, 81.2, 62.7, 68.2, 49.5), 61.2),
    ((74.7, 44.0, 83.5, 60.4, 67.9, 47.7), 59.8),
    ((72.0, 44.0, 84.5, 59.9, 66.5, 49.5), 59.8),
    ((52.7, 19.1, 28.4, 31.1, 44.9, 46.9, 29.6), 32.4),
    ((14.6, 45.6, 24.2, 26.8, 40.7, 44.3, 36.0), 28.7),
    ((50.7, 45.7, 53.1, 65.3, 68.5, 80.4, 50.3), 57.1),
    ((50.4, 45.4, 53.1, 65.1, 66.5, 79.5, 49.9), 56.6),
    ((48.1, 43.7, 51.6, 64.1, 67.2, 78.2, 49.9), 55.4),
    ((56.1, 49.6, 53.5, 64.5, 67.8, 79.9, 49.2), 58.5),
    ((53.3, 48.2, 53.5, 64.8, 68.6, 79.8, 49.3), 57.8),
    ((53.6, 49.2, 54.9, 66.3, 69.1, 81.5, 50.1), 58.8),
]


@pytest.mark.parametrize(("values", "published"), PUBLISHED)
def test_published_harmonic_means(values: tuple[float, ...], published: float) -> None:
    """All are of unrounded values: any within half of the last digit may be meant."""
    low, high = (h_mean([value + shift for value in values]) for shift in (-0.05, 0.05))
    assert low - 0.05 <= published <= high + 0.05
    if min(values) > 10:
        assert h_mean(values) == pytest.approx(published, abs=0.1)
    assert h_mean(values) <= sum(values) / len(values)


def test_the_worked_harmonic_means() -> None:
    assert [round(h_mean(values), 2) for values, _ in (PUBLISHED[7], PUBLISHED[10], PUBLISHED[9])] == [
        59.19,
        61.22,
        58.02,
    ]


def test_absent_classes_are_left_out_or_count_as_zero() -> None:
    counts = _count(*_random_pair(3))
    nan, zero = scores(counts), scores(counts, "zero")
    assert nan.iou[3] is None and zero.iou[3] == 0.0 and zero.acc[3] == 0.0 and zero.acc[5] == 0.0
    assert zero.mIoU == pytest.approx(sum(value or 0.0 for value in nan.iou) / NUM_CLASSES)
    assert zero.mAcc == pytest.approx(sum(value or 0.0 for value in nan.acc) / NUM_CLASSES)
    assert zero.aAcc == nan.aAcc


def test_what_is_predicted_as_no_class_is_wrong_and_no_other_class() -> None:
    prediction, label = _random_pair(4)
    abstained = np.where(prediction == 1, 255, prediction).astype(np.uint8)
    counts = confusion(torch.from_numpy(abstained), torch.from_numpy(label), NUM_CLASSES, abstains=True).numpy()
    known = _count(prediction, label)
    assert counts.shape == (NUM_CLASSES, NUM_CLASSES + 1)
    np.testing.assert_array_equal(counts[:, NUM_CLASSES], known[:, 1])
    np.testing.assert_array_equal(np.delete(counts, (1, NUM_CLASSES), 1), np.delete(known, 1, 1))
    found, before = scores(counts), scores(known)
    assert found.pixels == before.pixels and found.iou[1] == 0.0 and found.precision[1] is None
    assert found.iou[0] == before.iou[0] and found.acc[1] == 0.0
    assert class_iou(counts).shape == (NUM_CLASSES,)
