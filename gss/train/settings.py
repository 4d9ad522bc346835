"""What the training loop is told: plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class LoopSettings:
    """Settings of one training.

    Args:
        steps: optimizer updates of the whole training; the learning rate falls to `min_lr` over them.
        lr: base learning rate.
        schedule, warmup_steps, warmup_ratio, power, min_lr: see `gss.train.schedule.learning_rate`.
        optimizer, betas, momentum, nesterov: AdamW with its `betas`, or SGD with `momentum`.
        weight_decay: decoupled in AdamW, part of the gradient in SGD.
        decay_rule: which parameters are spared from decay, see `gss.train.optim.decays`.
        backbone_lr_factor: learning rate of parameters below `backbone.` as a multiple of `lr`.
        layer_decay: factor of the learning rate from each layer to the one before, see `gss.train.optim.lr_factors`;
            None: 1.
        clip_norm: largest norm of the gradient; None: no clipping.
        ema: decay of an exponential moving average of the weights; None: no average.
        sources: names of the data sets whose losses count alike, of which a batch says in `source` what each sample is
            of: the loss of a step is the mean over them of each one's own, and 0 for one without a valid element.
            Empty: one loss of all samples.
        multitask: how gradients of `sources` make a step: `none`, that of their mean loss; else weighted by MGDA, see
            `gss.train.multitask.SOLVERS`.
        normalisation: what a loss is a mean over. `global`: the elements of the whole step, over all processes and
            micro-batches. `local`: the elements of one micro-batch of one process, and then the mean of these means,
            as in the published distributed training: parts with few valid elements weigh more.
        precision: arithmetic of the trained network; `bf16` and `fp16` are autocast over float32 weights, `fp16`
            with a scaled loss, see `gss.train.scaling`.
        validate_every: steps between validations, see `gss.train.validation`; 0: none.
        keep: which weights are exported: those of the last step, or of the validated one with the best score.
        seed: of everything random inside the learner.
        log_every: steps between progress lines.
        save_every: steps between checkpoints.
        save_minutes: minutes between checkpoints, whichever comes first.
        keep_last: checkpoints kept.
        deadline_margin: seconds before the end of the job's time at which training stops; more where a checkpoint or a
            step takes long.
        profile: steps that are traced, see `gss.train.trace`; 0: none.
        deterministic: on CUDA, operations that give the same bits each time; on the CPU they always do.
        machine: device, processes, accumulation and micro-batch, as checkpoints note them; changes nothing.
    """

    steps: int
    lr: float
    schedule: Literal["poly", "cosine"] = "poly"
    warmup_steps: int = 1500
    warmup_ratio: float = 1e-6
    power: float = 1.0
    min_lr: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.01
    decay_rule: Literal["default", "published", "vectors", "all"] = "default"
    backbone_lr_factor: float = 1.0
    layer_decay: float | None = None
    clip_norm: float | None = None
    ema: float | None = None
    sources: tuple[str, ...] = ()
    multitask: Literal["none", "mgda", "mgda_fw"] = "none"
    normalisation: Literal["global", "local"] = "global"
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    validate_every: int = 0
    keep: Literal["last", "best"] = "last"
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    save_minutes: float = 20.0
    keep_last: int = 2
    deadline_margin: float = 60.0
    profile: int = 0
    deterministic: bool = False
    machine: Mapping[str, Any] = field(default_factory=dict)
