"""The measurements, each made by a process of its own: the code of the stages, with random weights.

What is timed is what the stages run (loop, learners, `predict`, `evaluate_pairs`), watched from outside.
"""

import contextlib
import itertools
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gss._compat import import_timm
from gss.benchmark.stopwatch import WAITING, WARM_UP, Section, Stopwatch
from gss.cluster.exit import die_with
from gss.data.images import read_label
from gss.data.loader import read_pair
from gss.errors import is_no_memory
from gss.evaluate.inference import Inference, predict
from gss.evaluate.run import evaluate_pairs
from gss.evaluate.write import write_png
from gss.models.gss import GSS
from gss.models.latent_prior import LatentPrior
from gss.models.posterior import Posterior
from gss.models.training import ImageLearner, LatentPriorLearner, PosteriorLearner
from gss.palette.palette import Palette
from gss.stages import latent_prior, posterior
from gss.stages.assemble import at_precision, build_posterior, build_prior
from gss.stages.run import Run
from gss.stages.training import loop_settings, make_loader
from gss.tokenizer.crops import MaskigeCrops
from gss.tokenizer.dvae import DVAE
from gss.tokenizer.learn import DVAELearner
from gss.tokenizer.reconstruct import reconstruct
from gss.train.distributed import World, setup
from gss.train.loop import MakeBatches, train
from gss.train.settings import LoopSettings

LEAST_LAPS = 5
_LABELS = 64  # to cut a tokenizer's crops from
import_timm()  # before memory is measured
DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}


class NoMemory(Exception):
    """Something does not fit."""


def loading(run: Run, images: int) -> Section:
    """Batches of the latent prior's training, read and augmented by one core."""
    cv2.setNumThreads(0)  # as in a loader process
    torch.set_num_threads(1)
    alone = run.experiment.run.model_copy(update={"workers": 0})
    reader = replace(run, experiment=run.experiment.model_copy(update={"run": alone}))
    vars(reader)["manifest"] = run.manifest
    batch = run.experiment.latent_prior.training.batch_size
    watch = Stopwatch(torch.device("cpu"))
    batches = iter(make_loader(reader, run.experiment.latent_prior.training, one_process())(0))
    for _ in watch.laps(_num_laps(images, batch)):
        watch.enter("read, augment, collate")
        next(batches)
    return Section(batch, watch.phases)


def training(run: Run, part: str, images: int, *, with_loading: bool) -> Section:
    """Steps of the training loop.

    Args:
        part: `latent_prior` or `posterior`.
        with_loading: with fresh batches of the configured loader processes; else always with the same batch.
    """
    config = run.experiment.latent_prior if part == "latent_prior" else run.experiment.posterior
    world = one_process()
    watch = Stopwatch(world.device)
    learner, dvae = random_learner(run, part, world)
    watch.around(dvae, "encode", "tokens of the label")
    watch.around(learner.prior, "tokens", "tokens of the image")
    watch.around(dvae, "decode", "decode")

    def batches(step: int) -> Iterator[Any]:
        loader = iter(make_loader(run, config.training, world)(step))
        fixed = None if with_loading else next(loader)
        for _ in watch.laps(_num_laps(images, config.training.batch_size)):
            watch.enter(WAITING if with_loading else "transfer, counts")
            batch = fixed or next(loader)
            watch.enter("transfer, counts")
            yield batch
        raise _Enough

    _steps(watch, learner, batches, loop_settings(run, config.training, steps=1), world)
    special = dict.fromkeys(("tokens of the label", "decode"), dvae.precision)
    return Section(config.training.batch_size, watch.phases, config.training.precision, special)


