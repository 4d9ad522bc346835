"""CAE's fine-tuning as a whole: sizes, groups of parameters with their rates, windows, evaluation."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from gss.evaluate.inference import Inference, predict, windows
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import PixelNetwork, build_pixel_network
from gss.train.optim import build_optimizer, lr_factors, set_learning_rate
from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings
from tests.oracle_upernet import plain, plain_losses, plain_prediction

BASE = {"name": "beit_base_patch16_224", "options": {"img_size": 512, "use_abs_pos_emb": True, "init_values": 0.1}}
LARGE = {"name": "beit_large_patch16_512", "options": {"use_abs_pos_emb": True, "init_values": 1e-5}}
SIZES = {  # trainable, all, at test
    "base": (163_080_812, 163_868_012, 162_059_478),
    "large": (440_398_636, 441_448_236, 439_049_878),
}
GROUPS = {  # number of groups and of tensors, elements with and without decay, those of the first, a middle, the last
    "base": (28, 246, 162_927_936, 152_876, (590_592, 768), (7_125_552, 10_752), (76_830_720, 23_084)),
    "large": (52, 438, 440_023_040, 375_596, (787_456, 1_024), (12_646_464, 14_336), (135_720_448, 30_508)),
}


@pytest.fixture(scope="module", params=["base", "large"])
def cae(request: pytest.FixtureRequest) -> tuple[str, PixelNetwork]:
    backbone, width, rate = (BASE, 768, 0.1) if request.param == "base" else (LARGE, 1024, 0.15)
    with torch.device("meta"):
        network = build_pixel_network(
            150,
            {**backbone, "drop_path": rate},
            head="upernet",
            channels=width,
            dropout=0.1,
            auxiliary={"channels": 256, "dropout": 0.1},
        )
    return request.param, network


def settings(name: str, **changed: Any) -> LoopSettings:
    decay = {"base": 0.65, "large": 0.95}[name]
    return LoopSettings(
        **{
            "steps": 160_000,
            "lr": 1e-4,
            "weight_decay": 0.05,
            "layer_decay": decay,
            "decay_rule": "vectors",
            **changed,
        }
    )


def test_whole_models_have_the_published_sizes(cae: tuple[str, PixelNetwork]) -> None:
    name, network = cae
    sizes = {path: parameter.numel() for path, parameter in network.named_parameters()}
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    at_test = sum(size for path, size in sizes.items() if not path.startswith("auxiliary."))
    assert (trained, sum(sizes.values()), at_test) == SIZES[name]


def test_groups_of_the_layer_wise_decay(cae: tuple[str, PixelNetwork]) -> None:
    name, network = cae
    groups = build_optimizer(network, settings(name)).param_groups
    count, tensors, decayed, spared, first, middle, last = GROUPS[name]
    depth = len(network.backbone.features.blocks)  # type: ignore[arg-type]
    assert (len(groups), sum(len(group["params"]) for group in groups)) == (count, tensors)

    def elements(decay: float, level: int | None = None) -> int:
        factor = None if level is None else settings(name).layer_decay ** (depth + 1 - level)  # type: ignore[operator]
        return sum(
            parameter.numel()
            for group in groups
            for parameter in group["params"]
            if group["weight_decay"] == decay and factor in (None, pytest.approx(group["lr_factor"], rel=1e-12))
        )

    assert (elements(0.05), elements(0.0)) == (decayed, spared)
    for level, (with_decay, without) in {0: first, depth // 2: middle, depth + 1: last}.items():
        assert (elements(0.05, level), elements(0.0, level)) == (with_decay, without)
    place = {id(parameter): group for group in groups for parameter in group["params"]}
    named = dict(network.named_parameters())
    for path, decay, level in (
        ("backbone.features.cls_token", 0.05, 0),
        (f"backbone.features.blocks.{depth - 1}.attn.relative_position_bias_table", 0.05, depth),
        ("backbone.features.blocks.0.gamma_1", 0.0, 1),
        ("backbone.pyramid.0.0.weight", 0.05, depth + 1),
        ("head.conv_seg.bias", 0.0, depth + 1),
    ):
        group = place[id(named[path])]
        assert group["weight_decay"] == decay
        assert group["lr_factor"] == pytest.approx(settings(name).layer_decay ** (depth + 1 - level))  # type: ignore[operator]
    assert id(named["backbone.features.pos_embed"]) not in place


def test_rates_of_the_published_schedule(cae: tuple[str, PixelNetwork]) -> None:
    name, network = cae
    published = {
        "base": {"cls_token": 0.003697206, "blocks.0.": 0.005688009, "blocks.9.": 0.274625, "blocks.11.": 0.65},
        "large": {"cls_token": 0.277389573, "blocks.0.": 0.291989024, "blocks.12.": 0.540360088, "blocks.23.": 0.95},
    }[name]
    factors = lr_factors(network, settings(name))
    for part, factor in published.items():
        found = {value for path, value in factors.items() if path.startswith(f"backbone.features.{part}")}
        assert len(found) == 1
        assert found.pop() == pytest.approx(factor, rel=1e-6)
    if name == "large":
        return
    optimizer = build_optimizer(network, settings(name))
    for step, slowest, fastest in (
        (0, 3.697206e-13, 1e-10),
        (1500, 3.662545e-7, 9.90625e-5),
        (80_000, 1.848603e-7, 5e-5),
    ):
        set_learning_rate(optimizer, learning_rate(step, settings(name)))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert (min(rates), max(rates)) == (pytest.approx(slowest, rel=1e-6), pytest.approx(fastest, rel=1e-6))


@pytest.mark.parametrize(
    ("length", "starts"),
    [(512, [0]), (683, [0, 171]), (853, [0, 341]), (854, [0, 341, 342]), (1024, [0, 341, 512])],
)
def test_windows_are_the_published_ones(length: int, starts: list[int]) -> None:
    found = windows(512, length, (512, 512), (341, 341))
    assert [(columns.start, columns.stop) for _, columns in found] == [(start, start + 512) for start in starts]
    assert len(windows(512, 2048, (512, 512), (341, 341))) == 6


class Columns(nn.Module):
    """Scores the number of a pixel's column in the whole image, which the red channel tells, and a constant."""

    are_votes, extra_names = False, ()
    protocol: ClassVar[dict[str, Any]] = {}

    def normalise(self, image: Tensor) -> Tensor:
        return image.double()

    def scores(self, image: Tensor) -> Tensor:
        return torch.stack([image[:, 0], torch.full_like(image[:, 0], 400.25)], 1)


