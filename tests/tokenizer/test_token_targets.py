"""Targets: doubling, filling, the ignore rule."""

import pytest
import torch
import torch.nn.functional as F
from procedural import CASE_B, procedural_dvae

from gss.recipes.gss.tokenizer.targets import double_label, fill_ignored, token_targets, token_valid

NUM_CLASSES = 20
RANDOM = torch.Generator().manual_seed(3)
COLOURS = torch.randint(0, 256, (NUM_CLASSES + 1, 3), generator=RANDOM)


def random_label(*shape: int) -> torch.Tensor:
    label = torch.randint(0, NUM_CLASSES + 1, shape, generator=RANDOM)
    return torch.where(label == NUM_CLASSES, 255, label).to(torch.uint8)


def by_the_book(label: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """One-hot with N + 1 channels, bilinear, argmax."""
    ids = torch.where(label == 255, NUM_CLASSES, label.long())
    planes = F.one_hot(ids, NUM_CLASSES + 1).permute(0, 3, 1, 2).float()
    result = F.interpolate(planes, size, mode="bilinear", align_corners=False).argmax(1)
    return torch.where(result == NUM_CLASSES, 255, result).to(torch.uint8)


@pytest.mark.parametrize("height, width", [(4, 4), (8, 12), (20, 16), (13, 21)])
def test_doubling_is_the_generic_rule(height, width):
    label = random_label(2, height, width)
    h, w = -(-height // 4), -(-width // 4)
    doubled = double_label(label, (h, w))
    assert doubled.shape == (2, 8 * h, 8 * w) and doubled.dtype == torch.uint8
    assert torch.equal(doubled, by_the_book(label, (8 * h, 8 * w)))
    if height % 4 == width % 4 == 0:
        assert torch.equal(doubled, label.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_only_ignored_pixels_are_filled_and_with_the_networks_choice():
    label = random_label(2, 16, 24)
    logits = torch.randn(2, NUM_CLASSES, 2, 3, generator=RANDOM)
    choice = F.interpolate(logits, (16, 24), mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(fill_ignored(label, logits).long(), torch.where(label == 255, choice, label.long()))


def test_one_valid_pixel_of_64_makes_a_token_valid():
    label = torch.full((1, 16, 8), 255, dtype=torch.uint8)
    label[0, 3, 5] = 7
    assert token_valid(label, 255).tolist() == [[[True], [False]]]


def test_targets_are_the_tokens_of_the_filled_maskige():
    dvae = procedural_dvae(CASE_B)
    label, logits = random_label(2, 16, 16), torch.randn(2, NUM_CLASSES, 4, 4, generator=RANDOM)
    label[0, :4, :4] = 255
    before = label.clone()
    tokens, doubled = token_targets(dvae, label, logits, COLOURS)
    filled = fill_ignored(doubled, logits)
    expected = dvae.encode(COLOURS[filled.long()].permute(0, 3, 1, 2) / 255.0)
    assert tokens[0, 0, 0] == dvae.vocab_size and tokens.dtype == torch.int64
    assert torch.equal(tokens.flatten()[1:], expected.flatten()[1:])
    assert torch.equal(label, before)


def test_everything_ignored_gives_no_target_and_no_error():
    dvae = procedural_dvae(CASE_B)
    label = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    tokens, doubled = token_targets(dvae, label, torch.randn(1, NUM_CLASSES, 4, 4), COLOURS)
    assert (tokens == dvae.vocab_size).all() and (doubled == 255).all()
