"""Names, shapes, decay, freezing: what a state dict and an optimiser see of the ten published models."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gss._compat import import_timm
from gss.recipes.gss.exchange import published_key, to_published
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.posterior import Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.train.optim import decays

from .runs import PUBLISHED


@cache
def tables(parity: Path) -> Any:
    return json.loads((parity / "published_keys.json").read_text())


@cache
def built(name: str) -> tuple[LatentPrior, Posterior | None]:
    """The model on the meta device, as training would begin with it."""
    with torch.device("meta"):
        prior, posterior = PUBLISHED[name].prior(), PUBLISHED[name].posterior()
    return prior.train(), posterior


def listed(parity: Path, name: str, what: str) -> set[str]:
    found = tables(parity)["configs"][name][what]
    return set(tables(parity)["lists"][found] if isinstance(found, str) else found)


def parts(name: str) -> Iterator[tuple[str, nn.Module]]:
    prior, posterior = built(name)
    yield "prior", prior
    if posterior is not None:
        yield "posterior", posterior


def named_parameters(name: str) -> Iterator[tuple[str, str, Tensor]]:
    """(our name as the optimiser sees it, published name, parameter)."""
    architecture = built(name)[0].backbone.architecture
    for part, module in parts(name):
        for own, parameter in module.named_parameters():
            yield own, published_key(f"{part}.{own}", architecture), parameter


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict_is_the_published_one(name: str, parity: Path) -> None:
    config = tables(parity)["configs"][name]
    expected = {
        f"{prefix}.{key}": (tuple(shape), dtype, kind)
        for prefix, table in (("backbone", "backbone_table"), ("decode_head", "head_table"))
        for key, shape, dtype, kind in tables(parity)["tables"][config[table]]
    }
    parameters = {key for _, key, _ in named_parameters(name)}
    found = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch."), "param" if key in parameters else "buffer")
        for key, value in to_published(*built(name)).items()
    }
    assert found == expected
    assert len(found) == config["state_dict_keys"]
    for prefix, part in (("backbone", "backbone"), ("decode_head", "head")):
        sizes = {"param": 0, "buffer": 0}
        for key, value in to_published(*built(name)).items():
            sizes[found[key][2]] += value.numel() if key.startswith(prefix) else 0
        assert sizes["param"] == config["params"][part]
        assert sizes["buffer"] == config["buffer_elements"][part]


def test_tokenizer_is_the_published_one(parity: Path) -> None:
    with torch.device("meta"):
        dvae = DVAE()
    prior, _ = built("gss-ff_r101_768x768_80k_cityscapes")
    found = {key: list(value.shape) for key, value in to_published(prior, None, dvae).items() if ".d_vae." in key}
    assert found == dict(tables(parity)["dvae"])
    assert sum(value.numel() for value in dvae.parameters()) == 97_616_006


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_decay_rule_spares_the_published_tensors(name: str, parity: Path) -> None:
    spared = {key for own, key, parameter in named_parameters(name) if not decays(own, parameter, "published")}
    assert spared == listed(parity, name, "weight_decay_zero")


@pytest.mark.parametrize("name", PUBLISHED)
def test_frozen_are_the_published_parameters(name: str, parity: Path) -> None:
    frozen = {key for _, key, parameter in named_parameters(name) if not parameter.requires_grad}
    assert frozen == listed(parity, name, "requires_grad_false_after_train_call")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_batch_norms_use_their_statistics_in_training(name: str, parity: Path) -> None:
    prior, _ = built(name)
    norms = [(own, norm) for own, norm in prior.named_modules() if isinstance(norm, _BatchNorm) and not norm.training]
    found = {published_key(f"prior.{own}.weight", prior.backbone.architecture) for own, _ in norms}
    assert {key.removesuffix(".weight") for key in found} == listed(
        parity, name, "batchnorm_in_eval_mode_after_train_call"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_drop_path_rates_are_the_published_ones(name: str, parity: Path) -> None:
    import_timm()
    from timm.layers import DropPath

    backbone = built(name)[0].backbone
    rates = {round(module.drop_prob, 6) for module in backbone.modules() if isinstance(module, DropPath)}
    assert sorted(rates | {0.0}) == tables(parity)["configs"][name]["drop_path"]
