"""A synthetic data set whose classes are textures: colour alone says nothing about the class."""

import colorsys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gss.data.classes import ignore_index
from gss.files import write_atomic, write_text

TOY_SIZES = {"train": 96, "val": 16, "test": 16}
_SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3}
_CLASSES = (
    ("background", (236, 236, 228)),
    ("rows", (214, 96, 77)),
    ("columns", (67, 147, 195)),
    ("diagonals", (244, 180, 60)),
    ("checks", (90, 174, 97)),
    ("dots", (153, 112, 171)),
)
_PERIODS = (6, 7, 8)
_SHAPES_PER_IMAGE = (3, 5)  # at least, at most
_NOISE = 4.0  # standard deviation of the pixel noise, of 255 levels


def make_toy(
    root: Path,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] = TOY_SIZES,
    image_size: tuple[int, int] = (96, 96),
) -> None:
    """Write the toy data set: `images/<split>/*.png`, `labels/<split>/*.png` and `classes.csv`.

    A smooth background carries discs, rectangles and polygons filled with one of five textures in two random
    colours each; the outermost pixels of every shape are ignored (255). The same arguments give the same bytes,
    and every split has its own random stream.

    Args:
        root: folder to fill.
        seed: of everything.
        sizes: images of the splits train, val and test.
        image_size: (height, width), 64 at least.
    """
    for split, count in sizes.items():
        for index in range(count):
            rng = np.random.RandomState([seed, _SPLIT_SEEDS[split], index])
            image, label = toy_sample(rng, index, image_size)
            _write_png(root / "images" / split / f"{index:04d}.png", image)
            _write_png(root / "labels" / split / f"{index:04d}.png", label)
    rows = [f"{index},{name},{r},{g},{b}" for index, (name, (r, g, b)) in enumerate(_CLASSES)]
    write_text(root / "classes.csv", "\n".join(["index,name,r,g,b", *rows]) + "\n")


def toy_sample(rng: np.random.RandomState, index: int, image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One image and its label.

    Args:
        rng: generator of this sample.
        index: number of the sample; the textures take turns by it, so that all are equally frequent.

    Returns:
        uint8 [H, W, 3] RGB and uint8 [H, W] with 0..5 or 255.
    """
    image = _background(rng, image_size)
    label = np.zeros(image_size, np.uint8)
    for turn in range(rng.randint(_SHAPES_PER_IMAGE[0], _SHAPES_PER_IMAGE[1] + 1)):
        inside = _shape(rng, image_size, label > 0)
        texture = 1 + (index + turn) % len(_TEXTURES)
        image = np.where(inside[..., None], _TEXTURES[texture - 1](rng, image_size), image)
        rim = inside & ~cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        label[inside] = texture
        label[rim] = ignore_index(len(_CLASSES))
    noisy = image + rng.normal(0, _NOISE, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), label


def _shape(rng: np.random.RandomState, image_size: tuple[int, int], taken: np.ndarray) -> np.ndarray:
    """bool [H, W]: a disc, a turned rectangle or a polygon that keeps clear of `taken`; empty if none fits."""
    height, width = image_size
    blocked = cv2.dilate(taken.astype(np.uint8), np.ones((5, 5), np.uint8))
    for _ in range(40):
        radius = rng.uniform(0.17, 0.26) * min(height, width)
        centre = rng.uniform(0.7 * radius, [width - 0.7 * radius, height - 0.7 * radius])
        kind = rng.randint(3)
        turn = rng.uniform(0, 2 * np.pi)
        if kind == 0:
            angles, reach = np.linspace(0, 2 * np.pi, 64), np.ones(64)
        elif kind == 1:
            half = rng.uniform(0.6, np.pi / 2 - 0.6)  # a rectangle is four points of a circle
            angles, reach = turn + np.array([-half, half, np.pi - half, np.pi + half]), np.full(4, 1.15)
        else:
            corners = rng.randint(5, 8)
            angles, reach = turn + 2 * np.pi * np.arange(corners) / corners, rng.uniform(0.8, 1.15, corners)
        points = centre + radius * reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        mask = np.zeros(image_size, np.uint8)
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
        if not (mask & blocked).any():
            return mask.astype(bool)
    return np.zeros(image_size, bool)


def _colour_pair(rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Two random colours, float64 [3] in 0..255, one clearly lighter than the other; in random order."""
    dark, light = (
        255 * np.array(colorsys.hsv_to_rgb(rng.random_sample(), rng.uniform(0.3, 0.75), value))
        for value in (rng.uniform(0.3, 0.55), rng.uniform(0.8, 1.0))
    )
    return (dark, light) if rng.randint(2) else (light, dark)


def _mix(rng: np.random.RandomState, weight: np.ndarray) -> np.ndarray:
    """float64 [H, W, 3]: two random colours mixed by `weight` in 0..1."""
    first, second = _colour_pair(rng)
    return first + weight[..., None] * (second - first)


def _background(rng: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    coarse = rng.random_sample((4, 4)).astype(np.float32)
    smooth = cv2.resize(coarse, image_size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float64)
    low, high = smooth.min(), smooth.max()
    return _mix(rng, (smooth - low) / (high - low))


def _wave(rng: np.random.RandomState, distance: np.ndarray) -> np.ndarray:
    """Soft square wave, -1..1, with a random period along `distance` (pixels) and a random phase."""
    phase = rng.uniform(0, 2 * np.pi)
    return np.tanh(3 * np.sin(2 * np.pi * distance / rng.choice(_PERIODS) + phase))


def _rows(rng: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    y, _ = np.indices(image_size)
    return _mix(rng, 0.5 + 0.5 * _wave(rng, y))


def _columns(rng: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    _, x = np.indices(image_size)
    return _mix(rng, 0.5 + 0.5 * _wave(rng, x))


def _diagonals(rng: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(image_size)
    return _mix(rng, 0.5 + 0.5 * _wave(rng, (x + rng.choice([-1, 1]) * y) / np.sqrt(2)))


def _checks(rng: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(image_size)
    return _mix(rng, 0.5 + 0.5 * _wave(rng, x) * _wave(rng, y))


def _dots(rng: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(image_size)
    period = rng.choice(_PERIODS)
    across, down = ((place + rng.uniform(0, period)) % period - period / 2 for place in (x, y))
    return _mix(rng, np.clip(0.3 * period - np.hypot(across, down) + 0.5, 0, 1))


_TEXTURES: tuple[Callable[[np.random.RandomState, tuple[int, int]], np.ndarray], ...] = (
    _rows,
    _columns,
    _diagonals,
    _checks,
    _dots,
)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    picture: Any = Image.fromarray(pixels)
    write_atomic(path, lambda file: picture.save(file, format="PNG"))
