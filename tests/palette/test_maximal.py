"""The search for colours far apart."""

import numpy as np
import pytest

from gss.recipes.gss.palette.maximal import (
    ignore_last,
    improve,
    maximal_colours,
    repulsion,
    smallest_squared,
)

BEST = {
    19: 147.078,
    20: 140.773,
    150: 59.473,
    151: 59.473,
    194: 55.326,
    195: 55.326,
}  # known smallest distances


def reaches(colours: np.ndarray) -> bool:
    return smallest_squared(colours) ** 0.5 >= 0.95 * BEST[len(colours)]


def test_few_colours_reach_the_known_best():
    assert smallest_squared(maximal_colours(2)) == 3 * 255**2  # opposite corners
    assert smallest_squared(maximal_colours(3)) == 2 * 255**2  # corners of a face diagonal
    assert smallest_squared(maximal_colours(12)) >= 0.99 * 255**2 / 2  # part of a face-centred cubic cell


@pytest.mark.parametrize("num_points", [19, 20])
def test_cityscapes_size_reaches_the_known_best(num_points):
    colours = maximal_colours(num_points, seed=3)
    assert colours.shape == (num_points, 3) and colours.dtype == np.int64
    assert colours.min() >= 0 and colours.max() <= 255
    assert reaches(colours)


@pytest.mark.slow
@pytest.mark.parametrize("num_points", [151, 195])
def test_large_palettes_reach_the_known_best_with_and_without_ignore(num_points):
    colours = maximal_colours(num_points)
    assert reaches(colours) and reaches(colours[:-1])


def test_same_seed_same_colours_other_seed_other_order():
    first, again, other = (maximal_colours(8, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(3))
def test_single_moves_never_lower_the_smallest_distance(seed):
    points = np.random.default_rng(seed).integers(0, 256, (40, 3))
    before = smallest_squared(points)
    assert smallest_squared(improve(points.copy())) >= before


def test_the_gradient_of_the_repulsion_is_its_slope():
    rng = np.random.default_rng(0)
    flat, direction = rng.random(15), rng.normal(size=15)
    step = 1e-6
    slope = (repulsion(flat + step * direction, 24)[0] - repulsion(flat - step * direction, 24)[0]) / (2 * step)
    assert repulsion(flat, 24)[1] @ direction == pytest.approx(slope, rel=1e-5)


def test_the_ignore_colour_is_the_one_the_others_gain_most_without():
    points = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0], [200, 0, 0]])
    assert ignore_last(points).tolist() == [[0, 0, 0], [20, 0, 0], [200, 0, 0], [10, 0, 0]]
