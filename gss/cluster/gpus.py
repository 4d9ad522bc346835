"""The GPUs of a machine: whether there are some, and how many processes share the work on them."""

import os
from collections.abc import Mapping
from pathlib import Path

PRETENDED_GPUS = "GSS_PRETENDED_GPUS"  # set by tests: so many GPUs, which torch does not see
NOTE = "GSS_DEVICE_NOTE"  # what the processes of a stage say of their devices, beside the devices
# NVIDIA's, those of its boards, those of Windows, AMD's
_SIGNS = ("dev/nvidia[0-9]*", "dev/nvhost-gpu", "usr/lib/wsl/lib/libcuda.so*", "dev/kfd")
_SLURMS_GRANTS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")


def present(root: Path = Path("/")) -> bool:
    """Whether this machine has a GPU, by its files: the same at each call, whatever the environment hides."""
    return PRETENDED_GPUS in os.environ or any(any(root.glob(pattern)) for pattern in _SIGNS)


def granted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process may use the GPUs it sees: in a SLURM job those that the job was given, else all."""
    return "SLURM_JOB_ID" not in environment or any(environment.get(name) for name in _SLURMS_GRANTS)


def hidden(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment tells torch to see no GPU."""
    return environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")


def share(seen: int, *, gpus: int | None, processes: int | None, batch: int | None, nodes: int = 1) -> tuple[int, str]:
    """How many processes a stage has on a machine with GPUs, one for each, and why some GPUs lie idle.

    Args:
        seen: GPUs there, at least 1.
        gpus: how many are wanted, at least 1; None: all.
        processes: how many are wanted; None: one per GPU.
        batch: what the processes of all nodes divide evenly among them; None: any number will do.
        nodes: machines with as many GPUs.
    """
    most = min(number for number in (seen, gpus, processes) if number is not None)
    found = next((n for n in range(most, 0, -1) if batch is None or batch % (n * nodes) == 0), most)
    idle = seen - found
    if found < most:
        reason = f"a batch of {batch} cannot be divided among {most * nodes}; with another batch_size it can"
    elif processes == found:
        reason = f"run.resources asks for {processes} processes; without `processes` there is one per GPU"
    else:
        reason = f"run.resources asks for {gpus} GPUs; `gpus: auto` takes all"
    return found, f"{idle} of {seen} GPUs {'lies' if idle == 1 else 'lie'} idle: {reason}" if idle else ""


def parts(batch: int, accumulation: int, made_for: int | None, size: int) -> int:
    """How many micro-batches each of `size` processes makes of its share of a batch: none is larger than with
    `made_for` processes and `accumulation`.

    Args:
        batch: a multiple of `size`.
        made_for: the number of GPUs that an experiment names; None: `accumulation` it is.
    """
    if made_for is None or made_for == size:
        return accumulation
    share = batch // size
    at_once = min(share, max(1, batch // (made_for * accumulation)))
    return share // next(samples for samples in range(at_once, 0, -1) if share % samples == 0)


def unused(seen: int, wanted: int | None, environment: Mapping[str, str] = os.environ) -> str:
    """Why a stage computes on the CPU of a machine that has GPUs, and what helps; empty where it has none.

    Args:
        seen: GPUs that torch sees.
        wanted: how many are; None: all.
    """
    if not (seen or present()):
        return ""
    if not granted(environment):
        reason = "this SLURM job was given none; `stages: {STAGE: {gpus: 1}}` in slurm/config.yaml asks for one"
    elif wanted == 0:
        reason = "run.resources asks for none; `gpus: auto` takes them"
    elif hidden(environment):
        reason = f"CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']} hides them"
    else:
        reason = "torch cannot use them; `gss doctor` says why"
    return f"the GPUs of this machine lie idle: {reason}"
