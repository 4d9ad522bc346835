"""BatchNorm whose sums are right on CPUs, too.

In training torch adds up a channels-last map pixel by pixel in single precision, in one part per thread: the more
pixels, the less is right of mean, variance and gradients, and another number of threads gives other ones. Here every
line of the map has a sum of its own, and these are added in double precision. Other layouts and devices are left to
torch.

Letters: B batch, C channels, H W size of the map, L = B H lines.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gss._compat import import_timm

_PIECE = 2**17  # values a thread looks at together: they and what is computed of them stay in its cache


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d, with right sums."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


def correct_batch_norms(module: nn.Module) -> None:
    """Give the BatchNorms of a timm model right sums, in place; names, weights and hooks stay."""
    with_activation = import_timm().layers.BatchNormAct2d
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = BatchNorm2d
        elif type(norm) is with_activation:
            norm.__class__ = _with_activation()


@functools.cache
def _with_activation() -> type[nn.Module]:
    class BatchNormAct2d(import_timm().layers.BatchNormAct2d):  # type: ignore[misc,name-defined]
        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.drop(_batch_norm(self, x)))

    return BatchNormAct2d


def _batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if not (norm.training and is_channels_last and x.device.type == "cpu"):
        return nn.BatchNorm2d.forward(norm, x)
    y, mean, variance = _Normalise.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
        share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
        pixels = x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_((variance * pixels / (pixels - 1)).to(norm.running_var.dtype), share)
    return y


class _Normalise(torch.autograd.Function):
    """Map [B, C, H, W] -> normalised map; float64 [C] mean and biased variance, without gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = statistics(x)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, variance)
        wide = _wide(x)
        return F.batch_norm(x, mean.to(wide), variance.to(wide), weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors  # scale: 1 / standard deviation
        lines, slopes = _lines(x), _lines(grad.contiguous(memory_format=torch.channels_last))
        wide, pixels = _wide(x), lines.shape[0] * lines.shape[1]
        centre, sums, products = mean.to(wide), _of_lines(lines), _of_lines(lines)
        for some in _pieces(lines):
            slope = slopes[some].to(wide)
            torch.sum(slope, 1, out=sums[some])
            torch.sum((lines[some].to(wide) - centre).mul_(slope), 1, out=products[some])
        of_bias, of_weight = _total(sums), _total(products) * scale

        # dx = gain (grad - mean of grad - normalised x * mean of grad * normalised x)
        gain = scale if weight is None else scale * weight
        of_x = -gain * scale * of_weight / pixels
        constant = -gain * of_bias / pixels - of_x * mean
        gain, of_x, constant = (value.to(wide) for value in (gain, of_x, constant))
        result = torch.empty_like(x)  # channels-last, as x is
        changed = _lines(result)
        for some in _pieces(lines):
            part = torch.addcmul(constant, lines[some].to(wide), of_x)
            torch.addcmul(part, slopes[some].to(wide), gain, out=changed[some])
        if weight is None:
            return result, None, None, None
        return result, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """float64 [C] mean and biased variance of a channels-last map [B, C, H, W] over its pixels."""
    lines = _lines(x)
    means, squares = _of_lines(lines), _of_lines(lines)
    for some in _pieces(lines):
        part = lines[some].to(_wide(x))
        mean = torch.mean(part, 1, out=means[some])
        torch.sum(F.mse_loss(part, mean[:, None].expand_as(part), reduction="none"), 1, out=squares[some])
    mean = _total(means) / len(lines)
    within = _total(squares) / (len(lines) * lines.shape[1])
    return mean, within + (means.double() - mean).square().mean(0)


def _lines(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [L, W, C], a view."""
    return x.permute(0, 2, 3, 1).flatten(0, 1)


def _pieces(lines: Tensor) -> list[slice]:
    """Some lines at a time."""
    step = torch.get_num_threads() * max(1, _PIECE // lines[0].numel())
    return [slice(first, first + step) for first in range(0, len(lines), step)]


def _of_lines(lines: Tensor) -> Tensor:
    """[L, C], for the sums of all lines: made at once, they leave no holes in memory between the pieces."""
    return lines.new_empty(len(lines), lines.shape[2], dtype=_wide(lines))


def _total(of_lines: Tensor) -> Tensor:
    """float64 [C], the sum over all lines."""
    return of_lines.double().sum(0)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
