"""What results were made with: each stage leaves a record when it has ended well.

What a page, a run in MLflow or Snakemake says of results comes from these records and from the model files, never from
the configuration of today: that one may have been edited since.
"""

import contextlib
import copy
import itertools
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gss.config import Experiment, Stage, experiment_class, find_recipe
from gss.errors import ConfigError, GssError
from gss.filekind import sight
from gss.files import read_json, write_json
from gss.layout import MANIFEST, WORK


class Made(NamedTuple):
    """A configuration whose values are those that results were made with.

    Args:
        config: every value, as `Experiment.model_dump(mode="json")` gives it.
        origins: where each comes from, by its dotted key.
    """

    config: dict[str, Any]
    origins: dict[str, str]


def of_split(split: str) -> str:
    """What inputs call the rows of a split in the manifest."""
    return f"{MANIFEST}#{split}"


def record_file(folder: Path, name: str) -> Path:
    """Where a rule's record lies.

    Args:
        folder: `results/<experiment>`.
        name: of the rule's log and benchmark, such as `latent_prior` or `evaluate_gss_ff_test`.
    """
    return folder / "records" / f"{name}.json"


def write_record(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Write what `gss.stages.run.Run.stage` says of a stage: `settings`, `inputs`, `config`, `environment` and more."""
    write_json(record_file(folder, name), {"version": 1, **record})


def read_record(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a rule; None where there is none that can be read."""
    with contextlib.suppress(GssError):
        record = read_json(record_file(folder, name))
        if isinstance(record, dict) and isinstance(record.get("settings"), dict):
            return record
    return None


def made_by(folder: Path, name: str) -> dict[str, Any] | None:
    """`settings` and `inputs` of what a rule made: of its record or, of results older than records, of its work."""
    if record := read_record(folder, name):
        return record
    work = re.sub(r"_\d+$", "", name)  # segments share one
    with contextlib.suppress(GssError, OSError, ValueError, KeyError, TypeError, IndexError):
        found = read_json(folder / WORK / work / "fingerprint.json")
        *_, last = (folder / WORK / work / "journal.jsonl").read_bytes().splitlines()
        # One that was begun anew says nothing of what is there; the settings of an import are not those of the rule.
        if json.loads(last).get("end") == "finished" and found["stage"] != "import":
            return {"settings": found["config"], "inputs": found["inputs"]}
    return None


def as_made(folder: Path, now: Made, *, before: str | None = None) -> Made:
    """A configuration with the values that what lies in a results folder was made with.

    Args:
        now: for what was not made yet, or says nothing of itself.
        before: look at what the stages before this one made; None: at everything.
    """
    made = copy.deepcopy(now)
    stages = find_recipe(now.config.get("recipe", "gss")).stages
    earlier = list(itertools.takewhile(lambda stage: stage.name != before, stages))
    # Of keys that several stages read (seed, crop, precision), the values of what was trained first are shown.
    trained = [stage for stage in earlier if stage.trains]
    for stage in [stage for stage in earlier if not stage.trains] + trained[::-1]:
        for record in _records(folder, stage):
            for key in stage.reads:
                kept = [name for name in stage.unread if name.startswith(f"{key}.")]
                _take(made, record, tuple(key.split(".")), kept)
    return made


def made_sha256(made: Made, default: Experiment) -> str:
    """Hash of everything in a configuration that can change a result; the default's where it is not of this version."""
    with contextlib.suppress(ValueError, ConfigError):  # pydantic's ValidationError is a ValueError
        return experiment_class(made.config).model_validate(made.config).sha256
    return default.sha256


def _records(folder: Path, stage: Stage) -> Iterator[Mapping[str, Any]]:
    """What is known of a stage's results: of models, what the file says of itself."""
    if stage.trains and stage.model:
        found = model_metadata(folder / stage.model).get("provenance") or read_record(folder, stage.name)
        yield from [found] if found else []
        return
    for path in sorted((folder / "records").glob(f"{stage.name}*.json")):
        if record := read_record(folder, path.stem):
            yield record


def _take(made: Made, record: Mapping[str, Any], key: tuple[str, ...], kept: Sequence[str] = ()) -> None:
    """Put the record's value, or section, in the place of today's, but for values of the section that are kept."""
    value: Any = record.get("config")
    target: Any = made.config
    try:
        for part in key:
            value = value[part]
        for part in key[:-1]:
            target = target[part]
    except (KeyError, TypeError):  # made by a version that had no such key
        return
    inside = ".".join(key)
    names = [name.removeprefix(f"{inside}.") for name in kept]
    own = {name: target[key[-1]][name] for name in names if name in target[key[-1]]}
    target[key[-1]] = {**copy.deepcopy(value), **own} if kept else copy.deepcopy(value)

    def is_taken(name: str) -> bool:
        return _is_in(name, inside) and not any(_is_in(name, other) for other in kept)

    for name in filter(is_taken, list(made.origins)):
        del made.origins[name]
    made.origins.update({name: origin for name, origin in record.get("origins", {}).items() if is_taken(name)})


def _is_in(name: str, section: str) -> bool:
    return name == section or name.startswith(f"{section}.")


def model_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a model file, without loading its tensors and without torch; empty when it is none of ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            content = sight(archive.read(name))
        return dict(content["meta"])
    except Exception:  # a damaged file raises what happens to happen
        return {}
