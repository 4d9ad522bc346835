"""The part of the training pipeline that runs on the device, for a whole batch at once.

Letters: B samples, H, W size of the crop. Deviation: the published pipeline goes through uint8 after every
photometric step; here values stay float32, which differs by a few of 255 levels (tests/data/test_device.py).
`gss.data.augment.distort` is the published one; a sample it has changed comes with neutral draws.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gss.data.augment import NO_PHOTOMETRIC

_DEGREES_PER_HUE_STEP = 2.0  # OpenCV's uint8 hue counts 0..179


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(image - mean) / std, to the bit as published.

    Args:
        image: [B, 3, H, W], RGB, 0..255, any dtype.
        mean, std: three numbers each, in units of 0..255.

    Returns:
        float32 [B, 3, H, W]; the memory format of `image` is kept.

    Note: the difference is float32, the product float64, and mean and std are first rounded to float32.
    """
    offset = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32).double().reciprocal_().view(1, 3, 1, 1)
    # A blocking copy of six numbers would wait for all that a GPU has still to do.
    offset, scale = (part.to(image.device, non_blocking=True) for part in (offset, scale))
    return (image.float() - offset).double().mul_(scale).float()  # [B, 3, H, W]


def finish(image: Tensor, valid: Tensor, photometric: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Photometric distortion, normalisation, padding.

    Args:
        image: uint8 [B, 3, H, W], RGB.
        valid: int64 [B, 4], top, left, bottom and right of the part that is not padding.
        photometric: float32 [B, 5], recorded draws (`gss.data.augment.Draws`).
        mean, std: three numbers each, in units of 0..255.

    Returns:
        float32 [B, 3, H, W], normalised; exactly 0, the mean colour, in the padded area.
    """
    distorted = distort(image.float(), photometric)
    result = normalise(distorted, mean, std)  # [B, 3, H, W]
    height, width = image.shape[-2:]
    top, left, bottom, right = valid[:, :, None].unbind(1)  # [B, 1] each
    row, column = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)  # [B, H], [B, W]
    inside = rows[:, None, :, None] & columns[:, None, None, :]  # [B, 1, H, W]
    return result.masked_fill_(~inside, 0.0)


def distort(image: Tensor, photometric: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue and second contrast, in this order.

    Args:
        image: float32 [B, 3, H, W], RGB, 0..255.
        photometric: float32 [B, 5]; (0, 1, 1, 0, 1) leaves a sample unchanged to the bit.

    Returns:
        float32 [B, 3, H, W], 0..255.
    """
    brightness, contrast, saturation, hue, late_contrast = photometric[:, :, None, None, None].unbind(1)
    image = image.contiguous()  # whole planes: three times as fast below as interleaved colours
    result = (image + brightness).clamp_(0, 255).mul_(contrast).clamp_(0, 255)
    result = _turn_colours(result, saturation, hue).mul_(late_contrast).clamp_(0, 255)
    neutral = torch.tensor(NO_PHOTOMETRIC, dtype=photometric.dtype).to(photometric.device, non_blocking=True)
    is_neutral = (photometric == neutral).all(dim=1)  # [B]
    return torch.where(is_neutral[:, None, None, None], image, result)


def _turn_colours(image: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Scale the saturation and shift the hue of the HSV model; value V stays.

    A channel of an HSV colour is V - C * f(sector) with the trapezoid f(k) = clamp(min(k, 4 - k), 0, 1), where
    the sectors of red, green and blue are 5, 3 and 1 plus the hue in units of 60 degrees, modulo 6. Scaling
    the saturation scales the chroma C, to V at most.
    """
    red, green, blue = image.split(1, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)  # [B, 1, H, W]
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = chroma.clamp_min(1e-6)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )  # [B, 1, H, W], -1..5
    sector += hue * (_DEGREES_PER_HUE_STEP / 60)
    chroma = torch.minimum(chroma * saturation, value)
    result = torch.empty_like(image)
    for plane, origin in enumerate((5, 3, 1)):
        from_middle = torch.remainder(sector + (origin + 1), 6).sub_(3).abs_()  # of the trapezoid, at k = 2
        trapezoid = from_middle.neg_().add_(2).clamp_(0, 1)
        torch.addcmul(value, chroma, trapezoid, value=-1, out=result[:, plane : plane + 1])
    return result
