"""What holds for a GSS of any weights, numbered: a page of promises that needs no reference implementation.

Published sizes are built on the meta device, which takes no memory. Numbers that are compared with recordings of the
published implementation are tested in tests/parity. One long file on purpose: a statement is found by its number.
"""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pickled import save_pickled
from procedural import CASE_A, CASE_B, picture, procedural_dvae
from torch import Tensor, nn

from gss.data.augment import Augment, Draws, draw, fit_size, nearest_indices
from gss.data.classes import ClassSpace
from gss.data.metrics import Scores, confusion, h_mean, scores
from gss.errors import CheckpointError, TokenizerError
from gss.evaluate.inference import resize_image, windows
from gss.evaluate.taxonomy import Target
from gss.modelfile import load_model, save_model
from gss.nets.backbone import Backbone, build_backbone
from gss.nets.losses import pixel_loss_sum, token_loss_sum
from gss.nets.published import from_published_order, to_published_order
from gss.nets.tensors import resize
from gss.nets.window import WindowAttention
from gss.recipes.gss.assemble import build_model
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.learners import LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.palette.maskige import nearest, paint
from gss.recipes.gss.palette.palette import Palette
from gss.recipes.gss.palette.strategies import make_palette
from gss.recipes.gss.posterior import WindowPosterior
from gss.recipes.gss.stages.merge import merge
from gss.recipes.gss.tokenizer import unpickle
from gss.recipes.gss.tokenizer.dvae import DVAE, map_pixels, unmap_pixels
from gss.recipes.gss.tokenizer.targets import (
    double_label,
    fill_ignored,
    resize_label,
    token_targets,
    token_valid,
)
from gss.stages.run import Run
from gss.train.distributed import World
from gss.train.guard import FiniteGuard
from gss.train.loop import EPS, train
from gss.train.optim import build_optimizer, decays
from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings
from tests.mseg_tables import names, targets_in

SWIN_L, R101, HRNET = "swin_large_patch4_window12_384", "resnet101c", "hrnet_w48"
CHANNELS = {SWIN_L: (192, 384, 768, 1536), R101: (256, 512, 1024, 2048), HRNET: (48, 96, 192, 384)}
FF_HEADS = [  # backbone, classes, kind, Swin blocks, parameters, tensors, of them without decay
    (SWIN_L, 150, "ff", 2, 25_703_862, 65, 10),
    (SWIN_L, 19, "ff", 2, 25_653_427, 65, 10),
    (R101, 19, "ff", 6, 34_812_659, 117, 30),
    (HRNET, 194, "single_fusion", 6, 31_638_562, 102, 30),
    (SWIN_L, 194, "single_fusion", 2, 24_046_050, 50, 10),
]
FT_HEADS = [  # backbone, classes, Swin blocks of prior and of X^-1, parameters of X^-1 and with the prior's head,
    # tensors of both, of them without decay
    (SWIN_L, 150, 2, 2, 286_558, 24_233_086, 81, 20),
    (SWIN_L, 19, 2, 1, 136_503, 24_083_031, 68, 15),
    (R101, 19, 6, 1, 136_503, 32_873_623, 120, 35),
    (HRNET, 194, 6, 2, 292_234, 31_831_274, 133, 40),
    (SWIN_L, 194, 2, 2, 292_234, 24_238_762, 81, 20),
]
PALETTES = {"ade20k": 150, "cityscapes": 19, "mseg": 194}
CPU = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
V = 8192


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def meta_head(backbone: str, num_classes: int, kind: str, depth: int) -> LatentPriorHead:
    with torch.device("meta"):
        return LatentPriorHead(CHANNELS[backbone], num_classes, V, kind=kind, swin_depth=depth)


# ---- the tokenizer ---------------------------------------------------------------------------------------------------


def test_01_unmap_inverts_map_and_clamps() -> None:
    x = torch.rand(1000)
    assert (unmap_pixels(map_pixels(x)) - x).abs().max() < 1e-6
    assert map_pixels(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.1, 0.9])
    assert unmap_pixels(torch.tensor([0.05, 0.95])).tolist() == [0, 1]


def test_02_dvae_of_published_size_has_the_published_parameters() -> None:
    with torch.device("meta"):
        dvae = DVAE()
    assert (count(dvae.encoder), count(dvae.decoder)) == (53_786_240, 43_829_766)


