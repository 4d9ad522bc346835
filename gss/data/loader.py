"""Batches as a pure function of (seed, step): the same for any number of processes and after any restart."""

import atexit
import contextlib
import hashlib
import math
import os
import signal
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import TypedDict, TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gss.cluster.exit import die_with
from gss.data import waiting
from gss.data.augment import Augment, apply, draw
from gss.data.classes import ClassSpace
from gss.data.ids import tensor_dtype
from gss.data.manifest import Pair
from gss.data.shared_memory import PREFETCH, REMEDY
from gss.errors import ConfigError, DataError, GssError

_GRACE_SECONDS = 60  # a worker told to stop goes on this long, so that its training process can stop in order
READ_AHEAD = 2  # items on a thread while one is worked on

Item = TypeVar("Item")
Found = TypeVar("Found")


class Batch(TypedDict):
    """One micro-batch of b samples.

    image: uint8 [b, 3, h, w], RGB, in channels-last memory; label: [b, h, w], see `gss.data.ids`; valid: int64 [b, 4],
    top, left, bottom and right of the part that is not padding; photometric: float32 [b, 5], see
    `gss.data.augment.Draws`; position: int64 [b], place of the sample in the endless stream of samples; source: int64
    [b], number of its source among those of the pairs.
    """

    image: Tensor
    label: Tensor
    valid: Tensor
    photometric: Tensor
    position: Tensor
    source: Tensor


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its label.

    Returns:
        uint8 [H, W, 3] RGB and, by the pair's space, `dtype` [H, W] class ids or `ignore_index`.

    Raises:
        DataError: a file is missing, damaged or not what the check saw.
    """
    image, label = pair.read_image(), pair.read_label()
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


@contextlib.contextmanager
def read_ahead(read: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Iterator[tuple[Item, Future[Found]]]]:
    """The items in their order, each with what a thread has read of it, or raised; the next ones are read meanwhile.

    The thread ends with the block. Were it to end when the garbage collector finds an iterator that an error has left
    behind, it could be waited for in the middle of another thread's start, where that waits for ever.
    """
    with ThreadPoolExecutor(1, "read") as reader:
        yield _ahead(reader, read, items)


def _ahead(
    reader: ThreadPoolExecutor, read: Callable[[Item], Found], items: Iterable[Item]
) -> Iterator[tuple[Item, Future[Found]]]:
    waiting: deque[tuple[Item, Future[Found]]] = deque()
    for item in items:
        waiting.append((item, reader.submit(read, item)))
        if len(waiting) > READ_AHEAD:
            yield waiting.popleft()
    yield from waiting


def sample_seed(seed: int, position: int | str) -> int:
    """Seed, 32 bit, of the generator of the sample at a position of the stream, or of what is named instead."""
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


class BalancedOrder:
    """Which pair stands at a position of the stream where the sources take turns: p is of source p mod S, each of which
    has an endless order of its own.

    Args:
        ends: the number of the last pair of each of the S sources, plus one.
        seed: of which those of the orders are derived.
    """

    def __init__(self, ends: Sequence[int], seed: int) -> None:
        self._starts = [0, *ends[:-1]]
        self._orders = [
            SampleOrder(end - start, sample_seed(seed, f"source {number}"))
            for number, (start, end) in enumerate(zip(self._starts, ends, strict=True))
        ]

    def __getitem__(self, position: int) -> int:
        place, source = divmod(position, len(self._orders))
        return self._starts[source] + self._orders[source][place]


class TrainLoader:
    """Endless training batches, from a given step on.

    The global batch of step t is made of the positions t * B ... (t + 1) * B - 1 of the stream. It is cut into
    `accumulation * world_size` equal parts; micro-batch a of rank r is part a * world_size + r.

    Args:
        pairs: the training split.
        augment: settings of the random geometry.
        seed: of order and augmentation.
        batch_size: B, samples of one step over all processes.
        ends: the number of the last pair of each source, plus one, where every step is to hold as many pairs of one
            source as of another; None: as they come in a permutation of all pairs.
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
        ends: Sequence[int] | None = None,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        start_step: int = 0,
        pin_memory: bool = False,
    ) -> None:
        parts = accumulation * world_size
        sources = len(ends) if ends else 1
        if batch_size % math.lcm(parts, sources):
            raise ConfigError(
                f"batch_size {batch_size} cannot be divided among {world_size} processes with accumulation "
                f"{accumulation}" + (f", and among {sources} sources" if ends else ""),
                todo=next_multiple(batch_size, parts, sources),
            )
        if not pairs:
            raise DataError("the training split has no pairs", todo="run the check stage")
        self.accumulation = accumulation
        # One endless pass keeps the workers alive; each work unit is a whole micro-batch.
        self._batches = DataLoader(
            _MicroBatches(pairs, space, augment, seed, BalancedOrder(ends, seed) if ends else None),
            sampler=_Positions(batch_size, parts, rank, world_size, start_step),
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_prepare_worker if workers else None,
            prefetch_factor=PREFETCH if workers else None,
            timeout=waiting.LOOK_SECONDS if workers else 0,
        )

    def __iter__(self) -> Generator[list[Batch], None, None]:
        """The micro-batches of one step after the other; closing the generator ends the workers."""
        steps = self._steps()
        # At exit multiprocessing waits for children that ignore its SIGTERM: the workers have to end before.
        atexit.register(_close, weakref.ref(steps))
        return steps

    def _steps(self) -> Generator[list[Batch], None, None]:
        items = waiting.start(self._batches)
        watch = waiting.Watch(getattr(items, "_workers", []))
        try:
            while True:
                step: list[Batch] = []
                while len(step) < self.accumulation:
                    item = waiting.next_item(items, watch)
                    if isinstance(item, GssError):
                        raise item
                    step.append(item)
                yield step
        finally:
            watch.over.set()
            del items  # ends the workers even where a traceback keeps this frame


def next_multiple(batch_size: int, *parts: int) -> str:
    """What to do about a batch that each of some numbers of parts should divide."""
    multiple = math.lcm(*parts)
    return f"choose a multiple of {multiple}, for example {max(round(batch_size / multiple), 1) * multiple}"


def _close(steps: weakref.ref[Generator]) -> None:
    alive = steps()
    if alive is not None:
        alive.close()


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

    def __init__(
        self, pairs: Sequence[Pair], space: ClassSpace, augment: Augment, seed: int, order: BalancedOrder | None
    ) -> None:
        self.pairs, self.space, self.augment, self.seed = pairs, space, augment, seed
        self.order = order or SampleOrder(len(pairs), seed)

    def __getitem__(self, positions: range) -> Batch | GssError:
        size, (height, width) = len(positions), self.augment.crop
        image = torch.empty(size, height, width, 3, dtype=torch.uint8)
        label = torch.empty(size, height, width, dtype=tensor_dtype(self.space.num_classes))
        valid = torch.empty(size, 4, dtype=torch.int64)
        photometric = torch.empty(size, 5)
        source = torch.empty(size, dtype=torch.int64)
        for row, position in enumerate(positions):
            rng = np.random.RandomState(sample_seed(self.seed, position))
            pair = self.pairs[self.order[position]]
            source[row] = pair.source
            try:
                native_image, native_label = read_pair(pair)
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
            source=source,
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
