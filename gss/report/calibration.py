"""The section of the report about probabilities: is a model as often right as it is confident?"""

from typing import Any

import numpy as np

from gss.data.metrics import divide
from gss.errors import GssError
from gss.files import read_table
from gss.report.scores import class_colours, require_evaluations
from gss.results.reader import Evaluation, Results


def calibration(results: Results) -> list[dict[str, Any]]:
    """A reliability diagram and the classes of every evaluation that counted probabilities.

    Raises:
        GssError: none did, or a table cannot be read.
    """
    require_evaluations(results)
    measured = [found for found in results.evaluations.values() if "ECE" in found.metrics]
    if not measured:
        files = " ".join(f"{found.folder}/metrics.json" for found in results.evaluations.values())
        raise GssError(
            "the models were measured before their probabilities were counted", todo=f"snakemake -R evaluate -- {files}"
        )
    return [_evaluation(results, found) for found in measured]


def _evaluation(results: Results, found: Evaluation) -> dict[str, Any]:
    table = read_table(found.folder / "reliability.csv")
    names = list(found.metrics["class_ECE"])
    colours = class_colours(results, len(names))
    columns = [table[key].to_numpy(float).reshape(len(names), -1) for key in ("pixels", "right", "confidence")]
    pixels, right, confidence = (column.sum(0) for column in columns)
    shares, accuracy, mean = pixels / (pixels.sum() or 1), divide(right, pixels), divide(confidence, pixels)
    of_class = [column.sum(1) for column in columns]
    return {
        "title": f"{results.models[found.model]}, {found.split}",
        "ECE": found.metrics["ECE"],
        "tenth": found.metrics["errors_in_most_uncertain_tenth"],
        "confidence": _known(divide(confidence.sum(), pixels.sum())),
        "accuracy": found.metrics["aAcc"],
        "bins": [
            {
                "share": share,
                "accuracy": _known(was_right),
                "confidence": _known(was_sure),
            }
            for share, was_right, was_sure in zip(shares, accuracy, mean, strict=True)
        ],
        "rows": [
            {
                "name": name,
                "colour": colours[index],
                "pixels": int(of_class[0][index]),
                "confidence": _known(divide(of_class[2], of_class[0])[index]),
                "precision": _known(divide(of_class[1], of_class[0])[index]),
                "ECE": found.metrics["class_ECE"][name],
            }
            for index, name in enumerate(names)
        ],
    }


def _known(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
