"""The multiple-gradient descent algorithm: the shortest vector in the convex hull of several gradients.

Letters: n gradients g_i, D [n, n] their dot products, s [n] their weights: none below 0, together 1. A solver takes D,
float64, and returns s and the squared length of sum s_i g_i as it last came to know it.

Source: Sener and Koltun 2018, and MSeg's training, where every data set is a task.

Note: Where the published solvers are still under way after 250 rounds they return nothing; these return what they have.
"""

from itertools import combinations

import numpy as np

_ROUNDS, _STILL = 250, 1e-5  # most rounds; sum of changes of s below which it stands
_LEAST = 1e-7  # step lengths up to here are none

Solution = tuple[np.ndarray, float]


def pair(a: float, c: float, b: float) -> tuple[float, float]:
    """gamma and the least |gamma u + (1 - gamma) v|^2 of two vectors.

    Args:
        a, c, b: u.u, u.v and v.v.
    """
    if c >= a:
        return 0.999, a
    if c >= b:
        return 0.001, b
    gamma = (b - c) / (a + b - 2 * c)
    return gamma, b + gamma * (c - b)


def projected_gradient(products: np.ndarray) -> Solution:
    """The variant that MSeg was trained with: gradient steps inside the simplex, each with a line search.

    Note: Two gradients weigh alike, whatever they are. Step lengths and the stop are absolute, so that gradients of
        another scale may get other weights.
    """
    count = len(products)
    s = np.full(count, 1 / count)
    if count < 3:
        return s, _best_pair(products)[1]
    cost = float(s @ products @ s)
    for _ in range(_ROUNDS):
        down = -products @ s
        down -= down.mean()
        y = onto_simplex(s + _step_length(s, down) * down)
        gamma, cost = pair(s @ products @ s, s @ products @ y, y @ products @ y)
        before, s = s, gamma * s + (1 - gamma) * y
        if np.abs(s - before).sum() < _STILL:
            return before, cost
    return s, cost


def frank_wolfe(products: np.ndarray) -> Solution:
    """The variant that moves towards one gradient at a time, from the best two on."""
    s, cost = _best_pair(products)
    if len(products) == 2:
        return s, cost
    for _ in range(_ROUNDS):
        along = products @ s
        nearest = int(along.argmin())
        gamma, cost = pair(s @ along, along[nearest], products[nearest, nearest])
        before, s = s, gamma * s
        s[nearest] += 1 - gamma
        if np.abs(s - before).sum() < _STILL:
            return before, cost
    return s, cost


def onto_simplex(y: np.ndarray) -> np.ndarray:
    """The nearest point whose values are not below 0 and add up to 1."""
    falling = np.sort(y)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(y) + 1)
    enough = np.flatnonzero(excess[:-1] > falling[1:])
    return np.maximum(y - excess[enough[0] if len(enough) else -1], 0)


def _best_pair(products: np.ndarray) -> Solution:
    """The two gradients whose combination is the shortest."""
    found = [
        (*pair(products[i, i], products[i, j], products[j, j]), i, j) for i, j in combinations(range(len(products)), 2)
    ]
    gamma, cost, first, second = min(found, key=lambda each: each[1])
    s = np.zeros(len(products))
    s[first], s[second] = gamma, 1 - gamma
    return s, cost


def _step_length(s: np.ndarray, direction: np.ndarray) -> float:
    """How far the direction leads before a weight is 0 or 1; 1 where none comes to 0."""
    falls, rises = direction < 0, direction > 0
    to_zero, to_one = -s[falls] / direction[falls], (1 - s[rises]) / direction[rises]
    length = to_zero[to_zero > _LEAST].min(initial=np.inf)
    return min(length if np.isfinite(length) else 1.0, to_one[to_one > _LEAST].min(initial=np.inf))
