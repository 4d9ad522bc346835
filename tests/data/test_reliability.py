"""Calibration from counts: a worked example, calibrated draws, and what the border cases are."""

import numpy as np
import pytest
import torch

from gss.data.reliability import BINS, STEPS, UNIT, Reliability, calibration_error, count


def _count(prediction, confidence, uncertainty, label, num_classes) -> Reliability:
    tensors = [torch.tensor(values, dtype=torch.float32) for values in (confidence, uncertainty)]
    ids = [torch.tensor(values, dtype=torch.uint8) for values in (prediction, label)]
    return Reliability(*(found.numpy() for found in count(ids[0], *tensors, ids[1], num_classes)))


def test_a_worked_example():
    """Ten pixels, one of them ignored, in three bins.

    Bin 15, (14/15, 1]: confidence 0.95 0.95 1.0 1.0 (mean 0.975), three of four right: |0.75 - 0.975| = 0.225.
    Bin 12, (11/15, 12/15]: confidence 0.75 0.75 0.75, two of three right: |0.6667 - 0.75| = 0.0833.
    Bin 8, (7/15, 8/15]: confidence 0.5 0.5, one of two right: 0.
    ECE = (4 * 0.225 + 3 * 0.0833) / 9 = 1.15 / 9.
    """
    confidence = [0.95, 0.95, 1.0, 1.0, 0.75, 0.75, 0.75, 0.5, 0.5, 0.99]
    prediction = [0, 0, 0, 1, 1, 1, 1, 0, 1, 1]
    label = [0, 0, 0, 0, 1, 1, 0, 0, 0, 255]
    found = _count(prediction, confidence, np.zeros(10), label, 3)
    assert found.confidence.sum(0)[[14, 11, 7], :2].tolist() == [[4, 3], [3, 2], [2, 1]]
    assert found.confidence[..., 0].sum() == 9
    assert pytest.approx(1.15 / 9, abs=1 / UNIT) == found.ECE
    # class 0: 0.95 0.95 1.0 right, 0.5 right; class 1: 1.0 wrong, three of 0.75 with two right, 0.5 wrong
    assert found.class_ECE[0] == pytest.approx((3 * (1 - 2.9 / 3) + (1 - 0.5)) / 4, abs=1 / UNIT)
    assert found.class_ECE[1] == pytest.approx((1 + 3 * (0.75 - 2 / 3) + 0.5) / 5, abs=1 / UNIT)
    assert found.class_ECE[2] is None  # never predicted


def test_a_bin_holds_its_upper_border():
    values = [*(np.arange(1, BINS + 1) / BINS), 0.0, 0.2 + 1e-4]
    found = _count(np.zeros(17), values, np.zeros(17), np.zeros(17), 1)
    assert found.confidence[0, :, 0].tolist() == [2, 1, 1, 2, *[1] * 11]


def test_calibrated_draws_have_next_to_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 200_000)
    is_right = rng.uniform(size=confidence.shape) < confidence
    found = _count(np.ones(confidence.shape), confidence, np.zeros(confidence.shape), is_right, 2)
    assert found.ECE < 0.004
    too_sure = _count(np.ones(confidence.shape), np.sqrt(confidence), np.zeros(confidence.shape), is_right, 2)
    expected = np.abs(np.sqrt(confidence) - confidence).mean()  # every bin is off to the same side
    assert pytest.approx(expected, abs=0.003) == too_sure.ECE


def test_errors_in_the_most_uncertain_tenth():
    """Of 20 pixels the tenth are the most uncertain one, and one of the four that come next."""
    uncertainty = [1.0, *[0.5] * 4, *[0.1] * 15]
    label = [1, 1, 1, 0, 0, 1, *[0] * 14]  # predicted 0: wrong where 1
    found = _count(np.zeros(20), np.ones(20), uncertainty, label, 2)
    assert found.uncertainty[[255, 128, 26]].tolist() == [[1, 1], [4, 2], [15, 1]]
    assert found.errors_in_most_uncertain_tenth == pytest.approx((1 + 2 * 1 / 4) / 4)  # of four one pixel is left


def test_uncertainty_that_says_nothing_finds_a_tenth_of_the_errors():
    found = _count(np.zeros(30), np.ones(30), np.full(30, 0.4), np.arange(30) % 2, 2)
    assert found.errors_in_most_uncertain_tenth == pytest.approx(0.1)


def test_nothing_wrong_and_nothing_labelled():
    right = _count([0, 1], [1, 1], [0, 0], [0, 1], 2)
    assert (right.ECE, right.class_ECE, right.errors_in_most_uncertain_tenth) == (0.0, (0.0, 0.0), None)
    nothing = _count([0, 1], [1, 1], [0, 0], [255, 255], 2)
    assert (nothing.ECE, nothing.class_ECE, nothing.errors_in_most_uncertain_tenth) == (None, (None, None), None)


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(1)
    size = 5000
    ids, label = rng.integers(0, 300, size), rng.integers(0, 300, size)
    label[:100] = 65535  # ignored, where ids have 16 bits
    tensors = [torch.from_numpy(ids).int(), *torch.rand(2, size), torch.from_numpy(label).int()]
    whole = count(*tensors, 300)
    parts = [count(*(tensor[rows] for tensor in tensors), 300) for rows in (slice(0, 17), slice(17, None))]
    for index, found in enumerate(whole):
        assert torch.equal(found, parts[0][index] + parts[1][index])
        assert found[..., 0].sum() == size - 100
    assert whole[0].shape == (300, BINS, 3)
    assert whole[1].shape == (STEPS, 2)
    assert whole[0][..., 1].sum() == whole[1][:, 0].sum() - whole[1][:, 1].sum()


def test_counts_of_many_pixels_are_exact():
    counts = np.zeros((BINS, 3), np.int64)
    counts[-1] = 2**40, 2**40 - 1, 2**40 * UNIT
    assert calibration_error(counts) == 2.0**-40
