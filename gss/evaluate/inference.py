"""From an image to class ids: whole or sliding window, test scale, mirrored second pass; and as MSeg does it.

Letters: N classes; H, W size of the image file; R, S size of the network input.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.config.schema import Evaluation as Config
from gss.data.augment import fit_size
from gss.errors import ConfigError
from gss.evaluate.certainty import decide
from gss.evaluate.maps import (
    first_maximum,
    lowest_best,
    sum_probabilities,
    sum_votes,
    target_probabilities,
    windows,
)
from gss.evaluate.multiscale import averaged, sides
from gss.evaluate.segmenter import Segmenter
from gss.evaluate.taxonomy import Target


@dataclass(frozen=True)
class Inference:
    """The protocol of inference, `gss` by name; every key changes the figures.

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

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size is brought to."""
        return fit_size(height, width, self.scale) if self.scale else (height, width)


@dataclass(frozen=True)
class MSegInference(Inference):
    """One base size of the protocol `mseg`: what is averaged are probabilities, of windows with their mirror images and
    of scales.

    Args:
        base_size: what the shorter side of the image becomes.
        scales: factors of the base size.

    Source: MSeg, single-scale (1.0) and multi-scale (0.5 to 1.75) inference.
    """

    base_size: int = 720
    scales: tuple[float, ...] = (1.0,)

    def as_dict(self) -> dict[str, Any]:
        """As of `Inference`, without the base size: the best of several is known when all are measured."""
        scales = list(self.scales)
        return {
            "protocol": "mseg",
            **super().as_dict(),
            "sizes": {"scales": scales, "scored_at": "original"},
            "tta": "flip" if len(scales) == 1 else "scales, flip",
        }

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return sides(height, width, self.base_size)

    def of_pictures(self, height: int, width: int) -> Inference:
        """How what the model shows beside its prediction is put together: windows at the base size, without padding."""
        rows, columns = self.input_size(height, width)
        return Inference("slide", self.crop, self.stride, (columns, rows), flip=True)


def inferences(config: Config) -> tuple[Inference, ...]:
    """What a configuration measures, one after the other: one inference, or of `protocol: mseg` one for each base size.

    Raises:
        ConfigError: see `Inference`.
    """
    plain = config.mode, config.crop, config.stride, config.scale, config.flip
    if config.protocol == "gss":
        return (Inference(*plain),)
    return tuple(MSegInference(*plain, base_size, config.scales) for base_size in config.base_sizes)


def one_inference(config: Config) -> Inference:
    """What predicts where one result is asked for: the inference, or of several base sizes the one in the middle."""
    found = inferences(config)
    return found[(len(found) - 1) // 2]


def predict(
    model: Segmenter,
    image: np.ndarray,
    inference: Inference,
    *,
    device: torch.device,
    target: Target | None = None,
    probabilities: Tensor | None = None,
    certainty: Tensor | None = None,
) -> Tensor:
    """The class of every pixel.

    Args:
        model: on `device`, in eval mode.
        image: uint8 or floating point [H, W, 3], RGB, 0..255.
        target: of a test set: its classes are predicted in place of the model's N. What `soft` sums up are votes as
            they are (their mean over image and mirror image), and the probabilities of logits.
        probabilities: [N, H, W], filled with the model's: float32 in 0..1, or uint8 in 255ths.
        certainty: float32 [2, H, W] on `device`, filled: the winning class's probability, and the entropy of all
            probabilities divided by log N, both 0..1. Without `target`: its classes have no probabilities of their own.

    Returns:
        [H, W] on `device`, 0..N-1 or what `target` says, uint8 or int32 (`gss.data.ids`); the lowest id on ties.

    Source: test pipelines and inference of mmsegmentation 0.26 (`whole_inference`, `slide_inference`).

    Note: windows of one row make a strip; its rows become ids as soon as no later window touches them. Where the
        scores have to be resized to [H, W], all are added up in one map of the size of `inference.scale`.
    """
    assert not model.training, "call eval() first: dropout and batch statistics would change the result"
    assert target is None or certainty is None
    with torch.inference_mode():
        if isinstance(inference, MSegInference):
            return _predict_mseg(model, image, inference, device, target, probabilities, certainty)
        pixels = _pixels(image, inference, device)  # [1, 3, R, S]
        strips: list[Tensor] = []  # [., W]

        def scores(part: Tensor) -> Tensor:
            return model.scores(model.normalise(part))[0]

        for rows, views in _strips(scores, pixels, inference, (image.shape[0], image.shape[1])):
            size = rows.stop - rows.start, image.shape[1]
            if certainty is None:
                strips.append(_decide(views, size, target, model.are_votes))
            else:
                strips.append(decide(views, size, model.are_votes, certainty[:, rows]))
            if probabilities is not None:
                _fill(probabilities[:, rows], views, size, model.are_votes)
        return torch.cat(strips)


def _predict_mseg(
    model: Segmenter,
    image: np.ndarray,
    inference: MSegInference,
    device: torch.device,
    target: Target | None,
    probabilities: Tensor | None,
    certainty: Tensor | None,
) -> Tensor:
    """As `predict`, whose `soft` maps the probabilities of every window; `hard` the winner of what is averaged."""
    soft = target if target is not None and target.prediction == "soft" else None
    mean = averaged(
        model,
        image,
        base_size=inference.base_size,
        scales=inference.scales,
        crop=inference.crop,
        stride=inference.stride,
        device=device,
        target=soft,
    )
    size = image.shape[0], image.shape[1]
    if probabilities is not None:
        _fill(probabilities, [mean], size, are_votes=True)
    if certainty is not None:
        return decide([mean], size, True, certainty)
    ids = lowest_best([mean], size)
    return ids if target is None or soft is not None else target.hard(ids)


def _decide(views: list[Tensor], size: tuple[int, int], target: Target | None, are_votes: bool) -> Tensor:
    if target is None:
        return lowest_best(views, size)
    if target.prediction != "soft":
        return target.hard(lowest_best(views, size))
    if are_votes:
        return lowest_best([torch.stack([target.soft(view) for view in views]).mean(dim=0)], size)
    return first_maximum(target_probabilities(views, size, target), len(target.names))


def uncertainty_picture(
    model: Segmenter, image: np.ndarray, inference: Inference, *, device: torch.device
) -> np.ndarray:
    """uint8 [H, W]: the uncertainty of a prediction by this protocol in 255ths; arguments as in `predict`."""
    certainty = torch.empty(2, *image.shape[:2], device=device)
    predict(model, image, inference, device=device, certainty=certainty)
    return as_grey(certainty[1])


def as_grey(uncertainty: Tensor) -> np.ndarray:
    """Uncertainty [H, W] in 0..1 as uint8 [H, W], in 255ths."""
    return (uncertainty * 255).round().byte().cpu().numpy()


def extra_pictures(
    model: Segmenter, image: np.ndarray, inference: Inference, *, device: torch.device
) -> dict[str, np.ndarray]:
    """The pictures that the model shows beside a prediction by this protocol; arguments as in `predict`.

    In mode `slide` those of the windows, averaged where windows overlap; with `flip` the mean of the image's and of its
    mirror image's.

    Returns:
        uint8 [P, Q, 3], RGB, by name. In mode `whole` of the size that the model makes them; in mode `slide` of the
        largest multiple of the network input's size that those of a window reach.
    """
    assert not model.training, "call eval() first: dropout and batch statistics would change the result"
    if not model.extra_names:
        return {}
    if isinstance(inference, MSegInference):
        inference = inference.of_pictures(image.shape[0], image.shape[1])
    with torch.inference_mode():
        pixels = _pixels(image, inference, device)  # [1, 3, R, S]

        def extras(part: Tensor) -> Tensor:
            return model.extras(model.normalise(part))[0]  # [3 names, ., .]

        def window(part: Tensor) -> Tensor:
            """At a whole multiple of the window's size, so that windows meet."""
            whole, (height, width) = extras(part), part.shape[2:]
            factor = max(1, min(whole.shape[1] // height, whole.shape[2] // width))
            size = (factor * height, factor * width)
            return F.interpolate(whole[None], size, mode="bilinear", align_corners=False)[0]

        mirrored = [False, True] if inference.flip else [False]
        if inference.mode == "whole":
            shown = as_picture(*(_one_view(extras, pixels, flip) for flip in mirrored))
        else:
            strips = zip(*(_slide(window, pixels, inference, flip) for flip in mirrored), strict=True)
            shown = np.concatenate([as_picture(*(view for _, view in views)) for views in strips])
        return dict(zip(model.extra_names, np.split(shown, len(model.extra_names), axis=2), strict=True))


def as_picture(*views: Tensor) -> np.ndarray:
    """The mean of pictures [3 k, P, Q] in 0..1 as uint8 [P, Q, 3 k]."""
    rgb = views[0] if len(views) == 1 else torch.stack(views).mean(dim=0)
    return (rgb.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()


def _pixels(image: np.ndarray, inference: Inference, device: torch.device) -> Tensor:
    """The image at the size of the network input, uint8 [1, 3, R, S]; a copy to a GPU goes on after the return."""
    pixels = torch.from_numpy(resize_image(image, inference.scale))  # [R, S, 3]
    if device.type == "cuda":
        pixels = pixels.pin_memory().to(device, non_blocking=True)
    return pixels.permute(2, 0, 1)[None]


def resize_image(image: np.ndarray, scale: tuple[int, int] | None) -> np.ndarray:
    """The image fitted into `scale` (width, height), bilinear without anti-aliasing, uint8 [R, S, 3]."""
    if scale is None:
        return image
    height, width = fit_size(image.shape[0], image.shape[1], scale)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # OpenCV takes (width, height)


Scores = Callable[[Tensor], Tensor]
"""uint8 [1, 3, R, S] -> float [N, R, S]."""


def _strips(
    scores: Scores, pixels: Tensor, inference: Inference, size: tuple[int, int]
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Rows of the result [H, W] from top to bottom, and the scores [N, ., S] of each view that decide them."""
    mirrored = [False, True] if inference.flip else [False]
    if inference.mode == "whole":
        yield slice(0, size[0]), [_one_view(scores, pixels, flip) for flip in mirrored]
        return
    resized = tuple(pixels.shape[2:]) != size  # which needs rows on both sides of a border between strips
    for views in zip(*(_slide(scores, pixels, inference, flip, at_once=resized) for flip in mirrored), strict=True):
        yield slice(0, size[0]) if resized else views[0][0], [view for _, view in views]


def _one_view(scores: Scores, pixels: Tensor, flip: bool) -> Tensor:
    return scores(pixels.flip(-1)).flip(-1) if flip else scores(pixels)


def _slide(
    scores: Scores, pixels: Tensor, inference: Inference, flip: bool, *, at_once: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the maps from top to bottom, and mean scores [N, ., f S], valid until the next.

    Args:
        scores: maps [N, ., .] of a window at f times its size, the same whole number f for every window.
        flip: show the network the mirror image, and mirror its scores.
        at_once: all rows together, in the one map in which they are added up.
    """
    if flip:
        for done, means in _slide(scores, pixels.flip(-1), inference, False, at_once=at_once):
            yield done, means.flip(-1)
        return
    height, width = pixels.shape[2:]
    grid = windows(height, width, inference.crop, inference.stride)
    strips = [grid] if at_once else [list(strip) for _, strip in itertools.groupby(grid, lambda window: window[0])]
    dtype = torch.promote_types(torch.float32, pixels.dtype)  # float32 as published; float64 in tests
    sums: Tensor | None = None  # [N + 1, f strip height, f S], the number of windows on a pixel last
    factor = 1
    for strip, following in itertools.zip_longest(strips, strips[1:]):
        top = strip[0][0].start
        for rows, columns in strip:
            window = scores(pixels[:, :, rows, columns])  # [N, f window height, f window width]
            if sums is None:
                factor = window.shape[1] // (rows.stop - rows.start)
                tall = factor * (strip[-1][0].stop - top)
                sums = torch.zeros(len(window) + 1, tall, factor * width, dtype=dtype, device=window.device)
            down = slice(factor * (rows.start - top), factor * (rows.stop - top))
            across = slice(factor * columns.start, factor * columns.stop)
            sums[:-1, down, across] += window
            sums[-1, down, across] += 1
            del window  # before the next one is computed
        assert sums is not None
        end = following[0][0].start if following else height  # no later window touches the rows before
        done = slice(factor * top, factor * end)
        count = done.stop - done.start
        yield done, sums[:-1, :count].div_(sums[-1, :count])
        if following:
            sums[:, :-count] = sums[:, count:].clone()
            sums[:, -count:] = 0


def _fill(target: Tensor, views: list[Tensor], size: tuple[int, int], are_votes: bool) -> None:
    """Write the mean over the views of the classes' probabilities into `target`, see `predict`."""
    first = 0
    for chunk in sum_votes(views, size) if are_votes else sum_probabilities(views, size):
        chunk = chunk / len(views)
        target[first : first + len(chunk)] = chunk if target.is_floating_point() else chunk.mul_(255).round_()
        first += len(chunk)
