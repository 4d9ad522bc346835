"""The measurements, each made by a process of its own: the code of the stages, with random weights.

What is timed is what the stages run (loop, learners, `predict`, `evaluate_pairs`), watched from outside.
"""

import contextlib
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gss._compat import import_timm
from gss.benchmark.stopwatch import WAITING, WARM_UP, Section, Stopwatch
from gss.cluster.exit import die_with
from gss.config.schema import Training
from gss.data.images import write_png
from gss.data.loader import read_pair
from gss.errors import is_no_memory
from gss.evaluate.inference import one_inference, predict
from gss.evaluate.measure import evaluate_pairs
from gss.stages.memory import bounded_memory
from gss.stages.run import Run
from gss.stages.training import loop_settings, make_loader
from gss.train.distributed import World, setup
from gss.train.loop import MakeBatches, train
from gss.train.settings import LoopSettings

LEAST_LAPS = 5
import_timm()  # before memory is measured
DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}


class NoMemory(Exception):
    """Something does not fit."""


def loading(run: Run, images: int) -> Section:
    """Batches of the first training, read and augmented by one core."""
    cv2.setNumThreads(0)  # as in a loader process
    torch.set_num_threads(1)
    alone = run.experiment.run.model_copy(update={"workers": 0})
    reader = replace(run, experiment=run.experiment.model_copy(update={"run": alone}))
    vars(reader)["manifest"] = run.manifest
    training: Training = run.experiment.at(next(iter(run.experiment.trainings.values())))
    batch = training.batch_size
    watch = Stopwatch(torch.device("cpu"))
    batches = iter(make_loader(reader, reader.manifest.pairs("train"), training, one_process())(0))
    for _ in watch.laps(num_laps(images, batch)):
        watch.enter("read, augment, collate")
        next(batches)
    return Section(batch, watch.phases)


def training(run: Run, stage: str, images: int, *, with_loading: bool) -> Section:
    """Steps of the training loop.

    Args:
        with_loading: with fresh batches of the configured loader processes; else always with the same batch.
    """
    config: Training = run.experiment.at(run.experiment.trainings[stage])
    world = one_process()
    watch = Stopwatch(world.device)
    learner, special = run.experiment.kind.part("benchmark").learner(run, stage, world, watch)

    def batches(step: int) -> Iterator[Any]:
        loader = iter(make_loader(run, run.manifest.pairs("train"), config, world)(step))
        fixed = None if with_loading else next(loader)
        for _ in watch.laps(num_laps(images, config.batch_size)):
            watch.enter(WAITING if with_loading else "transfer, counts")
            batch = fixed or next(loader)
            watch.enter("transfer, counts")
            yield batch
        raise Enough

    steps(watch, learner, batches, loop_settings(run, config, steps=1), world)
    return Section(config.batch_size, watch.phases, config.precision, special)


def steps(watch: Stopwatch, learner: nn.Module, batches: MakeBatches, settings: LoopSettings, world: World) -> None:
    """The training loop until `batches` has enough, without checkpoints."""
    watch.around(learner, "forward", "forward", then="backward")
    hook = register_optimizer_step_pre_hook(lambda *_: watch.enter("optimiser step"))
    settings = replace(settings, steps=10**6, save_every=10**6, save_minutes=10**6, log_every=10**6)
    with contextlib.suppress(Enough), tempfile.TemporaryDirectory() as work:
        train(learner, batches, settings, work=Path(work), journal=None, world=world)
    hook.remove()


class Enough(Exception):
    """Ends the training loop before it writes a checkpoint."""


def prediction(run: Run, model: str, images: int) -> Section:
    """Images of the last split, one by one; files are read before."""
    world = one_process()
    watch = Stopwatch(world.device)
    segmenter, special = run.experiment.kind.part("benchmark").segmenter(run, model, world.device, watch)
    pairs = itertools.cycle(run.manifest.pairs(run.experiment.last_split))
    for _, pair in zip(watch.laps(num_laps(images, 1)), pairs, strict=False):
        image, _ = read_pair(pair)
        watch.enter("resize, normalise, argmax")
        predict(segmenter, image, one_inference(run.experiment.evaluation), device=world.device)
    return Section(1, watch.phases, special=special)


def evaluation(run: Run, model: str, images: int) -> Section:
    """Images of the last split, as `gss evaluate` goes through them; panels are not drawn."""
    world = one_process()
    watch = Stopwatch(world.device)
    segmenter, _ = run.experiment.kind.part("benchmark").segmenter(run, model, world.device, Stopwatch(world.device))
    count = num_laps(images, 1)
    split = itertools.cycle(run.manifest.pairs(run.experiment.last_split))
    laps = watch.laps(count)
    name = "read ahead, predict, count, write"

    def read(pair: Any) -> tuple[np.ndarray, np.ndarray]:
        return read_pair(pair)

    with tempfile.TemporaryDirectory() as folder:

        def each(index: int, image: np.ndarray, label: np.ndarray, ids: np.ndarray) -> None:
            write_png(Path(folder) / f"{index}.png", ids)
            if next(laps, None) is not None:
                watch.enter(name)

        next(laps)
        watch.enter(name)
        evaluate_pairs(
            segmenter,
            list(itertools.islice(split, WARM_UP + count)),
            run.space.num_classes,
            world,
            read=read,
            inference=one_inference(run.experiment.evaluation),
            with_reliability=True,
            each=each,
        )
    return Section(1, watch.phases)


def matrix_peak(precision: str) -> float:
    """Multiply-adds per second of a large matrix product: the best of five.

    In fp32 it uses TF32 where torch's convolutions do, which is faster than plain fp32.
    """
    device = one_process().device
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    side = 8192 if device.type == "cuda" else 512 if precision == "fp16" else 2048  # which CPUs are slow at
    matrix = torch.randn(side, side, device=device, dtype=DTYPES[precision])
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return side**3 / min(seconds[1:])


def hardware() -> dict[str, Any]:
    """What this process computes on."""
    device = one_process().device
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {
        "device": device.type,
        "cpu": (models or ["unknown"])[0],
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30, 1),
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {"gpu": gpu.name, "gpu_memory_gib": round(gpu.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return found


def threaded(threads: int, measurement: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a measurement with a number of threads, as `gss launch` gives a process of a stage."""
    torch.set_num_threads(threads)
    return measurement(*arguments, **options)


def in_child(measurement: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a measurement, called in a process that exists for it; its lines are kept from the terminal.

    Raises:
        NoMemory: an allocation failed.
    """
    die_with(os.getppid())
    multiprocessing.set_start_method(None, force=True)  # loader processes start as they do in a training
    try:
        with bounded_memory(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return measurement(*arguments, **options)
    except (RuntimeError, MemoryError, OSError, cv2.error) as error:
        if is_no_memory(error):
            raise NoMemory(str(error).partition("\n")[0]) from None
        raise


def num_laps(images: int, batch: int) -> int:
    """Laps in which at least so many images are measured."""
    return max(LEAST_LAPS, -(-images // batch))


def one_process() -> World:
    """This process alone, whatever the environment says of others."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    return setup()
