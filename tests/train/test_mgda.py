"""The shortest combination of several gradients: worked values, and what must hold of any."""

import numpy as np
import pytest

from gss.train import mgda
from gss.train.mgda import frank_wolfe, onto_simplex, pair, projected_gradient

SOLVERS = [projected_gradient, frank_wolfe]
FOUR = [(1, 2, 3), (4, -1, 0), (-2, 0, 1), (0, 5, 1)]


def products(vectors: list[tuple[float, ...]]) -> np.ndarray:
    found = np.array(vectors, float)
    return found @ found.T


@pytest.mark.parametrize("solve", SOLVERS)
def test_worked_values_of_both(solve) -> None:
    s, cost = solve(products([(1, 0, 0), (0, 2, 0), (0, 0, 3)]))
    assert s == pytest.approx([0.73469, 0.18368, 0.08163], abs=1e-5)
    assert cost == pytest.approx(0.734694, abs=5e-7) and cost == pytest.approx(1 / (1 + 1 / 4 + 1 / 9), abs=1e-6)
    s, cost = solve(products([(1, 0), (0, 1), (1, 1)]))
    assert s == pytest.approx([0.5, 0.5, 0], abs=1e-6) and cost == pytest.approx(0.5)


def test_worked_values_of_each() -> None:
    s, cost = frank_wolfe(products(FOUR))
    assert s == pytest.approx([0, 0.33143, 0.61064, 0.05793], abs=5e-6) and cost == pytest.approx(0.459639, abs=5e-7)
    s, cost = projected_gradient(products(FOUR))
    assert s == pytest.approx([3.4e-6, 0.31080, 0.60343, 0.08577], abs=5e-6) and s[0] == pytest.approx(3.4e-6, abs=5e-8)
    assert cost == pytest.approx(0.490244, abs=5e-7)
    s, cost = projected_gradient(products([(3, 1), (3, 1.2)]))
    assert s.tolist() == [0.5, 0.5] and cost == pytest.approx(10)


def test_of_two_frank_wolfe_is_the_pair_rule() -> None:
    assert frank_wolfe(products([(3, 1), (3, 1.2)]))[0] == pytest.approx([0.999, 0.001])
    assert frank_wolfe(products([(3, 1.2), (3, 1)]))[0] == pytest.approx([0.001, 0.999])
    s, cost = frank_wolfe(products([(1, 0), (0, 2)]))
    assert s == pytest.approx([0.8, 0.2]) and cost == pytest.approx(0.8) and pair(1, 0, 4) == pytest.approx((0.8, 0.8))


@pytest.mark.parametrize("solve", SOLVERS)
def test_weights_are_shares_and_equal_gradients_cost_their_own_length(solve) -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 7):
        d = products(list(rng.normal(size=(count, 4))))
        s, _ = solve(d)
        assert s.min() >= 0 and s.sum() == pytest.approx(1) and len(s) == count
        assert s @ d @ s <= d.diagonal().max()
        assert solve(products([(1, 2, 2)] * count))[1] == pytest.approx(9)


def test_frank_wolfe_does_not_know_the_scale() -> None:
    one, ten = frank_wolfe(products(FOUR)), frank_wolfe(100 * products(FOUR))
    assert ten[0] == pytest.approx(one[0]) and ten[1] == pytest.approx(100 * one[1])


@pytest.mark.parametrize("solve", SOLVERS)
def test_what_does_not_converge_gives_what_it_has(solve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mgda, "_STILL", 0.0)
    s, cost = solve(products(FOUR))
    assert s.sum() == pytest.approx(1) and s.min() >= 0 and 0.45 < cost < 0.5


@pytest.mark.parametrize("solve", SOLVERS)
def test_no_numbers_are_no_reason_to_hang_or_to_raise(solve) -> None:
    with np.errstate(all="ignore"):
        assert len(solve(np.full((3, 3), np.nan))[0]) == 3


@pytest.mark.parametrize(
    ("y", "nearest"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([2, 0, 0], [1, 0, 0]),
        ([0.6, 0.6, -1], [0.5, 0.5, 0]),
        ([1, 1, 1], [1 / 3] * 3),
    ],
)
def test_projection_on_the_simplex(y: list[float], nearest: list[float]) -> None:
    assert onto_simplex(np.array(y, float)) == pytest.approx(nearest)
