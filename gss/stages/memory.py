"""When memory runs out in a stage, or would: what did not fit where, how much it needs, and the keys that need less."""

import contextlib
import gc
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from gss.config import Experiment
from gss.data.classes import ClassSpace
from gss.errors import GssError, Interrupted, is_no_memory
from gss.stages.need import at_once, device_of, find_need
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


def with_less_memory(run: Run, stage: str, world: World, call: Callable[[Run], object]) -> Run:
    """Call a stage; whenever memory runs out, again with half as many images at a time, so long as that goes.

    The batch stays what it is, and a training goes on from its last checkpoint. One process alone can do that: the
    others of a job would wait for it in the middle of a step.

    Returns:
        The run that the stage was done with.
    """
    while True:
        try:
            call(run)
            return run
        except GssError:
            raise
        except Exception as error:
            smaller = _halved(run, stage, world) if is_no_memory(error) else None
            if smaller is None:
                raise
            let_go(error)
        print(
            f"warning: memory ran out with {_images(run, stage, world)} images at a time; again with "
            f"{_images(smaller, stage, world)}, which is {accumulation_of(smaller, stage)}",
            flush=True,
        )
        run = smaller


def accumulation_of(run: Run, stage: str) -> str:
    """What to write into the experiment, so that it trains as this run does."""
    return f"{run.experiment.trainings[stage]}.accumulation: {run.micro_batches[stage]}"


def _halved(run: Run, stage: str, world: World) -> Run | None:
    """The run with micro-batches of half the size or less, but not of a single image, of which BatchNorm makes little;
    None where there are none."""
    if stage not in run.experiment.trainings or world.size > 1:
        return None
    images, batch = _images(run, stage, world), run.experiment.at(run.experiment.trainings[stage]).batch_size
    fewer = next((count for count in range(images // 2, 1, -1) if batch % count == 0), None)
    return None if fewer is None else replace(run, micro_batches={**run.micro_batches, stage: batch // fewer})


def no_memory(run: Run, stage: str, world: World, error: Exception) -> GssError:
    """What to say of an allocation that failed in a stage; what the stage held is let go."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    work = _at_once(run, stage, world)
    if stage in run.experiment.trainings:
        let_go(error)
        with contextlib.suppress(Exception), bounded_memory():  # how much it needs is worth a try, and no more
            need = find_need(run, run.space, stage, world.device)
            work += f"; it needs {need.told(_images(run, stage, world))}"
    return GssError(
        f"memory ran out in the stage {stage}: {reason}",
        where=f"process {world.rank} of {world.size} on {_device(world.device)}; {work}",
        todo=less_memory(run.experiment, stage),
    )


def let_go(error: Exception) -> None:
    """Free the tensors of what an exception has ended."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    torch.cuda.empty_cache()


def faults_of_trainings(run: Run, space: ClassSpace) -> Iterator[GssError]:
    """What would stop each training that would compute on this machine: one or two crops cannot go forward and backward
    in its precision, or its memory is too small; the latter is sure, since what is counted is the least."""
    experiment = run.experiment
    for stage in filter(experiment.trained.__contains__, experiment.trainings):
        device = device_of(experiment, stage)
        if device is None:
            continue
        print(f"trying {stage}: one or two crops forward and backward on {_device(device)}", flush=True)
        try:
            with bounded_memory():
                need, images = find_need(run, space, stage, device), at_once(experiment, stage)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)  # which lines of a training show
        except GssError as error:
            yield error
            continue
        except Exception as error:
            if not is_no_memory(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            yield GssError(
                f"memory ran out with the first crops of {stage}: {reason}",
                where=_device(device),
                todo=less_memory(experiment, stage),
            )
            let_go(error)
            continue
        sharing = 1 if device.type == "cuda" else experiment.resources(stage).processes or 1
        if need.of(images) * sharing > _total(device):
            who = "it needs" if sharing == 1 else f"each of {sharing} processes needs"
            yield GssError(
                f"{stage} does not fit into the memory: {who} {need.told(images)}",
                where=_device(device),
                todo=less_memory(experiment, stage),
            )
    torch.cuda.empty_cache()


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """On the CPU an allocation that this machine has no memory for fails inside: better than a machine that swaps or
    kills."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform == "linux" and not torch.cuda.is_available():
        most = _bytes("/proc/self/status", "VmData") + _bytes("/proc/meminfo", "MemAvailable")
        resource.setrlimit(resource.RLIMIT_DATA, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _bytes(path: str, name: str) -> int:
    """What a line of Linux's tables says in kB."""
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
    return f"the CPU with {_gib(_total(device))}"


def _total(device: torch.device) -> int:
    """Memory of a device, bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit = resource.getrlimit(kind)[0]
        bounds += [limit] if limit != resource.RLIM_INFINITY else []
    return min(bounds)


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"


def _at_once(run: Run, stage: str, world: World) -> str:
    """What a process works on at a time."""
    if stage in run.experiment.trainings:
        height, width = run.experiment.augment.crop
        return f"{_images(run, stage, world)} images of {height} x {width} at a time"
    if key := run.experiment.trained.get(stage):
        train = run.experiment.at(key)
        return f"{train.batch_size // world.size} crops of {train.crop} x {train.crop} at a time"
    return "one image at a time"


def _images(run: Run, stage: str, world: World) -> int:
    """Images of a micro-batch of a training's process."""
    training = run.experiment.at(run.experiment.trainings[stage])
    return training.batch_size // (world.size * micro_batches(run, stage, world))
