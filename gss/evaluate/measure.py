"""Evaluation of many images by one or more processes, on disjoint shards.

Letters: I images, N classes; H, W size of an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gss.data.classes import ids_dtype, ignore_index
from gss.data.ids import ids_tensor
from gss.data.loader import read_ahead, shard
from gss.data.metrics import Absent, Counted, Scores, confusion, scores
from gss.data.reliability import BINS, STEPS, Reliability, count
from gss.errors import GssError, Interrupted
from gss.evaluate.inference import Inference, predict
from gss.evaluate.segmenter import Segmenter
from gss.evaluate.taxonomy import Target
from gss.progress import Progress

AGREE_EVERY = 8  # images of a process between two looks at whether another one has failed

Item = TypeVar("Item")
Read = Callable[[Item], tuple[np.ndarray, ...]]


class Processes(Protocol):
    """This process among those that share the work (`gss.train.distributed.World`)."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def sum(self, tensor: Tensor) -> Tensor: ...

    def any(self, flag: bool) -> bool: ...


@dataclass(frozen=True)
class Evaluation:
    """Counts over all images; everything else follows from them.

    Args:
        confusion: int64 [N, N], [label, prediction], or [N, N + 1], see `gss.data.metrics.confusion`.
        intersection: int64 [I, N], pixels of an image that are right, by class.
        predicted: int64 [I, N], pixels predicted as the class where the label is not ignored.
        labelled: int64 [I, N], pixels of the class in the label.
        ignored_pixels: pixels whose label is ignored.
        absent: what a class that is nowhere is in means.
        counted: the classes that are in means.
        reliability: of the probabilities; None: not counted.
    """

    confusion: np.ndarray
    intersection: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray
    ignored_pixels: int
    absent: Absent = "nan"
    counted: Counted = None
    reliability: Reliability | None = None

    @property
    def scores(self) -> Scores:
        return scores(self.confusion, self.absent, self.counted)


def evaluate_pairs(
    model: Segmenter,
    pairs: Sequence[Item],
    num_classes: int,
    world: Processes,
    *,
    read: Read[Item],
    inference: Inference,
    target: Target | None = None,
    is_relabelled: bool = False,
    with_reliability: bool = False,
    each: Callable[[int, np.ndarray, np.ndarray, np.ndarray], None] | None = None,
    title: str = "evaluate",
) -> Evaluation:
    """Compare a model's predictions with the labels; see `measure`.

    Args:
        model: on `world.device`, in eval mode; without `target` with `num_classes` score maps.
        target: the classes of the labels, where they are not those of the model.
        is_relabelled: `read` gives other labels beside, see `measure`.
        with_reliability: count confidence and uncertainty, too; without `target`.
    """
    tally = _Reliability(num_classes) if with_reliability else None

    def segment(image: np.ndarray, label: np.ndarray) -> Tensor:
        if tally is None:
            return predict(model, image, inference, device=world.device, target=target)
        certainty = torch.empty(2, *label.shape, device=world.device)
        ids = predict(model, image, inference, device=world.device, target=target, certainty=certainty)
        tally.add(ids, certainty, label)
        return ids

    abstains = is_relabelled or (target is not None and target.abstains)
    found = measure(segment, pairs, num_classes, world, read=read, abstains=abstains, each=each, title=title)
    return found if tally is None else replace(found, reliability=tally.summed(world))


def measure(
    segment: Callable[[np.ndarray, np.ndarray], Tensor],
    pairs: Sequence[Item],
    num_classes: int,
    world: Processes,
    *,
    read: Read[Item],
    abstains: bool = False,
    each: Callable[[int, np.ndarray, np.ndarray, np.ndarray], None] | None = None,
    title: str = "evaluate",
) -> Evaluation:
    """Compare the output of any function with the labels.

    Every process takes its own images, none twice; the counts are added as int64, so that the result does
    not depend on the number of processes.

    Args:
        segment: image and label -> integer [H, W], 0..N-1, on any device.
        pairs: the same sequence in every process.
        read: gives image uint8 [H, W, 3] RGB and label [H, W] as `gss.data.images.read_label` does; called on a thread.
            A second label is the relabelled one, to which the prediction is made comparable, see `comparable`.
        abstains: `segment`, or `comparable`, may give the ignored id: no class.
        each: called with index, image, label and prediction (of the label's type) by the process that has the image.
        title: first word of the progress line.

    Returns:
        The same value in every process.

    Raises:
        GssError, Interrupted: raised by `read`, `segment` or `each` in any process; all processes raise it.
    """
    mine = shard(len(pairs), world.rank, world.size)
    tally = _Tally(len(pairs), num_classes, abstains)
    progress = Progress(title, len(pairs), "img", quiet=world.rank != 0)
    rounds = len(shard(len(pairs), 0, world.size))  # the first process has the most images
    failure: Exception | None = None
    with read_ahead(read, [pairs[index] for index in mine]) as images:
        for done in range(rounds):
            if failure is None and done < len(mine):
                try:
                    _, reading = next(images)
                    image, label, *relabelled = reading.result()
                    prediction = segment(image, label)
                    tally.add(mine[done], prediction, label, *relabelled)
                    if each is not None:
                        ids = prediction.cpu().numpy().astype(ids_dtype(num_classes), copy=False)
                        each(mine[done], image, label, ids)
                except Exception as error:
                    failure = error
            if (done + 1) % AGREE_EVERY == 0 or done + 1 == rounds or world.size == 1:
                _raise_together(failure, world)
            progress.show(min((done + 1) * world.size, len(pairs)))
    return tally.summed(world)


