"""Cross-entropies that never hold the whole map of scores: computed and differentiated piece by piece.

Letters: B batch, C channels, V vocabulary, N classes, h w size of the scores, H W size of the labels,
n valid tokens, S groups of samples. `groups` float [B, S] has a single 1 in the row of each sample; with it there is a
sum for each group, [S].
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.classes import ignore_index
from gss.nets.tensors import resize, single

_SCORES, _SCORES_ON_GPU = 2**22, 2**25  # that exist at a time, beside their logarithms and their gradients


def token_loss_sum(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    ignore_index: int,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a 1x1 classifier over V tokens, summed over the valid tokens.

    Args:
        hidden: [B, C, h, w], input of the classifier.
        weight: [V, C, 1, 1]. bias: [V].
        targets: int64 [B, h, w]; `ignore_index` marks tokens without loss, for which nothing is computed.
        weights: [B, h, w], factor of every token's loss; None: 1.

    Returns:
        the sum, differentiable in `hidden`, `weight` and `bias`; the number of tokens guessed right, int64.
    """
    target = targets.flatten()
    factor = None if weights is None else weights.flatten()

    def classify(part: Tensor, chosen: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        scores = single(F.linear(part, weight.flatten(1), bias))  # [piece, V]
        loss = F.cross_entropy(scores, target[chosen], reduction="sum" if factor is None else "none")
        right = (scores.detach().argmax(1) == target[chosen]).sum()
        return loss if factor is None else loss @ factor[chosen].to(loss.dtype), right

    valid = target != ignore_index
    if groups is None:
        slots, number, of_slots = None, 1, [valid]
    else:
        slots, number = groups.argmax(1).repeat_interleave(targets[0].numel()), groups.shape[1]
        of_slots = [valid & (slots == slot) for slot in range(number)]
    at_once = max(1, scores_at_once(hidden) // len(bias))
    pieces = [
        (chosen, chosen, slot)  # [n] positions
        for slot, some in enumerate(of_slots)
        for chosen in some.nonzero()[:, 0].split(at_once)
    ]
    tokens = hidden.permute(0, 2, 3, 1).flatten(0, 2)  # [B * h * w, C]
    return _PiecewiseSum.apply(classify, pieces, slots, number, tokens, weight, bias)


def pixel_loss_sum(
    scores: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None = None,
    align_corners: bool = False,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of scores resized bilinearly to the label, summed over the valid pixels.

    Args:
        scores: [B, N, h, w].
        labels: [B, H, W], integers; `ignore_index` marks pixels without loss.
        class_weights: [N], factor of a pixel's loss by its label; None: 1.
        align_corners: of the resize, see `gss.nets.tensors.resize`.

    Returns:
        the sum, differentiable in `scores`; the number of pixels guessed right, int64.
    """
    batch, num_classes, rows, _ = scores.shape
    height, width = labels.shape[1:]

    def classify(part: Tensor, strip: tuple[int, int, slice, slice]) -> tuple[Tensor, Tensor]:
        sample, resized_height, inner, target = strip
        label = labels[sample : sample + 1, target].long()  # [1, strip, W]
        full = resize(single(part), (resized_height, width), align_corners=align_corners)
        full = full[:, :, inner]  # [1, N, strip, W]
        factor = None if class_weights is None else class_weights.to(full.dtype)
        loss = F.cross_entropy(full, label, factor, ignore_index=ignore_index, reduction="sum")
        return loss, (full.detach().argmax(1) == label).sum()

    strips = _strips_between_rows if align_corners else _strips
    pieces = [
        ((slice(sample, sample + 1), slice(None), source), (sample, *strip), 0 if groups is None else sample)
        for sample in range(batch)
        for source, *strip in strips(rows, height, scores_at_once(scores) // (num_classes * width))
    ]
    if groups is None:
        return _PiecewiseSum.apply(classify, pieces, None, 1, scores)
    losses, right = _PiecewiseSum.apply(classify, pieces, torch.arange(batch, device=scores.device), batch, scores)
    return sum_of(losses, groups), right


def _strips(rows: int, height: int, at_once: int) -> Iterator[tuple[slice, int, slice, slice]]:
    """Strips of a map whose `rows` rows are resized bilinearly to `height`, about `at_once` rows of the result each.

    A strip is a slice of the rows, the height to resize it to, and the slice to keep of that, which is the last slice
    of the result. One more row on either side makes its values those of the resized whole; where the factor is no
    whole number, there is a single strip.
    """
    factor = height / rows
    step = max(1, int(at_once / factor)) if factor.is_integer() else rows
    for start in range(0, rows, step):
        end = min(start + step, rows)
        low, high = max(start - 1, 0), min(end + 1, rows)
        first, last, before = (int(factor * row) for row in (start, end, low))
        yield slice(low, high), int(factor * (high - low)), slice(first - before, last - before), slice(first, last)


def _strips_between_rows(rows: int, height: int, at_once: int) -> Iterator[tuple[slice, int, slice, slice]]:
    """The strips of `_strips` for aligned corners: every row falls on one of the result, where a strip can begin."""
    gaps = rows - 1
    factor = (height - 1) / gaps if gaps else 0.5
    step = max(1, int(at_once / factor)) if factor.is_integer() else max(gaps, 1)
    for start in range(0, max(gaps, 1), step):
        end = min(start + step, gaps)
        if end == gaps:  # with its last row, which no strip begins with
            yield slice(start, rows), height - int(factor * start), slice(None), slice(int(factor * start), height)
        else:
            first, last = int(factor * start), int(factor * end)
            yield slice(start, end + 1), last - first + 1, slice(0, last - first), slice(first, last)


def scores_at_once(x: Tensor) -> int:
    """How many scores to compute at a time on the device of `x`: few for the CPU's caches, many for a busy GPU."""
    return _SCORES_ON_GPU if x.is_cuda else _SCORES


def pixel_weights(label: Tensor, class_weights: Tensor) -> Tensor:
    """Class weight of every pixel, 0 where the label is ignored.

    Args:
        label: integers 0..N-1 or `ignore_index(N)`. class_weights: [N].

    Returns:
        the shape of `label`.
    """
    table = class_weights.new_zeros(ignore_index(len(class_weights)) + 1)
    table[: len(class_weights)] = class_weights
    return table[label.long()]


def sum_of(values: Tensor, groups: Tensor | None) -> Tensor:
    """Sum of values [B, ...], []; of each group's, [S]; truth and whole numbers are counted exactly."""
    if groups is None:
        return values.sum()
    of_samples = values.reshape(len(values), -1).sum(1, keepdim=True)  # [B, 1]
    if not of_samples.is_floating_point():
        of_samples = of_samples.double()
    return (of_samples * groups).sum(0)  # no matrix product: autocast would round it


class _PiecewiseSum(torch.autograd.Function):
    """Sums of a loss over pieces of its first input; each piece is differentiated as soon as it is computed.

    The gradients, not the scores, are what is kept for the backward pass, so no piece is computed twice. A piece is an
    index of the input, what `loss_of` is told about it, and the number of the sum that it goes into. `slots` int64 says
    of each row of the input which of `number` sums it goes into; None: there is one, of shape [].
    """

    @staticmethod
    def forward(ctx, loss_of, pieces, slots, number, x, *shared):  # type: ignore[no-untyped-def]
        shape = () if slots is None else (number,)
        total = x.new_zeros(shape, dtype=torch.promote_types(x.dtype, torch.float32))
        right = torch.zeros((), dtype=torch.int64, device=x.device)
        x_grad = torch.zeros_like(x)
        leaves = [[parameter.detach().requires_grad_() for parameter in shared] for _ in range(number)]
        for index, about, slot in pieces:
            part = x[index].detach().requires_grad_()
            with torch.enable_grad():
                loss, correct = loss_of(part, about, *leaves[slot])
            loss.backward()
            x_grad[index] += part.grad
            total.view(-1)[slot] += loss.detach()
            right += correct
        grads = [[torch.zeros_like(p) if p.grad is None else p.grad for p in each] for each in leaves]
        ctx.save_for_backward(
            slots, x_grad, *(grads[0] if slots is None else map(torch.stack, zip(*grads, strict=True)))
        )
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        # With dimensions, the factor stays float32, as float16 ends at 65504.
        slots, *saved = ctx.saved_tensors
        if slots is None:  # in place: a second call is an error
            return None, None, None, None, *[each.mul_(grad.expand_as(each)) for each in saved]
        x_grad, *stacked = saved  # [rows of x, ...], [number, ...]
        factors = grad[slots].view(-1, *[1] * (x_grad.ndim - 1))
        of_x = torch.mul(x_grad, factors, out=torch.empty_like(x_grad))
        of_shared = [torch.tensordot(grad.to(each.dtype), each, 1) for each in stacked]
        return None, None, None, None, of_x, *of_shared
