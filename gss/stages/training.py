"""What the training stages share: the training itself, class weights, batches, and finished files."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from gss.checkpoints import read_backbone_weights
from gss.cluster import gpus
from gss.config import data_folder
from gss.config.schema import Backbone, Training
from gss.data.augment import Augment
from gss.data.classes import ClassSpace
from gss.data.ids import tensor_dtype
from gss.data.loader import TrainLoader, read_pair
from gss.data.manifest import Pairs, evenly_spaced
from gss.data.shared_memory import REMEDY, Demand
from gss.errors import GssError
from gss.evaluate.inference import MSegInference, one_inference
from gss.evaluate.measure import evaluate_pairs
from gss.evaluate.segmenter import Segmenter
from gss.files import read_json, replace_with_link, sha256_json
from gss.layout import STATISTICS
from gss.nets.encoder import Backbone as Encoder
from gss.results.journal import Journal
from gss.stages.run import Run
from gss.train.distributed import World
from gss.train.loop import train
from gss.train.settings import LoopSettings
from gss.train.validation import SCORE, Validate

T = TypeVar("T")


def train_network(
    run: Run,
    stage: str,
    learner: nn.Module,
    pairs: Pairs,
    steps: int,
    world: World,
    journal: Journal | None,
    *,
    segmenter: Callable[[nn.Module], Segmenter],
    until: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the network of a stage up to step `until` of `steps`; None: to the end.

    Args:
        pairs: what is trained on.
        segmenter: makes of the trained module, as it would be exported, what is measured while training.

    Returns:
        What is exported, with running statistics of all processes; and for its provenance `machine`, what the training
        was divided among, and with `keep: best` also `exported`, the step of the weights and its score.
    """
    training = fit_to_devices(run, stage, world)
    machine = on_this_machine(world, training.batch_size, training.accumulation)
    result = train(
        learner,
        make_loader(run, pairs, training, world),
        replace(loop_settings(run, training, steps), machine=machine),
        work=run.work(stage),
        journal=journal,
        world=world,
        until=until,
        validate=validation(run, training, segmenter, world) if training.validate_every else None,
    )
    origin: dict[str, Any] = {"machine": machine}
    if training.keep == "best":
        origin["exported"] = {"step": result.exported_step, SCORE: result.score}
        if journal is not None:
            journal.tags({f"exported {key}": value for key, value in origin["exported"].items()})
    return result.exported, origin


def validation(run: Run, training: Training, segmenter: Callable[[nn.Module], Segmenter], world: World) -> Validate:
    """Measures a module that is trained on `val`, as the stage `evaluate` measures it when it is finished; of the base
    sizes and scales of `protocol: mseg` at the middle one and at 1 alone.

    Args:
        segmenter: makes of the module what is measured; on the device, in eval mode.
    """
    config, names = run.experiment.evaluation, run.space.names
    inference = one_inference(config)
    if isinstance(inference, MSegInference):
        inference = replace(inference, scales=(1.0,))
    pairs = run.manifest.pairs("val")
    chosen = [pairs[index] for index in evenly_spaced(len(pairs), training.validate_images or len(pairs))]

    def validate(module: nn.Module, between_images: Callable[[], None]) -> dict[str, float]:
        found = evaluate_pairs(
            segmenter(module),
            chosen,
            len(names),
            world,
            read=read_pair,
            inference=inference,
            each=lambda *_: between_images(),
            title="val",
        ).scores
        figures = {SCORE: found.mIoU, **{f"val/iou/{name}": iou for name, iou in zip(names, found.iou, strict=True)}}
        return {name: value for name, value in figures.items() if value is not None}

    return validate


