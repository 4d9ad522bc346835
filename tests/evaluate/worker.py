"""Run by torchrun in test_run.py: evaluates made-up images on this process's shard and saves what it got.

One start serves several cases, as it takes much longer than they do.
"""

import sys
import time
from pathlib import Path

import numpy as np
from standins import MEAN, STD, WHOLE, Convolution, read_case

from gss.errors import DataError
from gss.evaluate.measure import evaluate_pairs
from gss.train.distributed import World, setup
from tests.normalised import Normalised

CASES = {"whole": (7, None), "user": (40, DataError), "bug": (40, ZeroDivisionError)}
BROKEN = 3


def main(folder: Path) -> None:
    """Images of every case: number of them, and the error that image number BROKEN raises."""
    world = setup()
    for name, (num_images, error) in CASES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        try:
            _evaluate(folder / name, num_images, error, world)
        except Exception as failure:
            (folder / name / f"error_{world.rank}").write_text(f"{type(failure).__name__}: {failure}")
    world.close()


def _evaluate(folder: Path, num_images: int, error: type[Exception] | None, world: World) -> None:
    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        if error is not None and index == BROKEN:
            raise error(f"image {index} is broken")
        return read_case(index)

    def each(index: int, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> None:
        (folder / f"seen_{index}_{time.time_ns()}").touch()

    model, pairs = Convolution(), range(num_images)
    found = evaluate_pairs(
        Normalised(model, MEAN, STD), pairs, 5, world, read=read, inference=WHOLE, with_reliability=True, each=each
    )
    arrays = {name: getattr(found, name) for name in ("confusion", "intersection", "predicted", "labelled")}
    assert found.reliability is not None
    arrays |= {name: getattr(found.reliability, name) for name in ("confidence", "uncertainty")}
    np.savez(folder / f"rank_{world.rank}.npz", ignored=found.ignored_pixels, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
