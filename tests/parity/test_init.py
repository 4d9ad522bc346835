"""Initialisation from scratch: the kind of distribution of every tensor of the published models.

Recorded were averages over two seeds; so are the numbers compared with them.
"""

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gss.recipes.gss.exchange import to_published
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead

from .runs import PUBLISHED

pytestmark = pytest.mark.slow
ENOUGH = 1000  # elements from which on mean and standard deviation say something
BACKBONES = {
    "backbone_0": "gss-ff_r101_768x768_80k_cityscapes",
    "backbone_1": "gss-ff_swin-l_512x512_160k_ade20k",
    "backbone_2": "gss-ff_hrnet-w48_512x512_160k_mseg",
}
HEADS = [name for name in PUBLISHED if name != "gss-ff_swin-l_512x512_160k_ade20k"]  # its table is another's


@cache
def statistics(parity: Path) -> Any:
    return json.loads((parity / "init_stats.json").read_text())


def fresh(name: str, *, whole: bool) -> list[dict[str, Tensor]]:
    """Tensors of freshly initialised models by their published names, one for each of two seeds.

    Args:
        whole: the backbone too; otherwise it has no values.
    """
    run, found = PUBLISHED[name], []
    with torch.device("meta"):
        prior = run.prior()
    for seed in (0, 1):
        torch.manual_seed(seed)
        if whole:
            prior = run.prior()
        else:
            head = LatentPriorHead(
                prior.backbone.channels,
                run.num_classes,
                8192,
                kind=prior.head.kind,
                swin_depth=run.sizes.get("swin_depth", 2),
            )
            prior = LatentPrior(prior.backbone, head)
        found.append(to_published(prior, run.posterior()))
    return found


def fault(values: tuple[Tensor, ...], kind: str, mean: float, std: float) -> str:
    """What is wrong with a tensor, drawn with each seed; empty where nothing is."""
    both = torch.stack(values)
    if kind in ("zeros", "const 1"):
        return "" if (both == float(kind != "zeros")).all() else f"not {kind}"
    largest, count, uniform = both.abs().max().item(), both[0].numel(), kind.startswith("uniform")
    if uniform:
        named = re.search(r"fan_in=(\d+)", kind)
        fan_in = int(named[1]) if named else math.prod(both.shape[2:])
        if largest > fan_in**-0.5 * (1 + 1e-6):
            return f"{largest} is beyond 1/sqrt({fan_in})"
    if count < ENOUGH:
        return "" if 0 < largest <= (2 if "cut at" in kind else 7 * std) else f"up to {largest}, not {kind}"
    spread, middle = both.flatten(1).std(1).mean().item(), both.mean().item()
    if abs(spread / std - 1) > 0.05:
        return f"std {spread} instead of {std}"
    if abs(middle - mean) > 5 * std / count**0.5:
        return f"mean {middle} instead of {mean}"
    if uniform != (largest < 1.8 * spread):  # a uniform distribution ends at 1.73 times its standard deviation
        return f"{largest / spread} standard deviations wide, which is not {kind}"
    return ""


def faults(models: list[dict[str, Tensor]], prefix: str, table: list[Any]) -> dict[str, str]:
    drawn = {key for key in models[0] if not key.endswith(("num_batches_tracked", "relative_position_index"))}
    assert {key for key in drawn if key.startswith(f"{prefix}.")} == {f"{prefix}.{row[0]}" for row in table}
    found = {}
    for key, kind, mean, std, *_ in table:
        found[key] = fault(tuple(model[f"{prefix}.{key}"] for model in models), kind, mean, std)
    return {key: what for key, what in found.items() if what}


@pytest.mark.parametrize("table", BACKBONES)
def test_backbone_starts_as_published(table: str, parity: Path) -> None:
    assert faults(fresh(BACKBONES[table], whole=True), "backbone", statistics(parity)["tables"][table]) == {}


@pytest.mark.parametrize("name", HEADS)
def test_head_starts_as_published(name: str, parity: Path) -> None:
    table = statistics(parity)["configs"][name]["head"]
    assert faults(fresh(name, whole=False), "decode_head", statistics(parity)["tables"][table]) == {}


def test_every_published_configuration_is_compared(parity: Path) -> None:
    configs = statistics(parity)["configs"]
    assert {config["backbone"] for config in configs.values()} == set(BACKBONES)
    assert {configs[name]["head"] for name in HEADS} == {config["head"] for config in configs.values()}
