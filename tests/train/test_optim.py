import copy

import pytest
import torch
from torch import nn

from gss.errors import CheckpointError, ConfigError
from gss.nets.backbone import build_backbone
from gss.train.distributed import World
from gss.train.optim import MovingAverage, build_optimizer, decays, lr_factors, set_learning_rate
from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings
from gss.train.state import TrainState

ONE, TWO = torch.zeros(3), torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("name", "parameter", "default", "published"),
    [
        ("backbone.norm0.weight", ONE, False, False),
        ("head.swin_ln.weight", ONE, False, True),
        ("head.convs.0.bn.weight", ONE, False, True),
        ("head.conv_seg.bias", ONE, False, True),
        ("head.conv_seg.weight", TWO, True, True),
        ("head.blocks.0.norm1.weight", ONE, False, False),
        ("backbone.stages.0.downsample.norm.weight", ONE, False, False),
        ("head.blocks.0.attn.w_msa.relative_position_bias_table", TWO, False, False),
        ("backbone.absolute_pos_embed", TWO, False, False),
    ],
)
def test_decay_rules(name, parameter, default, published):
    assert decays(name, parameter, "default") is default
    assert decays(name, parameter, "published") is published


@pytest.mark.parametrize(
    ("name", "shape", "decay"),
    [
        ("backbone.cls_token", (1, 1, 8), True),
        ("backbone.blocks.11.attn.relative_position_bias_table", (12, 2), True),
        ("backbone.blocks.0.attn.qkv.weight", (24, 8), True),
        ("backbone.blocks.0.attn.q_bias", (8,), False),
        ("backbone.blocks.0.gamma_1", (8,), False),
        ("backbone.fpn1.1.weight", (8,), False),
        ("head.conv_seg.bias", (5,), False),
        ("head.table.bias", (5, 5), False),
    ],
)
def test_vectors_and_biases_alone_are_spared(name, shape, decay):
    assert decays(name, torch.empty(shape, device="meta"), "vectors") is decay