def fit_to_devices(run: Run, stage: str, world: World) -> Training:
    """How a stage trains with the GPUs that are here: where the experiment is made for more, each step's batch stays
    what it is, and no GPU gets more of it at once than it would there; `accumulation` follows, and is told.
    """
    training: Training = run.experiment.at(run.experiment.trainings[stage])
    made_for, accumulation = run.experiment.made_for(stage), micro_batches(run, stage, world)
    if world.is_main and made_for is not None and world.size < made_for and accumulation != training.accumulation:
        print(
            f"made for {made_for} GPUs, here are {world.size}: each takes its share of a step's {training.batch_size} "
            f"images in {accumulation} parts. That takes about {made_for / world.size:.2g} times as long, see ETA "
            "below; what accumulation changes besides stands in docs/reference/config.md",
            flush=True,
        )
    return training.model_copy(update={"accumulation": accumulation})


def micro_batches(run: Run, stage: str, world: World) -> int:
    """Into how many parts each process divides its share of a batch."""
    training: Training = run.experiment.at(run.experiment.trainings[stage])
    made_for, batch = run.experiment.made_for(stage), training.batch_size
    if stage in run.micro_batches:
        return run.micro_batches[stage]
    if world.device.type == "cpu" or batch % world.size:
        return training.accumulation
    return gpus.parts(batch, training.accumulation, made_for, world.size)


def on_this_machine(world: World, batch_size: int, accumulation: int = 1) -> dict[str, Any]:
    """What a training was divided among, for its checkpoints and for the model file: no setting, it may change."""
    micro_batch = batch_size // (world.size * accumulation)
    return {**world.machine, "accumulation": accumulation, "micro_batch": micro_batch}


def loop_settings(run: Run, training: Training, steps: int) -> LoopSettings:
    """The loop's settings for one stage of an experiment."""
    told = {field.name for field in fields(LoopSettings)}
    sources = run.experiment.data.balanced
    # Published trainings on balanced sources have one in each process, whose mean is that source's.
    is_local = run.experiment.numerics == "reference" and not sources
    return LoopSettings(
        steps=steps,
        sources=sources,
        normalisation="local" if is_local else "global",
        **{name: value for name, value in training if name in told},
        **run_settings(run),
    )


def run_settings(run: Run) -> dict[str, Any]:
    """What every loop of an experiment is told: when to log, to save and to stop."""
    config = run.experiment.run
    return {
        "seed": run.experiment.seed,
        "log_every": config.log_every,
        "save_every": config.save_every,
        "save_minutes": config.save_minutes,
        "keep_last": config.keep_checkpoints,
        "deadline_margin": config.deadline_margin,
        "profile": config.profile,
        "deterministic": config.deterministic,
    }


def make_loader(
    run: Run, pairs: Pairs, training: Training, world: World
) -> Callable[[int], Iterator[list[dict[str, Tensor]]]]:
    """Batches of the pairs from any step on, by `data.sampling`.

    Raises:
        GssError: the loader processes of this machine need more shared memory than there is.
    """
    config, workers = run.experiment.augment, run.experiment.run.workers
    balanced = run.experiment.data.sampling == "balanced"
    samples = training.batch_size // (training.accumulation * world.size)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    label_bytes = tensor_dtype(run.space.num_classes).itemsize
    shortage = Demand(samples, config.crop, training.accumulation, workers, processes, label_bytes).shortage()
    if shortage:
        raise GssError(shortage, where=f"run.workers of {run.name}", todo=REMEDY)
    augment = Augment(
        base_scale=config.base_scale,
        ratio=config.ratio,
        crop=config.crop,
        cat_max_ratio=config.cat_max_ratio,
        flip=config.flip,
        rotate=config.rotate,
        blur=config.blur,
        centred=config.padding == "centre",
        photometric=config.photometric,
        uint8=run.experiment.numerics == "reference",
    )

    def from_step(step: int) -> Iterator[list[dict[str, Tensor]]]:
        loader = TrainLoader(
            pairs if balanced else pairs.repeated(),
            run.space,
            augment,
            seed=run.experiment.seed,
            batch_size=training.batch_size,
            ends=pairs.ends if balanced else None,
            accumulation=training.accumulation,
            rank=world.rank,
            world_size=world.size,
            workers=workers,
            start_step=step,
            pin_memory=world.device.type == "cuda",
        )
        return cast(Iterator[list[dict[str, Tensor]]], iter(loader))

    return batches(run, from_step)


