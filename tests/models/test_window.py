"""Window attention and Swin blocks: what holds for any weights."""

import pytest
import torch

from gss.nets import window
from gss.nets.window import SwinBlocks, WindowAttention


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def attention(shift: int, window: int = 7) -> WindowAttention:
    module = WindowAttention(8, 2, window=window, shift=shift).double()
    torch.nn.init.normal_(module.relative_position_bias_table)
    return module


@pytest.mark.parametrize("shift", [0, 2])
def test_a_change_stays_in_its_window(shift: int) -> None:
    module = attention(shift, window=4)
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, 0, 0] += 1
    moved = (module(changed) != module(x)).any(-1)[0]
    side = 4 - shift  # the window at the corner, cut by the shift
    assert moved[:side, :side].all()
    assert not moved[side:].any()
    assert not moved[:, side:].any()


@pytest.mark.parametrize("shift", [0, 3])
def test_attention_equals_the_written_out_formula(shift: int) -> None:
    module = attention(shift)
    x = torch.randn(2, 9, 16, 8, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 5, 0, 5)).roll((-shift, -shift), (1, 2))  # [2, 14, 21, 8]
    region = torch.zeros(14, 21)
    bounds = [slice(0, -7), slice(-7, -shift or None), slice(-shift, None)] if shift else [slice(None)]
    for i, rows in enumerate(bounds):
        for j, columns in enumerate(bounds):
            region[rows, columns] = 3 * i + j
    out = torch.empty_like(padded)
    bias = module.relative_position_bias_table[module.relative_position_index]  # [49, 49, 2]
    for top in range(0, 14, 7):
        for left in range(0, 21, 7):
            area = (slice(top, top + 7), slice(left, left + 7))
            ids = region[area].flatten()
            mask = -100.0 * (ids[:, None] != ids)
            q, k, v = module.qkv(padded[:, *area].flatten(1, 2)).chunk(3, -1)  # [2, 49, 8]
            heads = []
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                logits = q[..., part] * 4**-0.5 @ k[..., part].mT + bias[..., head] + mask
                heads.append(logits.softmax(-1) @ v[..., part])
            out[:, *area] = module.proj(torch.cat(heads, -1)).unflatten(1, (7, 7))
    expected = out.roll((shift, shift), (1, 2))[:, :9, :16]
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_number_of_parameters() -> None:
    c, a, f = 512, 16, 1024
    block = 4 * c + 3 * c * c + 3 * c + c * c + c + 169 * a + 2 * c * f + f + c
    with torch.device("meta"):
        assert sum(p.numel() for p in SwinBlocks(c, 2, heads=a, window=7, ffn_dim=f).parameters()) == 2 * block


@pytest.mark.parametrize("size", [(23, 17), (7, 30), (2, 9), (31, 8), (28, 28)])
def test_blocks_in_pieces_equal_the_whole(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, with and without shift, down to maps smaller than the shift."""
    blocks = SwinBlocks(8, 2, heads=2, window=7, ffn_dim=12).double()
    blocks.blocks[1].norm1.requires_grad_(False)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    weights = torch.randn_like(x)

    def outcome() -> list[torch.Tensor]:
        seen = x.clone().requires_grad_()
        blocks.zero_grad()
        result = blocks(seen)
        (result * weights).sum().backward()
        return [result.detach(), seen.grad, *[p.grad for p in blocks.parameters() if p.requires_grad]]  # type: ignore

    whole = outcome()
    monkeypatch.setattr(window, "_LARGE", 0)
    monkeypatch.setattr(window, "_PIECE", 2 * 14 * size[1] * 8)  # two rows of windows
    numbers = [len(block.pieces(x)) for block in blocks.blocks]
    assert numbers == [max(1, -(-size[0] // 14)), max(1, -(-(size[0] - 3) // 14))]
    for ours, theirs in zip(outcome(), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("large", [0, 2**30])
def test_autocast_rounds_values_and_gradients(large: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces and as a whole; the mask of the shift stays a number, the parameters' gradients their type."""
    blocks = SwinBlocks(8, 2, heads=2, window=7, ffn_dim=12)
    x, weights = torch.randn(2, 2, 30, 16, 8)
    monkeypatch.setattr(window, "_LARGE", large)
    found = []
    for enabled in (False, True):
        seen = x.clone().requires_grad_()
        blocks.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            result = blocks(seen)
        (result * weights).sum().backward()
        found.append([result.detach(), seen.grad, *[p.grad for p in blocks.parameters()]])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        assert (rounded - exact).norm() <= 8 * torch.finfo(dtype).eps * exact.norm()