def test_windows_are_averaged_exactly() -> None:
    image = torch.arange(683, dtype=torch.float64).expand(512, 683)[..., None].expand(-1, -1, 3).numpy()
    protocol = Inference("slide", (512, 512), (341, 341))
    ids = predict(Columns().eval(), image, protocol, device=torch.device("cpu"))
    assert torch.equal(ids, (torch.arange(683) <= 400).to(ids.dtype).expand(512, 683))


def test_the_network_computes_what_is_written_out_plainly() -> None:
    """Losses, gradients and a prediction in windows, against the side that `bench/upernet.py` compares with."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 64, "use_abs_pos_emb": True, "init_values": 0.1}
    backbone = {"name": "beit_base_patch16_224", "options": sizes}
    ours, theirs = (
        build_pixel_network(5, backbone, head="upernet", channels=8, auxiliary={"channels": 4, "dropout": 0.0})
        for _ in range(2)
    )
    theirs.load_state_dict(ours.state_dict())
    plain(theirs)
    label = torch.randint(0, 5, (2, 64, 64), dtype=torch.uint8)
    label[:, :9] = 255
    batch = {
        "image": torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        "label": label,
        "valid": torch.tensor([[0, 0, 64, 64]] * 2),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]] * 2),
    }
    learners = [PixelLearner(network, auxiliary_weight=0.4) for network in (ours, theirs)]
    sums = [learners[0](batch, 0)[0], plain_losses(learners[1], batch)]
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-5, atol=1e-3)
    for found in sums:
        (found * torch.tensor([1.0, 0.4])).sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-2)
    image = torch.randint(0, 256, (64, 90, 3), dtype=torch.uint8).numpy()
    protocol = Inference("slide", (64, 64), (43, 43))
    ids = predict(ours.eval(), image, protocol, device=torch.device("cpu"))
    assert (ids == plain_prediction(theirs.eval(), image, protocol)).float().mean() > 0.999
