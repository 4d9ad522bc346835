"""Attention with a learned bias for every offset between two tokens, without keeping a map of all pairs.

torch's fused attention on CPUs gives no gradient of a bias: with one it falls back to keeping scores and probabilities,
[B, h, N, N] each, and the bias [h, N, N], of every block until the backward pass: gigabytes at 512 x 512. Here the
backward pass computes them again, a few heads at a time.

Letters: B batch, h heads, N tokens, D width of a head, R rows of the table of biases.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PAIRS, _PAIRS_ON_GPU = 2**22, 2**27  # scores that exist at a time, beside their probabilities and gradients


def biased_attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(D) + bias) value.

    Args:
        query, key, value: [B, h, N, D].
        table: [R, h], biases; differentiable, like the three above.
        index: int64 [N, N], the row of the table for a query and a key.

    Returns:
        [B, h, N, D].
    """
    if torch.is_grad_enabled():
        return _BiasedAttention.apply(query, key, value, table, index)
    return _attend(query, key, value, table, index)


def _bias(table: Tensor, index: Tensor) -> Tensor:
    """[R, h] -> [h, N, N]."""
    return table.t().contiguous().index_select(1, index.flatten()).view(-1, *index.shape)


def _attend(query: Tensor, key: Tensor, value: Tensor, table: Tensor, index: Tensor) -> Tensor:
    bias = _bias(table.to(query.dtype), index)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])


class _BiasedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, index: Tensor) -> Tensor:
        result = _attend(query, key, value, table, index)
        ctx.save_for_backward(query, key, value, table, index, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, table, index, result = ctx.saved_tensors
        batch, heads, tokens, width = query.shape
        wide, scale = torch.promote_types(query.dtype, torch.float32), width**-0.5
        grads = [torch.empty_like(x) for x in (query, key, value)]
        of_bias = query.new_empty(heads, tokens, tokens, dtype=wide)
        at_once = max(1, (_PAIRS_ON_GPU if query.is_cuda else _PAIRS) // (batch * tokens**2))
        for first in range(0, heads, at_once):
            some = slice(first, first + at_once)
            q, k, v, dy, y = (x[:, some] for x in (query * scale, key, value, grad, result))  # [B, some, N, D]
            scores = (q @ k.mT).to(wide).add_(_bias(table[:, some].to(query.dtype), index))
            shares = scores.softmax(-1)
            narrow = shares.to(query.dtype)
            grads[2][:, some] = narrow.mT @ dy
            inner = (dy.to(wide) * y.to(wide)).sum(-1, keepdim=True)  # [B, some, N, 1]
            slopes = (dy @ v.mT).to(wide).sub_(inner).mul_(shares)
            torch.sum(slopes, 0, out=of_bias[some])
            slopes = slopes.to(query.dtype)
            grads[0][:, some] = (slopes @ k).mul_(scale)
            grads[1][:, some] = slopes.mT @ q
        of_table = of_bias.new_zeros(len(table), heads)
        of_table.index_add_(0, index.flatten(), of_bias.flatten(1).t())
        return *grads, of_table.to(table.dtype), None


def bias_without_map(model: nn.Module) -> None:
    """Let the attention of a timm BEiT compute as above, in place; names and numbers of tensors stay. On the CPU all
    blocks have one index.

    Left as they are: attention that drops shares, and biases that all blocks have in common.
    """
    from timm.models.beit import Attention, Beit

    if not isinstance(model, Beit) or model.rel_pos_bias is not None:
        return
    index = None
    for module in model.modules():
        if type(module) is Attention and module.relative_position_bias_table is not None and not module.attn_drop.p:
            module.__class__ = _economical()  # type: ignore[assignment]
            index = module.relative_position_index if index is None else index
            module.relative_position_index = index


@functools.cache
def _economical() -> type[nn.Module]:
    from timm.models.beit import Attention

    class BiasedAttention(Attention):
        def forward(self, x: Tensor, shared_rel_pos_bias: None = None) -> Tensor:
            """[B, N, C] -> [B, N, C]."""
            bias = None if self.q_bias is None else torch.cat((self.q_bias, self.k_bias, self.v_bias))
            qkv = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.num_heads, -1))  # [B, N, 3, h, D]
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            y = biased_attention(query, key, value, self.relative_position_bias_table, self.relative_position_index)
            return self.proj_drop(self.proj(y.transpose(1, 2).flatten(2)))

    return BiasedAttention