def tokenizer(run: Run, images: int) -> Section:
    """Steps of the tokenizer's training, on the crops of a few labels."""
    config = run.experiment.tokenizer.train
    world = one_process()
    watch = Stopwatch(world.device)
    learner = DVAELearner(_dvae(run), torch.from_numpy(_colours(run)), random_palettes=config.palettes == "random")
    pairs = run.manifest.pairs("train")
    labels = [read_label(pairs[i].label, run.space) for i in range(min(_LABELS, len(pairs)))]
    size, num_classes = config.batch_size, run.space.num_classes

    def batches(step: int) -> Iterator[Any]:
        crops = iter(MaskigeCrops(labels, num_classes, seed=0, batch_size=size, crop=config.crop, start_step=step))
        for _ in watch.laps(_num_laps(images, size)):
            watch.enter("crops")
            batch = next(crops)
            watch.enter("transfer, counts")
            yield batch
        raise _Enough

    settings = LoopSettings(1, config.lr, clip_norm=1.0, deterministic=run.experiment.run.deterministic)
    _steps(watch, learner, batches, settings, world)
    return Section(size, watch.phases)


def reconstruction(run: Run, images: int) -> Section:
    """Training labels, one by one, through the tokenizer and back as the refinement of the palette does it."""
    world = one_process()
    watch = Stopwatch(world.device)
    dvae, colours = _dvae(run).requires_grad_(False).eval().to(world.device), torch.from_numpy(_colours(run))
    watch.around(dvae, "encode", "tokens of the label")
    watch.around(dvae, "decode", "decode")
    pairs = itertools.cycle(run.manifest.pairs("train"))
    for _, pair in zip(watch.laps(_num_laps(images, 1)), pairs, strict=False):
        label = read_label(pair.label, run.space)
        watch.enter("paint, nearest colour, count")
        reconstruct(dvae, [label], colours, doubled=True)
    return Section(1, watch.phases)


def _steps(watch: Stopwatch, learner: nn.Module, batches: MakeBatches, settings: LoopSettings, world: World) -> None:
    """The training loop until `batches` has enough, without checkpoints."""
    watch.around(learner, "forward", "forward", then="backward")
    hook = register_optimizer_step_pre_hook(lambda *_: watch.enter("optimiser step"))
    settings = replace(settings, steps=10**6, save_every=10**6, save_minutes=10**6, log_every=10**6)
    with contextlib.suppress(_Enough), tempfile.TemporaryDirectory() as work:
        train(learner, batches, settings, work=Path(work), journal=None, world=world)
    hook.remove()


class _Enough(Exception):
    """Ends the training loop before it writes a checkpoint."""


def prediction(run: Run, variant: str, images: int) -> Section:
    """Images of the last split, one by one; files are read before.

    Args:
        variant: of X^-1.
    """
    world = one_process()
    watch = Stopwatch(world.device)
    model, inference = random_model(run, variant, world.device)
    watch.around(model.prior, "tokens", "tokens of the image")
    watch.around(model.tokenizer, "decode", "decode")
    watch.around(model.posterior, "scores", "X^-1: scores of the classes")
    mean, std = model.prior.backbone.mean, model.prior.backbone.std
    pairs = itertools.cycle(run.manifest.pairs(run.experiment.last_split))
    for _, pair in zip(watch.laps(_num_laps(images, 1)), pairs, strict=False):
        image, _ = read_pair(pair, run.space)
        watch.enter("resize, normalise, argmax")
        predict(model, image, inference, mean=mean, std=std, device=world.device)
    return Section(1, watch.phases, special={"decode": model.tokenizer.precision})


def evaluation(run: Run, variant: str, images: int) -> Section:
    """Images of the last split, as `gss evaluate` goes through them; panels are not drawn."""
    world = one_process()
    watch = Stopwatch(world.device)
    model, inference = random_model(run, variant, world.device)
    count = _num_laps(images, 1)
    split = itertools.cycle(run.manifest.pairs(run.experiment.last_split))
    laps = watch.laps(count)
    name = "read ahead, predict, count, write"

    def read(pair: Any) -> tuple[np.ndarray, np.ndarray]:
        return read_pair(pair, run.space)

    with tempfile.TemporaryDirectory() as folder:

        def each(index: int, image: np.ndarray, label: np.ndarray, ids: np.ndarray) -> None:
            write_png(Path(folder) / f"{index}.png", ids)
            if next(laps, None) is not None:
                watch.enter(name)

        next(laps)
        watch.enter(name)
        evaluate_pairs(
            model,
            list(itertools.islice(split, WARM_UP + count)),
            run.space.num_classes,
            world,
            read=read,
            inference=inference,
            mean=model.prior.backbone.mean,
            std=model.prior.backbone.std,
            each=each,
        )
    return Section(1, watch.phases)


