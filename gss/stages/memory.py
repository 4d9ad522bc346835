"""When memory runs out in a stage: what did not fit where, and the keys that need less."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from gss.config import Experiment
from gss.errors import GssError, Interrupted, is_no_memory
from gss.stages.run import Run
from gss.stages.training import micro_batches
from gss.train.distributed import World, worker


@contextlib.contextmanager
def stage_worker(run: Run, stage: str, work: str | None = None) -> Iterator[World]:
    """Be one process of a stage that computes, see `gss.train.distributed.worker`; memory that runs out is told.

    Args:
        work: name of the work folder, where a stage has several.
    """
    with worker(run.work(work or stage)) as world:
        try:
            yield world
        except (GssError, Interrupted):
            raise
        except Exception as error:
            if not is_no_memory(error):
                raise
            raise no_memory(run, stage, world, error) from error


def no_memory(run: Run, stage: str, world: World, error: Exception) -> GssError:
    """What to say of an allocation that failed in a stage."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return GssError(
        f"memory ran out in the stage {stage}: {reason}",
        where=f"process {world.rank} of {world.size} on {_device(world.device)}; {_at_once(run, stage, world)}",
        todo=less_memory(run.experiment, stage),
    )


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """On the CPU an allocation that this machine has no memory for fails inside: better than a machine that swaps or
    kills."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _kilobytes("/proc/self/status", "VmData") + _kilobytes("/proc/meminfo", "MemAvailable")
    if not torch.cuda.is_available() and (soft == resource.RLIM_INFINITY or soft > most):
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _kilobytes(path: str, name: str) -> int:
    """A line of Linux's tables, as bytes."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def less_memory(experiment: Experiment, stage: str) -> str:
    """The keys that make a stage need less memory, with what else each of them changes; a line for each."""
    advice = []
    if key := {**experiment.trainings, **experiment.trained}.get(stage):
        training = experiment.at(key)
        crop_key = f"{key}.crop" if hasattr(training, "crop") else "augment.crop"
        advice.append(
            f"{key}.batch_size (now {training.batch_size}): a smaller batch is another training, often with a lower lr"
        )
        if "accumulation" in type(training).model_fields:
            advice.append(
                f"{key}.accumulation (now {training.accumulation}): the same batch in more parts, of which BatchNorm "
                "sees one at a time"
            )
        crop = experiment.at(crop_key)
        shown = crop if isinstance(crop, int) else list(crop)
        advice.append(f"{crop_key} (now {shown}): smaller crops are another training")
        if getattr(training, "precision", "bf16") in ("fp32", "fp64") and experiment.numerics != "reference":
            advice.append(f"{key}.precision=bf16 (now {training.precision}): rounds, and saves most on GPUs")
    if narrower := experiment.narrower.get(stage):
        advice.append(f"{narrower} (now {experiment.at(narrower)}): a narrower network is another one")
    if stage == "evaluate":
        config = experiment.evaluation
        advice = [
            f"evaluation.mode=slide, small evaluation.crop (now {config.mode}, {list(config.crop)}): another protocol",
            f"evaluation.scale (now {config.scale and list(config.scale)}): smaller images, another protocol",
        ]
        if config.protocol == "mseg":
            sizes = list(config.base_sizes)
            advice = [
                f"evaluation.crop (now {list(config.crop)}): smaller windows, another protocol",
                f"evaluation.base_sizes (now {sizes}): fewer or smaller ones, another protocol",
            ]
    granted = experiment.resources(stage).memory_mb
    advice.append(f"run.resources.{stage}.memory_mb (now {granted}): what a cluster grants the job; changes no result")
    return "one of these, in this order\n" + "\n".join(f"    {line}" for line in advice)


def _device(device: torch.device) -> str:
    """Name and memory of a device."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        others = total - free - torch.cuda.memory_reserved(device)
        name = torch.cuda.get_device_name(device)
        return f"{name} with {_gib(total)}, of which others and the driver have {_gib(others)}"
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit = resource.getrlimit(kind)[0]
        bounds += [limit] if limit != resource.RLIM_INFINITY else []
    return f"the CPU with {_gib(min(bounds))}"


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"


def _at_once(run: Run, stage: str, world: World) -> str:
    """What a process works on at a time."""
    if stage in run.experiment.trainings:
        training, parts = run.experiment.at(run.experiment.trainings[stage]), micro_batches(run, stage, world)
        height, width = run.experiment.augment.crop
        return f"{training.batch_size // (world.size * parts)} images of {height} x {width} at a time"
    if key := run.experiment.trained.get(stage):
        train = run.experiment.at(key)
        return f"{train.batch_size // world.size} crops of {train.crop} x {train.crop} at a time"
    return "one image at a time"
