"""The section of the report about test sets with classes of their own."""

from typing import Any

from gss.errors import GssError
from gss.layout import SUMMARY
from gss.results.reader import Evaluation, Results
from gss.text import css


def sets(results: Results) -> dict[str, Any]:
    """The figures of all models on all sets, and a table of the classes of each set.

    Raises:
        GssError: nothing was measured.
    """
    if not results.sets:
        files = " ".join(f"{results.folder}/{SUMMARY.replace('*', model)}" for model in results.models)
        raise GssError("not measured yet", where=results.folder, todo=f"snakemake {files}")
    names = list(dict.fromkeys(name for _, name in results.sets))
    of = {
        name: {model: found for model in results.models if (found := results.sets.get((model, name)))} for name in names
    }
    return {
        "models": {model: results.models[model] for model in dict.fromkeys(model for model, _ in results.sets)},
        "rows": [
            {
                "name": name,
                "metrics": {model: found.metrics for model, found in of[name].items()},
                "oracle": oracle_of(results, name),
            }
            for name in names
        ],
        "base_sizes": any("base_sizes" in found.metrics for found in results.sets.values()),
        "h_mean": results.summaries,
        "tables": [_table(results, name, of[name]) for name in names],
    }


def oracle_of(results: Results, name: str) -> dict[str, Any] | None:
    """What a network trained on a set's own data reaches there, see `gss.results.oracle`, if a summary says it."""
    said = (summary["sets"].get(name, {}).get("oracle") for summary in results.summaries.values())
    return next(filter(None, said), None)


def _table(results: Results, name: str, of: dict[str, Evaluation]) -> dict[str, Any]:
    """A row for each class of a set: which classes of the model become it, pixels, and what each model has of it."""
    found = {model: evaluation.scores for model, evaluation in of.items()}
    first = next(iter(of.values())).metrics
    mapping, pixels = first["protocol"]["mapping"], next(iter(found.values())).pixels
    try:
        colours: list[str | None] = [css(colour) for colour in results.colours_of(name)]
    except GssError:  # the set was taken out of the data folder of these results
        colours = [None] * len(pixels)
    rows = [
        {
            "name": each,
            "colour": colours[index],
            "sources": [source for source, target in mapping.items() if target == each],
            "pixels": pixels[index],
            "share": pixels[index] / (sum(pixels) or 1),
            "iou": {model: scores.iou[index] for model, scores in found.items()},
            "acc": {model: scores.acc[index] for model, scores in found.items()},
        }
        for index, each in enumerate(first["IoU"])
    ]
    without = [source for source, target in mapping.items() if target is None]
    return {
        "name": name,
        "rows": rows,
        "without": without,
        "counted": first["protocol"].get("counted"),
        "relabelled": first["protocol"].get("relabelled", False),
        "images": first["images"],
        "trained_on": first.get("trained_on", []),
    }
