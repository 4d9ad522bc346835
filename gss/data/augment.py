"""Random changes of a training sample: drawing of the random numbers, kept apart from applying them.

Letters: H, W size of the image file; R, S size after the resize; h, w size of the crop.
"""

from dataclasses import dataclass

import cv2
import numpy as np

NO_PHOTOMETRIC = (0.0, 1.0, 1.0, 0.0, 1.0)
_CROP_TRIALS = 10
_WHOLE_TURN = 180  # OpenCV's uint8 hue counts 0..179
_MEAN_COLOUR = (124, 116, 104)  # of ImageNet: what a rotation brings in from outside
_BLUR = 5  # side of the kernel


@dataclass(frozen=True)
class Augment:
    """Settings of the training pipeline.

    Args:
        base_scale: long and short side, in either order, of the box that the image is fitted into, times `ratio`. One
            number: the short side of a first resize, which a second one follows, by the factor `ratio`.
        ratio: range of the random factor.
        crop: (height, width) of the sample; smaller images are padded to it.
        cat_max_ratio: a crop in which one class covers this share or more is drawn again; None: none is.
        flip: probability of a horizontal flip.
        rotate: largest angle, degrees, by which one sample of two is rotated; 0: none is.
        blur: blur one sample of two.
        centred: a smaller image stands in the middle of the sample, not at its top left.
        photometric: draw brightness, contrast, saturation and hue.
        uint8: change the colours here, as published, every step rounded to uint8; otherwise the device does it
            for the whole batch in float32.
    """

    base_scale: tuple[int, int] | int
    ratio: tuple[float, float]
    crop: tuple[int, int]
    cat_max_ratio: float | None = 0.75
    flip: float = 0.5
    rotate: float = 0.0
    blur: bool = False
    centred: bool = False
    photometric: bool = True
    uint8: bool = False


@dataclass(frozen=True)
class Draws:
    """All random decisions of one sample.

    Args:
        size: (R, S) after the resizes.
        offset: (y, x) of the crop in the resized image.
        flip: mirrored left to right after the crop.
        photometric: brightness added, contrast factor, saturation factor, hue shift (steps of two degrees; a drawn
            0 is 180, the whole turn, as it is no neutral draw in uint8), second contrast factor, applied in this
            order; one contrast at most differs from 1.
        ratio: of the second resize; 1 without one.
        angle: of the rotation of the resized image about its middle, degrees, counterclockwise.
        blur: blurred after that.
    """

    size: tuple[int, int]
    offset: tuple[int, int]
    flip: bool
    photometric: tuple[float, float, float, float, float] = NO_PHOTOMETRIC
    ratio: float = 1.0
    angle: float = 0.0
    blur: bool = False


@dataclass(frozen=True)
class Sample:
    """One training sample.

    Args:
        image: uint8 [h, w, 3], RGB, 0 in the padded area.
        label: uint8 or uint16 [h, w], class ids; the largest value of the type is ignored, and fills the padded area.
        valid: (top, left, bottom, right) of the part that is not padding.
        photometric: as in `Draws`: what the device has still to apply.
    """

    image: np.ndarray
    label: np.ndarray
    valid: tuple[int, int, int, int]
    photometric: tuple[float, float, float, float, float]


