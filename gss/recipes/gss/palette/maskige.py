"""Label maps as colour pictures and back: the forward map X and its training-free inverse.

Letters: B batch, H W height and width of the picture, N classes.
"""

import torch
from torch import Tensor


def paint(label: Tensor, colours: Tensor) -> Tensor:
    """Return the maskige of a label map: every pixel gets the colour of its class.

    Args:
        label: [B,H,W] class ids of any dtype; every id of N or more gets the ignore colour.
        colours: [N+1,3] in 0..255, last row = ignore.

    Returns:
        float32 [B,3,H,W] in 0..1, RGB, on the label's device; pixels lie channel-last in memory.

    Source: the palette encoder of GSS, colour / 255.
    """
    table = colours.to(label.device, torch.float32) / 255
    ids = label.long().clamp(max=len(table) - 1)
    return table[ids].permute(0, 3, 1, 2)  # [B,3,H,W]


def nearest(rgb: Tensor, colours: Tensor) -> Tensor:
    """Return the class whose colour is nearest to each pixel (Euclidean in RGB).

    Args:
        rgb: [B,3,H,W] in 0..255 units; values outside that range are allowed.
        colours: [N+1,3] in 0..255, last row = ignore, which is never returned.

    Returns:
        int64 [B,H,W], 0..N-1.

    Source: X^-1 of GSS-FF.

    Note: the squared distance is float32 ((r-R)^2 + (g-G)^2) + (b-B)^2; equal distances go to the lowest
        class. Classes are compared one after the other, so memory does not grow with N.
    """
    red, green, blue = rgb.float().unbind(1)  # each [B,H,W]
    best = torch.full_like(red, float("inf"))
    ids = torch.zeros_like(red, dtype=torch.int64)
    for index, (r, g, b) in enumerate(colours[:-1].to(red)):  # as tensors: a GPU is not waited for
        distance = (red - r).square_()
        distance += (green - g).square_()
        distance += (blue - b).square_()
        ids.masked_fill_(distance < best, index)
        best = torch.minimum(best, distance)
    return ids
