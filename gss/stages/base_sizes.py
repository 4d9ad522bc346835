"""Evaluations of one model at several base sizes, of which the best one counts."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gss.data.reliability import Reliability
from gss.evaluate.inference import Inference, MSegInference
from gss.evaluate.measure import Evaluation
from gss.files import remove, write_atomic
from gss.stages.training import is_missing
from gss.train.distributed import World

_COUNTS = "counts.npz"  # where it is, a base size is measured
_COUNTED = ("confusion", "intersection", "predicted", "labelled", "ignored_pixels")
_RELIABILITY = ("confidence", "uncertainty")


def measure_each(
    ways: tuple[Inference, ...], measure: Callable[[Inference, Path], Evaluation], work: Path, world: World
) -> dict[int, Evaluation]:
    """The evaluations by base size. What was measured before an interruption is not measured again.

    Args:
        ways: of `gss.evaluate.inference.inferences`, of several base sizes.
        measure: measures, and writes predictions and pictures into a folder.
        work: folder for what is not finished.
    """
    found = {}
    for way in ways:
        assert isinstance(way, MSegInference)
        folder = _folder(work, way.base_size)
        if is_missing(folder / _COUNTS, world):
            evaluation = measure(way, folder)
            if world.is_main:
                _write(folder / _COUNTS, evaluation)
        else:
            evaluation = _read(folder / _COUNTS)
        found[way.base_size] = evaluation
    return found


def best(found: Mapping[int, Evaluation]) -> int:
    """The base size with the highest mIoU, which is rounded to 4 decimals as published; the first of equals."""
    return max(found, key=lambda size: round(found[size].scores.mIoU or 0.0, 4))


def take(size: int, work: Path, output: Path) -> None:
    """Put the folders of a base size where those of an evaluation are."""
    remove(_folder(work, size) / _COUNTS)  # without its predictions it is to be measured again
    output.mkdir(parents=True, exist_ok=True)
    for folder in filter(Path.is_dir, _folder(work, size).iterdir()):
        remove(output / folder.name)
        shutil.move(folder, output / folder.name)


def clear(found: Mapping[int, Evaluation], work: Path) -> None:
    """Take away what was kept for an interruption."""
    remove(*(_folder(work, size) for size in found))


def _folder(work: Path, size: int) -> Path:
    return work / f"base_{size}"


def _write(path: Path, evaluation: Evaluation) -> None:
    arrays = {name: getattr(evaluation, name) for name in _COUNTED}
    if evaluation.reliability is not None:
        arrays |= {name: getattr(evaluation.reliability, name) for name in _RELIABILITY}
    write_atomic(path, lambda file: np.savez(file, **arrays))


def _read(path: Path) -> Evaluation:
    with np.load(path) as counts:
        confusion, *per_image, ignored = (counts[name] for name in _COUNTED)
        has_reliability = all(name in counts for name in _RELIABILITY)  # a test set has none
        reliability = Reliability(*(counts[name] for name in _RELIABILITY)) if has_reliability else None
    return Evaluation(confusion, per_image[0], per_image[1], per_image[2], int(ignored), reliability=reliability)