@pytest.mark.parametrize(
    ("case", "tokens", "first_logits", "sums"),
    [
        pytest.param(
            CASE_A,
            [[10, 10, 0, 0], [0, 10, 0, 10], [0, 10, 10, 10], [0, 10, 10, 10]],
            (0.4470306, 0.0014408, 0.0077513, -0.1979110),
            (39.815623, 147.544590),
            id="A",
        ),
        pytest.param(
            CASE_B,
            [[80, 26, 154, 26], [286, 443, 118, 173], [443, 173, 266, 173], [118, 433, 118, 118]],
            (-0.3009370, 0.2545928, 0.2751730, -0.1219913),
            (5.748368, 1534.280829),
            id="B",
        ),
    ],
)
def test_03_procedural_dvae_gives_the_known_tokens_and_logits(
    case: dict[str, int], tokens: list[list[int]], first_logits: tuple[float, ...], sums: tuple[float, float]
) -> None:
    dvae = procedural_dvae(case)
    assert dvae.encode(picture())[0].tolist() == tokens
    logits = dvae.encode_logits(map_pixels(picture()))
    assert logits[0, :4, 0, 0].tolist() == pytest.approx(first_logits, abs=1e-5)
    assert (logits.double().sum().item(), logits.double().abs().sum().item()) == pytest.approx(sums, abs=2e-3)


def test_04_decoder_with_lookup_equals_decoder_with_one_hot() -> None:
    dvae = procedural_dvae(CASE_B)
    tokens = torch.randint(512, (2, 5, 3))
    one_hot = F.one_hot(tokens, 512).permute(0, 3, 1, 2).float()
    assert (dvae.decoder(one_hot) - dvae.decode_logits(tokens)).abs().max() <= 1e-6


@pytest.mark.parametrize(("height", "width"), [(32, 48), (67, 93), (8, 8), (15, 31)])
def test_05_tokens_have_an_eighth_of_the_pictures_side(height: int, width: int) -> None:
    dvae = procedural_dvae(CASE_A)
    tokens = dvae.encode(torch.rand(1, 3, height, width))
    assert tokens.shape == (1, height // 8, width // 8)
    assert dvae.decode_logits(tokens).shape == (1, 6, height // 8 * 8, width // 8 * 8)
    assert dvae.decode(tokens).shape == (1, 3, height // 8 * 8, width // 8 * 8)


# ---- targets and losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 4), (20, 16), (13, 21), (1, 7)])
def test_06_generic_label_resize_to_the_double_size_is_repetition(height: int, width: int) -> None:
    ids = torch.randint(20, (2, height, width))
    one_hot = F.one_hot(ids, 20).permute(0, 3, 1, 2).float()
    generic = F.interpolate(one_hot, scale_factor=2, mode="bilinear", align_corners=False).argmax(1)
    repeated = ids.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(generic, repeated)
    assert torch.equal(resize_label(ids, (2 * height, 2 * width)), repeated)
    if height % 4 == width % 4 == 0:
        assert torch.equal(double_label(ids, (height // 4, width // 4)), repeated)


def test_07_halving_bilinearly_is_the_mean_of_two_by_two() -> None:
    for x in (torch.randint(256, (2, 3, 24, 40)).float(), torch.randn(2, 3, 24, 40, dtype=torch.float64)):
        difference = (resize(x, (12, 20)) - F.avg_pool2d(x, 2)).abs().max()
        assert difference <= (1e-15 if x.dtype == torch.float64 else 0)


def test_08_a_token_is_ignored_only_with_all_its_64_pixels() -> None:
    dvae = procedural_dvae(CASE_A)
    label = torch.full((1, 16, 8), 255, dtype=torch.uint8)
    label[0, 3, 5] = 0
    assert token_valid(label, 255).tolist() == [[[True], [False]]]
    colours = torch.tensor([[9, 9, 9], [0, 0, 0]])
    undoubled = label[:, 1::2, 1::2]  # 8 x 4; doubling it leaves 4 valid pixels in the first token
    tokens, _ = token_targets(dvae, undoubled, torch.zeros(1, 1, 2, 1), colours)
    assert tokens[0, 0, 0] != dvae.vocab_size
    assert tokens[0, 1, 0] == dvae.vocab_size


def small_prior(kind: str = "ff", *, num_classes: int = 4, vocab_size: int = 32) -> LatentPrior:
    backbone = build_backbone("resnet10t")
    head = LatentPriorHead(
        backbone.channels, num_classes, vocab_size, kind=kind, channels=8, seg_channels=8, cls_channels=8, num_heads=2
    )
    return LatentPrior(backbone, head)


def batch(label: Tensor) -> dict[str, Tensor]:
    """A batch of the training loader, without colour changes."""
    size, height, width = label.shape
    return {
        "image": torch.randint(0, 256, (size, 3, height, width), dtype=torch.uint8),
        "label": label,
        "valid": torch.tensor([[0, 0, height, width]] * size),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]] * size),
    }


COLOURS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 0, 0]])


