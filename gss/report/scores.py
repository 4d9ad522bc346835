"""Sections of the report about figures: the headline, the classes, and what is taken for what."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gss.data.metrics import Scores
from gss.errors import GssError
from gss.results.reader import Evaluation, Results
from gss.text import css

DESTINATIONS = 3  # classes named per class


def summary(results: Results) -> dict[str, Any]:
    """Achieved beside published figures, the ceiling, and what they were measured on."""
    wanted = {**dict.fromkeys(results.expected), **results.evaluations}
    rows = [_headline(results, model, split) for model, split in wanted]
    return {
        "notes": results.notes(),
        "rows": rows,
        "published": results.published,
        "published_keys": [key for key in ("mIoU", "mAcc", "aAcc") if any(row["expected"].get(key) for row in rows)],
        "elsewhere": {
            title: (figures["h_mean"], results.summaries.get(model, {}).get("h_mean"))
            for model, title in results.models.items()
            if "h_mean" in (figures := getattr(results.published, model, {}))
        },
        "facts": _facts(results),
        "ceiling": any(row["ceiling"] is not None for row in rows),
    }


def require_evaluations(results: Results) -> None:
    """Raise GssError, saying what to do, when nothing was evaluated."""
    if not results.evaluations:
        files = " ".join(_file(results, model, split) for model, split in results.expected)
        raise GssError("nothing evaluated yet", where=results.folder, todo=f"snakemake {files}" if files else None)


def _file(results: Results, model: str, split: str) -> str:
    return f"{results.folder}/evaluation/{model}/{split}/metrics.json"


def _headline(results: Results, model: str, split: str) -> dict[str, Any]:
    published, ceiling = results.published, _ceiling(results, split)
    found = results.evaluations.get((model, split))
    return {
        "model": results.models[model],
        "split": split,
        "metrics": found and found.metrics,
        "todo": f"snakemake {_file(results, model, split)}",
        "expected": getattr(published, model, {}) if published.split == split else {},
        "ceiling": ceiling and ceiling["mIoU"],
    }


def _facts(results: Results) -> dict[str, str]:
    """What was trained on what, and how it was measured, one line each; what is not known is left out."""
    setting = results.setting
    facts = {}
    try:
        pairs = {split: len(rows) for split, rows in results.manifest.rows.items()}
        names = results.manifest.space.names
        images = ", ".join(f"{pairs[split]} {split}" for split in ("train", "val", "test") if split in pairs)
        roots = [setting("data.root"), *(source["root"] for source in setting("data.sources", ()))]
        facts["data set"] = f"{' and '.join(map(str, roots))}: {len(names)} classes; images: {images}"
    except GssError:
        pass
    facts |= results.recipe.part("report").facts(results)
    for protocol in list({protocol_line(found): None for found in results.evaluations.values()})[:2]:
        facts["protocol" if "protocol" not in facts else "protocol, other split"] = protocol
    return facts


def training_line(results: Results, key: str, *, what: str, steps: int) -> str:
    """What was trained on what, in one line.

    Args:
        key: dotted, of the section of the training.
        what: name of the network. steps: updates.
    """
    setting = results.setting
    training = setting(key, {})
    crop = " × ".join(map(str, setting("augment.crop", ())))
    batch, lr, precision = (training.get(name, "?") for name in ("batch_size", "lr", "precision"))
    return (
        f"{what}, {steps} steps of {batch} images of train, crops {crop}, lr {lr}, {precision}, seed {setting('seed')}"
    )


def protocol_line(found: Evaluation) -> str:
    """How an evaluation was made, in one line."""
    protocol = found.metrics["protocol"]
    fitted, scales = protocol["sizes"].get("fit_into"), protocol["sizes"].get("scales", [1.0])
    size = f"fitted into {fitted[0]} × {fitted[1]}" if fitted else "own size"
    if sizes := protocol.get("base_sizes"):
        size = f"shorter side at the best of {', '.join(map(str, sizes))} ({found.metrics['base_size']})"
    crop, step = (" × ".join(map(str, protocol[key] or ())) for key in ("crop", "stride"))
    parts = [
        "whole image" if protocol["mode"] == "whole" else f"windows of {crop}, step {step}",
        size,
        "single scale" if len(scales) == 1 else f"scales {', '.join(map(str, scales))}",
        "with flip" if protocol["flip"] else "no flip",
        "scored at the size of the label",
        f"numerics {protocol.get('numerics', 'default')}",
    ]
    return ", ".join(parts)


def per_class(results: Results) -> list[dict[str, Any]]:
    """One table per split.

    Raises:
        GssError: nothing was evaluated.
    """
    require_evaluations(results)
    return [_class_table(results, split) for split in results.splits]


def _class_table(results: Results, split: str) -> dict[str, Any]:
    found = {model: evaluation.scores for model, evaluation in results.of_split(split).items()}
    any_model = next(iter(results.of_split(split).values()))
    names = list(any_model.metrics["IoU"])
    ceiling = (_ceiling(results, split) or {}).get("IoU", {})
    pixels = next(iter(found.values())).pixels
    total = sum(pixels) or 1
    colours = class_colours(results, len(names))
    rows = [
        {
            "index": index,
            "name": name,
            "colour": colours[index],
            "pixels": pixels[index],
            "share": pixels[index] / total,
            "iou": {model: of.iou[index] for model, of in found.items()},
            "acc": {model: of.acc[index] for model, of in found.items()},
            "precision": {model: of.precision[index] for model, of in found.items()},
            "difference": _difference(list(found.values()), index),
            "ceiling": ceiling.get(name),
        }
        for index, name in enumerate(names)
    ]
    met = [row for row in rows if any(iou is not None for iou in row["iou"].values())]
    largest = max([abs(row["difference"]) for row in met if row["difference"] is not None], default=0) or 1
    return {
        "split": split,
        "models": {model: results.models[model].removeprefix("GSS-") for model in found},
        "rows": met,
        "unmet": len(rows) - len(met),
        "ceiling": bool(ceiling),
        "largest": largest,
    }


def _difference(found: Sequence[Scores], index: int) -> float | None:
    """IoU of the last model minus that of the first, where both have one."""
    first, last = found[0].iou[index], found[-1].iou[index]
    return None if first is None or last is None else last - first


def _ceiling(results: Results, split: str) -> dict[str, Any] | None:
    """Figures that no model of the recipe can exceed, where they were measured."""
    return results.recipe.part("report").ceiling(results, split)


def class_colours(results: Results, count: int) -> Sequence[str | None]:
    """CSS colours of the classes, None where neither data set nor palette is at hand."""
    try:
        return [css(colour) for colour in results.colours[1]]
    except GssError:
        return [None] * count


def confusion(results: Results) -> dict[str, Any]:
    """A matrix and the main confusions of every evaluation.

    Raises:
        GssError: nothing was evaluated, or counts cannot be read.
    """
    require_evaluations(results)
    some = next(iter(results.evaluations.values()))
    names = list(some.metrics["IoU"])
    matrices = [_matrix(results, evaluation, names) for evaluation in reversed(results.evaluations.values())]
    matrices.sort(key=lambda matrix: results.splits.index(matrix["split"]))
    return {"names": names, "matrices": matrices}


def _matrix(results: Results, found: Evaluation, names: list[str]) -> dict[str, Any]:
    counts = found.counts["confusion"]
    labelled, predicted = counts.sum(1), counts.sum(0)
    wrong = counts - np.diag(np.diag(counts))
    rows = []
    for index, name in enumerate(names):
        rows.append(
            {
                "name": name,
                "share": labelled[index] / max(labelled.sum(), 1),
                "right": counts[index, index] / labelled[index] if labelled[index] else None,
                "goes": _largest(wrong[index], labelled[index], names),
                "comes": _largest(wrong[:, index], predicted[index], names),
            }
        )
    return {
        "model": found.model,
        "title": results.models[found.model],
        "split": found.split,
        "rows": rows,
        "counts": packed(counts.astype("<f8")),  # JavaScript has no 64-bit integers in all browsers; exact to 2^53
    }


def _largest(counts: np.ndarray, whole: int, names: list[str]) -> list[dict[str, Any]]:
    order = np.argsort(-counts, kind="stable")[:DESTINATIONS]
    return [{"name": names[i], "share": counts[i] / whole, "pixels": int(counts[i])} for i in order if counts[i]]


def packed(array: np.ndarray) -> str:
    """The bytes of an array, compressed, as text: `unpack` of report.js reads it."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
