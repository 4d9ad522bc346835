"""The memory through which loader processes hand over their batches: a file system that containers make small."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/dev/shm")
PREFETCH = 2  # micro-batches that a loader process makes ahead
FEWER = "lower run.workers; with 0 the training loads the same batches itself"
REMEDY = (
    "give it more (docker run --shm-size=2g, or --ipc=host; without a container, as root: mount -o remount,size=2g "
    f"/dev/shm), or {FEWER}"
)
_PAGE = 4096


@dataclass(frozen=True)
class Demand:
    """What the loader processes of a training take of it on this machine.

    Args:
        samples: of a micro-batch.
        crop: (height, width) of a sample.
        accumulation: micro-batches of a step.
        workers: loader processes of each training process.
        processes: training processes on this machine.
        label_bytes: of a pixel of the label.
    """

    samples: int
    crop: tuple[int, int]
    accumulation: int
    workers: int
    processes: int
    label_bytes: int = 1

    @property
    def micro_batch(self) -> int:
        """Bytes of one, each of its tensors in whole pages."""
        pixels = self.crop[0] * self.crop[1]
        sizes = (3 * pixels, self.label_bytes * pixels, 32, 20, 8, 8)
        return sum(-(-self.samples * size // _PAGE) * _PAGE for size in sizes)

    @property
    def bytes(self) -> int:
        """The most at a time: what is made ahead, and the step at work beside the one that is being gathered."""
        if self.workers == 0:
            return 0
        return self.processes * (self.workers * PREFETCH + 2 * self.accumulation) * self.micro_batch

    def __str__(self) -> str:
        return f"loader processes need {_megabytes(self.bytes)} of {FOLDER}"

    def shortage(self, folder: Path = FOLDER) -> str | None:
        """Why that cannot be had, in words; None: it can."""
        if self.bytes == 0 or sys.platform != "linux":
            return None
        if not os.access(folder, os.W_OK):
            return f"loader processes need {folder}, which is missing or cannot be written"
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if free >= self.bytes or found.f_blocks == 0:  # a tmpfs without a limit has no blocks
            return None
        return (
            f"{folder} is too small for the loader processes: {_megabytes(free)} free, {_megabytes(self.bytes)} needed "
            f"(micro-batches of {_megabytes(self.micro_batch)}, for each of {self.processes} training processes "
            f"{self.workers} x {PREFETCH} made ahead and 2 x {self.accumulation} in use)"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