def test_mseg_spares_nothing_from_decay():
    """One group, of biases and BatchNorm, too; its updates are those of the field's SGD."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    other = copy.deepcopy(module)
    settings = LoopSettings(
        steps=4, lr=0.01, power=0.9, warmup_steps=0, optimizer="sgd", weight_decay=1e-4, decay_rule="all"
    )
    ours = build_optimizer(module, settings)
    theirs = torch.optim.SGD(other.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert [len(group["params"]) for group in ours.param_groups] == [6]
    for step in range(3):
        rate = learning_rate(step, settings)
        set_learning_rate(ours, rate)
        theirs.param_groups[0]["lr"] = 0.01 * (1 - step / 4) ** 0.9
        for network, optimizer in ((module, ours), (other, theirs)):
            optimizer.zero_grad()
            network(torch.cos(torch.arange(96.0)).view(2, 3, 4, 4)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=0, atol=1e-7)


def test_groups_carry_decay_and_rate():
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    optimizer = build_optimizer(module, LoopSettings(steps=1, lr=1.0, weight_decay=0.1, backbone_lr_factor=0.5))
    set_learning_rate(optimizer, 0.2)
    found = {(group["weight_decay"], group["lr"], len(group["params"])) for group in optimizer.param_groups}
    assert found == {(0.1, 0.1, 1), (0.0, 0.1, 1), (0.1, 0.2, 1), (0.0, 0.2, 1)}


def test_moving_average_follows():
    module = nn.BatchNorm1d(2)
    average = MovingAverage(module, 0.75)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.running_mean.fill_(7.0)
    average.update()
    assert average.module.weight.tolist() == [2.0, 2.0]
    assert average.module.running_mean.tolist() == [7.0, 7.0]
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


@pytest.mark.parametrize("theirs", [True, None])
def test_the_device_decides_on_the_fused_kernel_not_the_checkpoint(theirs, tmp_path):
    world, settings = World(0, 1, 0, torch.device("cpu")), LoopSettings(steps=4, lr=0.1)
    state = TrainState(nn.Linear(3, 2), settings, world)
    state.module(torch.ones(1, 3)).sum().backward()
    state.optimizer.step()
    content = copy.deepcopy(state.content(1))
    for group in content["optimizer"]["param_groups"]:
        group["fused"] = theirs
    state = TrainState(nn.Linear(3, 2), settings, world)
    state.load(content, where=tmp_path)
    assert [group["fused"] for group in state.optimizer.param_groups] == [False, False]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_tiny", "resnet18", "tf_efficientnet_lite0"])
def test_layer_decay_gives_every_level_of_a_backbone_its_rate(name):
    with torch.device("meta"):
        module = nn.ModuleDict({"backbone": build_backbone(name), "head": nn.Linear(2, 2)})
    factors = lr_factors(module, LoopSettings(steps=1, lr=1.0, backbone_lr_factor=2.0, layer_decay=0.5))
    assert {factors["head.weight"], factors["head.bias"]} == {1.0}
    features = {path: factor for path, factor in factors.items() if path.startswith("backbone.features.")}
    assert list(dict.fromkeys(features.values())) == [2 * 0.5**4, 2 * 0.5**3, 2 * 0.5**2, 2 * 0.5]
    assert {factor for path, factor in factors.items() if path.startswith("backbone.norms.")} <= {2.0}
    assert set(factors) == {path for path, _ in module.named_parameters()}


class Transformer(nn.Module):
    """Depths as the published layer decay of ViTs counts them: embedding, blocks, and what follows."""

    num_layers = 4

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(2, 2, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.neck = nn.Linear(2, 2, bias=False)

    def layer_of(self, name):
        part, number = name.split(".")[:2]
        return {"embedding": 0, "blocks": 1 + int(number) if number.isdigit() else 0}.get(part, self.num_layers)


def test_a_module_tells_the_depth_of_its_parameters():
    module = nn.ModuleDict({"backbone": Transformer(), "head": nn.Linear(2, 2)})
    settings = LoopSettings(steps=1, lr=1.0, weight_decay=0.05, layer_decay=0.65)
    optimizer = build_optimizer(module, settings)
    found = [(group["weight_decay"], group["lr_factor"]) for group in optimizer.param_groups]
    depths = [(0.05, 0.65**4), *((decay, 0.65**k) for k in (3, 2, 1) for decay in (0.05, 0.0)), (0.05, 1.0), (0.0, 1.0)]
    assert found == depths
    alone = lr_factors(module["backbone"], settings)
    assert [alone[f"blocks.{block}.bias"] for block in range(3)] == [0.65**3, 0.65**2, 0.65]


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False)
        self.bn = nn.BatchNorm2d(outputs)


class Encoder(nn.Module):
    """CAE's encoder and neck by names and ranks of their parameters, C channels, D blocks."""

    def __init__(self, width, depth):
        super().__init__()
        self.num_layers = depth + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, width), requires_grad=False)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 16)})
        self.blocks = nn.ModuleList(self.block(width) for _ in range(depth))
        up = (nn.ConvTranspose2d(width, width, 2, 2) for _ in range(3))
        self.fpn1 = nn.Sequential(next(up), nn.BatchNorm2d(width), nn.GELU(), next(up))
        self.fpn2 = nn.Sequential(next(up))

    def block(self, width):
        block, attention = nn.Module(), nn.Module()
        for name in ("q_bias", "v_bias"):
            attention.register_parameter(name, nn.Parameter(torch.zeros(width)))
        attention.relative_position_bias_table = nn.Parameter(torch.zeros(52, 2))
        attention.qkv, attention.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        block.norm1, block.attn, block.norm2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        block.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        block.gamma_1, block.gamma_2 = (nn.Parameter(torch.ones(width)) for _ in range(2))
        return block

    def layer_of(self, name):
        first, second = name.split(".")[0], name.partition(".")[2]
        if first in ("cls_token", "pos_embed", "patch_embed"):
            return 0
        return 1 + int(second.split(".")[0]) if first == "blocks" else self.num_layers


def upernet(width, depth):
    """UPerNet on CAE with few channels."""
    head, auxiliary = nn.Module(), nn.Module()
    head.conv_seg = nn.Conv2d(width, 5, 1)
    head.psp_modules = nn.ModuleList(nn.Sequential(nn.Identity(), ConvNorm(width, width, 1)) for _ in range(4))
    head.bottleneck, head.fpn_bottleneck = ConvNorm(5 * width, width, 3), ConvNorm(4 * width, width, 3)
    head.lateral_convs = nn.ModuleList(ConvNorm(width, width, 1) for _ in range(3))
    head.fpn_convs = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(3))
    auxiliary.convs, auxiliary.conv_seg = nn.ModuleList([ConvNorm(width, 4, 3)]), nn.Conv2d(4, 5, 1)
    return nn.ModuleDict({"backbone": Encoder(width, depth), "decode_head": head, "auxiliary_head": auxiliary})


