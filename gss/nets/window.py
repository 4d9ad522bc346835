"""Swin blocks: self-attention in shifted windows, as GSS uses them in the latent prior and in X^-1.

Letters: B batch, H W size of the map, C channels, M window side, L = M * M positions of a window,
n windows of one map, a heads, d = C / a channels of a head. Maps are [B, H, W, C].
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGE = 2**21  # values of a map from which a block keeps its input alone, instead of some 16 maps of that size
_PIECE, _PIECE_ON_GPU = 2**20, 2**24  # values of a piece
_FORBIDDEN = -100.0  # added to the logit of two positions that only the cyclic shift made neighbours


class WindowAttention(nn.Module):
    """Multi-head self-attention within M x M windows, with a learned bias per relative position.

    Args:
        dim: channels C.
        heads: attention heads a; must divide C.
        window: side M of a window. Windows never shrink: a smaller map is padded.
        shift: rows and columns by which the windows are moved.

    Note:
        The map is zero-padded on the right and at the bottom *before* it is rolled, and padded positions take part
        as keys and values (they are zero vectors, so their q, k, v are the bias of `qkv`).

    Source: Swin Transformer, in the variant of the published GSS.
    """

    def __init__(self, dim: int, heads: int, *, window: int, shift: int = 0) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", _relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, *, shift_rows: bool = True) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]; without `shift_rows` the windows are moved by columns alone."""
        height, width = x.shape[1:3]
        m, shift = self.window, (self.shift if shift_rows else 0, self.shift)
        x = F.pad(x, (0, 0, 0, -width % m, 0, -height % m))  # [B, H', W', C], multiples of M
        if self.shift:
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        batch, padded_height, padded_width, dim = x.shape
        x = x.view(batch, padded_height // m, m, padded_width // m, m, dim)
        x = x.transpose(2, 3).reshape(batch, -1, m * m, dim)  # [B, n, L, C]
        x = self.proj(self._attend(self.qkv(x), (padded_height, padded_width), shift))
        x = x.view(batch, padded_height // m, padded_width // m, m, m, dim)
        x = x.transpose(2, 3).reshape(batch, padded_height, padded_width, dim)
        if self.shift:
            x = x.roll(shift, (1, 2))
        return x[:, :height, :width]

    def _attend(self, qkv: Tensor, size: tuple[int, int], shift: tuple[int, int]) -> Tensor:
        batch, windows, length, triple = qkv.shape  # [B, n, L, 3C]
        parts = qkv.view(batch, windows, length, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)  # [3, B, n, a, L, d]
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # [a, L, L]
        if self.shift:
            bias = bias + _shift_mask(size, self.window, shift, bias).unsqueeze(1)  # [n, a, L, L]
            # Windows join the heads, so that one mask serves every sample of the batch.
            query, key, value = parts.flatten(2, 3)  # [B, n*a, L, d]
            bias = bias.flatten(0, 1)
        else:
            query, key, value = parts.flatten(1, 2)  # [B*n, a, L, d]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype).unsqueeze(0))
        mixed = mixed.view(batch, windows, self.heads, length, -1).transpose(2, 3)  # [B, n, L, a, d]
        return mixed.reshape(batch, windows, length, triple // 3)


class FeedForward(nn.Module):
    """Linear, GELU, Linear; `layers.0.0` and `layers.1` are the published parameter names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, hidden), nn.GELU()), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), on [B, H, W, C].

    Note: a large map is computed in pieces of whole rows of windows, and the backward pass computes each piece again.
    """

    def __init__(self, dim: int, heads: int, *, window: int, shift: int, ffn_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = nn.ModuleDict({"w_msa": WindowAttention(dim, heads, window=window, shift=shift)})
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < _LARGE:
            return self.whole(x)
        return _InPieces.apply(self, x, *[p for p in self.parameters() if p.requires_grad])

    def whole(self, x: Tensor, *, shift_rows: bool = True) -> Tensor:
        """The block on a map; without `shift_rows` on rows of windows that end where the map does."""
        x = x + self.attn["w_msa"](self.norm1(x), shift_rows=shift_rows)
        return x + self.ffn(self.norm2(x))

    def pieces(self, x: Tensor) -> list[slice | Tensor]:
        """Rows of a map that are computed together. All but the last piece are whole windows without padding.

        The shifted windows start at row `shift`, and the last ones continue with the first rows. With these the rows
        that are left over form the last piece, which is a shifted and padded map of its own.
        """
        attention = cast(WindowAttention, self.attn["w_msa"])
        height, window, shift = x.shape[1], attention.window, attention.shift
        size = window * max(1, (_PIECE_ON_GPU if x.is_cuda else _PIECE) // x[:, :window].numel())
        count = max(0, height - shift - 1) // size
        end = shift + size * count
        inner = [slice(row, row + size) for row in range(shift, end, size)]
        rows = torch.arange(height, device=x.device)
        return [*inner, torch.cat([rows[:shift], rows[end:]])]


class _InPieces(torch.autograd.Function):
    """A Swin block on one piece of the map after the other; only its input is kept for the backward pass."""

    @staticmethod
    def forward(ctx, block, x, *parameters):  # type: ignore[no-untyped-def]
        ctx.block = block
        ctx.save_for_backward(x, *parameters)
        device = x.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        result = torch.empty_like(x)
        *inner, ends = block.pieces(x)
        for rows in (*inner, ends):
            result[:, rows] = block.whole(x[:, rows], shift_rows=rows is ends)
        return result

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, *parameters = ctx.saved_tensors
        x_grad = torch.empty_like(x)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        *inner, ends = ctx.block.pieces(x)
        for rows in (*inner, ends):
            part = x[:, rows].detach().requires_grad_()
            with torch.enable_grad(), torch.autocast(*ctx.autocast):
                result = ctx.block.whole(part, shift_rows=rows is ends)
            part_grad, *grads = torch.autograd.grad(result, [part, *parameters], grad[:, rows])
            x_grad[:, rows] = part_grad
            torch._foreach_add_(sums, grads)
        return None, x_grad, *sums


class SwinBlocks(nn.Module):
    """A sequence of Swin blocks; every second one shifts its windows by half a window.

    Args:
        dim: channels C.
        depth: number of blocks.
    """

    def __init__(self, dim: int, depth: int, *, heads: int, window: int, ffn_dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window=window, shift=window // 2 * (index % 2), ffn_dim=ffn_dim)
            for index in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        for block in self.blocks:
            x = block(x)
        return x


def _relative_position_index(window: int) -> Tensor:
    """int64 [L, L]: row of the bias table for (query, key) = (y_q - y_k + M - 1) (2M - 1) + (x_q - x_k + M - 1)."""
    row = torch.arange(window * window) // window
    column = torch.arange(window * window) % window
    return (row[:, None] - row + window - 1) * (2 * window - 1) + column[:, None] - column + window - 1


def _shift_mask(size: tuple[int, int], window: int, shift: tuple[int, int], like: Tensor) -> Tensor:
    """[n, L, L]: 0 for positions that were neighbours before the cyclic shift, -100 for others."""
    bounds = [
        torch.tensor([extent - window, extent - moved]).to(like.device, non_blocking=True)  # the GPU is not waited for
        for extent, moved in zip(size, shift, strict=True)
    ]
    rows, columns = (
        torch.bucketize(torch.arange(extent, device=like.device), bound, right=True)
        for extent, bound in zip(size, bounds, strict=True)
    )
    region = 3 * rows[:, None] + columns  # [H', W']
    region = region.view(size[0] // window, window, size[1] // window, window)
    region = region.transpose(1, 2).reshape(-1, window * window)  # [n, L]
    apart = region[:, :, None] != region[:, None]  # [n, L, L]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill_(apart, _FORBIDDEN)
