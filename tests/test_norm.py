"""BatchNorm on CPUs: sums that are right for any number of pixels and do not depend on the number of threads."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gss.nets.backbone import build_backbone
from gss.nets.norm import BatchNorm2d
from gss.recipes.gss.build import build_posterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.learn import NormalisedDVAE

pytestmark = pytest.mark.usefixtures("threads")
SHAPES = [(2, 16, 180, 240), (3, 33, 37, 41), (1, 720, 19, 31), (2, 5, 1, 700), (2, 3, 700, 1)]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def trained(norm: nn.Module, x: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics of one training step."""
    x = x.detach().requires_grad_()
    y = norm(x).neg_()  # a ReLU works in place, too
    y.backward(slope)
    assert x.grad is not None and y.stride() == x.stride() == x.grad.stride() and y.dtype == x.dtype
    gradients = {f"grad.{name}": parameter.grad for name, parameter in norm.named_parameters()}
    return {"y": y.detach(), "grad": x.grad, **gradients, **dict(norm.named_buffers())}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= relative * value.abs().max(), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"momentum": None, "eps": 1e-3}, {"affine": False}], ids=str)
def test_training_is_that_of_double_precision(shape: tuple[int, ...], options: dict[str, float]) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(shape[1], **options)
    for parameter in plain.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    own = BatchNorm2d(shape[1], **options)
    own.load_state_dict(plain.state_dict())
    double, plain = copy.deepcopy(own).double(), plain.double()
    x, slope = 3 + 2 * channels_last(*shape), 0.5 + channels_last(*shape)

    expected = trained(plain, x.double().contiguous(), slope.double().contiguous())
    assert_close(trained(double, x.double(), slope.double()), expected, 1e-12)
    torch.set_num_threads(1)
    assert_close(trained(own, x, slope), expected, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_threads_change_no_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, slope = (3 + 2 * channels_last(*shape)).to(dtype), channels_last(*shape).to(dtype)
    found = []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(trained(BatchNorm2d(shape[1]), x, slope))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_half_precision_are_single_precision(dtype: torch.dtype) -> None:
    """Also where their squares are no number of float16."""
    torch.manual_seed(0)
    x = (300 + channels_last(2, 8, 300, 200)).to(dtype)
    norm = BatchNorm2d(8, momentum=1.0)
    norm(x)
    variance, mean = torch.var_mean(x.double(), (0, 2, 3))
    assert torch.allclose(norm.running_mean.double(), mean, rtol=1e-6)
    assert torch.allclose(norm.running_var.double(), variance, rtol=1e-5)


@pytest.mark.parametrize("number", [1, 2])
def test_x_inverse_knows_the_statistics_of_a_large_maskige(number: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(number)
    layer = build_posterior(5, channels=8).projection
    maskige = 0.5 + 0.1 * torch.rand(2, 3, 720, 960)
    features = layer.conv.double()(maskige.double())
    variance, mean = torch.var_mean(features, (0, 2, 3))
    layer.bn.momentum = 1.0
    layer.float()(maskige.contiguous(memory_format=torch.channels_last))
    assert ((layer.bn.running_mean - mean).abs() <= 1e-4 * variance.sqrt()).all()
    assert ((layer.bn.running_var - variance).abs() <= 1e-4 * variance).all()


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_b0"])  # the second has activations inside its norms
def test_backbones_have_it_and_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).double()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(type(norm).__module__ == "gss.nets.norm" for norm in norms)
    plain = copy.deepcopy(backbone)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = type(module).__mro__[1]
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    for ours, theirs in zip(backbone.train()(image), plain.train()(image), strict=True):
        assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
    assert backbone.state_dict().keys() == plain.state_dict().keys()


def test_the_tokenizer_has_it() -> None:
    assert type(NormalisedDVAE(DVAE(8, 8, 8, blocks_per_group=1)).norm) is BatchNorm2d
