"""Checkpoints written beside the training: it waits for a copy in memory, not for the disk."""

import contextlib
import copy
import time
from collections.abc import Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from gss.errors import GssError
from gss.results.journal import Journal
from gss.train.checkpoint import CheckpointFolder


class Saver:
    """Writes one checkpoint at a time in a thread. As a context manager it leaves when all is written.

    Args:
        folder: where to.
        journal: its lines are brought to the disk before a checkpoint of their step appears.

    Attributes:
        longest: seconds from the call of `save` to the file on the disk, of the slowest one.
    """

    def __init__(self, folder: CheckpointFolder, journal: Journal | None) -> None:
        self._folder, self._journal = folder, journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._memory = HostMemory()
        self._last = "there is no checkpoint yet"
        self.longest = 0.0

    def save(self, step: int, content: Mapping[str, Any]) -> None:
        """Copy the content and begin to write it; the one before is written first.

        Args:
            content: tensors and plain values, good to be written; the training may change them afterwards.

        Raises:
            GssError: the one before could not be written.
        """
        began = time.perf_counter()
        self.wait()
        self._writing = self._thread.submit(self._write, step, self._memory.copy(content), began)

    def resumed_from(self, step: int) -> None:
        """Note which checkpoint the training began with."""
        self._last = f"step {step} in {self._folder.path}"

    def last_good(self) -> str:
        """The newest checkpoint on the disk, in words; one that is being written is waited for."""
        with contextlib.suppress(GssError):
            self.wait()
        return self._last

    def check(self) -> None:
        """Raise what went wrong since, without waiting.

        Raises:
            GssError: disk full or not writable; the checkpoint before stands.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all is written; raises as `check` does."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except GssError as failure:
            if error is None:
                raise
            print(f"warning: {failure}", flush=True)
        finally:
            self._thread.shutdown()

    def _write(self, step: int, content: Mapping[str, Any], began: float) -> None:
        sync = self._journal.sync if self._journal is not None else None
        self._last = str(self._folder.save(step, content, before=sync))
        self.longest = max(self.longest, time.perf_counter() - began)


class HostMemory:
    """Copies of tensors in CPU memory, always the same memory: fresh pages cost more than the copy.

    What comes from CUDA is copied into page-locked memory, all of it under way at once.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[Hashable, ...], Tensor] = {}

    def copy(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """A copy that shares nothing with the original, valid until the next call.

        Args:
            content: tensors and plain values in dictionaries, lists and tuples.
        """
        copied = self._copy(content, ())
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any, place: tuple[Hashable, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), place)
        if isinstance(value, dict):
            result = copy.copy(value)  # a module's state carries its version as an attribute
            result.update({key: self._copy(item, (*place, key)) for key, item in value.items()})
            return result
        if isinstance(value, list | tuple):
            return type(value)(self._copy(item, (*place, number)) for number, item in enumerate(value))
        return value

    def _tensor(self, tensor: Tensor, place: tuple[Hashable, ...]) -> Tensor:
        kept = self._tensors.get(place)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._tensors[place] = kept
        return kept.copy_(tensor, non_blocking=True)
