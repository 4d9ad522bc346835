"""Heads of per-pixel networks: the published numbers, the plain formulation, and what is trained."""

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss.errors import ConfigError
from gss.nets.layers import convolve_joined
from gss.nets.tensors import resize
from gss.recipes.gss.latent_prior import LatentPriorHead
from gss.recipes.pixel.heads import HEADS, FCNHead, UPerNetHead
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import PixelNetwork, build_pixel_network
from tests.oracle_upernet import PlainUPerNetHead

SWIN_L, CAE_B = (192, 384, 768, 1536), (768,) * 4
AUXILIARY = {"channels": 8, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def filled(module: nn.Module) -> nn.Module:
    """In eval mode, with the sines that the reference's numbers were made with."""
    for place, (name, value) in enumerate(sorted(module.named_parameters())):
        sines = 0.1 * torch.sin(0.7 * torch.arange(value.numel(), dtype=torch.float64) + place)
        value.data = (sines.float() + name.endswith("bn.weight")).view_as(value)
    return module.eval()


def cosines(level: int) -> Tensor:
    shape = (1, 8, 32 >> level, 32 >> level)
    return (0.5 * torch.cos(0.3 * torch.arange(math.prod(shape), dtype=torch.float64) + level)).float().view(shape)


def maps_of(channels: Sequence[int], batch: int, height: int, width: int) -> list[Tensor]:
    """Random maps of an image of this size, channels-last as encoders give them."""
    return [
        torch.randn(batch, -(-height // stride), -(-width // stride), count).permute(0, 3, 1, 2)
        for count, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def check_numbers(logits: Tensor, total: float, absolute: float, elements: dict[tuple[int, ...], float]) -> None:
    assert logits.sum().item() == pytest.approx(total, abs=1e-2)
    assert logits.abs().sum().item() == pytest.approx(absolute, abs=1e-2)
    for place, value in elements.items():
        assert logits[place].item() == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("kind", [UPerNetHead, PlainUPerNetHead])
def test_upernet_gives_the_numbers_of_the_reference(kind: type[UPerNetHead]) -> None:
    head = filled(kind((8, 8, 8, 8), 5, 8, 0.1))
    assert len(list(head.parameters())) == 38
    elements = {(0, 0, 0, 0): 0.2271285, (0, 4, 31, 31): -0.0375874, (0, 2, 10, 20): -0.1410900}
    logits = head([cosines(level) for level in range(4)])
    assert logits.shape == (1, 5, 32, 32)
    check_numbers(logits, -319.70206, 401.03884, elements)


def test_the_auxiliary_head_gives_the_numbers_of_the_reference() -> None:
    head = filled(FCNHead((8,), 5, 6, 0.1, kernel=3))
    assert sorted(dict(head.named_parameters())) == [
        "conv_seg.bias",
        "conv_seg.weight",
        "convs.0.bn.bias",
        "convs.0.bn.weight",
        "convs.0.conv.weight",
    ]
    logits = head([cosines(2)])
    assert logits.shape == (1, 5, 8, 8)
    check_numbers(logits, 22.692712, 27.422283, {(0, 0, 0, 0): logits[0, 0, 0, 0].item(), (0, 4, 7, 7): 0.0334988})


@pytest.mark.parametrize(
    ("width", "upernet", "auxiliary"), [(768, 67_963_542, 1_808_534), (1024, 120_764_566, 2_398_358)]
)
def test_published_numbers_of_parameters(width: int, upernet: int, auxiliary: int) -> None:
    with torch.device("meta"):
        head, second = UPerNetHead((width,) * 4, 150, width), FCNHead((width,), 150, 256, kernel=3)
    assert sum(value.numel() for value in head.parameters()) == upernet
    assert sum(value.numel() for value in second.parameters()) == auxiliary
    children = ["conv_seg", "psp_modules", "bottleneck", "lateral_convs", "fpn_convs", "fpn_bottleneck"]
    assert list(dict.fromkeys(name.split(".")[0] for name in head.state_dict())) == children
    assert head.state_dict()["bottleneck.conv.weight"].shape == (width, 5 * width, 3, 3)


def test_start_values() -> None:
    head = UPerNetHead(CAE_B, 150, 768)
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.conv_seg.bias.any()
    assert head.fpn_bottleneck.conv.weight.std().item() == pytest.approx(math.sqrt(2 / 6912), rel=1e-2)
    biased = [
        name for name, module in head.named_modules() if isinstance(module, nn.Conv2d) and module.bias is not None
    ]
    assert biased == ["conv_seg"]


@pytest.mark.parametrize("size", [(64, 64), (50, 73), (161, 96), (33, 20)])
@pytest.mark.parametrize("training", [True, False])
def test_upernet_equals_the_plain_formulation(size: tuple[int, int], training: bool) -> None:
    """Outputs, the gradients of all parameters and maps, and the running statistics."""
    channels = (3, 4, 5, 6)
    heads = [kind(channels, 4, 7).double().train(training) for kind in (UPerNetHead, PlainUPerNetHead)]
    heads[1].load_state_dict(heads[0].state_dict())
    maps = [x.double() for x in maps_of(channels, 2, *size)]
    found = []
    for head in heads:
        own = [x.clone().requires_grad_() for x in maps]
        logits = head([*own])
        weights = torch.cos(torch.arange(logits.numel(), dtype=torch.float64)).view_as(logits)
        (logits * weights).sum().backward()
        gradients = {name: value.grad for name, value in head.named_parameters()}
        found.append((logits, [x.grad for x in own], gradients, dict(head.named_buffers())))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convolution_of_a_concatenation_needs_none(kernel: int) -> None:
    """Also of maps that are finer than the first, and of other shapes."""
    shapes = ((9, 14), (9, 14), (5, 7), (1, 1), (11, 3), (2, 30))
    maps = [torch.randn(2, index + 1, *shape, dtype=torch.float64) for index, shape in enumerate(shapes)]
    weight = torch.randn(4, sum(x.shape[1] for x in maps), kernel, kernel, dtype=torch.float64, requires_grad=True)
    for x in maps:
        x.requires_grad_()
    expected = F.conv2d(torch.cat([resize(x, (9, 14)) for x in maps], 1), weight, padding=kernel // 2)
    found = convolve_joined([*maps], weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    slope = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, (weight, *maps), slope) for y in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_float32_is_within_rounding_of_the_plain_formulation() -> None:
    heads = [
        kind((16, 24, 32, 40), 10, 32).to(memory_format=torch.channels_last) for kind in (UPerNetHead, PlainUPerNetHead)
    ]
    heads[1].load_state_dict(heads[0].state_dict())
    maps = maps_of((16, 24, 32, 40), 2, 128, 160)
    ours, theirs = (head([*maps]) for head in heads)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_fcn_equals_the_concatenation() -> None:
    head = FCNHead((3, 4, 5, 6), 4, 8).double()
    maps = [x.double() for x in maps_of((3, 4, 5, 6), 2, 66, 50)]
    expected = head.conv_seg(head.convs[0](torch.cat([resize(x, (17, 13)) for x in maps], 1)))
    torch.testing.assert_close(head(maps), expected, rtol=0, atol=1e-12)


def test_branches_of_the_pyramid_have_places_of_their_own() -> None:
    head = UPerNetHead((3, 4, 5, 6), 4, 7).eval()
    maps = maps_of((3, 4, 5, 6), 1, 256, 256)
    before = head([*maps])
    assert before.shape == (1, 4, 64, 64)
    head.psp_modules = nn.ModuleList(list(head.psp_modules)[::-1])
    assert not torch.allclose(head(maps), before, rtol=1e-3)


@pytest.mark.parametrize("channels", [CAE_B, SWIN_L])
@pytest.mark.parametrize("kind", ["plain", "fcn", "upernet", "gss"])
def test_all_heads_take_the_maps_of_all_encoders(channels: tuple[int, ...], kind: str) -> None:
    maps = [x.to("meta") for x in maps_of(channels, 2, 64, 64)]
    with torch.device("meta"):
        head = LatentPriorHead(channels, 150, 64) if kind == "gss" else HEADS[kind](channels, 150, 32)
    assert (head.tokens(head.fuse(maps)).shape if kind == "gss" else head(maps)[:, 0].shape) == (2, 16, 16)


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_acts_in_training_on_whole_channels(kind: str) -> None:
    head = HEADS[kind]((3, 4, 5, 6), 4, 16, dropout=0.5)
    maps, seen = maps_of((3, 4, 5, 6), 2, 64, 64), []
    head.dropout.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].clone(), output.clone())))
    head([*maps])
    head.eval()([*maps])
    (before, after), unchanged = seen
    kept = (after != 0).any(3).any(2)
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(after, 2 * before * kept[..., None, None])
    assert torch.equal(*unchanged)


def test_a_batch_of_one_is_refused_in_training_alone() -> None:
    head, maps = UPerNetHead((3, 4, 5, 6), 4, 7), maps_of((3, 4, 5, 6), 1, 64, 64)
    with pytest.raises(ConfigError, match="larger `batch_size`"):
        head([*maps])
    assert head.eval()(maps).shape == (1, 4, 16, 16)


# ---- training


def network(head: str = "upernet", auxiliary: dict[str, float] | None = AUXILIARY, classes: int = 150) -> PixelNetwork:
    return build_pixel_network(classes, {"name": "test_resnet"}, head=head, channels=8, auxiliary=auxiliary)


def batch_of(label: Tensor) -> dict[str, Tensor]:
    count, height, width = label.shape
    return {
        "image": torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8),
        "valid": torch.tensor([[0, 0, height, width]] * count),
        "photometric": torch.tensor([[0.0, 1, 1, 0, 0]] * count),
        "label": label,
    }


