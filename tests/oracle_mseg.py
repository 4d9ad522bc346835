"""MSeg's evaluation of an image written out plainly: whole maps of probabilities at every step, in float64.

Letters: N classes of the model, T of the test set; H W size of the image, R S of the network input.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

Probabilities = Callable[[np.ndarray], np.ndarray]
"""float32 [3, window height, window width], normalised -> [N, window height, window width] that sum to 1."""


def evaluate(
    probabilities: Probabilities,
    image: np.ndarray,
    base_size: int,
    scales: Sequence[float],
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
    mapping: np.ndarray,
) -> np.ndarray:
    """float64 [T, H, W], the mean over the scales.

    Args:
        image: uint8 [H, W, 3]. crop: side of the square windows. mapping: [T, N] of ones and zeros.
    """
    height, width, _ = image.shape
    maps = [
        enlarged(one_scale(probabilities, image, scale * base_size, crop, mean, std, mapping), height, width)
        for scale in scales
    ]
    return sum(maps) / len(maps)


def one_scale(
    probabilities: Probabilities,
    image: np.ndarray,
    short: float,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
    mapping: np.ndarray,
) -> np.ndarray:
    """float64 [T, R, S]."""
    height, width, _ = image.shape
    short = round(short)
    if height > width:
        size = (round(short / width * height), short)
    else:
        size = (short, round(short / height * width))
    rgb = cv2.resize(image.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    rows, columns = max(size[0], crop), max(size[1], crop)
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    canvas = np.tile(np.array(mean, np.float32), (rows, columns, 1))
    canvas[top : top + size[0], left : left + size[1]] = rgb
    stride = math.ceil(crop * 2 / 3)
    sums, visits = np.zeros((len(mapping), rows, columns)), np.zeros((rows, columns))
    for down in range(math.ceil((rows - crop) / stride) + 1):
        for across in range(math.ceil((columns - crop) / stride) + 1):
            bottom, right = min(down * stride + crop, rows), min(across * stride + crop, columns)
            place = slice(bottom - crop, bottom), slice(right - crop, right)
            window = ((canvas[place] - np.array(mean)) / np.array(std)).transpose(2, 0, 1).astype(np.float32)
            straight = np.einsum("tn,nhw->thw", mapping, probabilities(window))
            mirrored = np.einsum("tn,nhw->thw", mapping, probabilities(window[:, :, ::-1]))[:, :, ::-1]
            sums[:, place[0], place[1]] += (straight + mirrored) / 2
            visits[place] += 1
    return (sums / visits)[:, top : top + size[0], left : left + size[1]]


def enlarged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 [T, height, width]: bilinear with half-pixel centres, borders repeated."""

    def along(axis_size: int, wanted: int) -> np.ndarray:
        weights = np.zeros((wanted, axis_size))
        for index in range(wanted):
            place = max((index + 0.5) * axis_size / wanted - 0.5, 0.0)
            first = min(int(place), axis_size - 1)
            second = min(first + 1, axis_size - 1)
            weights[index, first] += 1 - (place - first)
            weights[index, second] += place - first
        return weights

    return np.einsum("yr,trs,xs->tyx", along(maps.shape[1], height), maps, along(maps.shape[2], width), optimize=True)
