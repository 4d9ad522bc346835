"""The published evaluation of an image written out plainly, beside tests/oracle.py: sums of whole maps of scores.

Letters: R S size of the network input, H W size of the label, N classes.
"""

import numpy as np
import oracle
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import NearestPosterior


def evaluate(
    model: GSS,
    image: Tensor,
    label: np.ndarray,
    *,
    crop: tuple[int, int] | None = None,
    stride: tuple[int, int] = (1, 1),
) -> tuple[Tensor, np.ndarray]:
    """Classes int64 [H, W] and counts int64 [N, N], [label, prediction], of a normalised image [1, 3, R, S].

    Args:
        label: uint8 [H, W].
        crop, stride: of sliding windows, (height, width); no crop: one pass over the image.
    """
    scores = scores_of_image(model, image, label.shape, crop, stride)  # [1, N, H, W]
    ids = scores.softmax(1).argmax(1)[0]
    return ids, count(ids.numpy(), label, scores.shape[1])


@torch.inference_mode()
def scores_of_image(
    model: GSS, image: Tensor, size: tuple[int, ...], crop: tuple[int, int] | None, stride: tuple[int, int]
) -> Tensor:
    """Scores at the size of the label, [1, N, H, W]."""
    whole = network_scores(model, image) if crop is None else slide(model, image, crop, stride)
    return oracle.bilinear(whole, (size[0], size[1]))


def network_scores(model: GSS, image: Tensor) -> Tensor:
    """[B, 3, R, S] -> [B, N, R, S]; hard votes for the nearest colour, or what window attention gives."""
    tokens = oracle.head_logits(model.prior.head, model.prior.backbone(image))[0].argmax(1)
    rgb = oracle.decode(model.tokenizer, tokens)
    if isinstance(model.posterior, NearestPosterior):
        ids = oracle.nearest(255 * rgb, model.posterior.colours)
        scores = F.one_hot(ids, model.posterior.num_classes).permute(0, 3, 1, 2).float()
    else:
        scores = oracle.window_scores(model.posterior, rgb)
    return oracle.bilinear(scores, (image.shape[2], image.shape[3]))


def slide(model: GSS, image: Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Mean of the scores of all windows on a pixel; the last ones are moved back to end at the border."""
    batch, _, height, width = image.shape
    sums, times = None, image.new_zeros(batch, 1, height, width)
    for row in range(steps(height, crop[0], stride[0])):
        for column in range(steps(width, crop[1], stride[1])):
            bottom, right = min(row * stride[0] + crop[0], height), min(column * stride[1] + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            scores = network_scores(model, image[:, :, top:bottom, left:right])
            padded = F.pad(scores, (left, width - right, top, height - bottom))  # [B, N, R, S]
            sums = padded if sums is None else sums + padded
            times[:, :, top:bottom, left:right] += 1
    return sums / times


def steps(size: int, crop: int, stride: int) -> int:
    return max(size - crop + stride - 1, 0) // stride + 1


def count(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [N, N], [label, prediction]; a labelled pixel after the other."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    labelled = label != oracle.IGNORED
    np.add.at(counts, (label[labelled], prediction[labelled]), 1)
    return counts
