"""Batches as a pure function of (seed, step): the same for any number of processes and after any restart."""

import atexit
import hashlib
import os
import re
import signal
import threading
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypedDict, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gss.cluster.exit import die_with
from gss.data.augment import Augment, apply, draw
from gss.data.classes import ClassSpace
from gss.data.images import read_image, read_label
from gss.data.manifest import Pair
from gss.data.shared_memory import FEWER, PREFETCH, REMEDY
from gss.errors import ConfigError, DataError, GssError

_GRACE_SECONDS = 60  # a worker told to stop goes on this long, so that its training process can stop in order
_LOOK_SECONDS = 5  # how often a training that waits for its workers looks whether they live
_NOTE_SECONDS, _SILENCE_SECONDS = 60, 600  # so long they may deliver nothing until it is said, and until it is an error


class Batch(TypedDict):
    """One micro-batch of b samples.

    image: uint8 [b, 3, h, w], RGB, in channels-last memory; label: uint8 [b, h, w]; valid: int64 [b, 2], height
    and width of the part that is not padding; photometric: float32 [b, 5], see `gss.data.augment.Draws`;
    position: int64 [b], place of the sample in the endless stream of samples.
    """

    image: Tensor
    label: Tensor
    valid: Tensor
    photometric: Tensor
    position: Tensor


def read_pair(pair: Pair, space: ClassSpace) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its label.

    Returns:
        uint8 [H, W, 3] RGB and uint8 [H, W] class ids or 255.

    Raises:
        DataError: a file is missing, damaged or not what the check saw.
    """
    image, label = read_image(pair.image, pair.orientation), read_label(pair.label, space)
    for path, size in ((pair.image, image.shape[:2]), (pair.label, label.shape)):
        if size != (pair.height, pair.width):
            raise DataError(
                f"size {size[0]}x{size[1]}, but {pair.height}x{pair.width} when the data set was checked",
                where=path,
                todo="the data set changed: delete data/manifest.json of this experiment and run the check again",
            )
    return image, label


def shard(num_items: int, rank: int, world_size: int) -> range:
    """The items of one process: disjoint over the ranks, together all, none twice."""
    return range(rank, num_items, world_size)


def sample_seed(seed: int, position: int) -> int:
    """Seed, 32 bit, of the generator of the sample at a position of the stream."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=4).digest(), "little")


class SampleOrder:
    """Which pair stands at a position of the stream: one permutation of all pairs after the other.

    Args:
        num_pairs: length of each permutation.
        seed: permutation k is drawn with seed + k.
    """

    def __init__(self, num_pairs: int, seed: int) -> None:
        self.num_pairs, self.seed = num_pairs, seed
        self._round, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def __getitem__(self, position: int) -> int:
        turn, place = divmod(position, self.num_pairs)
        if turn != self._round:
            generator = torch.Generator().manual_seed(self.seed + turn)
            self._round, self._permutation = turn, torch.randperm(self.num_pairs, generator=generator)
        return int(self._permutation[place])


