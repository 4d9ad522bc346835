"""What `gss benchmark` does: measurements one after the other, then a table, a JSON file and a picture."""

import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gss.benchmark import measure
from gss.benchmark.stopwatch import Section
from gss.benchmark.table import table
from gss.data.classes import ClassSpace
from gss.data.manifest import Manifest, Rows, Source
from gss.errors import GssError
from gss.evaluate.plots import stage_times
from gss.files import write_json
from gss.layout import MANIFEST
from gss.stages.memory import less_memory
from gss.stages.run import Run, environment

IMAGES = 32
_MADE_UP = 8  # pairs per split
_NOISE = 3  # standard deviation: 120 KB for a pair of 683 x 512, as ADE20K has them


def benchmark(run: Run, images: int = IMAGES, output: Path | None = None) -> str:
    """Measure an experiment on this machine and write JSON and, beside it, a PNG.

    Args:
        images: at least so many are measured for each row, after a warm-up.
        output: the JSON file; default: `benchmarks/speed.json` in the results folder.

    Returns:
        the table for the terminal.

    Raises:
        GssError: something does not fit into memory, or nothing is trained.
    """
    if not run.experiment.trainings:
        raise GssError(f"recipe {run.experiment.recipe!r} trains no network: there is nothing to measure")
    output = output or run.folder / "benchmarks" / "speed.json"
    with tempfile.TemporaryDirectory() as folder:
        described = _prepare_images(run, Path(folder))
        content = _measure(run, images)
    content["images"] = described
    write_json(output, content)
    picture = output.with_suffix(".png")
    stage_times(picture, {section["title"]: section["rows"] for section in content["sections"]})
    return f"{table(content)}\n\nwrote {output} and {picture}"


class NoRoom(GssError):
    """Something does not fit into the memory of this machine."""


def laps(run: Run, threads: int) -> dict[str, float]:
    """Seconds for a step of each training, loading included, a label of a reconstruction, an image of each evaluation,
    the medians of some; and for the start of a process (`start`); all with random weights.

    Args:
        run: with a manifest.
        threads: cores that each is computed with.

    Returns:
        By name of the stage, of an evaluation `evaluate MODEL`.

    Raises:
        NoRoom: something does not fit into memory.
    """
    recipe, config = run.experiment.kind, run.experiment
    began = time.perf_counter()
    _child("start", "", measure.hardware)
    found = {"start": time.perf_counter() - began}

    def lap(title: str, stage: str, measurement: Callable[..., Section], *arguments: Any, **options: Any) -> None:
        section = _child(
            title, less_memory(config, stage), measure.threaded, threads, measurement, run, *arguments, **options
        )
        found[title] = section.rows(title, defaultdict(lambda: 1.0))[0]["seconds"]

    for title, stage, measurement, _ in recipe.part("benchmark").sections(config):
        lap(title, stage, measurement, measure.LEAST_LAPS)
    for stage in config.trainings:
        lap(stage, stage, measure.training, stage, measure.LEAST_LAPS, with_loading=True)
    for model in recipe.models:
        lap(f"evaluate {model}", "evaluate", measure.evaluation, model, measure.LEAST_LAPS)
    return found


