"""Made-up counts per image of two runs, from a population whose true difference is known.

Run as a program, it prints how often the interval of the bootstrap holds the true difference.
"""

import sys

import numpy as np

from gss.compare.bootstrap import Counts, bootstrap

PIXELS = 10_000  # of a class that is in an image, on average


def draw(
    rng: np.random.Generator, num_images: int, presence: np.ndarray, gain: float, video: int
) -> tuple[Counts, Counts]:
    """Counts of a baseline and of a run that finds `gain` more of what the baseline misses.

    Args:
        presence: [N] probability that a class is in an image.
        video: this many images in a row have nearly the same classes, sizes and errors.
    """
    scenes = -(-num_images // video)

    def of_images(scene: np.ndarray, jitter: float) -> np.ndarray:
        long = np.repeat(scene, video, axis=0)[:num_images]
        return long * np.exp(rng.normal(0, jitter, long.shape))

    shape = (scenes, len(presence))
    jitter = 0.1 if video > 1 else 0.0
    labelled = of_images((rng.random(shape) < presence) * rng.lognormal(np.log(PIXELS), 1, shape), jitter)
    hardness = of_images(rng.beta(2, 3, shape), jitter).clip(0, 0.95)  # share that the baseline misses
    better = of_images(rng.lognormal(0, 0.7, shape), jitter) * gain
    false = of_images(rng.lognormal(np.log(PIXELS / 20), 1, shape), jitter)
    counts = []
    for missed in (hardness, hardness * (1 - better).clip(0.2, 1)):
        right = np.rint(labelled * (1 - missed)).astype(np.int64)
        whole = np.rint(labelled).astype(np.int64)
        counts.append(Counts(right, right + np.rint(false * (0.5 + missed)).astype(np.int64), whole))
    return counts[0], counts[1]


def coverage(num_images: int, presence: np.ndarray, *, video: int = 1, trials: int = 300, seed: int = 0) -> np.ndarray:
    """float [3 + N]: share of trials whose interval holds the true difference of each figure."""
    rng = np.random.default_rng(seed)
    everyone = draw(rng, 200_000, presence, 0.1, 1)
    true = everyone[1].figures() - everyone[0].figures()
    hits = np.zeros(len(true))
    for _ in range(trials):
        baseline, run = draw(rng, num_images, presence, 0.1, video)
        found = bootstrap([baseline], [run], resamples=1000, seed=int(rng.integers(1 << 31)))
        with np.errstate(invalid="ignore"):
            hits += (found.low <= true) & (true <= found.high)
    return hits / trials


def main() -> None:
    """Share of trials in percent, for common and for rare classes, for single images and for videos."""
    for presence in ((1, 0.9, 0.7, 0.5, 0.3), (1, 0.3, 0.1, 0.05, 0.02)):
        shares = [f"{share:4.0%}" for share in presence]
        print("images of one video  mIoU mAcc aAcc | a class in", *shares, "of the images")
        for num_images, video in ((100, 1), (233, 1), (1000, 1), (233, 10)):
            found = coverage(num_images, np.array(presence), video=video, trials=int(sys.argv[1]))
            cells = [f"{share:4.0%}" for share in found]
            print(f"{num_images:6} {video:12} ", *cells[:3], "|           ", *cells[3:], flush=True)


if __name__ == "__main__":
    main()
