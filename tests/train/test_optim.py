import copy

import pytest
import torch
from torch import nn

from gss.errors import CheckpointError, ConfigError
from gss.nets.backbone import build_backbone
from gss.train.distributed import World
from gss.train.optim import MovingAverage, build_optimizer, decays, lr_factors, set_learning_rate
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
