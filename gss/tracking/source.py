"""What MLflow itself notes of a run, made of what a journal says: source, user, commit, data set."""

import json
import re
from collections.abc import Mapping
from typing import Any

PACKAGES = "packages"  # the tag of a journal that becomes a file of the run
_MANIFEST = re.compile(r"input data/(?:sets/(?P<set>[^/]+)/)?manifest\.json")
_LONGEST_DIGEST = 36  # MLflow's


def source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags behind MLflow's columns Source and User and its Git commit; what is not known is left out."""
    command = " ".join(tags.get("command", "").split()[:2])
    found = {
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL" if command else "",
        "mlflow.source.git.commit": tags.get("git_commit", ""),
        "mlflow.user": tags.get("user", ""),
    }
    return {name: value for name, value in found.items() if value}


def dataset_inputs(dataset: str, stage: str, tags: Mapping[str, str]) -> list[Any]:
    """The data sets that a stage has read, by the hash of their manifests, as MLflow's column Dataset shows them.

    Args:
        dataset: name of that of the experiment.
        stage: `evaluate_...`, or another one.
        tags: of its journal: the hashes of its inputs, and where the data lie.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = "evaluation" if stage.startswith("evaluate_") else "training"
    return [
        DatasetInput(
            Dataset(
                name=found["set"] or dataset,
                digest=digest[:_LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": tags.get("data", dataset)}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for name, digest in tags.items()
        if (found := _MANIFEST.fullmatch(name))
    ]
