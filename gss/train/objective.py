"""The loss of a step and its gradients, over all processes and micro-batches."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gss._compat import import_timm
from gss.train.distributed import World, repeat_bits
from gss.train.learner import Batch, Learner
from gss.train.multitask import SourceGradients
from gss.train.progress import Meter
from gss.train.scaling import LossScale
from gss.train.settings import LoopSettings

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # over float32 weights
EPS = float(torch.finfo(torch.float32).eps)  # the published losses divide by count + eps


class Objective:
    """A learner on its device, and its loss: the weighted sum over terms of sum / (count + eps).

    With `settings.sources` it is the mean over the sources of this, each with its own sums and counts; with
    `settings.multitask` their sum by weights that follow from the gradients of each, which are no part of the gradient.

    Sums and counts are those of all processes and micro-batches: how the batch is divided does not change the loss
    (unless `settings.normalisation` is `local`). It does change what BatchNorm sees, one micro-batch at a time, of all
    processes on GPUs and of its own on CPUs, and which elements dropout and stochastic depth draw; what has none of
    these is trained alike to rounding.

    Args:
        learner: a `Learner`; moved to the device and precision.

    Attributes:
        learner: with synchronised BatchNorm where there are several GPUs.
        model: the learner as it is called, which exchanges gradients where there are several processes, unless
            `multitask` has those of each source exchanged.
    """

    def __init__(self, learner: nn.Module, settings: LoopSettings, world: World) -> None:
        self._settings, self._world = settings, world
        self._dtype = torch.float64 if settings.precision == "fp64" else torch.float32
        if world.device.type == "cuda":
            repeat_bits(settings.deterministic)
        learner.to(world.device)  # the type stays: a tokenizer may be in lower precision
        if self._dtype == torch.float64:
            learner.double()
        if world.size > 1 and world.device.type == "cuda":
            # torch's own converter drops the activations that timm keeps inside its BatchNorm
            learner = import_timm().layers.convert_sync_batchnorm(learner)
        self.learner = cast(Learner, learner)
        self._gradients = None
        if settings.multitask != "none":  # which exchanges them itself
            self._gradients = SourceGradients(self.learner.saved, settings.multitask, world)
        alone = world.size == 1 or self._gradients is not None
        self.model = learner
        if not alone:
            idle = self.learner.has_idle
            self.model = DistributedDataParallel(learner, forward_sync_buffers=False, find_unused_parameters=idle)
        weights = torch.tensor(list(self.learner.terms.values()), dtype=torch.float64, device=world.device)
        self._weights = weights[:, None] if settings.sources else weights

    def move(self, batch: Batch) -> dict[str, Tensor]:
        """A batch on the device, its floats in the precision of the training; with sources, these are its groups."""
        moved = {
            name: value.to(self._world.device, self._dtype if value.is_floating_point() else None, non_blocking=True)
            for name, value in batch.items()
        }
        if self._settings.sources:
            moved["groups"] = F.one_hot(moved["source"], len(self._settings.sources)).to(self._dtype)  # [b, S]
        return moved

    def backward(self, micro: Sequence[Batch], step: int, meter: Meter, scale: LossScale | None = None) -> Tensor:
        """Gradients of the whole step's loss, times `scale`; returns this process's share of the loss, float64."""
        precision = self._settings.precision
        ddp = self.model if isinstance(self.model, DistributedDataParallel) else None
        factor = (1 if ddp is None else self._world.size) * (1 if scale is None else scale.factor)  # DDP takes the mean
        divisors = self._divisors(torch.stack([self.learner.counts(batch) for batch in micro]))
        total = torch.zeros_like(divisors[0])
        for number, (batch, divisor) in enumerate(zip(micro, divisors, strict=True), start=1):
            with ddp.no_sync() if ddp is not None and number < len(micro) else nullcontext():
                with torch.autocast(self._world.device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
                    sums, stats = self.model(batch, step)
                terms = self._weights * sums / divisor  # [k] or [k, S]
                if self._gradients is None:
                    (terms.sum() * factor).backward()
                else:
                    self._gradients.add(terms.sum(0) * factor)
            total += terms.detach()
            for name, (value, count) in stats.items():
                meter.add(f"train/{name}", value, count)
        if self._gradients is not None:
            weights = self._gradients.combine(scale)  # [S]
            total *= weights
            for name, weight in zip(self._settings.sources, weights, strict=True):
                meter.add(f"train/weight_{name}", weight, 1.0)
        if self._settings.sources:
            total = total.sum(1)
        size = self._world.size
        meter.add("train/loss", total.sum() * size, 1.0)
        for name, term in zip(self.learner.terms, total, strict=True):
            meter.add(f"train/loss_{name}", term * size, 1.0)
        return total.sum()

    def _divisors(self, counts: Tensor) -> Tensor:
        """What the sums of this process's micro-batches are divided by, like `counts` float64 [micro-batches, k] or
        [micro-batches, k, S]."""
        if self._settings.normalisation == "local":
            return (counts + EPS) * (self._world.size * len(counts))
        alike = len(self._settings.sources) if self._settings.sources and self._gradients is None else 1
        return ((self._world.sum(counts.sum(0)) + EPS) * alike).expand_as(counts)

    def warn_of_micro_batches(self, micro: Sequence[Batch]) -> None:
        """Say so where BatchNorm makes the result depend on how a step's batch is divided into micro-batches."""
        norms = sum(isinstance(module, _BatchNorm) and module.training for module in self.model.modules())
        if norms and len(micro) > 1 and self._world.is_main:
            seen = size_of(micro[0]) * (self._world.size if self._world.device.type == "cuda" else 1)
            step = sum(map(size_of, micro)) * self._world.size
            print(
                f"warning: accumulation {len(micro)}: {norms} BatchNorm layers see {seen} of a step's {step} images "
                "at a time, so the result is not that of accumulation 1",
                flush=True,
            )


def size_of(batch: Batch) -> int:
    """Images in a micro-batch."""
    return len(next(iter(batch.values())))
