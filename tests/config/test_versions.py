"""A changed default changes results without a word of the configuration: the stages that read it get a new version.

`python tests/config/test_versions.py` writes down what is there, after versions were raised or keys were added.
"""

import json
from pathlib import Path
from typing import Any

from gss.config import READS, STAGE_VERSIONS, STAGES, reference

WRITTEN = Path(__file__).with_name("defaults.json")


def found() -> dict[str, Any]:
    """The versions of the stages, and the defaults of the keys each one reads."""
    defaults = {key: default for key, _, default, _ in reference()}
    return {
        stage: {
            "version": STAGE_VERSIONS[stage],
            "defaults": {
                key: default
                for key, default in defaults.items()
                if any(key == read or key.startswith(f"{read}.") for read in READS[stage])
            },
        }
        for stage in STAGES
    }


def test_changed_defaults_raise_the_versions_of_their_stages() -> None:
    written, now = json.loads(WRITTEN.read_text()), found()
    for stage, (then, today) in {stage: (written[stage], now[stage]) for stage in STAGES}.items():
        both = then["defaults"].keys() & today["defaults"].keys()
        changed = [key for key in both if then["defaults"][key] != today["defaults"][key]]
        if today["version"] == then["version"]:
            assert not changed, f"raise STAGE_VERSIONS[{stage!r}]: other defaults of {', '.join(changed)}"
    assert written == now, f"when versions are right, write down what is there: python {__file__}"


if __name__ == "__main__":
    WRITTEN.write_text(json.dumps(found(), indent=1) + "\n")
