"""`gss smoke`: every stage of an experiment with a few steps and images, before days of computing meet a fault."""

import contextlib
import gc
import io
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gss.benchmark.measure import one_process
from gss.benchmark.stopwatch import peak, reset_peak
from gss.cluster.lock import writer_lock
from gss.config import Experiment, Job, data_set_folder, experiment_name, imported, load_experiment, origins, runs_of
from gss.data.toy import make_toy
from gss.errors import ConfigError, GssError, Interrupted, OutputClosed, is_no_memory
from gss.layout import WORK
from gss.report.page import write_report
from gss.results.journal import read_journal
from gss.results.records import Made
from gss.stages.check import check_set
from gss.stages.labels import labels
from gss.stages.memory import accumulation_of, bounded_memory, no_memory, with_less_memory
from gss.stages.need import at_once
from gss.stages.rehearse import STEPS, require_divisible
from gss.stages.run import Run
from gss.text import size
from gss.train.distributed import World

IMAGES = 2  # of each split
WARNING = "warning: "  # begins lines of stages that are shown
_LEFT_OUT = ("prepare",)  # unpacks archives where the data set belongs, or does nothing


def smoke(name: str, overrides: Iterable[str] = (), results: Path = Path("results"), *, retry: bool = False) -> str:
    """Run the jobs of an experiment one after the other, shortened, in `work/smoke` of its results, which is removed.

    Networks, crops, batches and precision are the experiment's. One process does the work of all, a batch in as many
    parts as they would take at a time. A line is printed for each job: time, peak memory, last loss.

    Args:
        name: of the experiment, of one with `seeds` the first, or `NAME/seed_0`; or the path of its file.
        overrides: `section.key=value`.
        results: the folder of all results.
        retry: when memory runs out, try with less at a time.

    Returns:
        What to print at the end.

    Raises:
        GssError: what stops a job, with its name; or it is only with less at a time that all fits.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was written is removed then, too
    given, overrides = runs_of(name)[0], list(overrides)
    name = experiment_name(given)
    began = time.perf_counter()
    with _folder(results / name / WORK / "smoke") as folder:
        asked = load_experiment(given, overrides)
        require_divisible(asked)
        if asked.data.generate and not data_set_folder(asked.data).is_dir():
            make_toy(folder / "data", sizes=dict.fromkeys(asked.data.splits, IMAGES))
            overrides.append(f"data.root={(folder / 'data').absolute()}")
        overrides += [f"{key}={json.dumps(value)}" for key, value in _short(asked).items()]
        experiment = load_experiment(given, overrides)
        _lend(experiment, results, folder)
        made = Made(experiment.model_dump(mode="json"), origins(given, overrides, experiment))
        run: Run[Any] = Run(name, experiment, folder / name, made)
        world = one_process()
        print(f"{name}: {STEPS} steps, {IMAGES} images of each split, on {world.machine['device']}", flush=True)
        warned: set[str] = set()
        with bounded_memory():
            for job in _jobs(experiment):
                run = _try(run, world, job, warned, retry=retry)
    if run.micro_batches:
        keys = "\n".join(f"    {accumulation_of(run, stage)}" for stage in run.micro_batches)
        raise GssError(f"{name} fits into the memory with less at a time alone", todo=f"write into its file\n{keys}")
    return f"{name}: all its stages can run, as far as this shows it; it took {time.perf_counter() - began:.0f} s"


@contextlib.contextmanager
def _folder(place: Path) -> Iterator[Path]:
    """A folder of one's own while it is needed; nothing of it stays."""
    inside = place / "results"
    try:
        with writer_lock(place):
            shutil.rmtree(inside, ignore_errors=True)  # of one that was killed
            inside.mkdir(parents=True)
            try:
                yield inside
            finally:
                shutil.rmtree(inside, ignore_errors=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for parent in place.parents:
            if parent == Path() or os.listdir(parent):
                break
            parent.rmdir()


def _short(experiment: Experiment) -> dict[str, Any]:
    """What makes the experiment short, by dotted key."""
    short: dict[str, Any] = {
        "debug.images": IMAGES,
        "evaluation.pictures": min(experiment.evaluation.pictures, 1),
        "run.log_every": 1,
    }
    for stage, key in experiment.trainings.items():
        short |= {f"{key}.{name}": value for name, value in _share(experiment, stage).items()}
        short[f"{key}.validate_every"] = STEPS if experiment.at(key).validate_every else 0
    for stage in experiment.run.resources:
        short |= {f"run.resources.{stage}.{name}": 1 for name in ("nodes", "processes")}
        short[f"run.resources.{stage}.gpus"] = "auto"
    return {**short, **(experiment.kind.part("rehearse").short(experiment) if experiment.trainings else {})}


def _share(experiment: Experiment, stage: str) -> dict[str, int]:
    """What one of the processes of a training does of a batch; of balanced sources as much more as they need."""
    training, images = experiment.at(experiment.trainings[stage]), at_once(experiment, stage)
    parts, sources = training.accumulation, max(1, len(experiment.data.balanced))
    if images * parts < training.batch_size:  # GPUs normalise over the images of all
        images = max(images, 2)
    while images * parts % math.lcm(parts, sources):
        parts += 1
    return {"batch_size": images * parts, "accumulation": parts}


def _lend(experiment: Experiment, results: Path, folder: Path) -> None:
    """Let the results of other experiments be found that this one takes."""
    for name in filter(None, experiment.borrowed()):
        if not (results / name).is_dir():
            raise ConfigError(
                f"it takes results of {name!r}, which has none yet", todo=f"make them, or: gss smoke {name}"
            )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to((results / name).absolute())


def _jobs(experiment: Experiment) -> list[Job]:
    return [job for job in experiment.jobs() if job.name not in _LEFT_OUT] + [Job("report", "report")]


def _try(run: Run[Any], world: World, job: Job, warned: set[str], *, retry: bool) -> Run[Any]:
    """Do a job and say how it went; its own lines are not shown but for new warnings.

    Args:
        warned: warnings that were shown; grows.

    Returns:
        The run that the next job is done with.

    Raises:
        GssError: what stopped it.
    """
    print(f"  {job.name:<28}", end="", flush=True)
    reset_peak(world.device)
    began, said = time.perf_counter(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            fresh = replace(run)  # it reads what the job before has written
            if retry:
                run = with_less_memory(fresh, job.stage, world, lambda run: _call(run, world, job))
            else:
                _call(fresh, world, job)
    except Interrupted:
        raise KeyboardInterrupt from None
    except OutputClosed:
        raise
    except Exception as error:
        print("failed", flush=True)
        found = no_memory(run, job.stage, world, error) if is_no_memory(error) else error
        if isinstance(found, GssError):
            raise GssError(f"{job.name}: {found.what}", where=found.where, todo=found.todo) from error
        raise
    loss = [
        event["m"]["train/loss"] for event in read_journal(run.work(job.work) / "journal.jsonl") if _has_loss(event)
    ]
    shown = f"  loss {loss[-1]:.4g}" if loss else ""
    print(f"{time.perf_counter() - began:6.1f} s  {size(peak(world.device)):>8}{shown}", flush=True)
    for line in said.getvalue().splitlines():
        if line.startswith(WARNING) and line not in warned:
            warned.add(line)
            print(f"    {line}", flush=True)
    gc.collect()
    return run


def _has_loss(event: dict[str, Any]) -> bool:
    return "train/loss" in event.get("m", {})


def _call(run: Run[Any], world: World, job: Job) -> None:
    recipe = run.experiment.kind
    if job.stage == "report":
        write_report(run.folder)
    elif job.stage == "labels":
        labels(run, job.split)
    elif job.stage == "check" and job.split:
        check_set(run, job.split)
    elif job.name.startswith("import_"):
        imported(recipe.stage("import").call)(run, None, job.name.removeprefix("import_"))
    elif job.stage == "evaluate":
        model = job.name.removeprefix("evaluate_").removesuffix(f"_{job.split}")
        imported(recipe.stage("evaluate").call)(run, world, model, job.split)
    elif job.stage == "summary":
        imported(recipe.stage("summary").call)(run, job.name.removeprefix("summary_"))
    else:
        row = recipe.stage(job.stage)
        shared, until = ([world] if row.in_processes else []), ({} if job.until is None else {"until": job.until})
        imported(row.call)(run, *shared, **until)
