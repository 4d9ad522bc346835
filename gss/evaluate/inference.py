"""From an image to class ids: whole or sliding window, test scale, mirrored second pass.

Letters: N classes; H, W size of the image file; R, S size of the network input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.augment import fit_size
from gss.data.device import normalise
from gss.errors import ConfigError
from gss.evaluate.taxonomy import Mapping, TestTaxonomy
from gss.models.losses import class_chunks


class Segmenter(Protocol):
    """What is asked of a model, beside being an `nn.Module` in eval mode."""

    training: bool

    def scores(self, image: Tensor) -> Tensor:
        """float [B, N, R, S], the larger the likelier, of a normalised float32 image [B, 3, R, S]."""
        ...


@dataclass(frozen=True)
class Inference:
    """The protocol of inference; every key changes the figures.

    Args:
        mode: `whole`: one pass over the image; `slide`: overlapping windows, their scores averaged.
        crop: (height, width) of a window.
        stride: (vertical, horizontal) step of the windows.
        scale: (width, height) the image is fitted into, its proportions kept; None: its own size.
        flip: average the probabilities of the image and of its mirror image.

    Raises:
        ConfigError: a stride larger than the crop, which would leave gaps.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop: tuple[int, int] = (768, 768)
    stride: tuple[int, int] = (512, 512)
    scale: tuple[int, int] | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.mode == "slide" and any(s > c for s, c in zip(self.stride, self.crop, strict=True)):
            raise ConfigError(
                f"stride {self.stride} is larger than crop {self.crop}: windows would leave gaps",
                where="evaluation.stride",
                todo="choose a stride of at most the crop",
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON value for `metrics.json`; `sizes` are (width, height), crop and stride (height, width)."""
        slide = self.mode == "slide"
        return {
            "mode": self.mode,
            "crop": list(self.crop) if slide else None,
            "stride": list(self.stride) if slide else None,
            "sizes": {"fit_into": list(self.scale) if self.scale else None, "scored_at": "original"},
            "flip": self.flip,
            "tta": "flip" if self.flip else "none",
        }


def predict(
    model: Segmenter,
    image: np.ndarray,
    inference: Inference,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    taxonomy: TestTaxonomy | None = None,
    mapping: Mapping = "hard",
) -> Tensor:
    """The class of every pixel.

    Args:
        model: on `device`, in eval mode.
        image: uint8 [H, W, 3], RGB.
        mean, std: of the model's input, three numbers each in units of 0..255.
        taxonomy: of a test set: its classes are predicted in place of the model's N universal ones.
        mapping: with a taxonomy: `hard`, the published lookup of the winner; or the scores are summed over the
            universal classes of a test class, `votes` as they are (their mean over image and mirror image),
            `logits` as probabilities.

    Returns:
        uint8 [H, W] on `device`, 0..N-1 (N <= 256) or an id of the test set; the lowest id on ties.

    Source: test pipelines and inference of mmsegmentation 0.26 (`whole_inference`, `slide_inference`).
    """
    assert not model.training, "call eval() first: dropout and batch statistics would change the result"
    with torch.inference_mode():
        prepared = network_input(image, inference, mean=mean, std=std, device=device)  # [1, 3, R, S]
        views = [_scores(model, prepared, inference)]  # [N, R, S] each
        if inference.flip:
            views.append(_scores(model, prepared.flip(-1), inference).flip(-1))
        size = image.shape[0], image.shape[1]
        if taxonomy is None:
            return lowest_best(views, size)
        if mapping == "hard":
            return taxonomy.hard(lowest_best(views, size))
        if mapping == "votes":
            return lowest_best([torch.stack([taxonomy.soft(view) for view in views]).mean(dim=0)], size)
        return _first_maximum(_test_probabilities(views, size, taxonomy), size)


def network_input(
    image: np.ndarray,
    inference: Inference,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> Tensor:
    """Resized and normalised image, float32 [1, 3, R, S]; arguments as in `predict`."""
    pixels = torch.from_numpy(resize_image(image, inference.scale)).to(device)  # [R, S, 3]
    return normalise(pixels.permute(2, 0, 1)[None], mean, std)  # [1, 3, R, S]


def resize_image(image: np.ndarray, scale: tuple[int, int] | None) -> np.ndarray:
    """The image fitted into `scale` (width, height), bilinear without anti-aliasing, uint8 [R, S, 3]."""
    if scale is None:
        return image
    height, width = fit_size(image.shape[0], image.shape[1], scale)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # OpenCV takes (width, height)


def windows(
    height: int, width: int, crop: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """Rows and columns of the windows that cover an image, row by row.

    Note: the last window of a row or column is shifted back to end at the border; a crop larger than the
    image gives one window of the image's size.
    """
    rows = _intervals(height, crop[0], stride[0])
    return [(row, column) for row in rows for column in _intervals(width, crop[1], stride[1])]


def _intervals(size: int, crop: int, stride: int) -> list[slice]:
    count = max(size - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, size) for index in range(count)]
    return [slice(max(end - crop, 0), end) for end in ends]


def _scores(model: Segmenter, image: Tensor, inference: Inference) -> Tensor:
    if inference.mode == "whole":
        return model.scores(image)[0]  # [N, R, S]
    height, width = image.shape[2:]
    total, visits = image.new_zeros(0), image.new_zeros(height, width)
    for rows, columns in windows(height, width, inference.crop, inference.stride):
        window = model.scores(image[:, :, rows, columns])[0]  # [N, window height, window width]
        if total.numel() == 0:
            total = image.new_zeros(len(window), height, width)  # [N, R, S], in the image's precision, as published
        total[:, rows, columns] += window
        visits[rows, columns] += 1
    return total.div_(visits)


def lowest_best(views: list[Tensor], size: tuple[int, int]) -> Tensor:
    """The class of the highest score after a bilinear resize to `size`; the lowest id on ties.

    Args:
        views: float [N, R, S] each. With more than one, their probabilities (softmax over N at `size`) are
            averaged; with one the softmax is left out, as it changes no order.

    Returns:
        uint8 [H, W] for `size` = (H, W).

    Note: classes are resized a few at a time beside a running maximum; `N x H x W` numbers never exist.
    """
    chunks = _resized(views[0], size) if len(views) == 1 else _probabilities(views, size)
    return _first_maximum((scores for chunk in chunks for scores in chunk), size)


def _first_maximum(maps: Iterator[Tensor], size: tuple[int, int]) -> Tensor:
    """uint8 [H, W]: the number of the largest of the maps [H, W] at every pixel."""
    best = next(maps).clone()  # [H, W]
    ids = torch.zeros(size, dtype=torch.uint8, device=best.device)  # [H, W]
    for index, scores in enumerate(maps, 1):
        ids.masked_fill_(scores > best, index)  # strict: an equal score of a later class loses
        torch.maximum(best, scores, out=best)
    return ids


def _test_probabilities(views: list[Tensor], size: tuple[int, int], taxonomy: TestTaxonomy) -> Iterator[Tensor]:
    """[H, W] per test class: the sum of the probabilities of its universal classes, over the views."""
    logarithms = [_log_sum_exp(view, size) for view in views]  # [H, W] each
    for sources in taxonomy.matrix.to(views[0].device):  # [U]
        total = torch.zeros_like(logarithms[0])
        for view, logarithm in zip(views, logarithms, strict=True):
            for chunk in _resized(view[sources], size) if sources.any() else ():
                total += (chunk - logarithm).exp_().sum(dim=0)
        yield total


def _resized(view: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """The maps of a few classes at a time, at `size`.

    Note: the view's memory layout decides how a resize rounds, and that decides many ties of votes; it is kept.
    """
    layout = torch.channels_last if view.stride(0) == 1 else torch.contiguous_format
    for chunk in class_chunks(view, 0):
        if tuple(chunk.shape[1:]) != size:
            chunk = chunk[None].contiguous(memory_format=layout)  # of the view alone it cannot be told
            chunk = F.interpolate(chunk, size, mode="bilinear", align_corners=False)[0]
        yield chunk.contiguous()  # [classes, H, W]


def _probabilities(views: list[Tensor], size: tuple[int, int]) -> Iterator[Tensor]:
    """Like `_resized`: the sum over the views of softmax over the classes."""
    logarithms = [_log_sum_exp(view, size) for view in views]  # [H, W] each
    for chunks in zip(*(_resized(view, size) for view in views), strict=True):
        terms = [(chunk - log).exp_() for chunk, log in zip(chunks, logarithms, strict=True)]
        yield torch.stack(terms).sum(dim=0)  # [classes, H, W]


def _log_sum_exp(view: Tensor, size: tuple[int, int]) -> Tensor:
    total = view.new_full(size, -torch.inf)
    for chunk in _resized(view, size):
        total = torch.logaddexp(total, chunk.logsumexp(dim=0))
    return total  # [H, W]
