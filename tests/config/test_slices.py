"""Results made before stay finished: what each stage of the shipped experiments depends on is what it was.

`python tests/config/test_slices.py` writes down what is there, after versions were raised or experiments were added.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from gss.config import list_experiments, load_experiment, runs_of
from gss.errors import ConfigError

WRITTEN = Path(__file__).with_name("slices.json")
READINGS = {"default": (), "reference": ("numerics=reference",)}


def found(name: str) -> dict[str, Any]:
    """The slices of an experiment (of one with several seeds, of the first), by reading and stage, and the hash of
    them all."""
    slices = {}
    for reading, overrides in READINGS.items():
        try:
            experiment = load_experiment(runs_of(name)[0], overrides)
        except ConfigError:  # trains in bf16
            continue
        stages = {stage: experiment.slice(stage) for stage in (row.name for row in experiment.kind.stages)}
        slices[reading] = {**stages, "sha256": experiment.sha256}
    return slices


@pytest.mark.parametrize("name", json.loads(WRITTEN.read_text()))
def test_stages_depend_on_what_they_did(name: str) -> None:
    written = json.loads(WRITTEN.read_text())[name]
    assert json.loads(json.dumps(found(name))) == written


def test_every_shipped_experiment_is_written_down() -> None:
    assert list(json.loads(WRITTEN.read_text())) == list_experiments()


if __name__ == "__main__":
    content = {name: found(name) for name in list_experiments()}
    WRITTEN.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