class TrainLoader:
    """Endless training batches, from a given step on.

    The global batch of step t is made of the positions t * B ... (t + 1) * B - 1 of the stream. It is cut into
    `accumulation * world_size` equal parts; micro-batch a of rank r is part a * world_size + r.

    Args:
        pairs: the training split.
        augment: settings of the random geometry.
        seed: of order and augmentation.
        batch_size: B, samples of one step over all processes.
        accumulation: micro-batches per step and process.
        workers: processes that read and augment; 0 does it in this one.
        start_step: step of the first batch; a resumed run sees what an unbroken one would.
        pin_memory: page-locked batches, for CUDA.

    Raises:
        ConfigError: `batch_size` cannot be divided.
        DataError: no pairs; while iterating: a file that cannot be used, by name.
        GssError: while iterating: a worker ended, cannot hand its batches over, or nothing was delivered for minutes.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        space: ClassSpace,
        augment: Augment,
        *,
        seed: int,
        batch_size: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        start_step: int = 0,
        pin_memory: bool = False,
    ) -> None:
        parts = accumulation * world_size
        if batch_size % parts:
            raise ConfigError(
                f"batch_size {batch_size} cannot be divided among {world_size} processes with accumulation "
                f"{accumulation}",
                todo=f"choose a multiple of {parts}, for example {max(round(batch_size / parts), 1) * parts}",
            )
        if not pairs:
            raise DataError("the training split has no pairs", todo="run the check stage")
        self.accumulation = accumulation
        # One endless pass keeps the workers alive; each work unit is a whole micro-batch.
        self._batches = DataLoader(
            _MicroBatches(pairs, space, augment, seed),
            sampler=_Positions(batch_size, parts, rank, world_size, start_step),
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_prepare_worker if workers else None,
            prefetch_factor=PREFETCH if workers else None,
            timeout=_LOOK_SECONDS if workers else 0,
        )

    def __iter__(self) -> Generator[list[Batch], None, None]:
        """The micro-batches of one step after the other; closing the generator ends the workers."""
        steps = self._steps()
        # At exit multiprocessing waits for children that ignore its SIGTERM: the workers have to end before.
        atexit.register(_close, weakref.ref(steps))
        return steps

    def _steps(self) -> Generator[list[Batch], None, None]:
        items = _start(self._batches)
        watch = _Watch(getattr(items, "_workers", []))
        try:
            while True:
                step: list[Batch] = []
                while len(step) < self.accumulation:
                    item = _next(items, watch)
                    if isinstance(item, GssError):
                        raise item
                    step.append(item)
                yield step
        finally:
            watch.over.set()
            del items  # ends the workers even where a traceback keeps this frame


def _close(steps: weakref.ref[Generator]) -> None:
    alive = steps()
    if alive is not None:
        alive.close()


def _start(batches: DataLoader) -> Iterator[Batch | GssError]:
    """The items of a DataLoader; that a worker has ended is found out by who waits for it, and nowhere else."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        items = iter(batches)
    except OSError as error:
        raise GssError(f"loader processes cannot be started: {error.strerror}", todo=FEWER) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)  # torch's raises wherever the training happens to be
    return items


def _next(items: Iterator[Batch | GssError], watch: "_Watch") -> Batch | GssError:
    """The next micro-batch, or why there is none: returned, because a traceback of torch's keeps the workers alive."""
    watch.wait += 1
    try:
        while True:
            try:
                return next(items)
            except (RuntimeError, OSError, EOFError) as error:  # torch's and multiprocessing's, for everything
                if watch.verdict is not None:
                    return GssError(watch.verdict, todo="look whether the data set's disk or file server answers, then "
                                    "run the same command again")
                for worker in watch.workers:
                    if worker.exitcode is not None:
                        return _ended(worker)
                if re.search("open files|ancdata", str(error)):
                    what = "too many open files: loader processes hand over each batch as some"
                    return GssError(what, todo=f"raise the limit (ulimit -n), or {FEWER}")
                if not str(error).startswith("DataLoader timed out"):
                    raise
    finally:
        watch.wait += 1


class _Watch(threading.Thread):
    """Says when the loader has delivered nothing for long, and at last ends its workers.

    That frees a training even from a stopped worker, whose half a message it may be reading. Looks are counted, not
    seconds: a job that was suspended as a whole has not waited.

    Args:
        workers: the loader's.

    Attributes:
        wait: counted up at the begin and at the end of each wait.
        verdict: why the workers were ended.
        over: set when the loader is.
    """

    def __init__(self, workers: Sequence[BaseProcess]) -> None:
        super().__init__(name="loader watch", daemon=True)
        self.workers, self.wait, self.over = workers, 0, threading.Event()
        self.verdict: str | None = None
        if workers:
            self.start()

    def run(self) -> None:
        """Look again and again."""
        seen = looks = 0
        while not self.over.wait(_LOOK_SECONDS):
            looks = looks + 1 if self.wait == seen and seen % 2 else 0
            seen, silent = self.wait, looks * _LOOK_SECONDS
            if silent >= _SILENCE_SECONDS:
                self.verdict = f"the loader has delivered nothing for {silent} s: {_state(self.workers)}"
                for worker in self.workers:
                    worker.kill()
                return
            if silent == _NOTE_SECONDS:
                print(f"waiting for the loader for {silent} s: {_state(self.workers)}", flush=True)


