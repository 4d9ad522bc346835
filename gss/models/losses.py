"""Cross-entropies that never hold the whole map of scores: computed and differentiated piece by piece.

Letters: B batch, C channels, V vocabulary, N classes, h w size of the scores, H W size of the labels,
n valid tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.classes import IGNORE_INDEX

_TOKENS_PER_PIECE = 2048


def token_loss_sum(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    ignore_index: int,
    weights: Tensor | None = None,
    piece: int = _TOKENS_PER_PIECE,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a 1x1 classifier over V tokens, summed over the valid tokens.

    Args:
        hidden: [B, C, h, w], input of the classifier.
        weight: [V, C, 1, 1]. bias: [V].
        targets: int64 [B, h, w]; `ignore_index` marks tokens without loss, for which nothing is computed.
        weights: [B, h, w], factor of every token's loss; None: 1.
        piece: tokens whose V scores are held at a time.

    Returns:
        the sum, differentiable in `hidden`, `weight` and `bias`; the number of tokens guessed right, int64.
    """
    valid = targets != ignore_index  # [B, h, w]
    chosen = hidden.permute(0, 2, 3, 1)[valid]  # [n, C]
    target = targets[valid]  # [n]
    factor = None if weights is None else weights[valid]  # [n]

    def classify(part: Tensor, where: slice, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        scores = _single(F.linear(part, weight.flatten(1), bias))  # [piece, V]
        loss = F.cross_entropy(scores, target[where], reduction="sum" if factor is None else "none")
        right = (scores.detach().argmax(1) == target[where]).sum()
        return loss if factor is None else loss @ factor[where].to(loss.dtype), right

    return _PiecewiseSum.apply(classify, piece, chosen, weight, bias)


def pixel_loss_sum(
    scores: Tensor, labels: Tensor, *, ignore_index: int, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of scores resized bilinearly to the label, summed over the valid pixels.

    Args:
        scores: [B, N, h, w].
        labels: [B, H, W], integers; `ignore_index` marks pixels without loss.
        class_weights: [N], factor of a pixel's loss by its label; None: 1.

    Returns:
        the sum, differentiable in `scores`; the number of pixels guessed right, int64.
    """

    def classify(image: Tensor, where: slice) -> tuple[Tensor, Tensor]:
        label = labels[where].long()  # [1, H, W]
        full = resize(_single(image), (label.shape[1], label.shape[2]))  # [1, N, H, W]
        factor = None if class_weights is None else class_weights.to(full.dtype)
        loss = F.cross_entropy(full, label, factor, ignore_index=ignore_index, reduction="sum")
        return loss, (full.detach().argmax(1) == label).sum()

    return _PiecewiseSum.apply(classify, 1, scores)


def pixel_weights(label: Tensor, class_weights: Tensor) -> Tensor:
    """Class weight of every pixel, 0 where the label is ignored.

    Args:
        label: uint8, 0..N-1 or 255. class_weights: [N].

    Returns:
        the shape of `label`.
    """
    table = class_weights.new_zeros(IGNORE_INDEX + 1)
    table[: len(class_weights)] = class_weights
    return table[label.long()]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size]: bilinear with half-pixel centres, no antialiasing."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _single(x: Tensor) -> Tensor:
    """Scores in float32 at least, also under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _PiecewiseSum(torch.autograd.Function):
    """Sum of a loss over pieces of its first input; each piece is differentiated as soon as it is computed.

    The gradients, not the scores, are what is kept for the backward pass, so no piece is computed twice.
    """

    @staticmethod
    def forward(ctx, loss_of, piece, x, *shared):  # type: ignore[no-untyped-def]
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        right = torch.zeros((), dtype=torch.int64, device=x.device)
        x_grad = torch.zeros_like(x)
        leaves = [parameter.detach().requires_grad_() for parameter in shared]
        for start in range(0, len(x), piece):
            where = slice(start, start + piece)
            part = x[where].detach().requires_grad_()
            with torch.enable_grad():
                loss, correct = loss_of(part, where, *leaves)
            loss.backward()
            x_grad[where] = part.grad
            total += loss.detach()
            right += correct
        ctx.save_for_backward(x_grad, *[torch.zeros_like(p) if p.grad is None else p.grad for p in leaves])
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        return None, None, *[saved * grad for saved in ctx.saved_tensors]