def comparable(prediction: Tensor, label: Tensor, relabelled: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """A prediction in the sense of relabelled classes, and the label of before, made comparable.

    Where the two labels differ, who says what the relabelled one says is right by the other one, and who says anything
    else certainly wrong: no class. What the relabelled one ignores is not counted.

    Args:
        prediction, label, relabelled: integer [H, W], 0..N-1 or `ignore_index(N)`.

    Returns:
        Prediction and label, new tensors.

    Source: MSeg, evaluation on the training sets of models that were trained on relabelled data.
    """
    ignored = ignore_index(num_classes)
    differs, agrees = label != relabelled, prediction == relabelled
    found = torch.where(differs & agrees, label.to(prediction.dtype), prediction)
    return found.masked_fill_(differs & ~agrees, ignored), label.masked_fill(relabelled == ignored, ignored)


class _Tally:
    """Counts of this process's images; rows of other images stay 0."""

    def __init__(self, num_images: int, num_classes: int, abstains: bool) -> None:
        self.abstains = abstains
        self.confusion = np.zeros((num_classes, num_classes + abstains), np.int64)
        self.per_image = np.zeros((3, num_images, num_classes), np.int64)
        self.ignored = np.zeros(1, np.int64)

    def add(self, index: int, prediction: Tensor, label: np.ndarray, relabelled: np.ndarray | None = None) -> None:
        on_device, num_classes = ids_tensor(label).to(prediction.device), len(self.confusion)
        if relabelled is not None:
            other = ids_tensor(relabelled).to(prediction.device)
            prediction, on_device = comparable(prediction, on_device, other, num_classes)
        counts = confusion(prediction, on_device, num_classes, abstains=self.abstains).numpy()
        self.confusion += counts
        self.per_image[:, index] = np.diag(counts), counts.sum(0)[: len(counts)], counts.sum(1)
        self.ignored += label.size - counts.sum()

    def summed(self, world: Processes) -> Evaluation:
        """The counts of all processes."""
        arrays = (self.confusion, self.per_image, self.ignored)
        total, per_image, ignored = (world.sum(torch.from_numpy(array)).numpy() for array in arrays)
        intersection, predicted, labelled = per_image
        return Evaluation(total, intersection, predicted, labelled, int(ignored[0]))


class _Reliability:
    """Counts of this process's images."""

    def __init__(self, num_classes: int) -> None:
        self.confidence = torch.zeros(num_classes, BINS, 3, dtype=torch.int64)
        self.uncertainty = torch.zeros(STEPS, 2, dtype=torch.int64)

    def add(self, prediction: Tensor, certainty: Tensor, label: np.ndarray) -> None:
        on_device = ids_tensor(label).to(prediction.device)
        confidence, uncertainty = count(prediction, certainty[0], certainty[1], on_device, len(self.confidence))
        self.confidence += confidence
        self.uncertainty += uncertainty

    def summed(self, world: Processes) -> Reliability:
        """The counts of all processes."""
        return Reliability(*(world.sum(counts).numpy() for counts in (self.confidence, self.uncertainty)))


def _raise_together(failure: Exception | None, world: Processes) -> None:
    """Raise in every process when one has failed: a process that leaves alone would let the others hang."""
    if not world.any(failure is not None):
        return
    if world.size > 1:
        portable = failure if failure is None or isinstance(failure, GssError | Interrupted) else repr(failure)
        reports: list[Any] = [None] * world.size
        dist.all_gather_object(reports, portable)
        if failure is None:
            first = next(report for report in reports if report is not None)
            known = isinstance(first, GssError | Interrupted)
            failure = first if known else RuntimeError(f"in another process: {first}")
    assert failure is not None
    raise failure