def _ended(worker: BaseProcess) -> GssError:
    """What to say of a worker that is no more."""
    code = worker.exitcode or 0
    if code == -signal.SIGBUS:
        return GssError(f"loader process {worker.pid} was ended by SIGBUS: shared memory ran out", todo=REMEDY)
    if code == -signal.SIGKILL:
        return GssError(
            f"loader process {worker.pid} was ended by SIGKILL, most often because memory ran out",
            todo=f"give the stage more memory (run.resources.STAGE.memory_mb, or the container's), or {FEWER}",
        )
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return GssError(
        f"loader process {worker.pid} ended with {how}; the lines above may say why",
        todo=f"run the same command again, or {FEWER}",
    )


def _state(workers: Sequence[BaseProcess]) -> str:
    """What the kernel says of each worker: its state, and the files it is reading."""
    return "; ".join(f"process {worker.pid} {_doing(Path(f'/proc/{worker.pid}'))}" for worker in workers)


def _doing(process: Path) -> str:
    try:
        state = re.search(r"State:\s+\w \((.+)\)", (process / "status").read_text())
        opened = [
            (process / "fd" / info.name).readlink()
            for info in (process / "fdinfo").iterdir()
            if re.search(r"^flags:\s+\d*[04]$", info.read_text(), re.MULTILINE)  # for reading only
        ]
    except OSError:
        return "is in an unknown state"
    files = [str(path) for path in opened if path.is_absolute() and path.parts[1] not in ("dev", "proc")]
    return f"is in state {state[1] if state else '?'!r}{', reading ' if files else ''}{', '.join(files)}"


@dataclass(frozen=True)
class _Positions:
    """The positions of one micro-batch after the other, as the sampler of a DataLoader."""

    batch_size: int
    parts: int
    rank: int
    world_size: int
    start_step: int

    def __iter__(self) -> Iterator[range]:
        size = self.batch_size // self.parts
        for step in count(self.start_step):
            for part in range(self.rank, self.parts, self.world_size):
                start = step * self.batch_size + part * size
                yield range(start, start + size)


class _MicroBatches(Dataset):
    """Positions -> micro-batch. A fault is returned, not raised: torch would bury it in its own traceback."""

    def __init__(self, pairs: Sequence[Pair], space: ClassSpace, augment: Augment, seed: int) -> None:
        self.pairs, self.space, self.augment, self.seed = pairs, space, augment, seed
        self.order = SampleOrder(len(pairs), seed)

    def __getitem__(self, positions: range) -> Batch | GssError:
        size, (height, width) = len(positions), self.augment.crop
        image = torch.empty(size, height, width, 3, dtype=torch.uint8)
        label = torch.empty(size, height, width, dtype=torch.uint8)
        valid = torch.empty(size, 2, dtype=torch.int64)
        photometric = torch.empty(size, 5)
        for row, position in enumerate(positions):
            rng = np.random.RandomState(sample_seed(self.seed, position))
            try:
                native_image, native_label = read_pair(self.pairs[self.order[position]], self.space)
            except DataError as error:
                return error
            draws = draw(rng, native_label, self.augment)
            sample = apply(native_image, native_label, draws, self.augment)
            image[row] = torch.from_numpy(sample.image)
            label[row] = torch.from_numpy(sample.label)
            valid[row] = torch.tensor(sample.valid)
            photometric[row] = torch.tensor(sample.photometric)
        batch = Batch(
            image=image.permute(0, 3, 1, 2),  # [b, 3, h, w]
            label=label,
            valid=valid,
            photometric=photometric,
            position=torch.tensor(positions),
        )
        if get_worker_info() is None:
            return batch
        try:  # here: torch would do it in a thread, where a failure is printed and the batch never comes
            for tensor in cast(dict[str, Tensor], batch).values():
                tensor.share_memory_()
        except RuntimeError as error:
            return GssError(f"a loader process cannot hand over its batch: {error}", todo=REMEDY)
        return batch


def _prepare_worker(worker: int) -> None:
    """One thread per worker; stop signals are the training process's business, which then ends its workers.

    A worker ends with a killed training at once: it has inherited the lock of the work folder.
    """
    del worker
    die_with(os.getppid())
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