def fit_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image fitted into a box, its proportions kept.

    Args:
        scale: long and short side of the box in either order.

    Source: keep-ratio resize of the published pipeline.

    Note: sizes are rounded half up, to one pixel at least.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def fit_short(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side becomes `side`, its proportions kept.

    Source: the resize of MSeg's training.

    Note: the longer side is cut, not rounded, to whole pixels, in this order of operations in float64.
    """
    factor = side / min(height, width)
    return (side, int(width * factor)) if height <= width else (int(height * factor), side)


def nearest_indices(source: int, target: int) -> np.ndarray:
    """intp [target]: the source index of every target index, equal to OpenCV's INTER_NEAREST.

    Note: both divisions in float64, exactly in this form; floor(x * source / target) deviates by single rows.
    """
    indices = np.floor(np.arange(target) * (1.0 / (target / source))).astype(np.intp)
    return np.minimum(indices, source - 1)


def draw(rng: np.random.RandomState, label: np.ndarray, settings: Augment) -> Draws:
    """Draw one sample's random decisions, in the order of the published pipelines.

    Args:
        rng: legacy generator of this sample.
        label: uint8 or uint16 [H, W], class ids, the largest value ignored; crops dominated by one class are found
            with it.
    """
    low, high = settings.ratio
    ratio = rng.random_sample() * (high - low) + low
    height, width = label.shape
    if isinstance(settings.base_scale, int):
        fitted, second = fit_short(height, width, settings.base_scale), ratio
        size = round(fitted[0] * ratio), round(fitted[1] * ratio)
    else:
        scale, second = (int(settings.base_scale[0] * ratio), int(settings.base_scale[1] * ratio)), 1.0
        size = fit_size(height, width, scale)
    turned = settings.rotate > 0 and rng.randint(2) == 1
    angle = rng.uniform(-settings.rotate, settings.rotate) if turned else 0.0
    blur = settings.blur and rng.randint(2) == 1
    offset = _draw_crop(rng, label, Draws(size, (0, 0), False, ratio=second, angle=angle), settings)
    flip = bool(rng.random_sample() < settings.flip)
    photometric = _draw_photometric(rng) if settings.photometric else NO_PHOTOMETRIC
    return Draws(size, offset, flip, photometric, second, angle, blur)


def _draw_crop(rng: np.random.RandomState, label: np.ndarray, draws: Draws, settings: Augment) -> tuple[int, int]:
    size, (height, width) = draws.size, settings.crop
    if settings.cat_max_ratio is None:
        return _draw_offset(rng, size, settings.crop)
    label, ignored = _placed_label(label, draws, settings), np.iinfo(label.dtype).max
    for _ in range(_CROP_TRIALS):
        offset = _draw_offset(rng, size, settings.crop)
        counts = np.bincount(crop_label(label, size, offset, (height, width)).ravel())[:ignored]
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < settings.cat_max_ratio:
            return offset
    return _draw_offset(rng, size, settings.crop)  # the eleventh box is taken as it is


def _draw_offset(rng: np.random.RandomState, size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    y = rng.randint(0, max(size[0] - crop[0], 0) + 1)
    x = rng.randint(0, max(size[1] - crop[1], 0) + 1)
    return y, x


def _draw_photometric(rng: np.random.RandomState) -> tuple[float, float, float, float, float]:
    brightness = rng.uniform(-32, 32) if rng.randint(2) else 0.0
    contrast_first = rng.randint(2) == 1
    contrast = [1.0, 1.0]
    if contrast_first and rng.randint(2):
        contrast[0] = rng.uniform(0.5, 1.5)
    saturation = rng.uniform(0.5, 1.5) if rng.randint(2) else 1.0
    hue = float(rng.randint(-18, 18) or _WHOLE_TURN) if rng.randint(2) else 0.0
    if not contrast_first and rng.randint(2):
        contrast[1] = rng.uniform(0.5, 1.5)
    return brightness, contrast[0], saturation, hue, contrast[1]


def _placed_label(label: np.ndarray, draws: Draws, settings: Augment) -> np.ndarray:
    """The resized and rotated label; the label itself where a resize to `size` is all, which `crop_label` does."""
    if isinstance(settings.base_scale, tuple) and not draws.angle:
        return label
    resized = _resize(label, draws, settings, cv2.INTER_NEAREST)
    return _rotate(resized, draws.angle, len(resized), cv2.INTER_NEAREST, (int(np.iinfo(label.dtype).max),))


def _resize(values: np.ndarray, draws: Draws, settings: Augment, interpolation: int) -> np.ndarray:
    if isinstance(settings.base_scale, tuple):
        return cv2.resize(values, draws.size[::-1], interpolation=interpolation)  # OpenCV takes (width, height)
    size = fit_short(values.shape[0], values.shape[1], settings.base_scale)
    values = cv2.resize(values, size[::-1], interpolation=interpolation)
    return cv2.resize(values, None, fx=draws.ratio, fy=draws.ratio, interpolation=interpolation)


def _rotate(values: np.ndarray, angle: float, rows: int, interpolation: int, border: tuple[int, ...]) -> np.ndarray:
    """The upper rows of an image rotated about its middle; `border` comes in from outside."""
    if not angle:
        return values
    height, width = values.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    size, mode = (width, rows), cv2.BORDER_CONSTANT
    return cv2.warpAffine(values, matrix, size, flags=interpolation, borderMode=mode, borderValue=border)


def _blurred(image: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """A part of the blurred image; OpenCV mirrors the image at its borders."""
    top, left = max(rows.start - _BLUR // 2, 0), max(columns.start - _BLUR // 2, 0)
    around = image[top : rows.stop + _BLUR // 2, left : columns.stop + _BLUR // 2]
    blurred = cv2.GaussianBlur(around, (_BLUR, _BLUR), 0)
    return blurred[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def crop_label(label: np.ndarray, size: tuple[int, int], offset: tuple[int, int], crop: tuple[int, int]) -> np.ndarray:
    """The crop of the label resized to `size`, without computing the rest of it.

    Args:
        label: uint8 or uint16 [H, W].
        size: (R, S); offset: (y, x); crop: (h, w).

    Returns:
        [min(h, R - y), min(w, S - x)] of the same type.
    """
    rows, columns = (
        nearest_indices(source, target)[start : start + length]
        for source, target, start, length in zip(label.shape, size, offset, crop, strict=True)
    )
    return label.take(rows, axis=0).take(columns, axis=1)


def apply(image: np.ndarray, label: np.ndarray, draws: Draws, settings: Augment) -> Sample:
    """Resize, rotate, blur, crop, flip, with `uint8` distort, pad; photometric draws not applied here are passed on.

    Args:
        image: uint8 [H, W, 3], RGB. label: as in `draw`.

    Source: GSS's published pipeline; with a `base_scale` of one number MSeg's, which flips and pads before
        it crops: the same samples.
    """
    (y, x), (height, width) = draws.offset, settings.crop
    label = crop_label(_placed_label(label, draws, settings), draws.size, draws.offset, settings.crop)
    rows, columns = slice(y, y + label.shape[0]), slice(x, x + label.shape[1])
    image = _resize(image, draws, settings, cv2.INTER_LINEAR)
    end = min(rows.stop + _BLUR // 2, draws.size[0])
    image = _rotate(image, draws.angle, end, cv2.INTER_LINEAR, _MEAN_COLOUR)
    image = _blurred(image, rows, columns) if draws.blur else image[rows, columns]
    if draws.flip:
        image, label = image[:, ::-1], label[:, ::-1]
    photometric = draws.photometric
    if settings.uint8:
        image, photometric = distort(image, photometric), NO_PHOTOMETRIC
    top, left = ((height - label.shape[0]) // 2, (width - label.shape[1]) // 2) if settings.centred else (0, 0)
    bottom, right = top + label.shape[0], left + label.shape[1]
    padded_image = np.zeros((height, width, 3), np.uint8)
    padded_image[top:bottom, left:right] = image
    padded_label = np.full((height, width), np.iinfo(label.dtype).max, label.dtype)
    padded_label[top:bottom, left:right] = label
    return Sample(padded_image, padded_label, (top, left, bottom, right), photometric)


def distort(image: np.ndarray, photometric: tuple[float, float, float, float, float]) -> np.ndarray:
    """The published distortion: brightness, contrast, saturation, hue, second contrast, each through uint8.

    Args:
        image: uint8 [H, W, 3], RGB.
        photometric: as in `Draws`.

    Returns:
        uint8 [H, W, 3], RGB; a neutral draw leaves its step, and its way through HSV, out.

    Note: OpenCV's way back from HSV rounds differently at the end of a row, where builds differ by one level.
    """
    brightness, contrast, saturation, hue, late_contrast = photometric
    image = np.ascontiguousarray(image)  # OpenCV takes no mirrored view
    if brightness:
        image = cv2.LUT(image, _linear(1.0, brightness))
    if contrast != 1:
        image = cv2.LUT(image, _linear(contrast, 0.0))
    if saturation != 1:
        image = _through_hsv(image, 1, _linear(saturation, 0.0))
    if hue:
        image = _through_hsv(image, 0, ((np.arange(256) + int(hue)) % _WHOLE_TURN).astype(np.uint8))
    if late_contrast != 1:
        image = cv2.LUT(image, _linear(late_contrast, 0.0))
    return image


def _linear(factor: float, offset: float) -> np.ndarray:
    """uint8 [256]: every level times `factor` plus `offset` in float32, clipped and cut."""
    levels = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """The image with one channel of its HSV values, uint8, replaced by a table."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = cv2.LUT(hsv[..., channel], table)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