def batches(run: Run, from_step: Callable[[int], Iterator[T]]) -> Callable[[int], Iterator[T]]:
    """What a training sees: the batches from a step on, or with `debug.overfit` the first one in every step."""
    return (lambda _: itertools.repeat(next(from_step(0)))) if run.experiment.debug.overfit else from_step


def class_pixels(run: Run) -> list[float]:
    """Pixels of every class in the training labels, as the check counted them, as often as a pass takes them; of
    balanced sources the sum of their shares among the pixels of each."""
    path = run.file(run.folder / STATISTICS)
    content = read_json(path)
    rows = content["splits"]["train"]["classes"]
    run.space.require_names([row["name"] for row in rows], where=path, todo=f"make it again: gss check {run.name}")
    pixels = np.array([row["pixels"] for row in rows], np.int64)
    if run.experiment.data.sampling == "balanced":
        trained = [splits["train"]["classes"] for splits in content["sources"].values() if "train" in splits]
        each = np.array([[row["pixels"] for row in rows] for rows in trained])  # [S, N]
        return (each / np.maximum(each.sum(1, keepdims=True), 1)).sum(0).tolist()
    for source, splits in zip(run.manifest.sources, content.get("sources", {}).values(), strict=False):
        if source.repeat > 1 and "train" in splits:
            pixels += (source.repeat - 1) * np.array([row["pixels"] for row in splits["train"]["classes"]], np.int64)
    return pixels.tolist()


def balance_inputs(run: Run, training: Training) -> dict[str, str]:
    """The hash of the counts that `class_balance` reads."""
    return {"class pixels": sha256_json(class_pixels(run))} if training.class_balance else {}


def class_weights(run: Run, exponent: float) -> Tensor | None:
    """float32 [N] weights (median frequency / frequency)^exponent of the training labels, 1 on average per pixel.

    None for exponent 0: the published plain cross-entropy. A class without pixels gets the largest weight.
    """
    if exponent == 0:
        return None
    pixels = np.array(class_pixels(run), dtype=np.float64)
    present = pixels[pixels > 0]
    weights = (np.median(present) / np.maximum(pixels, present.min())) ** exponent
    weights *= pixels.sum() / (weights * pixels).sum()
    return torch.tensor(weights, dtype=torch.float32)


def pretrained(backbone: Backbone) -> dict[str, Tensor] | None:
    """The weights that an image encoder starts with; None: random ones."""
    return read_backbone_weights(backbone.name, backbone.weights, data_folder()) if backbone.weights else None


def tell_pretrained(backbone: Encoder, weights: str | None) -> None:
    """Print what became of the pretrained weights' keys, where they were not simply the encoder's own."""
    if report := backbone.pretrained:
        keys = sum(bool(row.published) for row in report.rows)
        print(f"pretrained weights {weights}: {keys} keys\n{report}", flush=True)


def describe_use(run: Run, space: ClassSpace) -> dict[str, Any]:
    """What the model files of all recipes say of classes and use: plain values only.

    `colours` are those that show predictions: the data set's, or None.
    """
    return {
        "classes": list(space.names),
        "colours": space.colours and [list(colour) for colour in space.colours],
        "exif_orientation": run.experiment.data.exif_orientation or "apply",
        "training_crop": list(run.experiment.augment.crop),
        "protocol": run.experiment.protocol(),
    }


def is_missing(finished: Path, world: World) -> bool:
    """Whether a stage still has to make its file: the main process's answer, in every process."""
    return not world.from_main(int(finished.is_file()))


def deliver(finished: Path, output: Path) -> None:
    """Put a finished file where the workflow declares it; the one in the work folder survives a failed job."""
    replace_with_link(finished, output)
    print(f"wrote {output}", flush=True)
