"""What a training needs of this machine, found out with one or two crops before anything trains."""

import os
import shutil
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gss.cluster import gpus
from gss.config import Experiment
from gss.data.augment import NO_PHOTOMETRIC
from gss.data.classes import ClassSpace
from gss.data.ids import tensor_dtype
from gss.stages.rehearse import naming, processes
from gss.stages.run import Run
from gss.stages.training import loop_settings
from gss.train.distributed import World
from gss.train.learner import Batch
from gss.train.objective import Objective
from gss.train.progress import Meter
from gss.train.scaling import LossScale

_GIB = 2**30


@dataclass(frozen=True)
class Need:
    """The memory of a training's process, bytes, at least: temporary tensors come on top.

    Args:
        kept: weights, what the optimiser keeps of them, their average.
        gradients: of the weights.
        each: of an image, what is kept of the forward pass for the backward pass.
    """

    kept: int
    gradients: int
    each: int

    def of(self, images: int) -> int:
        """With so many images at a time."""
        return self.kept + max(self.gradients, images * self.each)

    def told(self, images: int) -> str:
        """With so many images at a time, and fewer."""
        counts = [images >> half for half in range(images.bit_length())]
        each = ", ".join(f"{self.of(count) / _GIB:.2f} GiB for {count}" for count in counts)
        return f"at least {each} at a time"


def device_of(experiment: Experiment, stage: str) -> torch.device | None:
    """What a stage would compute on if it ran here; None: its place is another one, as a job's of a cluster."""
    asked = experiment.resources(stage).gpus
    if asked != 0 and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    is_elsewhere = "SLURM_JOB_ID" in os.environ or shutil.which("sbatch") is not None or gpus.present()
    return torch.device("cpu") if asked == 0 or (asked == "auto" and not is_elsewhere) else None


def at_once(experiment: Experiment, stage: str) -> int:
    """Images that a process of a training here computes with at a time."""
    training, asked, seen = experiment.at(experiment.trainings[stage]), experiment.resources(stage), 0
    count = processes(experiment, stage)
    if asked.gpus == "auto" and (seen := torch.cuda.device_count()):
        count = gpus.share(seen, gpus=None, processes=asked.processes, batch=experiment.divided(stage))[0]
    return training.batch_size // (training.accumulation * count)


def find_need(run: Run, space: ClassSpace, stage: str, device: torch.device) -> Need:
    """Send one or two crops forward and backward through what a stage trains, with random weights and in its precision.

    Nothing of this process's random state changes.

    Raises:
        ConfigError: that cannot be done.
        Exception: an allocation failed; see `gss.errors.is_no_memory`.
    """
    experiment = run.experiment
    key = experiment.trainings[stage]
    settings = loop_settings(run, experiment.at(key), steps=1)
    world = World(0, 1, 0, device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), naming(f"{key}, augment.crop, and the networks of {stage}"):
        learner: nn.Module = experiment.kind.part("rehearse").learner(run, space, stage, device)
        objective = Objective(learner, settings, world)
        objective.model.train()
        scale = LossScale(device) if settings.precision == "fp16" else None
        few = min(2, at_once(experiment, stage))
        held = [_held(objective, _crops(run, space, images), scale) for images in (few, few + 1)]
    trained = [each for each in objective.learner.saved.parameters() if each.requires_grad]
    size = sum(map(_bytes, trained))
    moments = 2 if settings.optimizer == "adamw" else int(settings.momentum > 0)
    all_weights = sum(map(_bytes, [*learner.parameters(), *learner.buffers()]))
    each = held[1] - held[0]
    kept = all_weights + size * (moments + (settings.ema is not None)) + max(0, held[0] - few * each)
    return Need(kept, size, each)


@dataclass(eq=False)
class _Kept:
    """A tensor that the graph of a forward pass holds."""

    tensor: Tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _held(objective: Objective, batch: Batch, scale: LossScale | None) -> int:
    """Bytes that a forward pass keeps for its backward pass beside the weights; both are done."""
    model = objective.model
    weights = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: weakref.WeakSet[_Kept] = weakref.WeakSet()  # what of the graph is let go at once leaves it
    done: list[int] = []

    def keep(tensor: Tensor) -> _Kept:
        found = _Kept(tensor)
        kept.add(found)
        return found

    def count(*_: object) -> None:
        storages = (each.tensor.untyped_storage() for each in kept)
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        done.append(sum(size for place, size in sizes.items() if place not in weights))

    hook = model.register_forward_hook(count)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda found: found.tensor):
        objective.backward([objective.move(batch)], 0, Meter(), scale)
    hook.remove()
    model.zero_grad(set_to_none=True)
    return done[0]


def _crops(run: Run, space: ClassSpace, images: int) -> dict[str, Tensor]:
    """A micro-batch of noise, as the loader gives it."""
    height, width = run.experiment.augment.crop
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(space.num_classes, (images, height, width), generator=generator)
    return {
        "image": torch.randint(256, (images, 3, height, width), generator=generator, dtype=torch.uint8),
        "label": label.to(tensor_dtype(space.num_classes)),
        "valid": torch.tensor([[0, 0, height, width]] * images),
        "photometric": torch.tensor([NO_PHOTOMETRIC] * images),
        "source": torch.arange(images) % max(1, len(run.experiment.data.balanced)),
    }
