import copy

import pytest
import torch
from torch import nn

from gss.train.distributed import World
from gss.train.optim import MovingAverage, build_optimizer, decays, set_learning_rate
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
    state = TrainState(nn.Linear(3, 2), settings)
    state.module(torch.ones(1, 3)).sum().backward()
    state.optimizer.step()
    content = copy.deepcopy(state.content(1, world))
    for group in content["optimizer"]["param_groups"]:
        group["fused"] = theirs
    state = TrainState(nn.Linear(3, 2), settings)
    state.load(content, world, where=tmp_path)
    assert [group["fused"] for group in state.optimizer.param_groups] == [False, False]
