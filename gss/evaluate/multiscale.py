"""MSeg's way through the network: probabilities of windows and of their mirror images, averaged over scales.

Letters: N classes of the model, K classes of what is averaged; H, W size of the image; R, S of the network input.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.evaluate.maps import log_sum_exp, resized, windows
from gss.evaluate.segmenter import Segmenter
from gss.evaluate.taxonomy import Target
from gss.nets.tensors import class_chunks


def averaged(
    model: Segmenter,
    image: np.ndarray,
    *,
    base_size: int,
    scales: Sequence[float],
    crop: tuple[int, int],
    stride: tuple[int, int],
    device: torch.device,
    target: Target | None = None,
) -> Tensor:
    """Mean probabilities of an image.

    Args:
        model, image: see `gss.evaluate.inference.predict`.
        base_size: the shorter side of the network input at scale 1, pixels.
        crop, stride: (height, width) of a window and (vertical, horizontal) step. An image that is smaller gets a
            border of the mean colour.
        target: sum the probabilities of every window up over the classes that become one of the test set; None: K = N.

    Returns:
        float32 [K, R, S] on `device` of a single scale, which has to be resized; [K, H, W] of several.

    Source: MSeg's evaluation: softmax, taxonomy and mean with the mirror image for each window, then the mean over
        windows, a bilinear resize of the probabilities, and the mean over scales.

    Note: beside the map of one scale there is at most that of the sum; windows are added class by class.
    """
    size = image.shape[0], image.shape[1]
    total: Tensor | None = None
    for scale in scales:
        pixels = _pixels(image, sides(*size, round(scale * base_size)), device)  # [1, 3, R, S]
        mean = _mean_of_windows(model, model.normalise(pixels), crop, stride, target)
        if len(scales) == 1:
            return mean
        if total is None:
            total = torch.zeros(len(mean), *size, device=mean.device)
        first = 0
        for chunk in resized(mean, size):
            total[first : first + len(chunk)].add_(chunk, alpha=1 / len(scales))
            first += len(chunk)
        del mean  # before the next one is made
    assert total is not None
    return total


def sides(height: int, width: int, short: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side becomes `short`; the other one is rounded half to even."""
    if height <= width:
        return short, round(short / height * width)
    return round(short / width * height), short


def _pixels(image: np.ndarray, size: tuple[int, int], device: torch.device) -> Tensor:
    """float32 [1, 3, *size], 0..255, bilinear without anti-aliasing; not rounded to whole levels."""
    pixels = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)  # takes (width, height)
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]


def _mean_of_windows(
    model: Segmenter, image: Tensor, crop: tuple[int, int], stride: tuple[int, int], target: Target | None
) -> Tensor:
    """[1, 3, R, S], normalised -> float32 [K, R, S]."""
    height, width = image.shape[2:]
    missing = [max(asked - side, 0) for asked, side in zip(crop, (height, width), strict=True)]
    top, left = (side // 2 for side in missing)
    padded = F.pad(image, (left, missing[1] - left, top, missing[0] - top))  # 0 is the mean colour
    sums: Tensor | None = None  # [K, R, S] with the border
    times = torch.zeros(padded.shape[2:], device=image.device)
    for rows, columns in windows(padded.shape[2], padded.shape[3], crop, stride):
        window = padded[:, :, rows, columns]
        for mirrored in (False, True):
            scores = model.scores(window.flip(-1) if mirrored else window)[0]  # [N, window height, window width]
            if sums is None:
                count = len(scores) if target is None else len(target.names)
                sums = torch.zeros(count, *padded.shape[2:], device=image.device)
            _add(sums[:, rows, columns], scores, model.are_votes, mirrored, target)
            del scores  # before the next ones are computed
        times[rows, columns] += 2
    assert sums is not None
    return sums.div_(times)[:, top : top + height, left : left + width]


def _add(sums: Tensor, scores: Tensor, are_votes: bool, mirrored: bool, target: Target | None) -> None:
    """Add the probabilities of a window to those of the ones before, [K, window height, window width], in place."""
    logarithm = None if are_votes else log_sum_exp(scores, (scores.shape[1], scores.shape[2]))
    first = 0
    for chunk in class_chunks(scores, 0):
        shares = chunk if logarithm is None else (chunk - logarithm).exp_()
        shares = shares.flip(-1) if mirrored else shares
        if target is None:
            sums[first : first + len(shares)] += shares
        else:
            for row, source in target.matrix[:, first : first + len(shares)].nonzero().tolist():
                sums[row] += shares[source]
        first += len(shares)
