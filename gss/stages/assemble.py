"""From the metadata of a model file to modules: the only place that knows how they are described there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gss import __version__
from gss.errors import CheckpointError
from gss.modelfile import ModelFile
from gss.models import build
from gss.models.gss import GSS
from gss.models.latent_prior import LatentPrior
from gss.models.posterior import Posterior
from gss.stages.run import Run
from gss.tokenizer.dvae import DVAE
from gss.tokenizer.store import load_tokenizer


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


def build_model(file: ModelFile, tokenizer: DVAE, *, where: str | Path, vote_temperature: float | None = None) -> GSS:
    """The whole model of `gss_ff.pth` (X^-1 = nearest colour) or `gss_ft.pth`, in eval mode.

    Args:
        vote_temperature: of the nearest colour's votes, see `NearestPosterior`.

    Raises:
        CheckpointError: the tokenizer is another one, this version cannot build what the file describes, or the tensors
            do not fit the description.
    """
    nearest = {"variant": "nearest", "temperature": vote_temperature}
    with described(file, where):
        meta = file.meta if file.kind == "gss_ft" else {**file.meta, "posterior": nearest}
        if tokenizer.sha256 != meta["tokenizer"]:
            raise CheckpointError(
                f"made for the tokenizer {meta['tokenizer'][:12]}, not for {tokenizer.sha256[:12]}",
                where=where,
                todo="use the tokenizer.safetensors of the same experiment",
            )
        model = GSS(build_prior(meta), tokenizer, build_posterior(meta))
    load_strictly(model.prior, file.tensors, "prior.", where=where)
    if file.kind == "gss_ft":
        load_strictly(model.posterior, file.tensors, "posterior.", where=where)
    return model.eval()


@contextlib.contextmanager
def described(file: ModelFile, where: str | Path) -> Iterator[None]:
    """Turn what a file's description lacks, or says in a way that this version does not know, into one clear error."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"what the file says of its model {said}; it was written by gss {file.version or 'of another version'}, "
            f"this is gss {__version__}",
            where=where,
            todo="copy it or build it again" if file.version == __version__ else "use the version that wrote it",
        ) from error


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], prefix: str, *, where: str | Path) -> None:
    """Load the tensors under a prefix into a module; every one must be there with its shape.

    Raises:
        CheckpointError: what is missing, unexpected or of another shape.
    """
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the tensors do not fit: {error}", where=where) from error


def frozen_tokenizer(run: Run, half: Literal["encoder", "decoder"], device: torch.device) -> DVAE:
    """One half of the experiment's final tokenizer, see `at_precision`."""
    tokenizer = load_tokenizer(run.file(run.folder / "tokenizer.safetensors")).keep(half).to(device)
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
