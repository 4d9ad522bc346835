"""Published checkpoints in and out: `gss import` and `gss export`."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from gss.checkpoints import read_checkpoint, read_checkpoint_meta
from gss.config import data_folder
from gss.data.classes import ClassSpace
from gss.data.manifest import read_manifest
from gss.errors import CheckpointError, ConfigError
from gss.files import sha256_file
from gss.layout import MANIFEST
from gss.modelfile import load_model, tensors_sha256
from gss.recipes.gss.assemble import build_model, build_posterior, build_prior, describe
from gss.recipes.gss.exchange import PIXEL_BRANCH, POSTERIOR, load_published, to_published
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.layout import PALETTE, TOKENIZER
from gss.recipes.gss.palette.palette import read_palette
from gss.recipes.gss.posterior import Posterior
from gss.recipes.gss.tokenizer.store import load_tokenizer
from gss.stages.exchange import Imported, refuse_other_classes, require_kind, write_imported, write_published
from gss.stages.run import Run

Kind = Literal["gss_ff", "posterior", "gss_ft"]
KINDS = get_args(Kind)


def import_checkpoints(run: Run[GSSExperiment], path: Path | None = None, kind: Kind | None = None) -> None:
    """Make model files from published checkpoints, with a table of what became of every key of them.

    Args:
        path: the checkpoint; None: those that `latent_prior.checkpoint` (for `gss_ff.pth`) and `posterior.checkpoint`
            (for `posterior.pth`) name.
        kind: what to make of it; None: of a checkpoint with X^-1 the whole model `gss_ft.pth`, else `gss_ff.pth`.

    Raises:
        ConfigError: no checkpoint is named, or no such kind.
        CheckpointError: a checkpoint cannot be read, is of another architecture, or was made with another tokenizer.
            Nothing was written then.
    """
    require_kind(run, kind, KINDS)
    wanted = [(path, kind)] if path else _named(run, kind)
    if not wanted:
        raise ConfigError(
            "no checkpoint to import is named",
            where=f"experiment {run.name}",
            todo="name a file, or set latent_prior.checkpoint (gss_ff) or posterior.checkpoint (posterior)",
        )
    for imported in [_read(run, *each) for each in wanted]:
        write_imported(run, imported, reads="posterior" if imported.kind == "posterior" else "latent_prior")


def _named(run: Run[GSSExperiment], kind: Kind | None) -> list[tuple[Path, Kind | None]]:
    """The checkpoints of the configuration, and what is made of them."""
    config = run.experiment
    named: dict[Kind, str | None] = {"gss_ff": config.latent_prior.checkpoint, "posterior": config.posterior.checkpoint}
    return [(data_folder() / file, made) for made, file in named.items() if file and kind in (None, made)]


def _read(run: Run[GSSExperiment], path: Path, kind: Kind | None) -> Imported:
    state = read_checkpoint(path)
    parts = _parts(state)
    made: Kind = kind or ("gss_ft" if parts & {*POSTERIOR} else "gss_ff")
    palette_path, tokenizer_path = (run.file(run.folder / name) for name in (PALETTE, TOKENIZER))
    tokenizer = load_tokenizer(tokenizer_path)
    palette, manifest = read_palette(palette_path), run.file(run.folder / MANIFEST)
    space = read_manifest(manifest).space if manifest.is_file() else ClassSpace(palette.names)
    described = describe(run, space, palette, tokenizer)
    _refuse_other_meanings(read_checkpoint_meta(path), described, path)
    meta, prior, x_inverse = build_for(run, described, made, state)
    contained = copy.deepcopy(tokenizer) if "d_vae" in parts else None
    report = load_published(state, prior, x_inverse, contained, where=path)
    if contained is not None and tensors_sha256(contained.state_dict()) != tokenizer.sha256:
        raise CheckpointError(
            f"trained with the tokenizer {tensors_sha256(contained.state_dict())[:12]}, which it contains, not with "
            f"{tokenizer.sha256[:12]} of {tokenizer_path}",
            where=path,
            todo="import OpenAI's dVAE: tokenizer.source=openai with the files the checkpoint was trained with",
        )
    inputs = {**run.inputs(palette_path, tokenizer_path), "checkpoint": sha256_file(path)}
    meta["provenance"] = {**run.provenance("import", inputs), "checkpoint": path.name}
    tensors = {
        f"{part}.{name}": value
        for part, module in (("prior", prior), ("posterior", x_inverse))
        if module is not None
        for name, value in module.state_dict().items()
    }
    return Imported(path, made, tensors, meta, inputs, report)


def build_for(
    run: Run[GSSExperiment], described: dict[str, Any], made: Kind, state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], LatentPrior | None, Posterior | None]:
    """The modules that a published state dict is loaded into, and what their model file says of them.

    Args:
        described: see `gss.recipes.gss.assemble.describe`.

    Raises:
        ConfigError: X^-1 is wanted of a variant that was not published.
    """
    meta = dict(described)
    prior = x_inverse = None
    described = meta.pop("latent_prior")
    if made != "posterior":
        is_tokens = not _parts(state) & {*PIXEL_BRANCH}
        meta["latent_prior"] = {**described, "kind": "tokens"} if is_tokens else described
        prior = build_prior(meta)
    if made != "gss_ff":
        meta["posterior"] = run.experiment.posterior.architecture()
        if meta["posterior"]["variant"] != "window":
            raise ConfigError(f"the published X^-1 is posterior.variant=window, not {meta['posterior']['variant']}")
        x_inverse = build_posterior(meta)
    return meta, prior, x_inverse


def _parts(state: Mapping[str, Tensor]) -> set[str]:
    """The published names of the heads' parts that a state dict holds."""
    return {key.removeprefix("module.").removeprefix("decode_head.").split(".")[0] for key in state}


def _refuse_other_meanings(said: Mapping[str, Any], meta: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError where a checkpoint says that its ids, colours or tokens are not the experiment's."""
    own = dict(said.get("gss") or {})  # of `gss export`
    for key in ("palette", "tokenizer"):
        if own.get(key, meta[key]) != meta[key]:
            todo = f"take palette.csv and tokenizer.safetensors of the experiment {own.get('experiment')!r}"
            raise CheckpointError(f"made with another {key} than the experiment's", where=path, todo=todo)
    refuse_other_classes(said, meta["classes"], path)


def export(
    run: Run[GSSExperiment], name: str, output: Path, *, with_pixel_branch: bool = True, with_tokenizer: bool = False
) -> None:
    """Write a model file as a checkpoint of the published code.

    Args:
        name: `gss_ff` or `gss_ft`.
        output: the checkpoint to write.
        with_pixel_branch: keep the branch that only training uses, where the model has one.
        with_tokenizer: hold the dVAE too, as the published checkpoints do.

    Raises:
        CheckpointError: the model file is missing or foreign, or its X^-1 is none of the published ones.
    """
    path = run.file(run.folder / f"{name}.pth")
    file = load_model(path, name)
    model = build_model(file, load_tokenizer(run.file(run.folder / TOKENIZER)), where=path)
    state = to_published(model.prior, model.posterior, model.tokenizer if with_tokenizer else None)
    kept = OrderedDict(
        (key, value.contiguous())
        for key, value in state.items()
        if with_pixel_branch or not key.startswith(tuple(f"decode_head.{part}." for part in PIXEL_BRANCH))
    )
    own = {key: file.meta[key] for key in ("palette", "tokenizer")}
    colours = file.meta["palette"][:-1]  # of the classes; mmseg draws ignored pixels like others
    write_published(run, path, file, kept, output, colours=colours, own=own)
