"""A changed default changes results without a word of the configuration: the stages that read it get a new version.

`python tests/config/test_versions.py` writes down what is there, after versions were raised or keys were added.
"""

import json
from pathlib import Path
from typing import Any

from gss.config import Recipe, Stage, recipes, reference

WRITTEN = Path(__file__).with_name("defaults.json")


def found() -> dict[str, Any]:
    """By recipe and stage: the versions, and the defaults of the keys each one reads."""
    return {recipe.name: {stage.name: _stage(recipe, stage) for stage in recipe.stages} for recipe in recipes()}


def _stage(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    defaults = {
        key: default
        for key, _, default, _ in reference(recipe.experiment)
        if any(key == read or key.startswith(f"{read}.") for read in stage.reads)
    }
    return {"version": stage.version, "defaults": defaults}


def test_changed_defaults_raise_the_versions_of_their_stages() -> None:
    written, now = json.loads(WRITTEN.read_text()), found()
    pairs = [(recipe, stage) for recipe in written for stage in written[recipe]]
    for recipe, stage in pairs:
        then, today = written[recipe][stage], now[recipe][stage]
        both = then["defaults"].keys() & today["defaults"].keys()
        changed = [key for key in both if then["defaults"][key] != today["defaults"][key]]
        if today["version"] == then["version"]:
            assert not changed, f"raise the version of {recipe}'s stage {stage}: other defaults of {', '.join(changed)}"
    assert written == now, f"when versions are right, write down what is there: python {__file__}"


if __name__ == "__main__":
    WRITTEN.write_text(json.dumps(found(), indent=1) + "\n")
