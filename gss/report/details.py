"""Sections of the report about what the figures rest on: data, palette, configuration, time."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gss.config import leaves, reference
from gss.errors import GssError
from gss.files import read_json, read_table
from gss.layout import FAULTS, STATISTICS
from gss.progress import clock
from gss.report.scores import class_colours
from gss.results.reader import Results
from gss.results.records import read_record
from gss.text import css

if TYPE_CHECKING:
    from pandas import DataFrame

SIZES = 4  # image sizes named per split


def data(results: Results) -> dict[str, Any]:
    """What the check counted, per split and class.

    Raises:
        GssError: the check's file is missing or damaged, or it refused the data set.
    """
    refused = results.folder / FAULTS
    if refused.is_file():
        raise GssError("the check refused the data set", where=refused, todo="mend the faults this file lists")
    statistics = read_json(results.folder / STATISTICS)
    return counted(statistics, class_colours(results, len(next(iter(statistics["splits"].values()))["classes"])))


def counted(statistics: Mapping[str, Any], colours: Sequence[str | None]) -> dict[str, Any]:
    """What the check counted, as pages and the terminal show it.

    Args:
        statistics: content of `data/statistics.json`.
        colours: of the classes, as CSS.
    """
    splits = statistics["splits"]
    names = [row["name"] for row in next(iter(splits.values()))["classes"]]
    classes = []
    for index, name in enumerate(names):
        of = {split: found["classes"][index] for split, found in splits.items()}
        shares = {split: row["pixels"] / max(_labelled(splits[split]), 1) for split, row in of.items()}
        classes.append({"index": index, "name": name, "colour": colours[index], "of": of, "share": shares})
    largest = max([share for row in classes for share in row["share"].values()], default=0) or 1
    return {
        "splits": [_split(name, found) for name, found in splits.items()],
        "names": list(splits),
        "classes": classes,
        "largest": largest,
        "becomes": [_becomes(root, rows) for root, rows in statistics.get("becomes", {}).items()],
        "warnings": statistics.get("warnings", []),
    }


def _becomes(root: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of the classes that the labels of a source hold, those with the most pixels first."""
    total = max(sum(row["pixels"] for row in rows), 1)
    shown = [
        {**row, "share": row["pixels"] / total, "colours": [css(colour[:3]) for colour in row.get("colours", ())]}
        for row in sorted(rows, key=lambda row: -row["pixels"])
    ]
    return {"root": root, "rows": shown, "ignored": sum(row["share"] for row in shown if row["becomes"] is None)}


def _labelled(found: dict[str, Any]) -> int:
    return found["pixels"] - found["ignored_pixels"]


def _split(name: str, found: dict[str, Any]) -> dict[str, Any]:
    sizes = sorted(found["sizes"].items(), key=lambda item: -item[1])
    return {
        "name": name,
        "images": found["images"],
        "pixels": found["pixels"],
        "ignored": found["ignored_pixels"] / max(found["pixels"], 1),
        "ignored_pixels": found["ignored_pixels"],
        "sizes": [(size.replace("x", " × "), count) for size, count in sizes[:SIZES]],
        "more_sizes": max(0, len(sizes) - SIZES),
        "unknown": found["unknown_ids"],
    }


def configuration(results: Results) -> dict[str, Any]:
    """Every value with its default, its origin, and whether it was changed.

    Raises:
        GssError: no configuration is kept.
    """
    known = {key: (default, text) for key, _, default, text in reference(results.recipe.experiment)}
    origins = results.origins or {}
    rows = []
    for path, value in leaves(results.config):
        key = ".".join(path)
        default, text = known.get(key, known.get(_pattern(key), ("", "")))
        shown = _plain(value)
        changed = _normal(default) != _normal(shown)
        rows.append(
            {
                "key": key,
                "value": shown,
                "default": default,
                "text": text,
                "changed": changed,
                "origin": origins.get(key) or ("experiment file or command line" if changed else "default"),
            }
        )
    return {"rows": rows, "changed": sum(row["changed"] for row in rows), "recorded": results.origins is not None}


def _pattern(key: str) -> str:
    """`data.splits.val.images` -> `data.splits.NAME.images`, as the reference names it."""
    parts = key.split(".")
    return ".".join(
        "NAME" if parts[:place] in (["data", "splits"], ["run", "resources"]) else part
        for place, part in enumerate(parts)
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _normal(text: str) -> str:
    return "" if text in ("{}", "[]", "required", "''") else text.replace(" ", "")


def cost(results: Results) -> dict[str, Any]:
    """Time and memory of each job, and the GPU-hours it held.

    Raises:
        GssError: no benchmark file is there.
    """
    files = list((results.folder / "benchmarks").glob("*.tsv"))
    if not files:
        raise GssError(
            "no times are recorded",
            where=results.folder / "benchmarks",
            todo="Snakemake writes them; stages started by hand (`gss VERB`) have none",
        )
    files.sort(key=lambda path: (_place(results, path.stem), path.stem))
    jobs = [_job(results, path.stem, read_table(path, separator="\t")) for path in files]
    total = {key: sum(job[key] or 0 for job in jobs) for key in ("wall", "cpu", "gpu_hours")}
    return {
        "jobs": jobs,
        "total": {**total, "memory": max((job["memory"] or 0 for job in jobs), default=0)},
        "longest": max((job["wall"] for job in jobs), default=0) or 1,
        "clock": clock,
    }


def _job(results: Results, name: str, table: "DataFrame") -> dict[str, Any]:
    """One benchmark file; its rows are repetitions, with `NA` or `-` where a job was too short to look at."""
    import pandas as pd

    stage = stage_of(results, name)
    gpus = _gpus(results, name, stage)
    measured = table.reindex(columns=["s", "cpu_time", "max_rss"]).apply(pd.to_numeric, errors="coerce")
    cpu, memory = measured["cpu_time"].sum(min_count=1), measured["max_rss"].max()
    wall = float(measured["s"].sum())
    events = results.journals.get(name, [])
    return {
        "name": name,
        "wall": wall,
        "cpu": None if pd.isna(cpu) else float(cpu),
        "memory": None if pd.isna(memory) else float(memory),
        "gpus": gpus,
        "gpu_hours": gpus * wall / 3600,
        "stopped": sum(event.get("end") in ("interrupted", "failed") for event in events),
    }


def _gpus(results: Results, name: str, stage: str | None) -> int:
    """How many a job used by its record; without one, how many its stage asked for."""
    machine = (read_record(results.folder, name) or {}).get("machine")
    if machine is not None:
        return 0 if machine["device"] == "cpu" else machine["processes"]
    asked = results.setting(f"run.resources.{stage}", {})
    gpus = asked.get("gpus", 0)
    return 0 if gpus == "auto" else gpus * asked.get("nodes", 1)


def stage_of(results: Results, name: str) -> str | None:
    """The stage of a benchmark, log or work folder: `evaluate_gss_ff_val` -> `evaluate`."""
    stages = [stage.name for stage in results.recipe.stages]
    return next((stage for stage in sorted(stages, key=len, reverse=True) if name.startswith(stage)), None)


def _place(results: Results, name: str) -> int:
    stages = [stage.name for stage in results.recipe.stages]
    stage = stage_of(results, name)
    return len(stages) if stage is None else stages.index(stage)
