"""Work on many files in several processes, whose results come in the order of the files."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import cv2

from gss.cluster.exit import die_with
from gss.errors import DataError

Result = TypeVar("Result")
_ITEMS_PER_PROCESS = 32  # fewer are worked on in this process: starting another one costs more
_CHUNK, _CHUNKS_AHEAD = 8, 4  # items given to a process at once, and chunks that wait for each


def in_order(
    function: Callable[..., Result], items: Iterator[tuple[Any, ...]], *, workers: int, total: int, key: str
) -> Iterator[Result]:
    """What a function makes of each item, in the order of the items; few of them are under way at a time.

    Args:
        function: of the values of an item; another process can import it.
        workers: the most processes; the results do not depend on it.
        total: number of items.
        key: what sets the number of processes, for messages.

    Raises:
        DataError: the processes cannot be started, or one was ended from outside.
    """
    chunks = iter(lambda: list(islice(items, _CHUNK)), [])
    workers = min(workers, total // _ITEMS_PER_PROCESS)
    if workers <= 1:
        for chunk in chunks:
            yield from _of_chunk(function, chunk)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of OpenCV's threads
    fewer = f"give it more memory, or fewer processes: {key} (now {workers})"
    try:
        executor = ProcessPoolExecutor(workers, context, _prepare_worker, (os.getpid(),))
    except OSError as error:  # their locks lie in /dev/shm
        raise DataError(f"processes that read files cannot be started: {error.strerror}", todo=fewer) from error

    def begun(count: int) -> Iterator[Future[list[Result]]]:
        return (executor.submit(_of_chunk, function, chunk) for chunk in islice(chunks, count))

    try:
        with executor:
            ahead = deque(begun(_CHUNKS_AHEAD * workers))
            while ahead:
                found = ahead.popleft().result()
                ahead.extend(begun(1))
                yield from found
    except BrokenProcessPool as error:
        what = "a process that reads files was ended from outside, most often because memory ran out"
        raise DataError(what, todo=fewer) from error


def _of_chunk(function: Callable[..., Result], chunk: list[tuple[Any, ...]]) -> list[Result]:
    return [function(*item) for item in chunk]


def _prepare_worker(parent: int) -> None:
    """One thread per process; it ends with the work, however that ends."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
