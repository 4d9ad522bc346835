"""From an experiment to the metadata of a model file, and from there to modules."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gss.data.classes import ClassSpace
from gss.errors import CheckpointError
from gss.modelfile import ModelFile, described, load_strictly
from gss.recipes.gss import build
from gss.recipes.gss.experiment import BEYOND, GSSExperiment
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.layout import PALETTE, TOKENIZER
from gss.recipes.gss.model import GSS
from gss.recipes.gss.palette.palette import Palette, write_palette
from gss.recipes.gss.posterior import Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.store import SHAPE, build_tokenizer, load_tokenizer
from gss.stages.run import Run
from gss.stages.training import describe_use

PROTOCOL = ("tokenizer_precision",)  # what a model file says of its protocol beside keys of `evaluation`


def describe(run: Run[GSSExperiment], space: ClassSpace, palette: Palette, tokenizer: DVAE) -> dict[str, Any]:
    """What a model file says of classes, colours, tokenizer, architecture and use: plain values only.

    `palette` are the colours of the maskige, `colours` those that show predictions: the data set's, or None.

    Raises:
        DataError: the palette was made for other classes.
    """
    space.require_names(palette.names, where=run.folder / PALETTE, todo=f"snakemake {run.folder / PALETTE}")
    return {
        **describe_use(run, space),
        "palette": palette.colours.tolist(),
        "tokenizer": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "latent_prior": run.experiment.latent_prior.architecture(),
    }


def build_prior(meta: dict[str, Any], weights: dict[str, Tensor] | None = None) -> LatentPrior:
    """The latent prior a model file describes, freshly initialised.

    Args:
        weights: pretrained tensors of the backbone.
    """
    described = dict(meta["latent_prior"])
    backbone = dict(described.pop("backbone"))
    return build.build_latent_prior(
        backbone.pop("name"),
        len(meta["classes"]),
        meta["vocab_size"],
        backbone_options=backbone.pop("options", None),  # files of version 0.1.0 lack them
        weights=weights,
        **backbone,
        **described,
    )


def build_posterior(meta: dict[str, Any]) -> Posterior:
    """X^-1 as a model file describes it, freshly initialised."""
    return build.build_posterior(len(meta["classes"]), colours=torch.tensor(meta["palette"]), **meta["posterior"])


def read_beside(locate: Callable[[str], Path]) -> DVAE:
    """The tokenizer that stands beside a model; see `gss.config.recipe.Recipe`."""
    return load_tokenizer(locate(TOKENIZER))


def build_segmenter(
    file: ModelFile, tokenizer: DVAE, *, protocol: Mapping[str, Any], where: str | Path, device: torch.device
) -> GSS:
    """The whole model of `gss_ff.pth` (X^-1 = nearest colour) or `gss_ft.pth` on a device, in eval mode.

    Args:
        tokenizer: on the CPU in float32; becomes part of the model.
        protocol: see `build_model`, and `tokenizer_precision`.

    Raises:
        ConfigError, CheckpointError: see `build_model`.
    """
    at_precision(tokenizer.keep("decoder").to(device), protocol.get("tokenizer_precision", "fp32"), device)
    return build_model(file, tokenizer, where=where, protocol=protocol).to(device)


def pack(file: ModelFile, tokenizer: DVAE, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes and tensors of the tokenizer, for an export as one folder, which gets `palette.csv`."""
    write_palette(folder / PALETTE, Palette(np.array(file.meta["palette"]), tuple(file.meta["classes"])))
    return {key: getattr(tokenizer, key) for key in SHAPE}, tokenizer.state_dict()


def unpack(sizes: dict[str, Any], tensors: dict[str, Tensor]) -> DVAE:
    """The tokenizer that `pack` took apart."""
    return build_tokenizer(sizes, tensors)


def build_model(
    file: ModelFile, tokenizer: DVAE, *, where: str | Path, protocol: Mapping[str, Any] = MappingProxyType({})
) -> GSS:
    """The whole model of `gss_ff.pth` (X^-1 = nearest colour) or `gss_ft.pth`, in eval mode.

    Args:
        protocol: `vote_temperature` of the nearest colour's votes, see `NearestPosterior`; `token_temperature`,
            `token_weight` and `pixel_weight`, see `GSS`. What it lacks is as published.

    Raises:
        ConfigError: see `GSS`.
        CheckpointError: the tokenizer is another one, this version cannot build what the file describes, or the tensors
            do not fit the description.
    """
    nearest = {"variant": "nearest", "temperature": protocol.get("vote_temperature")}
    with described(file, where):
        meta = file.meta if file.kind == "gss_ft" else {**file.meta, "posterior": nearest}
        if tokenizer.sha256 != meta["tokenizer"]:
            raise CheckpointError(
                f"made for the tokenizer {meta['tokenizer'][:12]}, not for {tokenizer.sha256[:12]}",
                where=where,
                todo="use the tokenizer.safetensors of the same experiment",
            )
        model = GSS(build_prior(meta), tokenizer, build_posterior(meta), **options(protocol, meta["palette"]))
    load_strictly(model.prior, file.tensors, "prior.", where=where)
    if file.kind == "gss_ft":
        load_strictly(model.posterior, file.tensors, "posterior.", where=where)
    return model.eval()


def options(protocol: Mapping[str, Any], palette: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The arguments of `GSS` beside its networks."""
    return {"colours": torch.tensor(palette), **{key: protocol[key] for key in BEYOND if key in protocol}}


def frozen_tokenizer(run: Run[GSSExperiment], half: Literal["encoder", "decoder"], device: torch.device) -> DVAE:
    """One half of the experiment's final tokenizer, see `at_precision`."""
    tokenizer = load_tokenizer(run.file(run.folder / TOKENIZER)).keep(half).to(device)
    return at_precision(tokenizer, run.experiment.tokenizer.precision, device)


def at_precision(tokenizer: DVAE, precision: str, device: torch.device) -> DVAE:
    """The tokenizer in the precision a configuration names where the device is faster with it, else in fp32.

    GPUs have `bf16` and `fp16`, some CPUs `bf16`; on others it would be emulated and take longer than fp32.
    """
    faster = {"cuda": ("bf16", "fp16"), "cpu": ("bf16",) if cpu_has_bf16() else ()}
    if precision in faster.get(device.type, ()):
        tokenizer.lower_precision({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    return tokenizer


def cpu_has_bf16() -> bool:
    """Whether this machine's CPU multiplies matrices of bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
