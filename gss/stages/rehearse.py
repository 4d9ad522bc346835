"""What would stop a later stage and can be known now: files, sizes, and networks built without their numbers."""

import contextlib
import math
from collections.abc import Iterator

import torch

from gss.config import Experiment
from gss.data.classes import ClassSpace
from gss.data.loader import next_multiple
from gss.errors import CheckpointError, ConfigError, is_no_memory
from gss.stages.run import Run


def rehearse(run: Run, space: ClassSpace) -> None:
    """Refuse a configuration that a stage after the check would stop at, and warn of keys without effect and of what
    accumulation changes; takes seconds, trains and writes nothing.

    Args:
        space: the classes of the data set.

    Raises:
        ConfigError, CheckpointError: what cannot be, with the key that says it.
    """
    experiment = run.experiment
    for cause, keys in experiment.idle.items():
        print(f"warning: with {cause} there is no effect of {', '.join(keys)}", flush=True)
    for what, key, path, todo in experiment.named_files():
        if not path.is_file():
            raise ConfigError(f"{what} not found: {path.absolute()}", where=key, todo=todo)
    require_divisible(experiment)
    for key in dict.fromkeys(experiment.trained.values()):
        if experiment.at(key).accumulation > 1:
            print(
                f"warning: {key}.accumulation: BatchNorm sees the images of one micro-batch at a time, so the result "
                "is not that of the whole batch",
                flush=True,
            )
    experiment.kind.part("rehearse").rehearse(run, space)


def require_divisible(experiment: Experiment) -> None:
    """Raise ConfigError unless every batch can be divided among processes, micro-batches and balanced sources."""
    for stage, key in experiment.trained.items():
        training = experiment.at(key)
        parts = training.accumulation * processes(experiment, stage)
        sources = len(experiment.data.balanced) if stage in experiment.trainings else 0
        if training.batch_size % math.lcm(parts, sources or 1):
            raise ConfigError(
                f"{training.batch_size} images per update cannot be divided into {parts} parts"
                + (f", and among the {sources} sources of `data.sampling: balanced`" if sources else ""),
                where=f"{key}.batch_size; accumulation, and the processes of run.resources.{stage}",
                todo=next_multiple(training.batch_size, parts, sources or 1),
            )


def images_at_once(experiment: Experiment, stage: str) -> int:
    """Images per process and micro-batch of a stage that trains here; 2 where it does not."""
    key = experiment.trained.get(stage)
    if key is None:
        return 2
    training = experiment.at(key)
    return training.batch_size // (training.accumulation * processes(experiment, stage))


def processes(experiment: Experiment, stage: str) -> int:
    """As far as they are named: how many GPUs there are is known where the stage runs."""
    asked = experiment.resources(stage)
    return experiment.made_for(stage) or asked.nodes * (asked.processes or 1)


def size_of_input(experiment: Experiment) -> tuple[int, int]:
    """(height, width) of what the evaluation shows the network; the sizes of the images are not known yet."""
    protocol = experiment.evaluation
    width, height = protocol.scale or experiment.augment.box
    return protocol.crop if protocol.mode == "slide" else (height, width)


def warn_of_larger_images(experiment: Experiment, input_size: tuple[int, int] | None) -> None:
    """Say so where an evaluation of whole images may meet one that is too large for the encoder.

    Args:
        input_size: (height, width) of the encoder's images; None: any.
    """
    if input_size and experiment.evaluation.mode == "whole":
        rows, columns = input_size
        print(
            f"warning: evaluation.mode: whole: the encoder takes images up to {rows} x {columns} (height x width); for "
            f"larger ones evaluate in windows: {{mode: slide, crop: [{rows}, {columns}], stride: ...}}",
            flush=True,
        )


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Errors name the keys that they come from; what torch and timm raise becomes one, unless memory ran out."""
    try:
        yield
    except (ConfigError, CheckpointError) as error:
        raise type(error)(error.what, where=error.where or where, todo=error.todo) from error
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        if is_no_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"such a network cannot be built or used: {reason}",
            where=where,
            todo="compare these keys with docs/reference/config.md",
        ) from error


META = torch.device("meta")
STEPS = 2  # of a training that is only tried: the second one computes with weights that the first has changed