@pytest.mark.parametrize(("depth", "rate", "groups", "tensors"), [(12, 0.65, 28, 246), (24, 0.95, 52, 438)])
def test_published_groups_of_cae(depth, rate, groups, tensors):
    module = upernet(8, depth)
    settings = LoopSettings(steps=1, lr=1e-4, weight_decay=0.05, decay_rule="vectors", layer_decay=rate)
    optimizer = build_optimizer(module, settings)
    names = {parameter: name for name, parameter in module.named_parameters()}
    grouped = {
        (group["weight_decay"], group["lr_factor"]): [names[parameter] for parameter in group["params"]]
        for group in optimizer.param_groups
    }
    found = [name for group in grouped.values() for name in group]
    assert (len(optimizer.param_groups), len(grouped), len(found)) == (groups, groups, tensors)
    assert set(names.values()) - set(found) == {"backbone.pos_embed"} and len(set(found)) == tensors
    scales = [rate**power for power in range(depth + 1, 0, -1)] + [1.0]
    counts = [(2, 1), *[(5, 11)] * depth, (18, 33)]
    assert {key: len(group) for key, group in grouped.items()} == {
        (decay, scale): count
        for scale, both in zip(scales, counts, strict=True)
        for decay, count in zip((0.05, 0.0), both, strict=True)
    }
    assert "backbone.cls_token" in grouped[0.05, rate ** (depth + 1)]
    assert f"backbone.blocks.{depth - 1}.attn.relative_position_bias_table" in grouped[0.05, rate]
    assert "decode_head.conv_seg.bias" in grouped[0.0, 1.0]


def test_published_rates_of_caes_layers():
    factors = lr_factors(upernet(8, 12), LoopSettings(steps=1, lr=1e-4, layer_decay=0.65))
    published = [0.005688009, 0.008750783, 0.013462743, 0.020711913, 0.031864481, 0.049022279]
    published += [0.075418891, 0.116029063, 0.178506250, 0.274625000, 0.422500000, 0.650000000]
    assert [factors[f"backbone.blocks.{i}.gamma_1"] for i in range(12)] == pytest.approx(published, abs=5e-10)
    assert factors["backbone.patch_embed.proj.bias"] == pytest.approx(0.003697206, abs=5e-10)
    assert {factors["backbone.fpn2.0.weight"], factors["auxiliary_head.conv_seg.weight"]} == {1.0}
    large = lr_factors(upernet(8, 24), LoopSettings(steps=1, lr=4e-5, layer_decay=0.95))
    found = [large[f"backbone.{name}"] for name in ("cls_token", "blocks.0.gamma_1", "blocks.12.gamma_1")]
    assert found == pytest.approx([0.277389573, 0.291989024, 0.540360088], abs=5e-10)


def test_layer_decay_needs_layers():
    settings = LoopSettings(steps=1, lr=1.0, layer_decay=0.5)
    with pytest.raises(ConfigError, match="no part of the trained network tells its layers apart"):
        build_optimizer(nn.Linear(2, 2), settings)
    with torch.device("meta"), pytest.raises(ConfigError, match="the levels of hrnet_w18 cannot be told apart"):
        build_optimizer(build_backbone("hrnet_w18"), settings)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_one_of_the_field(nesterov):
    """v <- momentum v + g + decay w;  w <- w - lr (g + momentum v, or v)."""
    module = nn.Linear(3, 2, dtype=torch.float64)
    settings = LoopSettings(steps=1, lr=1.0, optimizer="sgd", momentum=0.8, nesterov=nesterov, weight_decay=0.1)
    optimizer = build_optimizer(module, settings)
    set_learning_rate(optimizer, 0.5)
    weight, speed = module.weight.detach().clone(), 0
    for step in range(3):
        module.weight.grad = torch.full_like(module.weight, step + 1.0)
        optimizer.step()
        gradient = step + 1 + 0.1 * weight
        speed = 0.8 * speed + gradient
        weight = weight - 0.5 * (gradient + 0.8 * speed if nesterov else speed)
    assert torch.allclose(module.weight, weight, rtol=1e-14)


def test_a_checkpoint_of_a_version_with_fewer_settings_goes_on(tmp_path):
    world, settings = World(0, 1, 0, torch.device("cpu")), LoopSettings(steps=4, lr=0.1)
    content = TrainState(nn.Linear(3, 2), settings, world).content(1)
    for key in ("schedule", "optimizer", "momentum", "nesterov", "layer_decay"):
        del content["settings"][key]
    TrainState(nn.Linear(3, 2), settings, world).load(content, where=tmp_path)
    state = TrainState(nn.Linear(3, 2), LoopSettings(steps=4, lr=0.1, optimizer="sgd"), world)
    with pytest.raises(CheckpointError, match="other settings: optimizer 'adamw', now 'sgd'"):
        state.load(content, where=tmp_path)
