"""Colours as far apart as the RGB cube allows.

Many starts (random points and pieces of face-centred cubic lattices, the densest packing of spheres) are
spread by a smooth repulsion that hardens step by step into the smallest distance, rounded to integers and
improved by single moves.
"""

import numpy as np

from gss.progress import track

HARDNESS = (24.0, 80.0, 240.0, 800.0)  # exponents p of the repulsion, soft to hard
ITERATIONS = 200  # of L-BFGS at each hardness
NOISE = 0.01  # shakes points off saddles before each hardness (a 6x6x6 grid is one for 195 points)
REACH = 3  # a single move goes at most so far in each channel
WORK = 400_000  # pairs of points, summed over all starts: 20 to 30 s on one core from 150 points on
MAX_STARTS = 12  # a start with 20 points takes 0.1 s


def maximal_colours(num_points: int, *, seed: int = 0, quiet: bool = True) -> np.ndarray:
    """Return colours whose smallest pairwise distance is as large as a fixed effort finds.

    Args:
        num_points: at least 2; the ignore colour counts as one of them.
        seed: same seed, same colours, in the same order.
        quiet: without lines of progress.

    Returns:
        int64 [num_points,3], 0..255. The last row, meant for ignore, is the one whose absence leaves the
        others farthest apart; the rest is in random order.

    Source: the criterion GSS names ("maximal distance"); the published palettes were not optimised for it.
    """
    rng = np.random.default_rng(seed)
    num_starts = max(4, min(MAX_STARTS, WORK // num_points**2))
    best = np.zeros((num_points, 3), np.int64)
    for start in track(range(num_starts), "palette", num_starts, "starts", quiet=quiet):
        points = lattice_start(num_points, rng) if start % 2 else rng.random((num_points, 3))
        found = improve(np.rint(spread(points, rng) * 255).astype(np.int64))
        if smallest_squared(found) > smallest_squared(best):
            best = found
    return ignore_last(best[rng.permutation(num_points)])


def smallest_squared(points: np.ndarray) -> int:
    """Smallest squared distance between two rows of an integer [n,3] array."""
    return int(squared_distances(points).min())


def squared_distances(points: np.ndarray) -> np.ndarray:
    """[n,n] squared distances of the rows of [n,3]; the diagonal holds the largest value of the type."""
    difference = points[:, None] - points[None]
    squared = np.einsum("ijc,ijc->ij", difference, difference)
    np.fill_diagonal(squared, np.iinfo(np.int64).max if squared.dtype.kind == "i" else np.inf)
    return squared


def lattice_start(num_points: int, rng: np.random.Generator) -> np.ndarray:
    """[n,3] points in 0..1: a turned, shifted and stretched piece of a face-centred cubic lattice."""
    cells = np.arange(-8, 9)
    lattice = np.stack(np.meshgrid(cells, cells, cells), axis=-1).reshape(-1, 3)
    lattice = lattice[lattice.sum(axis=1) % 2 == 0].astype(float)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] if rng.random() < 0.5 else np.eye(3)
    lattice = (lattice + rng.random(3)) @ turn * rng.uniform(0.9, 1.1, 3)
    outside = np.abs(lattice).max(axis=1)  # size of the centred cube that just holds the point
    chosen = lattice[np.argsort(outside, kind="stable")[:num_points]]
    low, high = chosen.min(axis=0), chosen.max(axis=0)
    return (chosen - low) / np.maximum(high - low, 1e-9)


def spread(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move [n,3] points inside the unit cube to a local maximum of their smallest distance, nearly."""
    from scipy.optimize import minimize  # a second of imports that those who only read a palette do not need

    flat = points.ravel()
    for hardness in HARDNESS:
        flat = np.clip(flat + rng.normal(scale=NOISE, size=flat.shape), 0, 1)
        flat = minimize(
            repulsion,
            flat,
            args=(hardness,),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * len(flat),
            options={"maxiter": ITERATIONS, "maxcor": 20},
        ).x
    return flat.reshape(-1, 3)


def repulsion(flat: np.ndarray, hardness: float) -> tuple[float, np.ndarray]:
    """(1/p) log sum d^-p over pairs, and its gradient; tends to -log d_min for large p."""
    points = flat.reshape(-1, 3)
    squared = squared_distances(points) + 1e-12
    energy = -0.5 * hardness * np.log(squared)
    top = energy.max()
    weight = np.exp(energy - top)
    total = weight.sum()
    pull = weight / (squared * total)
    # einsum, because the sums of a threaded matrix product depend on the machine's number of cores
    gradient = 2 * (np.einsum("ij,jc->ic", pull, points) - points * pull.sum(axis=1, keepdims=True))
    return (top + np.log(total / 2)) / hardness, gradient.ravel()


def improve(points: np.ndarray) -> np.ndarray:
    """Move single integer points while that enlarges the distance to their nearest neighbour.

    A move leaves every distance above the one it enlarged: the smallest distance never falls and the search
    ends.
    """
    points = np.clip(points, 0, 255)
    steps = np.arange(-REACH, REACH + 1)
    moves = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    moved = True
    while moved:
        moved = False
        for index in np.argsort(squared_distances(points).min(axis=1), kind="stable"):
            others = np.delete(points, index, axis=0)
            squared = ((others - points[index]) ** 2).sum(axis=1)
            nearest = squared.min()
            others = others[np.sqrt(squared) <= np.sqrt(nearest) + 4 * REACH]  # only they can become the nearest
            candidates = np.clip(points[index] + moves, 0, 255)
            distance = ((candidates[:, None] - others[None]) ** 2).sum(axis=2).min(axis=1)
            if distance.max() > nearest:
                points[index] = candidates[distance.argmax()]
                moved = True
    return points


def ignore_last(points: np.ndarray) -> np.ndarray:
    """Put the row last without which the others are farthest apart (smallest, then mean nearest distance)."""
    nearest = [squared_distances(np.delete(points, index, axis=0)).min(axis=1) for index in range(len(points))]
    scores = [(int(row.min()), float(np.sqrt(row).mean())) for row in nearest]
    index = scores.index(max(scores))
    return np.concatenate([np.delete(points, index, axis=0), points[index : index + 1]])
