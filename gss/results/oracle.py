"""The figure that a network reaches on a test set when it is trained on the set's own training data."""

from pathlib import Path
from typing import Any

from gss.config import seed_folders
from gss.data.metrics import scores
from gss.data.native import some
from gss.errors import GssError
from gss.results.reader import Evaluation, Results


def read_oracle(folder: Path, measured: Evaluation, split: str) -> dict[str, Any]:
    """What an experiment has reached on the split that a test set is, by its last model; with `seeds` their mean.

    Args:
        folder: its results.
        measured: what stands beside it: figures of another model on the test set.
        split: `train`, `val` or `test` of the test set.

    Returns:
        `experiment`; `mIoU`, by the same rule for absent classes and those that count; where it is not there, None and
        `missing`: why.
    """
    found = [_evaluated(each, measured, split) for each in seed_folders(folder) or [folder]]
    reasons = [each for each in found if isinstance(each, str)]
    if reasons:
        return {"experiment": folder.name, "mIoU": None, "missing": reasons[0]}
    values = [each for each in found if isinstance(each, float)]
    return {"experiment": folder.name, "mIoU": sum(values) / len(values)}


def _evaluated(folder: Path, measured: Evaluation, split: str) -> float | str:
    """The mIoU, or why there is none."""
    results = Results(folder)
    found = results.evaluations.get((results.recipe.final, split))
    if found is None:
        return f"not evaluated on {split}"
    names, asked = list(found.metrics["IoU"]), list(measured.metrics["IoU"])
    if strange := sorted({*names} ^ {*asked}):
        return f"other classes: {some(strange)}"
    if found.metrics["images"] != measured.metrics["images"]:
        return f"{found.metrics['images']} images in place of {measured.metrics['images']}"
    counted = measured.counted and frozenset(names.index(asked[index]) for index in measured.counted)
    try:
        value = scores(found.counts["confusion"], measured.absent, counted).mIoU
    except GssError:
        return "its counts cannot be read"
    return "nothing is labelled" if value is None else value
