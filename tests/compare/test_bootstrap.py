"""The intervals against a computation that resamples images one by one, and against known truth."""

import os
from pathlib import Path

import numpy as np
import pytest
from simulate import coverage, draw

import gss.compare.bootstrap as bootstrap_module
from gss.compare.bootstrap import LEVEL, Counts, bootstrap, spread
from gss.data.metrics import scores

ARRAYS = ("value", "low", "high", "other_sign")


def of_confusion(matrices: np.ndarray) -> Counts:
    """Counts of confusion matrices [image, label, prediction]."""
    return Counts(np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(1), matrices.sum(2))


def by_hand(baseline: Counts, run: Counts, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Image after image into a sum, figures by `gss.data.metrics`, percentiles by sorting."""
    rng = np.random.Generator(np.random.PCG64(seed))
    num_images, num_classes = baseline.labelled.shape

    def figures(counts: Counts, images: np.ndarray) -> list[float | None]:
        right, predicted, labelled = (np.zeros(num_classes, np.int64) for _ in range(3))
        for image in images:
            right += counts.intersection[image]
            predicted += counts.predicted[image]
            labelled += counts.labelled[image]
        # Any matrix with this diagonal and these sums has the same figures: an extra class takes the rest.
        matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        matrix[np.arange(num_classes), np.arange(num_classes)] = right
        matrix[:num_classes, -1], matrix[-1, :num_classes] = labelled - right, predicted - right
        found = scores(matrix)
        iou = found.iou[:num_classes]
        known = [value for value in iou if value is not None]
        acc = [part / whole for part, whole in zip(right, labelled, strict=True) if whole]
        headline = [sum(values) / len(values) if values else None for values in (known, acc)]
        return [*headline, right.sum() / labelled.sum() if labelled.sum() else None, *iou]

    def differences(images: np.ndarray) -> np.ndarray:
        pairs = zip(figures(run, images), figures(baseline, images), strict=True)
        return np.array([np.nan if None in pair else pair[0] - pair[1] for pair in pairs])

    value = differences(np.arange(num_images))
    spread = np.array([differences(rng.integers(0, num_images, num_images)) for _ in range(resamples)])
    ends = []
    for column in spread.T:
        kept = np.sort(column[~np.isnan(column)])
        places = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2]) * (len(kept) - 1)
        ends.append(
            [
                kept[int(p)] + (p % 1) * (kept[min(int(p) + 1, len(kept) - 1)] - kept[int(p)]) if len(kept) else np.nan
                for p in places
            ]
        )
    other = [
        np.mean((column * np.sign(at) <= 0)[~np.isnan(column)]) if at and not np.isnan(at) else np.nan
        for column, at in zip(spread.T, value, strict=True)
    ]
    found = {"value": value, "low": np.array(ends)[:, 0], "high": np.array(ends)[:, 1], "other_sign": np.array(other)}
    return {name: np.where(np.isnan(value), np.nan, array) for name, array in found.items()}


def assert_same(found: object, expected: dict[str, np.ndarray]) -> None:
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=0, atol=1e-12, err_msg=name)


def synthetic(seed: int, num_images: int = 15) -> tuple[Counts, Counts]:
    """Two runs on images with few classes each: class 3 in one image, class 4 predicted only, class 5 nowhere."""
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 30, (2, num_images, 6, 6)) * (rng.random((2, num_images, 6, 6)) < 0.6)
    matrices[:, 1:, 3, :] = 0
    matrices[:, :, 4, :] = 0
    matrices[:, :, 5, :] = matrices[:, :, :, 5] = 0
    matrices[1, :, :, 3] = 0  # the second run never predicts class 3
    labelled = matrices[0].sum(2)
    for image in range(num_images):  # both runs saw the same labels
        for label in range(6):
            right = min(matrices[1, image, label, label], labelled[image, label])
            matrices[1, image, label] = 0
            matrices[1, image, label, label] = right
            matrices[1, image, label, 0 if label != 0 else 1] += labelled[image, label] - right
    return of_confusion(matrices[0]), of_confusion(matrices[1])


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_of_resampling_images_one_by_one(seed: int) -> None:
    baseline, run = synthetic(seed)
    assert_same(bootstrap([baseline], [run], resamples=80, seed=seed), by_hand(baseline, run, 80, seed))


def test_figures_of_several_seeds_are_means_in_every_resample() -> None:
    (baseline, first), (_, second), (_, third) = (synthetic(seed) for seed in (0, 0, 0))
    second = Counts(second.intersection // 2, second.predicted, second.labelled)
    third = Counts(third.intersection // 3, third.predicted, third.labelled)
    found = bootstrap([baseline], [first, second, third], resamples=80, seed=1)
    single = [bootstrap([baseline], [run], resamples=80, seed=1).value for run in (first, second, third)]
    np.testing.assert_allclose(found.value, np.mean(single, axis=0), atol=1e-12)
    np.testing.assert_allclose(spread([first, second, third]), np.std(single, axis=0, ddof=1), atol=1e-12)
    assert np.isnan(spread([first])).all()
    again = bootstrap([baseline], [second, second], resamples=80, seed=1)
    assert_same(again, by_hand(baseline, second, 80, 1))
    # The mean of two differences varies with the images as both do: less than the wider one of them.
    both = bootstrap([baseline], [first, second], resamples=80, seed=1)
    widths = [bootstrap([baseline], [run], resamples=80, seed=1) for run in (first, second)]
    assert (both.high - both.low)[0] <= max((each.high - each.low)[0] for each in widths) + 1e-12


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, run = synthetic(0)
    whole = bootstrap([baseline], [run], resamples=100)
    monkeypatch.setattr(bootstrap_module, "_BLOCK_NUMBERS", 7 * (15 + 5 * 6))  # seven at a time
    assert_same(bootstrap([baseline], [run], resamples=100), {name: getattr(whole, name) for name in ARRAYS})


def test_a_run_against_itself_differs_nowhere() -> None:
    baseline, _ = synthetic(0)
    found = bootstrap([baseline], [baseline], resamples=50)
    for array in (found.value, found.low, found.high):
        assert set(np.nan_to_num(array)) == {0}
    assert np.isnan(found.other_sign).all()
    assert not found.clear.any()
    assert np.isnan(found.value[-1])  # the class that is nowhere


def test_exchanged_runs_have_exchanged_intervals() -> None:
    baseline, run = synthetic(1)
    forward, backward = bootstrap([baseline], [run], resamples=60), bootstrap([run], [baseline], resamples=60)
    np.testing.assert_allclose(forward.low, -backward.high)
    np.testing.assert_allclose(forward.other_sign, backward.other_sign)


def test_one_image_has_no_spread() -> None:
    baseline, run = (
        Counts(*(array[:1] for array in (each.intersection, each.predicted, each.labelled))) for each in synthetic(0)
    )
    found = bootstrap([baseline], [run], resamples=20)
    np.testing.assert_array_equal(found.low, found.high)


@pytest.mark.slow
def test_intervals_on_camvid_are_those_of_resampling_images_one_by_one() -> None:
    folder = os.environ.get("GSS_CAMVID_RESULTS")
    if folder is None:
        pytest.skip("GSS_CAMVID_RESULTS names no results/camvid")
    counts = []
    for model in ("gss_ff", "gss_ft"):
        with np.load(Path(folder) / "evaluation" / model / "test" / "confusion.npz") as arrays:
            counts.append(Counts(arrays["intersection"], arrays["predicted"], arrays["labelled"]))
    assert_same(bootstrap(*([each] for each in counts), resamples=2000), by_hand(*counts, 2000, 0))


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_documented() -> None:
    """Of common classes in 233 independent images: of 100 trials 84 or more hold it if the chance is 93 %."""
    found = coverage(233, np.array([1, 0.9, 0.7]), trials=100)
    assert (found >= 0.84).all(), found
    with_videos = coverage(233, np.array([1, 0.9, 0.7]), video=10, trials=100)
    assert (with_videos < 0.75).all(), with_videos


def test_simulated_runs_see_the_same_labels() -> None:
    baseline, run = draw(np.random.default_rng(0), 7, np.array([1, 0.5]), 0.1, 1)
    assert (baseline.labelled == run.labelled).all() and (run.intersection >= baseline.intersection).all()
