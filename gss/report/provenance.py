"""The section of the report that leads from a number back to the data: who made what, from what, and is it still so."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.layout import MANIFEST
from gss.results.reader import Results
from gss.results.records import of_split

VERSIONS = ("gss", "git", "python", "torch", "timm", "numpy", "opencv-python-headless", "host", "command")


@dataclass(frozen=True)
class Record:
    """What a stage noted about one of its runs: inputs with their SHA-256, versions, command.

    Args:
        when: local time of its begin, empty where it is not known.
        source: where the note stands.
    """

    stage: str
    inputs: dict[str, str]
    environment: dict[str, str]
    when: str
    source: str


def provenance(results: Results) -> dict[str, Any]:
    """Stages with their inputs and versions, and files with their hashes of then and now."""
    records = _records(results)
    today = {file: results.sha256(file) for _, file in _files(results)}
    with contextlib.suppress(GssError):
        manifest = results.manifest
        today |= {of_split(split): manifest.split_sha256(split) for split in manifest.splits}
    seen = _seen(results, records, today)
    return {
        "stages": [
            {**vars(record), "inputs": [_input(name, sha, today) for name, sha in record.inputs.items()]}
            for record in records.values()
        ],
        "files": [
            _file(file, _maker(file, stage, records), today[file], seen.get(file, {}))
            for stage, file in _files(results)
        ],
        "passed_on": [file for _, file in _files(results) if not file.endswith(("metrics.json", "statistics.json"))],
        "versions": VERSIONS,
        "common": {
            key: next(iter(values))
            for key in VERSIONS
            if len(values := {record.environment.get(key, "") for record in records.values()}) == 1
        },
        "config_sha256": config_sha256(results),
        "journals": bool(results.journals),
    }


def config_sha256(results: Results) -> str:
    """Hash of all settings that can change a result, of the last stage that noted it; empty where none did."""
    noted = [events[0].get("config_sha256") for events in results.journals.values()]
    noted += [metadata.get("provenance", metadata).get("config_sha256") for metadata in results.model_metadata.values()]
    return next((digest for digest in reversed(noted) if digest), "")


def _files(results: Results) -> Iterator[tuple[str, str]]:
    for stage in results.recipe.stages:
        for pattern in stage.makes:
            for path in sorted(results.folder.glob(pattern)):
                yield stage.name, str(path.relative_to(results.folder))


def _records(results: Results) -> dict[str, Record]:
    """By name of the work folder, in order of time; of deleted journals, what the files themselves say."""
    records = {stage: _from_journal(stage, events) for stage, events in results.journals.items()}
    for file, metadata in results.model_metadata.items():
        note = metadata.get("provenance", metadata)
        stage = note.get("stage")
        if stage and not any(name.startswith(stage) for name in records):
            records[stage] = Record(stage, note.get("inputs", {}), note.get("environment", {}), "", file)
    return records


def _from_journal(stage: str, events: list[dict[str, Any]]) -> Record:
    tags = {name: value for event in events for name, value in event.get("tags", {}).items()}
    inputs = {name.removeprefix("input "): value for name, value in tags.items() if name.startswith("input ")}
    environment = {name: str(tags[name]) for name in VERSIONS if name in tags}
    when = datetime.fromtimestamp(events[1]["t"] / 1000).strftime("%Y-%m-%d %H:%M")
    return Record(stage, inputs, environment, when, f"work/{stage}/journal.jsonl")


def _seen(results: Results, records: dict[str, Record], today: dict[str, str]) -> dict[str, dict[str, list[str]]]:
    """File -> SHA-256 -> who found it so; who found a split as it is today found the file so."""
    found: dict[str, dict[str, list[str]]] = {}

    def note(file: str, digest: str, who: str) -> None:
        readers = found.setdefault(file, {}).setdefault(digest, [])
        if who not in readers:
            readers.append(who)

    for name, record in records.items():
        for named, digest in record.inputs.items():
            file, _, split = named.partition("#")
            note(file, today[file] if split and today.get(named) == digest else digest, name)
    for (model, split), evaluation in results.evaluations.items():
        note(f"{model}.pth", evaluation.metrics["model"]["sha256"], f"evaluate_{model}_{split}")
        is_same = split in results.manifest.splits and results.is_of_today(evaluation)
        digest = today[MANIFEST] if is_same else evaluation.metrics["data"]["manifest_sha256"]
        note(MANIFEST, digest, f"evaluate_{model}_{split}")
    return found


def _maker(file: str, stage: str, records: dict[str, Record]) -> str:
    """The stage that made a file: an import where there was one."""
    imported = f"import_{Path(file).stem}"
    if imported in records:
        return imported
    return "evaluate_" + "_".join(Path(file).parts[1:3]) if stage == "evaluate" else stage


def _file(file: str, stage: str, now: str, seen: dict[str, list[str]]) -> dict[str, Any]:
    changed = [(digest, who) for digest, who in seen.items() if digest != now]
    return {
        "file": file,
        "stage": stage,
        "sha256": now,
        "seen_by": seen.get(now, []),
        "changed": changed,
        "state": "changed" if changed else "agrees" if seen else "not recorded",
    }


def _input(name: str, digest: str, today: dict[str, str]) -> dict[str, Any]:
    state = "" if name not in today else "agrees" if today[name] == digest else "changed"
    return {"name": name, "sha256": digest, "state": state}