def _measure(run: Run, images: int) -> dict[str, Any]:
    load = os.getloadavg()[0]
    config = run.experiment
    recipe = config.kind
    told = recipe.part("benchmark")
    first = next(iter(config.trainings))
    hardware = _child("hardware", "", measure.hardware)
    peaks: dict[str, float] = {}

    def rows(section: Section, whole: str) -> list[dict[str, Any]]:
        for precision in {section.precision, *section.special.values()} - set(peaks):
            peaks[precision] = _child("matrix product", "", measure.matrix_peak, precision)
        return section.rows(whole, peaks)

    section = _child("data loading", less_memory(config, first), measure.loading, run, images)
    sections = [{"title": f"data loading, batch of {section.images}, one core", "rows": rows(section, "batch")[:1]}]
    for title, stage, measurement, whole in told.sections(config):
        section = _child(title, less_memory(config, stage), measurement, run, images)
        several = f", batch of {section.images}, fp32" if section.images > 1 else ""
        sections.append({"title": f"{title}{several}", "rows": rows(section, whole)})
    for stage in (stage for stage in config.trainings if stage in config.trained):
        title, keys = stage.replace("_", " "), less_memory(config, stage)
        section = _child(title, keys, measure.training, run, stage, images, with_loading=False)
        found = rows(section, "step, the batch at hand")
        loaded = _child(f"{title} with data loading", keys, measure.training, run, stage, images, with_loading=True)
        found += rows(loaded, "step, with data loading")[:1]
        sections.append({"title": f"{title}, batch of {section.images}, {section.precision}", "rows": found})
    keys = less_memory(config, "evaluate")
    for model, title in recipe.models.items():
        section = _child(title, keys, measure.prediction, run, model, images)
        sections.append({"title": f"prediction, {title}", "rows": rows(section, "image")})
    for model, title in recipe.models.items():
        section = _child(f"evaluation, {title}", keys, measure.evaluation, run, model, images)
        sections.append({"title": f"evaluation, {title}", "rows": rows(section, "image")[:1]})
    workers = config.run.workers
    return {
        "experiment": run.name,
        "config_sha256": config.sha256,
        "hardware": hardware,
        "versions": environment(),
        "load_before": load,
        "loader_processes": workers,
        "crop": list(config.augment.crop),
        "matrix_peak_gmac_per_s": {name: value / 1e9 for name, value in peaks.items()},
        "sections": sections,
    }


def _child(title: str, keys: str, measurement: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a measurement, made in a process of its own."""
    print(f"measuring: {title}", flush=True)
    context = multiprocessing.get_context("forkserver")  # imports once, and forks before torch has threads
    context.set_forkserver_preload(["gss.benchmark.measure"])
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(measure.in_child, measurement, *arguments, **options).result()
    except (measure.NoMemory, BrokenProcessPool) as error:
        raise NoRoom(
            f"{title} does not fit into the memory of this machine: {error}", where=f"gss benchmark, {title}", todo=keys
        ) from error


def _prepare_images(run: Run, folder: Path) -> str:
    """Say which images are measured; where the data set was not checked yet, make some up."""
    if run.file(run.folder / MANIFEST).is_file():
        run.manifest.pairs(run.experiment.last_split)  # is missing before anything was measured
        count = len(run.manifest.pairs("train"))
        return f"those of the data set ({count} for training)"
    pictures = vars(run)["manifest"] = made_up(run, folder, _MADE_UP)
    pair = pictures.pairs("train")[0]
    return f"made up, {pair.width} x {pair.height}: there is no {run.folder / 'data' / 'manifest.json'}"


def made_up(run: Run, folder: Path, count: int) -> Manifest:
    """Write pairs of the size in `augment.base_scale`, the same for every split: smooth colours with the noise that
    makes a photograph's file as large as it is, and labels in rectangles.

    Args:
        folder: which is there.
    """
    space = run.declared_space()
    width, height = run.experiment.augment.box
    if width > 2 * height:  # a bound of the long side, not the proportions of an image
        width = height * 4 // 3
    rng = np.random.default_rng(0)
    rows = Rows()
    for index in range(count):
        smooth = cv2.resize(rng.uniform(0, 255, (12, 16, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        image = smooth + rng.normal(0, _NOISE, smooth.shape)
        label = rng.integers(0, len(space.names), (12, 16), dtype=space.dtype)
        names = {"image": f"{index}.jpg", "label": f"{index}.png"}
        cv2.imwrite(str(folder / names["image"]), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / names["label"]), cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST))
        rows.append({**names, "height": height, "width": width, "image_sha256": "", "label_sha256": ""})
    parts = {str(split): rows for split in run.experiment.data.splits}
    source = Source(folder, ClassSpace(space.names, space.colours), counts=dict.fromkeys(parts, count))
    return Manifest((source,), "", parts)
