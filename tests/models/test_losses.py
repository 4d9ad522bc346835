"""Piecewise cross-entropies against the plain ones, values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.nets import losses
from gss.nets.losses import pixel_loss_sum, token_loss_sum
from gss.nets.tensors import resize

V = 11


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, 6, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(V, dtype=torch.float64, requires_grad=True)
    return hidden, weight, bias, torch.randint(0, V + 1, (2, 5, 7))  # V = ignored


@pytest.mark.parametrize("at_once", [1, 8 * V, 2**23])
@pytest.mark.parametrize("weighted", [False, True])
def test_token_loss_equals_the_plain_one(at_once: int, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_SCORES", at_once)
    hidden, weight, bias, targets = inputs()
    weights = torch.rand(2, 5, 7, dtype=torch.float64) if weighted else None
    logits = F.conv2d(hidden, weight, bias)
    per_token = F.cross_entropy(logits, targets, ignore_index=V, reduction="none")
    plain = (per_token * (1.0 if weights is None else weights)).sum()
    expected = torch.autograd.grad(plain * 0.3, (hidden, weight, bias))
    loss, right = token_loss_sum(hidden, weight, bias, targets, ignore_index=V, weights=weights)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)
    assert right == (logits.argmax(1) == targets).sum()
    for ours, theirs in zip(torch.autograd.grad(loss * 0.3, (hidden, weight, bias)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(40, 56), (15, 20), (5, 7), (12, 9), (3, 4)])
@pytest.mark.parametrize("at_once", [1, 4 * 56 * 17, 2**23])
@pytest.mark.parametrize("weighted", [False, True])
def test_pixel_loss_equals_the_plain_one(
    size: tuple[int, int], at_once: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_SCORES", at_once)
    scores = torch.randn(2, 4, 5, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (2, *size), dtype=torch.uint8)
    labels[:, 0] = 255
    class_weights = torch.tensor([0.5, 1, 2, 3]) if weighted else None
    full = resize(scores, size)
    factor = None if class_weights is None else class_weights.double()
    plain = F.cross_entropy(full, labels.long(), factor, ignore_index=255, reduction="sum")
    (expected,) = torch.autograd.grad(plain, scores)
    loss, right = pixel_loss_sum(scores, labels, ignore_index=255, class_weights=class_weights)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)
    assert right == (full.argmax(1) == labels).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, scores)[0], expected, rtol=1e-10, atol=1e-12)


def test_everything_ignored_gives_zero_loss_and_zero_gradients() -> None:
    hidden, weight, bias, targets = inputs()
    loss, right = token_loss_sum(hidden, weight, bias, torch.full_like(targets, V), ignore_index=V)
    loss.backward()
    assert loss == 0
    assert right == 0
    for x in (hidden, weight, bias):
        assert not x.grad.any()


def test_loss_of_zero_features_is_the_logarithm_of_the_vocabulary() -> None:
    """0.8 ln 8192 + 0.2 ln 150 at the start of training, when the scores are constant."""
    targets = torch.randint(0, 8192, (1, 2, 3))
    token, _ = token_loss_sum(
        torch.zeros(1, 4, 2, 3), torch.randn(8192, 4, 1, 1), torch.zeros(8192), targets, ignore_index=8192
    )
    labels = torch.randint(0, 150, (1, 8, 8))
    pixel, _ = pixel_loss_sum(torch.zeros(1, 150, 4, 4), labels, ignore_index=255)
    assert math.isclose(token.item() / 6, 9.010913, rel_tol=1e-6)
    assert math.isclose(0.8 * token.item() / 6 + 0.2 * pixel.item() / 64, 8.210858, rel_tol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_a_float32_loss_and_gradients_of_the_parameters_type(dtype: torch.dtype) -> None:
    hidden, weight, bias = (x.detach().float().requires_grad_() for x in inputs()[:3])
    targets = torch.randint(0, V, (2, 5, 7))
    with torch.autocast("cpu", dtype):
        loss, _ = token_loss_sum(hidden, weight, bias, targets, ignore_index=V)
    loss.backward()
    plain = F.cross_entropy(F.conv2d(hidden, weight, bias), targets, reduction="sum")
    assert loss.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=2e-2, atol=0)


def test_a_factor_that_float16_does_not_hold_scales_its_gradients() -> None:
    """As of a scaled loss over few or no pixels: factor / (count + eps)."""
    exact = torch.randn(1, 3, 4, 4)
    labels = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    found = []
    for scores, factor in ((exact, 1.0), (exact.half(), 1e5), (exact.half(), 1e9)):
        leaf = scores.clone().requires_grad_()
        chosen = labels if factor < 1e9 else torch.full_like(labels, 255)
        (pixel_loss_sum(leaf, chosen, ignore_index=255)[0] * factor / 1e3).backward()
        found.append(leaf.grad)
    plain, scaled, without = found
    assert scaled.dtype == torch.float16 and not without.any()
    torch.testing.assert_close(scaled.float() / 1e5, plain, rtol=0, atol=1e-3 * float(plain.abs().max()))