def matrix_peak(precision: str) -> float:
    """Multiply-adds per second of a large matrix product: the best of five.

    In fp32 it uses TF32 where torch's convolutions do, which is faster than plain fp32.
    """
    device = one_process().device
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    side = 8192 if device.type == "cuda" else 2048
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


def in_child(measurement: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a measurement, called in a process that exists for it; its lines are kept from the terminal.

    Raises:
        NoMemory: an allocation failed.
    """
    die_with(os.getppid())
    multiprocessing.set_start_method(None, force=True)  # loader processes start as they do in a training
    if not torch.cuda.is_available():
        _limit_memory()  # an allocation that fails is better than a machine that swaps or kills
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return measurement(*arguments, **options)
    except (RuntimeError, MemoryError, OSError, cv2.error) as error:
        if is_no_memory(error):
            raise NoMemory(str(error).partition("\n")[0]) from None
        raise


def _limit_memory() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > available:
        resource.setrlimit(resource.RLIMIT_DATA, (available, hard))


def _num_laps(images: int, batch: int) -> int:
    return max(LEAST_LAPS, -(-images // batch))


def one_process() -> World:
    """This process alone, whatever the environment says of others."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    return setup()


def _dvae(run: Run) -> DVAE:
    config = run.experiment.tokenizer
    dvae = DVAE(config.vocab_size, config.n_hid, config.n_init, config.blocks_per_group)
    return dvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _colours(run: Run) -> np.ndarray:
    """Any palette: int64 [N+1, 3]."""
    codes = np.random.default_rng(0).permutation(2**24)[: run.space.num_classes + 1]
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)


def random_networks(run: Run, variant: str, device: torch.device) -> tuple[LatentPrior, DVAE, Posterior, Tensor]:
    """Latent prior, tokenizer, X^-1 and palette as the experiment describes them, all random."""
    torch.manual_seed(run.experiment.seed)
    dvae = at_precision(_dvae(run).requires_grad_(False).eval(), run.experiment.tokenizer.precision, device)
    colours = _colours(run)
    meta = latent_prior.describe(run, run.space, Palette(colours, run.space.names), dvae)
    meta["posterior"] = (
        posterior.describe(run)
        if variant != "nearest"
        else {"variant": variant, "temperature": run.experiment.evaluation.vote_temperature}
    )
    return build_prior(meta), dvae, build_posterior(meta), torch.from_numpy(colours)


def random_learner(run: Run, part: str, world: World) -> tuple[ImageLearner, DVAE]:
    """What the training of a part trains, and the tokenizer in it."""
    config = run.experiment.latent_prior if part == "latent_prior" else run.experiment.posterior
    prior, dvae, module, colours = random_networks(run, run.experiment.posterior.variant, world.device)
    weights = torch.ones(run.space.num_classes) if config.training.class_balance else None
    if part == "latent_prior":
        return LatentPriorLearner(prior, dvae, colours, class_weights=weights), dvae
    reference = run.experiment.numerics == "reference"
    return PosteriorLearner(prior, dvae, module, class_weights=weights, reference=reference), dvae


def random_model(run: Run, variant: str, device: torch.device) -> tuple[GSS, Inference]:
    """A model on its device, and how the experiment has images predicted."""
    config = run.experiment.evaluation
    prior, dvae, module, _ = random_networks(run, variant, device)
    model = GSS(prior, dvae, module).to(device).eval()
    return model, Inference(config.mode, config.crop, config.stride, config.scale, config.flip)
