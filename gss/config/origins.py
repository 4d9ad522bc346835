"""Where every value of a configuration comes from."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gss.config.experiment import Experiment
from gss.config.load import experiment_path, lineage
from gss.config.names import seed_parts

DEFAULT, COMMAND_LINE, REFERENCE = "default", "command line", "reference"


def origins(name: str | Path, overrides: Iterable[str], experiment: Experiment) -> dict[str, str]:
    """The origin of each value by its dotted key: `default`, `command line`, `reference`, or file and line.

    Args:
        name, overrides: as given to `load_experiment`.
        experiment: what it returned.
    """
    lines: dict[tuple[str, ...], str] = {}
    for path in lineage(experiment_path(name)):
        for key, line, is_null in _lines(yaml.compose(path.read_text(encoding="utf-8")), ()):
            if is_null:  # what a base says below it is left out
                lines = {known: place for known, place in lines.items() if known[: len(key)] != key}
            lines[key] = f"{path}:{line}"
    if seed_parts(str(name))[1] is not None:
        lines["seed",] = lines["seeds",]
    given = [tuple(override.partition("=")[0].split(".")) for override in overrides]
    replaced = {key for key, _ in leaves(experiment.reference)} if experiment.numerics == "reference" else set()

    def origin(key: tuple[str, ...]) -> str:
        # A value may have been given as a whole (`crop`), or with its section (`data.splits`).
        parents = [key[:length] for length in range(len(key), 0, -1)]
        if any(parent in given for parent in parents):
            return COMMAND_LINE
        if any(parent in replaced for parent in parents):
            return REFERENCE
        return lines.get(key, DEFAULT)

    return {".".join(key): origin(key) for key, _ in leaves(experiment.model_dump(mode="json"))}


def leaves(content: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with its path of keys; a list and an empty mapping are values."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, str(name)))
        else:
            yield (*above, str(name)), value


def _lines(node: yaml.Node | None, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int, bool]]:
    """Paths of keys, their lines, counted from 1, and whether they are null; what a mapping merges (`<<`) comes first,
    as it yields."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in sorted(node.value, key=lambda pair: pair[0].value != "<<"):
        if key.value == "<<":
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _lines(merged, above)
        else:
            yield (*above, key.value), key.start_mark.line + 1, value.tag == "tag:yaml.org,2002:null"
            yield from _lines(value, (*above, key.value))
