"""HRNetV2-W48 as MSeg trained it: the published numbers, and the network written out plainly."""

import math

import pytest
import torch
import torch.nn.functional as F
from oracle_hrnet import PlainHRNet, filled, shapes
from torch import Tensor, nn

from gss.config import load_experiment
from gss.data.device import finish
from gss.nets import losses
from gss.recipes.pixel.heads import HRNetHead
from gss.recipes.pixel.learner import build_learner
from gss.recipes.pixel.network import PixelNetwork, build_pixel_network


def published_name(name: str) -> str:
    return name.removeprefix("backbone.features.").removeprefix("head.")


WIDTHS = (48, 96, 192, 384)


def build() -> PixelNetwork:
    return build_pixel_network(194, {"name": "hrnet_w48"}, head="hrnet", channels=720)


@pytest.fixture(scope="module")
def shapeless() -> PixelNetwork:
    with torch.device("meta"):
        return build()


def test_names_and_shapes_are_the_published_ones(shapeless: PixelNetwork) -> None:
    own = {published_name(name): tuple(value.shape) for name, value in shapeless.state_dict().items()}
    assert own == shapes(194)
    assert own["stage3.0.fuse_layers.2.0.1.0.weight"] == (192, 48, 3, 3)
    assert (len(own), len(list(shapeless.parameters()))) == (1839, 921)
    assert sum(value.numel() for value in shapeless.buffers()) == 85_842


@pytest.mark.parametrize(
    ("num_classes", "parameters"),
    [
        (194, 65_985_554),
        (316, 66_073_516),
        (21, 65_860_821),
        (20, 65_860_100),
        (19, 65_859_379),
        (11, 65_853_611),
        (60, 65_888_940),
    ],
)
def test_numbers_of_parameters(num_classes: int, parameters: int, shapeless: PixelNetwork) -> None:
    with torch.device("meta"):
        head = HRNetHead(WIDTHS, num_classes, 720)
    assert sum(value.numel() for part in (shapeless.backbone, head) for value in part.parameters()) == parameters


def test_numbers_of_parameters_by_part(shapeless: PixelNetwork) -> None:
    named = [(published_name(name), value.numel()) for name, value in shapeless.named_parameters()]
    parts: dict[str, int] = {}
    for name, count in named:
        part = name.split(".")[0]
        part = "stem" if part in ("conv1", "bn1", "conv2", "bn2") else part
        parts[part] = parts.get(part, 0) + count
    assert parts == {
        "stem": 38_848,
        "layer1": 286_208,
        "transition1": 332_064,
        "transition2": 166_272,
        "transition3": 664_320,
        "stage2": 878_112,
        "stage3": 15_335_040,
        "stage4": 47_624_256,
        "last_layer": 660_434,
    }


@pytest.mark.parametrize(
    ("side", "sizes"), [(713, (179, 90, 45, 23)), (593, (149, 75, 38, 19)), (473, (119, 60, 30, 15))]
)
def test_sizes_of_the_maps_of_published_crops(side: int, sizes: tuple[int, ...], shapeless: PixelNetwork) -> None:
    maps = shapeless.backbone(torch.empty(1, 3, side, side, device="meta"))
    assert [tuple(x.shape[2:]) for x in maps] == [(size, size) for size in sizes]


@pytest.fixture(scope="module")
def network() -> PixelNetwork:
    """In float64, with the oracle's tensors."""
    network, state = build().double(), filled(194)
    network.load_state_dict({name: state[published_name(name)] for name in network.state_dict()})
    return network


def picture(height: int, width: int, batch: int = 1) -> Tensor:
    values = torch.cos(0.37 * torch.arange(batch * 3 * height * width, dtype=torch.float64) ** 1.02)
    return values.view(batch, 3, height, width)


@pytest.mark.parametrize("size", [(73, 73), (65, 97)])
def test_scores_are_those_of_the_plain_network(network: PixelNetwork, size: tuple[int, int]) -> None:
    with torch.no_grad():
        found = network.eval().scores(picture(*size))
        expected = PlainHRNet(filled(194))(picture(*size))
    assert found.shape == (1, 194, *size) and expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def test_single_precision_is_within_rounding(network: PixelNetwork) -> None:
    with torch.no_grad():
        exact = PlainHRNet(filled(194))(picture(73, 73))
        found = network.float().eval().scores(picture(73, 73).float())
    network.double()
    assert (found - exact).norm() < 1e-5 * exact.norm()


def test_training_normalises_by_the_batch_and_forgets_slowly(network: PixelNetwork) -> None:
    before, plain = network.state_dict(), PlainHRNet(filled(194), training=True)
    before = {name: value.clone() for name, value in before.items()}
    with torch.no_grad():
        logits = network.train()(picture(73, 73, 2))
        expected = plain(picture(73, 73, 2))
    full = F.interpolate(logits, (73, 73), mode="bilinear", align_corners=True)
    torch.testing.assert_close(full, expected, rtol=0, atol=1e-4)  # few pixels normalise the coarsest map
    after = {published_name(name): value for name, value in network.state_dict().items()}
    torch.testing.assert_close(after, plain.state, rtol=1e-5, atol=1e-6)
    network.load_state_dict(before)