def test_09_with_everything_ignored_the_pixel_branch_is_encoded_and_nothing_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dvae = DVAE(V, 8, 8, 1)
    painted: list[Tensor] = []
    encode = dvae.encode
    monkeypatch.setattr(dvae, "encode", lambda rgb: painted.append(rgb) or encode(rgb))
    label = torch.full((2, 16, 24), 255, dtype=torch.uint8)
    logits = torch.randn(2, 4, 4, 6)
    tokens, doubled = token_targets(dvae, label, logits, COLOURS)
    choice = resize(logits, (32, 48)).argmax(1)
    assert torch.equal(fill_ignored(doubled, logits).long(), choice)
    assert torch.equal(torch.cat(painted), paint(choice, COLOURS))
    assert (tokens == V).all()

    learner = LatentPriorLearner(small_prior(vocab_size=V), dvae, COLOURS).train()
    data = batch(torch.full((2, 64, 64), 255, dtype=torch.uint8))
    sums, _ = learner(data, 0)
    losses = sums / (learner.counts(data) + EPS)
    losses.sum().backward()
    assert losses.tolist() == [0, 0]
    assert not any(parameter.grad.any() for parameter in learner.saved.parameters())


def test_10_loss_of_zero_features_is_the_logarithm_of_the_number_of_answers() -> None:
    prior, dvae = small_prior(num_classes=150, vocab_size=V), DVAE(32, 8, 8, 1)
    head = prior.head
    tokens, label = torch.randint(0, V, (1, 2, 3)), torch.randint(0, 150, (1, 16, 24))
    token, _ = token_loss_sum(torch.zeros(1, 8, 2, 3), head.conv_seg.weight, head.conv_seg.bias, tokens, ignore_index=V)
    pixel, _ = pixel_loss_sum(torch.full((1, 150, 4, 6), 0.3), label, ignore_index=255)
    assert token.item() / 6 == pytest.approx(9.010913, abs=5e-7)
    weights = LatentPriorLearner(prior, dvae, COLOURS).terms
    total = weights["token"] * token.item() / 6 + weights["pixel"] * pixel.item() / 384
    assert total == pytest.approx(7.208731 + 1.002127, abs=1e-6)


