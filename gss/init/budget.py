"""Numbers of steps that fit a time, from steps that were measured."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gss.benchmark.benchmark import NoRoom, laps
from gss.config import Experiment
from gss.errors import ConfigError
from gss.init.data import Found
from gss.init.network import Machine
from gss.init.plan import Plan
from gss.stages.run import Run

_USED = 0.85  # of the time: machines are not always as fast as when they were measured
_PASSES = 200  # over the training images, at most
_TOKENIZER = 4000  # steps of a small tokenizer, at most
_FEWEST = 20  # steps
_SHOWN = 20  # images of val that are measured while training
_VALIDATIONS = 5
_PIXEL = {"pixel": 1.0}
_GSS = {"tokenizer": 0.17, "latent_prior": 0.7, "posterior": 0.13}
_SHOWN_BY = {"pixel": "pixel", "tokenizer": "gss_ff", "latent_prior": "gss_ff", "posterior": "gss_ft"}
_STEPS = {"pixel": "pixel.steps", "tokenizer": "tokenizer.train.steps", "posterior": "posterior.steps"}


def measured(run: Run, on: Machine) -> dict[str, float]:
    """Seconds of what a run will do, see `gss.benchmark.benchmark.laps`."""
    with _devices(on):
        return laps(run, on.cores)


def busy(on: Machine) -> str:
    """What to say where others compute on this machine."""
    load = os.getloadavg()[0]
    is_busy = load > on.cores / 4
    return f"others compute on this machine (load {load:.1f}): steps were measured too long" if is_busy else ""


@contextmanager
def _devices(on: Machine) -> Iterator[None]:
    """Hide GPUs that are not to be used from the processes that measure."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if on.hides_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        if on.hides_gpus:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def decide_steps(
    plan: Plan, experiment: Experiment, found: Mapping[str, float], data: Found, hours: float, others: str = ""
) -> list[tuple[str, float]]:
    """Set the numbers of steps, so that a run ends in time.

    Args:
        found: seconds by stage, see `measured`.
        others: that compute here, see `busy`.

    Returns:
        What each stage will take, seconds.

    Raises:
        ConfigError: the time is too short.
    """
    is_gss, counts = experiment.recipe == "gss", data.counts
    start = 2 * found["start"]  # Snakemake's job, and the stage in it
    shown = min(_SHOWN, counts.get("val", 0))
    measured_images = sum(counts[split] for split in experiment.evaluated)
    fixed = {"check": start + data.seconds * sum(counts.values()), "report": start, "evaluate": 0.0}
    if data.making:
        fixed["labels"] = start + data.making
    for model in experiment.kind.models:
        fixed["evaluate"] += start * len(experiment.evaluated) + measured_images * found[f"evaluate {model}"]
    shares = _GSS if is_gss else _PIXEL
    beside = {stage: start + _VALIDATIONS * shown * found[f"evaluate {_SHOWN_BY[stage]}"] for stage in shares}
    if is_gss:
        config = experiment.at("reconstruction")
        labels = 2 * (config.refine_images + sum(counts.values()) - counts["train"])
        retraining = config.max_rounds * config.retrain_steps * found["tokenizer"]
        fixed |= {"palette": start, "merge": start}
        fixed["reconstruct"] = start + labels * found["reconstruction"] + retraining
    rest = sum(fixed.values()) + sum(beside.values())
    left = _USED * 3600 * hours - rest
    times = dict(fixed)
    for stage, share in shares.items():
        lap = found[stage]
        steps, why = _round(max(0.0, left) * share / lap), f"{hours:g} h at {lap:.3g} s for a step, as measured here"
        if steps < _FEWEST:
            needed = (rest + _FEWEST * lap / share) / _USED / 3600
            raise ConfigError(
                f"{hours:g} h are too short: all but the trainings takes {_time(rest)}, a step of {stage} {lap:.3g} s",
                where="--hours",
                todo=f"--hours {math.ceil(10 * needed) / 10:g} is the least{others and f'; but {others}'}",
            )
        if steps > (most := _most(experiment, stage, counts["train"])):
            steps, why = most, f"enough for {counts['train']} photographs; {why} would allow {steps}"
        _put(plan, experiment, stage, steps, why, shown)
        times[stage] = beside[stage] + steps * lap
    order = [row.name for row in experiment.kind.stages]
    return sorted(times.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _most(experiment: Experiment, stage: str, num_images: int) -> int:
    """Steps behind which more would hardly help."""
    if stage == "tokenizer":
        return _TOKENIZER
    return max(5 * _FEWEST, _round(_PASSES * num_images / experiment.at(experiment.trainings[stage]).batch_size))


def _put(plan: Plan, experiment: Experiment, stage: str, steps: int, why: str, shown: int) -> None:
    """Set steps and what follows from them."""
    if stage == "latent_prior":
        plan.put("latent_prior.milestones", [steps], why)
    else:
        plan.put(_STEPS[stage], steps, why)
    if stage not in experiment.trainings:
        return
    key = experiment.trainings[stage]
    plan.put(f"{key}.warmup_steps", min(40, max(1, steps // 15)))
    if shown:
        plan.put(f"{key}.validate_every", math.ceil(steps / _VALIDATIONS), "curves of mIoU for the report")
        plan.put(f"{key}.validate_images", shown)


def fit_memory(plan: Plan, experiment: Experiment, error: NoRoom) -> None:
    """Halve the batch of every training.

    Raises:
        NoRoom: it is as small as can be.
    """
    for key in experiment.trainings.values():
        size = experiment.at(key).batch_size
        if size <= 2:
            raise error
        plan.put(f"{key}.batch_size", size // 2, f"a batch of {size} does not fit into memory here")


def told(times: list[tuple[str, float]]) -> list[str]:
    """A line for each stage, and the sum."""
    rows = [*times, ("all", sum(seconds for _, seconds in times))]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {_time(seconds)}" for name, seconds in rows]


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _round(value: float) -> int:
    """Two digits, downwards."""
    if value < 1:
        return 0
    unit = 10 ** max(0, int(math.log10(value)) - 1)
    return int(value // unit * unit)
