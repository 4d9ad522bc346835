"""Position tables of transformers, made for a grid of patches or resized to another one.

Letters: C width of a token, P prefix tokens (the class token), n positions of a table, R rows of a relative table.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gss.errors import CheckpointError, ConfigError

_CLASS_ROWS = 3  # at the end of a relative table: class to patch, patch to class, class to class


def sine(grid: tuple[int, int], width: int) -> Tensor:
    """The fixed sine and cosine table of a grid: float32 [1, 1 + h * w, C], the row of the class token zero.

    Args:
        grid: (h, w) in patches.
        width: C, a multiple of 4.

    Raises:
        ConfigError: another width.

    Source:
        MoCo v3, which CAE follows: a quarter of the channels each for sine and cosine of the row, then of the column.
    """
    if width % 4:
        raise ConfigError(f"a width of {width} cannot hold sines and cosines of rows and columns: no multiple of 4")
    quarter = width // 4
    frequencies = 10000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid)
    angles = [rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)]  # [h, w, C / 4]
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=2)  # [h, w, C]
    return F.pad(table.flatten(0, 1), (0, 0, 1, 0))[None].float()


def absolute(table: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """A table of absolute positions [1, P + n, C] for another grid: [1, P + h * w, C], the rows of the prefix kept.

    Args:
        table: of a square grid, in any floating type, which it keeps.
        grid: (h, w) in patches.
        prefix: P.

    Raises:
        CheckpointError: the table is not that of a square grid.

    Note:
        Bicubic without antialiasing, as CAE does it; with it, timm's way, another kernel moves entries by up to 0.05.
    """
    side = math.isqrt(table.shape[1] - prefix)
    if side**2 != table.shape[1] - prefix:
        raise CheckpointError(
            f"the positions of {table.shape[1] - prefix} patches are those of no square grid",
            todo="use weights of a square image",
        )
    if (side, side) == grid:
        return table
    old = table[:, prefix:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [1, C, side, side]
    new = F.interpolate(old, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([table[:, :prefix], new.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def relative(table: Tensor, window: tuple[int, int]) -> Tensor:
    """A table of relative positions [R, heads] for another window: [(2 h - 1) * (2 w - 1) + 3, heads].

    Args:
        table: of a square window, in any floating type, which it keeps; its last three rows are the class token's.
        window: (h, w) in patches.

    Raises:
        CheckpointError: the table is not that of a square window.

    Source:
        BEiT's fine-tuning: distances of the old table grow geometrically to those of the new one, and a bicubic
        spline through it is read at whole distances.
    """
    rows = len(table) - _CLASS_ROWS
    side = math.isqrt(max(rows, 0))
    if side < 3 or side**2 != rows or side % 2 == 0:
        raise CheckpointError(
            f"{len(table)} relative positions are those of no square window and a class token",
            todo="use weights of a square image",
        )
    sides = (2 * window[0] - 1, 2 * window[1] - 1)
    if (side, side) == sides:
        return table
    if table.is_meta:
        return table.new_empty(sides[0] * sides[1] + _CLASS_ROWS, table.shape[1])
    from scipy.interpolate import RectBivariateSpline  # takes a while; most networks have no use for it

    old = table[:rows].double().numpy().reshape(side, side, -1)
    known = [_spread(side, new) for new in sides]
    wanted = [np.arange(new) - new // 2 for new in sides]
    degree = min(3, side - 1)
    heads = [RectBivariateSpline(*known, old[..., i], kx=degree, ky=degree)(*wanted) for i in range(old.shape[2])]
    new = torch.from_numpy(np.stack(heads, axis=-1)).flatten(0, 1).to(table.dtype)
    return torch.cat([new, table[rows:]])


def _spread(old: int, new: int) -> NDArray[np.float64]:
    """Where `old` distances lie among `new` ones: 0, ±1, ±(1 + q), ±(1 + q + q²), with q such that both end alike."""
    steps = old // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**steps) / (1 - q) > new // 2:
            high = q
        else:
            low = q
    distances = np.cumsum(q ** np.arange(steps))
    return np.concatenate([-distances[::-1], [0.0], distances])