def test_any_size_is_taken(shapeless: PixelNetwork) -> None:
    """The published network refuses 64 x 64."""
    assert shapeless.eval().scores(torch.empty(1, 3, 64, 50, device="meta")).shape == (1, 194, 64, 50)


def test_start_values() -> None:
    """Without weights those of the encoder are MSeg's, too; with weights they are these."""
    torch.manual_seed(0)
    backbone = {"name": "hrnet_w18_small"}
    network = build_pixel_network(5, backbone, head="hrnet", channels=64)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            rough = 5 / math.sqrt(module.weight.numel())
            assert module.weight.std().item() == pytest.approx(1e-3, rel=rough), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.momentum, module.eps) == (0.01, 1e-5), name
            assert (module.weight == 1).all() and not module.bias.any(), name
    biased = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and module.bias is not None
    ]
    assert biased == ["head.last_layer.0", "head.last_layer.3"]
    limit = 1 / math.sqrt(sum(network.backbone.channels))
    assert 0 < network.head.last_layer[0].bias.abs().max() <= limit
    weights = {name: torch.full_like(value, 0.25) for name, value in network.backbone.features.state_dict().items()}
    extra = {"classifier.weight": torch.ones(1), "incre_modules.0.0.conv1.weight": torch.ones(1)}
    again = build_pixel_network(5, backbone, weights={**weights, **extra}, head="hrnet", channels=64)
    assert all((value == 0.25).all() for value in again.backbone.features.parameters())
    assert again.head.last_layer[3].weight.std().item() == pytest.approx(1e-3, rel=0.3)


def test_other_heads_keep_the_momentum_and_start_of_the_encoder() -> None:
    network = build_pixel_network(5, {"name": "hrnet_w18_small"}, head="fcn", channels=64)
    assert {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    assert network.backbone.features.conv2.weight.std() > 0.01


@pytest.mark.parametrize("size", [(73, 65), (73, 90), (20, 33), (4, 4)])
@pytest.mark.parametrize("pieces", [False, True])
def test_the_loss_is_that_of_scores_resized_with_aligned_corners(
    size: tuple[int, int], pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In strips, too: 72 rows are four for each of 18 steps; a single row is a strip, as is what does not divide."""
    if pieces:
        monkeypatch.setattr(losses, "_SCORES", 7000)
    torch.manual_seed(0)
    height, width = size
    scores = torch.randn(2, 7, math.ceil(height / 4), math.ceil(width / 4), dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 8, (2, height, width), dtype=torch.uint8)
    label[label == 7] = 255
    full = F.interpolate(scores, size, mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, label.long(), ignore_index=255, reduction="sum")
    loss, right = losses.pixel_loss_sum(scores, label, ignore_index=255, align_corners=True)
    assert right == (full.argmax(1) == label).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(value, scores)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_strips_between_rows_are_several_and_cover_every_row_once() -> None:
    strips = list(losses._strips_between_rows(179, 713, 100))
    assert len(strips) == 8
    assert [row for *_, target in strips for row in range(713)[target]] == list(range(713))
    assert len(list(losses._strips_between_rows(19, 74, 1))) == 1


def test_the_head_alone_equals_the_concatenation() -> None:
    torch.manual_seed(0)
    head = HRNetHead((3, 4, 5, 6), 4, 18).double().eval()  # with a batch's own statistics the bias has no effect
    maps = [torch.randn(2, width, 17 >> i, 13 >> i, dtype=torch.float64) for i, width in enumerate((3, 4, 5, 6))]
    joined = torch.cat([F.interpolate(x, (17, 13), mode="bilinear", align_corners=False) for x in maps], 1)
    torch.testing.assert_close(head([*maps]), head.last_layer(joined), rtol=0, atol=1e-12)


@pytest.mark.parametrize("numerics", ["default", "reference"])
def test_it_is_trained_by_the_mean_over_valid_pixels_of_aligned_scores(numerics: str) -> None:
    experiment = load_experiment("mseg_pixel_480", [f"numerics={numerics}", "pixel.backbone.name=hrnet_w18_small"])
    torch.manual_seed(0)
    network = build_pixel_network(5, {"name": "hrnet_w18_small"}, head="hrnet", channels=16)
    learner = build_learner(experiment, network, None).eval()
    label = torch.randint(0, 5, (2, 65, 73), dtype=torch.uint8)
    label[:, :30] = 255
    batch = {
        "image": torch.randint(0, 256, (2, 3, 65, 73), dtype=torch.uint8),
        "valid": torch.tensor([[0, 0, 65, 73], [5, 9, 60, 70]]),
        "photometric": torch.tensor([[0.0, 1, 1, 0, 1]] * 2),
        "label": label,
    }
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    image = finish(batch["image"], batch["valid"], batch["photometric"], network.backbone.mean, network.backbone.std)
    full = F.interpolate(network(image), (65, 73), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, label.long(), ignore_index=255)
    found = learner(batch, 0)[0] / learner.counts(batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