def loss_of(learner: PixelLearner, label: Tensor) -> Tensor:
    """As the loop computes it."""
    batch, eps = batch_of(label), torch.finfo(torch.float32).eps
    weights = torch.tensor(list(learner.terms.values()), dtype=torch.float64)
    return weights * learner(batch, 0)[0] / (learner.counts(batch) + eps)


def without_preference(network: PixelNetwork) -> PixelNetwork:
    """Whose scores are all 0."""
    for head in (network.head, network.auxiliary):
        nn.init.zeros_(head.conv_seg.weight)
    return network


@pytest.mark.parametrize("over_all", [True, False])
def test_losses_at_even_scores(over_all: bool) -> None:
    learner = PixelLearner(without_preference(network()), auxiliary_weight=0.4, over_all=over_all)
    label = torch.randint(0, 150, (2, 64, 64), dtype=torch.uint8)
    terms = loss_of(learner, label)
    assert terms[0].item() == pytest.approx(5.010635, abs=1e-5)
    assert terms.sum().item() == pytest.approx(7.014889, abs=1e-5)
    label[:, :32] = 255
    halved = loss_of(learner, label).sum().item()
    assert halved == pytest.approx(7.014889 / (2 if over_all else 1), abs=1e-5)
    nothing = loss_of(learner, torch.full_like(label, 255))
    assert nothing.tolist() == [0, 0]
    nothing.sum().backward()
    assert all(not value.grad.any() for value in learner.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_is_trained(head: str) -> None:
    learner = PixelLearner(network(head), auxiliary_weight=0.4)
    loss_of(learner, torch.randint(0, 150, (2, 64, 96), dtype=torch.uint8)).sum().backward()
    assert [name for name, value in learner.named_parameters() if value.grad is None] == []


def test_an_auxiliary_head_leaves_the_other_as_it_is() -> None:
    """Start values and what it draws in training; and no prediction calls it."""
    found, label = [], torch.randint(0, 5, (2, 64, 64), dtype=torch.uint8)
    batch = batch_of(label)
    for auxiliary in (None, {"channels": 8, "dropout": 0.5}):
        torch.manual_seed(1)
        built = build_pixel_network(
            5, {"name": "test_resnet"}, head="fcn", channels=8, dropout=0.5, auxiliary=auxiliary
        )
        learner = PixelLearner(built, auxiliary_weight=0.4 if auxiliary else None)
        torch.manual_seed(2)
        found.append(learner(batch, 0)[0][0])
    assert torch.equal(*found)
    built.auxiliary.forward = None
    assert built.eval().scores(torch.randn(1, 3, 50, 40)).shape == (1, 5, 50, 40)


def test_model_files_of_before_have_the_plain_head() -> None:
    names = build_pixel_network(5, {"name": "test_resnet"}, channels=8).state_dict()
    own = {name.removeprefix("head.") for name in names if name.startswith("head.")}
    assert {"laterals.0.weight", "fusion.conv.weight", "classifier.weight"} < own
    assert not any(name.startswith("auxiliary") for name in names)