class TwoPixels(nn.Module):
    """Learner of one pixel with a label and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.terms = {"ce": 1.0}
        self.saved = nn.Conv2d(3, 5, 1)

    def counts(self, batch: dict[str, Tensor]) -> Tensor:
        return (batch["label"] != 255).sum().double().view(1)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict]:
        return pixel_loss_sum(self.saved(batch["image"]), batch["label"], ignore_index=255)[0].view(1), {}


def test_11_mean_over_two_pixels_one_ignored_is_the_other_pixels_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    monkeypatch.setattr(FiniteGuard, "watch", lambda self, step, loss, norm: losses.append(loss.item()))
    image, label = torch.randn(1, 3, 1, 2, dtype=torch.float64), torch.tensor([[[3, 255]]], dtype=torch.uint8)
    learner = TwoPixels().double()
    alone = -learner.saved(image)[0, :, 0, 0].log_softmax(0)[3].item()
    settings = LoopSettings(steps=1, lr=0.1, precision="fp64")
    train(
        learner,
        lambda start: iter([[{"image": image, "label": label}]]),
        settings,
        work=tmp_path,
        journal=None,
        world=CPU,
    )
    assert losses == [pytest.approx(alone / (1 + 1.1920929e-07), rel=1e-12)]


# ---- optimiser -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "steps", "rates"),
    [
        (
            1.2e-4,
            160000,
            [
                1.2000000000345069e-10,
                8.011941925050134e-08,
                5.971880971875001e-05,
                0.0001187964995792505,
                0.000118875,
                6e-05,
                7.499999999982521e-10,
            ],
        ),
        (
            1.5e-3,
            80000,
            [
                1.5000000000431335e-09,
                1.001486481262517e-06,
                0.0007429694929687501,
                0.0014709124884812626,
                0.001471875,
                0.00075,
                1.87499999999563e-08,
            ],
        ),
        (
            1.5e-3,
            40000,
            [
                1.5000000000431335e-09,
                1.001473962525017e-06,
                0.0007359382359375,
                0.0014428249759625249,
                0.00144375,
                0.00075,
                3.7500000000079136e-08,
            ],
        ),
        (
            7.5e-4,
            40000,
            [
                7.500000000215668e-10,
                5.007369812625085e-07,
                0.00036796911796875,
                0.0007214124879812624,
                0.000721875,
                0.000375,
                1.8750000000039568e-08,
            ],
        ),
    ],
)
def test_12_learning_rates_are_the_published_ones(lr: float, steps: int, rates: list[float]) -> None:
    settings = LoopSettings(steps=steps, lr=lr)
    # The last rate carries the rounding error of 1 - step / steps, as the published one does.
    found = [learning_rate(step, settings) for step in (0, 1, 750, 1499, 1500, steps // 2, steps - 1)]
    assert found == pytest.approx(rates, rel=1e-12, abs=0)


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    with torch.device("meta"):
        return {
            SWIN_L: build_backbone(SWIN_L),
            R101: build_backbone(R101, output_stride=8),
            HRNET: build_backbone(HRNET),
        }


def spared(module: nn.Module) -> set[str]:
    """Names that the published rule spares from decay."""
    return {name for name, parameter in module.named_parameters() if not decays(name, parameter, "published")}


def to_be_spared(module: nn.Module) -> set[str]:
    """The same by what the tensors are: bias tables, and layer norms except those called swin_ln."""
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm) and "swin_ln" not in name}
    return {
        name
        for name, _ in module.named_parameters()
        if name.rpartition(".")[0] in norms or name.endswith("relative_position_bias_table")
    }


def without_decay(module: nn.Module, rule: str) -> list[Tensor]:
    groups = build_optimizer(module, LoopSettings(steps=1, lr=1.0, decay_rule=rule)).param_groups
    return [parameter for group in groups if group["weight_decay"] == 0 for parameter in group["params"]]


@pytest.mark.parametrize(("name", "expected"), [(SWIN_L, 136), (R101, 0), (HRNET, 0)])
def test_13_published_rule_spares_the_published_tensors_of_a_backbone(
    backbones: dict[str, Backbone], name: str, expected: int
) -> None:
    assert spared(backbones[name]) == to_be_spared(backbones[name])
    assert len(spared(backbones[name])) == len(without_decay(backbones[name], "published")) == expected


@pytest.mark.parametrize(("backbone", "num_classes", "kind", "depth", "_", "tensors", "expected"), FF_HEADS)
def test_13_published_rule_spares_the_published_tensors_of_a_head(
    backbone: str, num_classes: int, kind: str, depth: int, _: int, tensors: int, expected: int
) -> None:
    head = meta_head(backbone, num_classes, kind, depth)
    assert len(list(head.parameters())) == tensors
    assert spared(head) == to_be_spared(head)
    assert len(spared(head)) == len(without_decay(head, "published")) == expected
    assert decays("head.swin_ln.weight", head.swin_ln.weight, "published")


@pytest.mark.parametrize(("backbone", "num_classes", "depth", "post_depth", "_", "__", "tensors", "expected"), FT_HEADS)
def test_13_published_rule_spares_the_published_tensors_of_stage_two(
    backbone: str, num_classes: int, depth: int, post_depth: int, _: int, __: int, tensors: int, expected: int
) -> None:
    with torch.device("meta"):
        both = nn.ModuleList(
            [meta_head(backbone, num_classes, "tokens", depth), WindowPosterior(num_classes, depth=post_depth)]
        )
    assert len(list(both.parameters())) == tensors
    assert spared(both) == to_be_spared(both)
    assert len(spared(both)) == len(without_decay(both, "published")) == expected


def test_13_default_rule_spares_all_vectors_and_bias_tables() -> None:
    head = meta_head(SWIN_L, 150, "ff", 2)
    expected = [p for name, p in head.named_parameters() if p.ndim <= 1 or name.endswith("position_bias_table")]
    assert {id(parameter) for parameter in without_decay(head, "default")} == {id(p) for p in expected}


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backbone", "num_classes", "kind", "depth", "expected", "_", "__"), FF_HEADS)
def test_14_stage_one_heads_have_the_published_parameters(
    backbone: str, num_classes: int, kind: str, depth: int, expected: int, _: int, __: int
) -> None:
    assert count(meta_head(backbone, num_classes, kind, depth)) == expected


@pytest.mark.parametrize(
    ("backbone", "num_classes", "depth", "post_depth", "expected", "with_prior", "_", "__"), FT_HEADS
)
def test_14_stage_two_heads_have_the_published_parameters(
    backbone: str, num_classes: int, depth: int, post_depth: int, expected: int, with_prior: int, _: int, __: int
) -> None:
    with torch.device("meta"):
        posterior = WindowPosterior(num_classes, depth=post_depth)
    assert count(posterior) == expected
    assert count(posterior) + count(meta_head(backbone, num_classes, "tokens", depth)) == with_prior


@pytest.mark.parametrize(("name", "expected"), [(SWIN_L, 195_201_204), (R101, 42_519_392), (HRNET, 65_325_120)])
def test_15_backbones_have_the_published_parameters(backbones: dict[str, Backbone], name: str, expected: int) -> None:
    assert count(backbones[name]) == expected
    assert backbones[name].channels == CHANNELS[name]


# ---- window attention ------------------------------------------------------------------------------------------------


def attention(shift: int, window: int = 7) -> WindowAttention:
    module = WindowAttention(8, 2, window=window, shift=shift).double()
    nn.init.normal_(module.relative_position_bias_table)
    return module


def test_16_map_smaller_than_the_window_keeps_its_size_and_ignores_a_constant_bias() -> None:
    module = attention(shift=3)
    x = torch.randn(2, 5, 5, 8, dtype=torch.float64)
    before = module(x)
    assert before.shape == x.shape
    with torch.no_grad():
        module.relative_position_bias_table.add_(3.0)
    torch.testing.assert_close(module(x), before, rtol=0, atol=1e-12)


def test_16_without_a_shift_a_change_stays_in_its_window() -> None:
    module = attention(shift=0)
    x = torch.randn(1, 14, 21, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, 8, 9] += 1
    moved = (module(changed) != module(x)).any(-1)[0]  # [14, 21]
    assert moved[7:14, 7:14].all()
    assert moved.sum() == 49


def test_17_relative_position_index_of_two_by_two() -> None:
    index = WindowAttention(4, 1, window=2).relative_position_index
    assert index[0].tolist() == [4, 3, 1, 0]
    assert index[3].tolist() == [8, 7, 5, 4]


def test_18_patch_merging_orders_channels_as_published_once_weights_are_exchanged() -> None:
    tiny = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    backbone = build_backbone("swin_tiny_patch4_window7_224", options=tiny)
    merging = backbone.features.get_submodule("layers_1.downsample")
    before_the_norm: list[Tensor] = []
    merging.norm.register_forward_pre_hook(lambda module, inputs: before_the_norm.append(inputs[0]))
    ky, kx, c = torch.arange(2)[:, None, None], torch.arange(2)[:, None], torch.arange(8)
    merging((4 * c + 2 * ky + kx).float()[None])  # [1, 2, 2, 8]
    published = torch.arange(32.0)
    assert torch.equal(before_the_norm[0].flatten(), from_published_order(published))
    assert torch.equal(to_published_order(before_the_norm[0].flatten()), published)


# ---- colours ---------------------------------------------------------------------------------------------------------


def published(name: str) -> Palette:
    names = tuple(f"class {index}" for index in range(PALETTES[name]))
    return make_palette("published", names, seed=0, published=name)


@pytest.mark.parametrize(
    ("name", "rows", "smallest"), [("ade20k", 151, 401), ("cityscapes", 20, 400), ("mseg", 195, 349)]
)
def test_19_published_palettes_are_complete_and_distinct(name: str, rows: int, smallest: int) -> None:
    palette = published(name)
    assert palette.colours.shape == (rows, 3)
    assert len(np.unique(palette.colours, axis=0)) == rows
    assert palette.quality()["d_min_sq"] == smallest


@pytest.mark.parametrize("name", PALETTES)
def test_20_nearest_colour_inverts_painting_even_with_noise_below_half_the_smallest_distance(name: str) -> None:
    palette = published(name)
    colours = torch.from_numpy(palette.colours)
    label = torch.arange(PALETTES[name], dtype=torch.uint8).repeat(8).view(1, 8, -1)
    rgb = 255 * paint(label, colours)
    assert torch.equal(nearest(rgb, colours), label.long())
    noise = F.normalize(torch.randn_like(rgb), dim=1) * 0.499 * palette.quality()["d_min"]
    assert torch.equal(nearest(rgb + noise, colours), label.long())


@pytest.mark.parametrize(
    ("name", "colour", "answer"),
    [("ade20k", (215, 216, 196), 0), ("cityscapes", (0, 0, 0), 14), ("mseg", (0, 0, 0), 2)],
)
def test_21_nearest_colour_never_answers_ignore(name: str, colour: tuple[int, int, int], answer: int) -> None:
    colours = torch.from_numpy(published(name).colours)
    assert colours[-1].tolist() == list(colour)
    assert nearest(colours[-1].view(1, 3, 1, 1), colours).item() == answer
    assert nearest(256 * torch.rand(1, 3, 64, 64), colours).max() < PALETTES[name]


# ---- inference and metric --------------------------------------------------------------------------------------------


def test_22_slide_grid_of_cityscapes_and_of_an_image_smaller_than_the_crop() -> None:
    grid = windows(1024, 2048, (768, 768), (512, 512))
    assert len(grid) == 8
    assert {rows.start for rows, _ in grid} == {0, 256}
    assert {columns.start for _, columns in grid} == {0, 512, 1024, 1280}
    visits = np.zeros((1024, 2048), int)
    for rows, columns in grid:
        visits[rows, columns] += 1
    assert (visits.min(), visits.max()) == (1, 4)
    assert windows(300, 400, (768, 768), (512, 512)) == [(slice(0, 300), slice(0, 400))]


def test_23_metric_of_a_perfect_prediction_absent_classes_ignored_pixels_and_ade_labels() -> None:
    def measure(prediction: np.ndarray, label: np.ndarray) -> Scores:
        return scores(confusion(torch.from_numpy(prediction), torch.from_numpy(label), 4).numpy())

    label = np.array([[0, 1, 3, 255]], np.uint8)
    perfect = measure(np.array([[0, 1, 3, 2]], np.uint8), label)
    assert perfect.mIoU == 1
    assert perfect.iou == (1, 1, None, 1)  # class 2 is in neither: what was predicted under 255 does not count
    ade = ClassSpace(names=("wall", "building", "sky", "floor"), reduce_zero_label=True)
    assert ade.to_classes(np.array([[0, 1, 2, 4]], np.uint8)).tolist() == [[255, 0, 1, 3]]


# ---- training X^-1, merging ------------------------------------------------------------------------------------------


DRIFTING = ("head.convs.", "head.fusion_conv.", "head.conv_before_seg.")


@pytest.mark.parametrize("reference", [False, True])
def test_24_training_the_posterior_changes_nothing_else(reference: bool) -> None:
    prior, dvae, posterior = small_prior(), DVAE(32, 8, 8, 1), WindowPosterior(4, 8, num_heads=2)
    learner = PosteriorLearner(prior, dvae, posterior, reference=reference).train()
    kept = nn.ModuleDict({"prior": prior, "dvae": dvae})
    before = {name: value.clone() for name, value in kept.state_dict().items()}
    trained = {name: value.clone() for name, value in posterior.named_parameters()}
    data = batch(torch.randint(0, 4, (2, 64, 96), dtype=torch.uint8))
    (learner(data, 0)[0] / learner.counts(data)).sum().backward()
    build_optimizer(learner.saved, LoopSettings(steps=1, lr=0.01)).step()
    assert all(not torch.equal(value, trained[name]) for name, value in posterior.named_parameters())
    assert {name.partition(".")[0] for name in trained} == {
        "projection",
        "post_transformer_block",
        "post_swin_ln",
        "cls_segmap",
    }
    changed = {name for name, value in kept.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {f"prior.{name}" for name, _ in prior.named_buffers() if name.startswith(DRIFTING)}
    assert changed == (statistics if reference else set())


META = {
    "classes": ["sky", "road", "tree", "car"],
    "palette": COLOURS.tolist(),
    "tokenizer": "",
    "vocab_size": 32,
    "provenance": {"stage": "test"},
}
PRIOR_META = {"backbone": {"name": "resnet10t"}, "channels": 8, "seg_channels": 8, "cls_channels": 8, "num_heads": 2}
POSTERIOR_META = {"variant": "window", "channels": 8, "num_heads": 2}


@pytest.fixture
def parents(tmp_path: Path) -> tuple[Run, dict[str, Tensor], dict[str, Tensor]]:
    """An experiment with its two trained files, and their tensors."""
    run = Run.open("toy", results=tmp_path)
    prior = {f"prior.{name}": value for name, value in small_prior().state_dict().items()}
    posterior = {f"posterior.{name}": value for name, value in WindowPosterior(4, 8, num_heads=2).state_dict().items()}
    save_model(run.folder / "gss_ff.pth", "gss_ff", prior, {**META, "latent_prior": PRIOR_META})
    save_model(run.folder / "posterior.pth", "posterior", posterior, {**META, "posterior": POSTERIOR_META})
    return run, prior, posterior


def test_25_merged_file_holds_both_parents_bit_for_bit(
    parents: tuple[Run, dict[str, Tensor], dict[str, Tensor]],
) -> None:
    run, prior, posterior = parents
    for _ in range(2):  # again, over the merged file
        merge(run)
        merged = load_model(run.folder / "gss_ft.pth", "gss_ft")
        assert set(merged.tensors) == set(prior) | set(posterior)
        for name, value in {**prior, **posterior}.items():
            assert torch.equal(merged.tensors[name], value), name
        build_model(merged, DVAE(32, 8, 8, 1), where="test")


def test_25_merged_file_without_a_tensor_of_the_posterior_is_refused(
    parents: tuple[Run, dict[str, Tensor], dict[str, Tensor]],
) -> None:
    run, _, posterior = parents
    del posterior["posterior.post_swin_ln.weight"]
    save_model(run.folder / "posterior.pth", "posterior", posterior, {**META, "posterior": POSTERIOR_META})
    with pytest.raises(CheckpointError, match=r"post_swin_ln\.weight"):
        merge(run)


# ---- data, taxonomies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "fitted"), [(683, 512, (683, 512)), (2000, 1500, (683, 512)), (300, 1000, (512, 1707))]
)
def test_26_resize_keeps_proportions_within_long_and_short_side(
    width: int, height: int, fitted: tuple[int, int]
) -> None:
    assert fit_size(height, width, (2048, 512)) == fitted[::-1]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = resize_image(image, (2048, 512))
    assert np.array_equal(resized, cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    ("test_set", "classes", "without_target"),
    [
        ("camvid-11", 11, 182),
        ("kitti-19", 19, 172),
        ("pascal-context-60", 60, 0),
        ("scannet-20", 20, 157),
        ("voc2012", 21, 0),
        ("wilddash-19", 19, 171),
    ],
)
def test_27_universal_classes_have_one_target_or_none(test_set: str, classes: int, without_target: int) -> None:
    matrix = Target.of(names(test_set), targets_in(test_set)).matrix
    assert matrix.shape == (classes, 194)
    assert set(matrix.sum(0).tolist()) <= {0, 1}
    assert (matrix.sum(0) == 0).sum() == without_target


def test_28_harmonic_mean() -> None:
    assert h_mean([50, 60]) == pytest.approx(54.5455, abs=5e-5)
    assert h_mean([0.3, 0.3, 0.3]) == pytest.approx(0.3)


ADE = Augment(base_scale=(2048, 512), ratio=(0.5, 2.0), crop=(512, 512))
CITYSCAPES = Augment(base_scale=(2049, 1025), ratio=(0.5, 2.0), crop=(768, 768))


@pytest.mark.parametrize(
    ("seed", "size", "settings", "expected", "following"),
    [
        (
            0,
            (512, 683),
            ADE,
            Draws((677, 903), (117, 192), False, (22.224111282184026, 0.8843817072926998, 1.3917730007820799, 0, 1)),
            0.2726562945801132,
        ),
        (
            1,
            (512, 683),
            ADE,
            Draws((576, 768), (12, 72), True, (31.938592980745263, 1, 1, -6, 0.8455607270430477)),
            0.39676747423066994,
        ),
        (
            2,
            (512, 683),
            ADE,
            Draws((590, 787), (72, 22), False, (-5.096460666400702, 1, 0.7046486340378425, 13, 1)),
            0.6327377306009369,
        ),
        (
            0,
            (1024, 2048),
            CITYSCAPES,
            Draws((1356, 2711), (192, 835), False, (-4.886092842310099, 1, 1, -12, 1)),
            0.05671297731744318,
        ),
    ],
)
def test_29_random_draws_are_those_of_the_published_pipeline(
    seed: int, size: tuple[int, int], settings: Augment, expected: Draws, following: float
) -> None:
    stripes = np.broadcast_to((np.arange(size[1]) // 8 % 2).astype(np.uint8), size).copy()  # accepts the first crop
    rng = np.random.RandomState(seed)
    assert draw(rng, stripes, settings) == expected
    assert rng.random_sample() == following


def test_30_nearest_indices_are_those_of_opencv() -> None:
    rng = np.random.RandomState(0)
    for source, target in [*rng.randint(1, 1500, (400, 2)).tolist(), (10, 5), (3, 6), (700, 350), (350, 700)]:
        expected = [min(math.floor(x * (1 / (target / source))), source - 1) for x in range(target)]
        assert nearest_indices(source, target).tolist() == expected, (source, target)
        ramp = np.arange(source, dtype=np.float32)[None]
        opencv = cv2.resize(ramp, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
        assert (nearest_indices(source, target) == opencv).all(), (source, target)
    assert nearest_indices(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert nearest_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


# ---- OpenAI's files --------------------------------------------------------------------------------------------------


GLOBALS = {
    "dall_e.encoder": {"Encoder", "EncoderBlock"},
    "dall_e.decoder": {"Decoder", "DecoderBlock"},
    "dall_e.utils": {"Conv2d"},
    "torch.nn.modules.container": {"Sequential"},
    "torch.nn.modules.activation": {"ReLU"},
    "torch.nn.modules.pooling": {"MaxPool2d"},
    "torch.nn.modules.upsampling": {"Upsample"},
    "torch.nn.modules.linear": {"Identity"},
    "collections": {"OrderedDict"},
    "__builtin__": {"set"},
    "builtins": {"set"},
    "torch": {"device", "FloatStorage", "HalfStorage"},
    "torch._utils": {"_rebuild_tensor_v2", "_rebuild_parameter"},
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_31_pickles_in_both_formats_give_the_same_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_zip: bool
) -> None:
    expected = procedural_dvae(CASE_A)
    dvae = unpickle.import_openai(*save_pickled(tmp_path, expected.state_dict(), monkeypatch, is_zip=is_zip))
    assert (dvae.vocab_size, dvae.n_hid, dvae.n_init, dvae.blocks_per_group) == (32, 8, 8, 2)
    for name, value in expected.state_dict().items():
        assert torch.equal(dvae.state_dict()[name], value), name
    assert torch.equal(dvae.encode(picture()), expected.encode(picture()))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("foreign", [Path("x"), nn.Conv2d(1, 1, 1), range(3), print], ids=lambda x: type(x).__name__)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_31_a_foreign_global_is_refused_before_the_first_object_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_zip: bool, foreign: object
) -> None:
    built: list[object] = []
    monkeypatch.setattr(unpickle._Reader, "rebuild_tensor", lambda *arguments: built.append(arguments))
    state = procedural_dvae(CASE_A).state_dict()
    path, _ = save_pickled(tmp_path, state, monkeypatch, is_zip=is_zip, last=foreign)
    with pytest.raises(TokenizerError, match="which no DALL-E tokenizer needs"):
        unpickle.read_module(Path(path).read_bytes())
    assert not built


def test_31_no_other_global_is_known() -> None:
    assert set(unpickle._Reader(b"").known) == {(module, name) for module, names in GLOBALS.items() for name in names}
