"""Processes of one training: who am I, sums over all, and the end in good order."""

import contextlib
import datetime
import hashlib
import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gss.cluster import gpus
from gss.cluster.exit import die_with_torchrun, worker_exit
from gss.cluster.lock import writer_lock
from gss.errors import GssError

_GROUPS = itertools.count()  # that this process has joined, one after the other


@dataclass(frozen=True)
class World:
    """This process among all processes of a job.

    Args:
        rank: 0..size-1.
        size: number of processes.
        local_rank: number of this process on its machine.
        device: where this process computes.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    @property
    def machine(self) -> dict[str, Any]:
        """What the job computes on, as its results say it: `device` (`cpu`, or the name of the GPU) and `processes`."""
        cuda = self.device.type == "cuda"
        return {"device": torch.cuda.get_device_name(self.device) if cuda else "cpu", "processes": self.size}

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place and returned; on CPU or this process's device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process; the device is not waited for."""
        return bool(self.sum(torch.tensor(int(flag)))) if self.size > 1 else flag

    def max(self, number: int) -> int:
        """The largest number of all processes; the device is not waited for."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def from_main(self, number: int) -> int:
        """The main process's number, in every process."""
        return int(self.sum(torch.tensor(number if self.is_main else 0)))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, by rank, on the CPU; all have one shape and dtype."""
        tensor = tensor.cpu()
        if self.size == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(gathered, tensor)
        return gathered

    def barrier(self) -> None:
        """Wait for all processes."""
        self.any(False)

    def close(self) -> None:
        """Leave the group; every process calls it, in good order."""
        if self.size > 1:
            dist.destroy_process_group()


def setup() -> World:
    """Join the processes that torchrun started; without torchrun, a single process.

    CPU tensors travel by gloo, also beside NCCL: counting flags there does not make the host wait for the GPU.

    Raises:
        GssError: more processes than GPUs on this machine.
    """
    die_with_torchrun()
    # 1x1 convolutions in channels-last layout: it costs a copy per step.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    rank, size, local_rank = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise GssError(
                f"{local_rank + 1} or more processes, but {torch.cuda.device_count()} GPUs",
                where="gss launch --nproc",
                todo="ask for at most one process per GPU",
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if size > 1:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        timeout = datetime.timedelta(minutes=30)
        meeting, rank, size = next(dist.rendezvous("env://", timeout=timeout))
        # The store outlives the group: in one of the same name processes could find addresses of the group before.
        store = dist.PrefixStore(f"group {next(_GROUPS)}", meeting)
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=size)
    return World(rank, size, local_rank, device)


@contextlib.contextmanager
def worker(work: Path) -> Iterator[World]:
    """Be one process of a verb that runs under `gss launch` (or alone): the world inside, the exit code at the end.

    The main process is the only one that writes into the work folder, as long as it lives.
    """
    die_with_torchrun()
    is_main = os.environ.get("RANK", "0") == "0"  # the others wait for it where they meet
    with writer_lock(work) if is_main else contextlib.nullcontext(), worker_exit(work):
        world = setup()
        if world.is_main:
            print(_devices(world), flush=True)
        yield world
        world.close()


def _devices(world: World) -> str:
    """What a stage computes on, and how what lies idle could be used."""
    if world.device.type == "cuda":
        devices = f"{world.size} x {world.machine['device']}"
    else:
        devices = f"the CPU, {world.size} x {torch.get_num_threads()} threads"
    note = os.environ.get(gpus.NOTE)  # of the launcher
    if note is None:
        idle = torch.cuda.device_count() - world.size
        note = f"`gss launch` uses {idle} more" if idle > 0 else "" if idle == 0 else gpus.unused(0, None)
    return f"computing on {devices}{'; ' if note else ''}{note}"


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step: what is random in it does not depend on the steps before, so no state is saved."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def repeat_bits(wanted: bool) -> None:
    """Use only CUDA operations that give the same bits every time; one that has no such form warns.

    torch would also fill memory that nothing has written to yet: that is of no use here and not done.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for before it trusts cuBLAS
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def float_buffers(module: nn.Module) -> list[Tensor]:
    """Running statistics: the buffers that differ between processes when batch norm is not synchronised."""
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]


@torch.no_grad()
def average_buffers(module: nn.Module, world: World) -> None:
    """Replace running statistics by their mean over the processes, in place; before a module is used as a whole."""
    if world.size > 1:
        for buffer in float_buffers(module):
            world.sum(buffer).div_(world.size)


def gather_buffers(module: nn.Module, world: World) -> list[Tensor]:
    """The running statistics of every process, each as one vector, for a checkpoint."""
    buffers = float_buffers(module)
    return world.gather(torch.cat([buffer.flatten() for buffer in buffers])) if buffers else []


@torch.no_grad()
def restore_buffers(module: nn.Module, gathered: list[Tensor], world: World) -> None:
    """Take this process's running statistics from a checkpoint; the mean where the number of processes changed."""
    if not gathered:
        return
    vector = gathered[world.rank] if len(gathered) == world.size else torch.stack(gathered).mean(0)
    buffers = float_buffers(module)
    for buffer, part in zip(buffers, vector.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))
