"""Stage 5: train the network that predicts tokens from the photograph (GSS-FF)."""

from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gss.config import data_folder
from gss.data.classes import ClassSpace
from gss.errors import ConfigError
from gss.modelfile import save_model, tensors_sha256
from gss.models.exchange import read_backbone_weights
from gss.models.gss import GSS
from gss.models.latent_prior import LatentPrior
from gss.models.posterior import NearestPosterior
from gss.models.training import LatentPriorLearner
from gss.palette.palette import Palette, read_palette
from gss.stages.assemble import build_prior, frozen_tokenizer
from gss.stages.run import Run
from gss.stages.training import balance_inputs, class_weights, deliver, is_missing, train_part
from gss.tokenizer.dvae import DVAE
from gss.tracking.journal import Journal
from gss.train.distributed import World


def latent_prior(run: Run, world: World, until: int | None = None) -> None:
    """Train up to a milestone and write its model file.

    Args:
        until: a step of `latent_prior.milestones`; default: the last one, whose file is `gss_ff.pth`.
    """
    config = run.experiment.latent_prior
    steps = config.milestones[-1]
    until = until or steps
    if until not in config.milestones:
        raise ConfigError(f"step {until} is no milestone; they are {list(config.milestones)}")
    work = run.work("latent_prior")
    output = run.folder / ("gss_ff.pth" if until == steps else f"latent_prior/step_{until}.pth")
    before = [run.folder / f"latent_prior/step_{step}.pth" for step in config.milestones if step < until][-1:]
    finished = work / f"step_{until}.pth"
    weights = _pretrained(run) if world.is_main else None  # the others read them when they train
    files = ("data/manifest.json", "palette.csv", "tokenizer.safetensors")
    inputs = run.inputs(*(run.folder / file for file in files), world=world)
    counts, statistics = balance_inputs(run, config.training)
    inputs |= counts
    if weights:
        inputs["pretrained weights"] = tensors_sha256(weights)
    rule = None if until == steps else f"latent_prior_{until}"
    with run.stage("latent_prior", inputs, world=world, rule=rule, looked_into=[*statistics, *before]) as journal:
        if is_missing(finished, world):
            _train(run, world, journal, finished, until, weights, inputs)
        if world.is_main:
            deliver(finished, output)


def _train(
    run: Run,
    world: World,
    journal: Journal | None,
    finished: Path,
    until: int,
    weights: dict[str, Tensor] | None,
    inputs: dict[str, str],
) -> None:
    config = run.experiment.latent_prior
    colours = read_palette(run.folder / "palette.csv")
    tokenizer = frozen_tokenizer(run, "encoder", world.device)
    meta = describe(run, run.space, colours, tokenizer)
    torch.manual_seed(run.experiment.seed)
    prior = build_prior(meta, weights=weights if world.is_main else _pretrained(run))
    learner = LatentPriorLearner(
        prior,
        tokenizer,
        torch.from_numpy(colours.colours),
        class_weights=class_weights(run, config.training.class_balance),
    )

    @cache
    def decoder() -> DVAE:
        return frozen_tokenizer(run, "decoder", world.device)

    def segmenter(module: nn.Module) -> GSS:
        nearest = NearestPosterior(torch.from_numpy(colours.colours), run.experiment.evaluation.vote_temperature)
        return GSS(cast(LatentPrior, module), decoder(), nearest.to(world.device)).eval()

    exported, origin = train_part(
        run, "latent_prior", learner, config.milestones[-1], world, journal, segmenter=segmenter, until=until
    )
    if world.is_main:
        tensors = {f"prior.{name}": tensor for name, tensor in exported.state_dict().items()}
        provenance = {**run.provenance("latent_prior", inputs), **origin}
        save_model(finished, "gss_ff", tensors, {**meta, "step": until, "provenance": provenance})
    world.barrier()


def _pretrained(run: Run) -> dict[str, Tensor] | None:
    """The weights that the image encoder starts with; None: random ones."""
    backbone = run.experiment.latent_prior.backbone
    return read_backbone_weights(backbone.name, backbone.weights, data_folder()) if backbone.weights else None


def describe(run: Run, space: ClassSpace, palette: Palette, tokenizer: DVAE) -> dict[str, Any]:
    """What a model file says of classes, colours, tokenizer, architecture and use: plain values only.

    `palette` are the colours of the maskige, `colours` those that show predictions: the data set's, or None.

    Raises:
        DataError: the palette was made for other classes.
    """
    space.require_names(palette.names, where=run.folder / "palette.csv", todo=f"snakemake {run.folder / 'palette.csv'}")
    config = run.experiment.latent_prior
    backbone = config.backbone
    return {
        "classes": list(palette.names),
        "colours": space.colours and [list(colour) for colour in space.colours],
        "palette": palette.colours.tolist(),
        "exif_orientation": run.experiment.data.exif_orientation or "apply",
        "training_crop": list(run.experiment.augment.crop),
        "protocol": protocol(run),
        "tokenizer": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "latent_prior": {
            "backbone": {
                "name": backbone.name,
                "options": backbone.options,
                "drop_path": backbone.drop_path,
                "output_stride": backbone.output_stride,
                "frozen_levels": backbone.frozen_levels,
                "norm_eval": backbone.norm_eval,
            },
            "kind": config.head,
            "channels": config.channels,
            "seg_channels": config.seg_channels,
            "cls_channels": config.cls_channels,
            "swin_depth": config.swin_depth,
            "num_heads": config.num_heads,
            "token_stride": config.token_stride,
            "dropout": config.dropout,
        },
    }


def protocol(run: Run) -> dict[str, Any]:
    """How an evaluation of this configuration predicts, as a model file says it: what its figures will be of."""
    keys = {"mode", "crop", "stride", "scale", "flip", "vote_temperature"}
    return {
        **run.experiment.evaluation.model_dump(mode="json", include=keys),
        "tokenizer_precision": run.experiment.tokenizer.precision,
    }
