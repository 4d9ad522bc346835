"""The files of an evaluation: `metrics.json`, `per_class.csv`, `confusion.npz`, `reliability.csv`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gss import __version__
from gss.data.metrics import h_mean
from gss.data.reliability import BINS, UNIT, Reliability
from gss.evaluate.measure import Evaluation
from gss.files import write_atomic, write_json, write_table


def summarise(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """The figures of `metrics.json` as a JSON value.

    Args:
        names: N distinct class names.

    Returns:
        `mIoU`, `mAcc`, `aAcc` (fractions, or None when nothing is labelled); `IoU`, `Acc` (class name ->
        fraction or None); `images`, `pixels` (that were scored), `ignored_pixels`; where probabilities were counted
        `ECE`, `errors_in_most_uncertain_tenth` (fractions or None), `class_ECE` (class name -> fraction or None).
    """
    found, reliability = evaluation.scores, evaluation.reliability
    return {
        **_headline(evaluation),
        "IoU": dict(zip(names, found.iou, strict=True)),
        "Acc": dict(zip(names, found.acc, strict=True)),
        "images": len(evaluation.intersection),
        "pixels": sum(found.pixels),
        "ignored_pixels": evaluation.ignored_pixels,
        **({} if reliability is None else _calibration(reliability, names)),
    }


def _calibration(found: Reliability, names: Sequence[str]) -> dict[str, Any]:
    return {
        **{key: getattr(found, key) for key in ("ECE", "errors_in_most_uncertain_tenth")},
        "class_ECE": dict(zip(names, found.class_ECE, strict=True)),
    }


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    names: Sequence[str],
    *,
    protocol: dict[str, Any],
    model: Path,
    model_sha256: str,
    manifest_sha256: str,
    base_sizes: Mapping[int, Evaluation] = {},
    trained_on: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the files, each atomically and `metrics.json` last: where it is, the others are.

    Args:
        protocol: `Inference.as_dict()`.
        model: the file measured; its name is recorded.
        base_sizes: where it was measured at several of them, all evaluations; `evaluation` is one of these.
        trained_on: names of images that are in the training data, too.

    Returns:
        The content of `metrics.json`.

    Raises:
        GssError: the folder cannot be written to.
    """
    metrics = {
        **summarise(evaluation, names),
        "protocol": protocol,
        "model": {"file": model.name, "sha256": model_sha256},
        "data": {"manifest_sha256": manifest_sha256},
        "version": __version__,
    }
    if trained_on:
        metrics["trained_on"] = list(trained_on)
    if base_sizes:
        metrics["base_size"] = next(size for size, found in base_sizes.items() if found is evaluation)
        metrics["base_sizes"] = {str(size): _headline(found) for size, found in base_sizes.items()}
    write_confusion(folder / "confusion.npz", evaluation)
    write_per_class(folder / "per_class.csv", evaluation, names)
    if evaluation.reliability is not None:
        write_reliability(folder / "reliability.csv", evaluation.reliability, names)
    write_json(folder / "metrics.json", metrics)
    return metrics


def _headline(evaluation: Evaluation) -> dict[str, float | None]:
    return {key: getattr(evaluation.scores, key) for key in ("mIoU", "mAcc", "aAcc")}


def write_confusion(path: Path, evaluation: Evaluation) -> None:
    """The int64 arrays `confusion` [label, prediction], with a column more where predictions may be no class, and
    `intersection`, `predicted`, `labelled` [image, class]."""
    arrays = {name: getattr(evaluation, name) for name in ("confusion", "intersection", "predicted", "labelled")}
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))


def write_per_class(path: Path, evaluation: Evaluation, names: Sequence[str]) -> None:
    """The table `class,iou,acc,precision,pixels`: fractions, an empty cell where there is none."""
    found = evaluation.scores
    rows = zip(names, found.iou, found.acc, found.precision, found.pixels, strict=True)
    write_table(path, ("class", "iou", "acc", "precision", "pixels"), rows)


def write_reliability(path: Path, found: Reliability, names: Sequence[str]) -> None:
    """The table `class,above,up_to,pixels,right,confidence`: the pixels predicted as a class with a confidence in a
    bin, the right ones among them, and the sum of their confidence."""
    rows = [
        (name, bin / BINS, (bin + 1) / BINS, pixels, right, confidence / UNIT)
        for name, bins in zip(names, found.confidence.tolist(), strict=True)
        for bin, (pixels, right, confidence) in enumerate(bins)
    ]
    write_table(path, ("class", "above", "up_to", "pixels", "right", "confidence"), rows)


def write_summary(
    path: Path, sets: Mapping[str, Mapping[str, Any]], oracles: Mapping[str, Mapping[str, Any]] = {}
) -> dict[str, Any]:
    """Write the figures of a model on several test sets, and beside them the same as a CSV.

    Args:
        path: `summary.json`.
        sets: `metrics.json` of each by its name.
        oracles: of those that have one, what networks trained on their own data reach, see `gss.results.oracle`.

    Returns:
        The content: `h_mean`, the harmonic mean of the sets' mIoU; None where one has none or 0, which
        `without_h_mean` names; by set `mIoU`, `mAcc`, `aAcc`, `images`, `prediction` and `absent`, and
        `oracle` where there is one; `model`; `version`.
    """
    keys = ("mIoU", "mAcc", "aAcc", "images")
    missing = [name for name, found in sets.items() if not found["mIoU"]]
    summary = {
        "h_mean": None if missing else h_mean([found["mIoU"] for found in sets.values()]),
        **({"without_h_mean": missing} if missing else {}),
        "sets": {
            name: {
                **{key: found[key] for key in keys},
                **{key: found["protocol"][key] for key in ("prediction", "absent")},
                **({"oracle": oracles[name]} if name in oracles else {}),
            }
            for name, found in sets.items()
        },
        "model": next(iter(sets.values()))["model"],
        "version": __version__,
    }
    rows = [[name, *(found[key] for key in keys)] for name, found in sets.items()]
    rows.append(["h_mean", summary["h_mean"], None, None, None])
    columns = ["set", *keys]
    if oracles:
        columns.append("oracle")
        rows = [[*row, oracles.get(row[0], {}).get("mIoU")] for row in rows]
    write_table(path.with_suffix(".csv"), columns, rows)
    write_json(path, summary)
    return summary
