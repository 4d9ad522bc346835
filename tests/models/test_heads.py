"""Heads and X^-1: start values, fusion, tokens, votes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gss.nets.tensors import resize
from gss.recipes.gss.latent_prior import LatentPriorHead, _fuse
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior, WindowPosterior

SWIN_L = (192, 384, 768, 1536)


def test_start_values_of_the_published_heads() -> None:
    torch.manual_seed(0)
    head = LatentPriorHead(SWIN_L, 150, 512)
    spread = {name: value.std().item() for name, value in head.named_parameters()}
    for name, std in {
        "convs.0.conv.weight": math.sqrt(2 / 384),
        "fusion_conv.conv.weight": math.sqrt(2 / 512),
        "conv_before_seg.conv.weight": math.sqrt(2 / 2048),
        "fusion_conv_pixel.conv.weight": math.sqrt(2 / 384),
        "conv_seg.weight": 0.01,
        "conv_seg_pixel.weight": 384**-0.5 / 3**0.5,
        "transformer_block.blocks.0.attn.w_msa.qkv.weight": 512**-0.5 / 3**0.5,
        "transformer_block.blocks.0.attn.w_msa.relative_position_bias_table": 0.02,
    }.items():
        assert math.isclose(spread[name], std, rel_tol=0.05), name
    assert not head.conv_seg.bias.any()


def test_fusion_equals_the_concatenation() -> None:
    torch.manual_seed(0)
    head = LatentPriorHead((3, 4, 5, 6), 4, 16, channels=8, seg_channels=8, cls_channels=8, num_heads=2).double()
    maps = [torch.randn(2, 3 + i, s, s + 1, dtype=torch.float64) for i, s in enumerate((17, 9, 5, 3))]
    order = (1, 0, 2, 3)
    levels = [resize(conv(maps[level]), (17, 18)) for conv, level in zip(head.convs, order, strict=True)]
    expected = head.fusion_conv(torch.cat(levels, 1))
    torch.testing.assert_close(_fuse(maps, head.convs, head.fusion_conv), expected, rtol=0, atol=1e-12)


def test_tokens_are_the_best_scores() -> None:
    torch.manual_seed(0)
    head = LatentPriorHead((3, 4, 5, 6), 4, 16, channels=8, seg_channels=8, cls_channels=8, num_heads=2).eval()
    maps = [torch.randn(2, 3 + i, s, s) for i, s in enumerate((70, 35, 18, 9))]
    scores = head.conv_seg(head.hidden(head.fuse(maps)))
    assert torch.equal(head.tokens(head.fuse(maps)), scores.argmax(1))


@pytest.mark.parametrize("posterior", [WindowPosterior(5, 8, num_heads=2), ConvPosterior(5, 8)])
def test_posteriors_keep_the_size(posterior: nn.Module) -> None:
    rgb = torch.rand(2, 3, 24, 40)
    assert posterior(rgb).shape == (2, 5, 24, 40)
    assert posterior.scores(rgb, (12, 20)).shape == (2, 5, 12, 20)


@pytest.mark.parametrize("target", [(16, 24), (15, 23), (32, 48), (31, 50)])
def test_votes_equal_the_resized_one_hot_map(target: tuple[int, int]) -> None:
    torch.manual_seed(0)
    posterior = NearestPosterior(torch.randint(0, 256, (8, 3)))
    rgb = torch.rand(2, 3, 32, 48)
    one_hot = F.one_hot(posterior.ids(rgb), 7).movedim(-1, 1).float()
    assert torch.equal(posterior(rgb), one_hot)
    votes = posterior.scores(rgb, target)
    assert torch.equal(votes, resize(one_hot, target))
    assert torch.equal(votes.argmax(1), resize(one_hot, target).argmax(1))  # ties included


@pytest.mark.parametrize("target", [(16, 24), (15, 23), (32, 48)])
def test_soft_votes_equal_the_formula(target: tuple[int, int]) -> None:
    torch.manual_seed(0)
    colours = torch.randint(0, 256, (20, 3))
    rgb = torch.rand(2, 3, 32, 48)
    distances = (255 * rgb.unsqueeze(1) - colours[:-1].float().view(1, 19, 3, 1, 1)).square().sum(2)
    expected = resize(torch.softmax(-distances / 900, dim=1), target)
    posterior = NearestPosterior(colours, 900.0)
    torch.testing.assert_close(posterior.scores(rgb, target), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(posterior(rgb).sum(1), torch.ones(2, 32, 48))


def test_a_head_without_pixel_branch_has_the_same_tokens() -> None:
    torch.manual_seed(0)
    sizes = {"channels": 8, "seg_channels": 16, "cls_channels": 12, "num_heads": 2}
    head, bare = (LatentPriorHead((4, 4, 4, 4), 5, 30, kind=kind, **sizes).eval() for kind in ("ff", "tokens"))
    assert not bare.load_state_dict(head.state_dict(), strict=False).missing_keys
    maps = [torch.randn(1, 4, 16 // factor, 24 // factor) for factor in (1, 2, 4, 8)]
    assert torch.equal(head.tokens(head.fuse(maps)), bare.tokens(bare.fuse(maps)))
    assert not any("pixel" in name for name, _ in bare.named_parameters())


def test_nearest_colour_inverts_the_palette_and_never_answers_ignore() -> None:
    colours = torch.tensor([[0, 0, 0], [200, 0, 0], [0, 200, 0], [210, 10, 0]])
    posterior = NearestPosterior(colours)
    rgb = colours.t().view(1, 3, 2, 2) / 255
    assert posterior.ids(rgb).flatten().tolist() == [0, 1, 2, 1]
    assert not posterior.state_dict()
