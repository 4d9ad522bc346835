"""What would stop a later stage and can be known now: files, sizes, and networks built without their numbers."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from gss._compat import postpone_compiler
from gss.config import Experiment, Stage, data_folder, named_files
from gss.config.schema import Tokenizer
from gss.data.classes import ClassSpace
from gss.errors import CheckpointError, ConfigError, DataError
from gss.evaluate.inference import Inference
from gss.models.exchange import load_published, read_backbone_weights, read_published, timm_tag
from gss.models.latent_prior import LatentPrior
from gss.stages import latent_prior, posterior
from gss.stages.assemble import build_posterior, build_prior
from gss.stages.exchange import Kind, build_for
from gss.stages.palette import start_palette
from gss.stages.run import Run
from gss.stages.training import loop_settings
from gss.tokenizer.dvae import DVAE
from gss.train.optim import lr_factors

_WINDOW = 56  # side of a maskige that is one window of X^-1 and one of the latent prior


def rehearse(run: Run, space: ClassSpace) -> None:
    """Refuse a configuration that a stage after the check would stop at, and warn of keys without effect and of what
    accumulation changes; takes seconds, trains and writes nothing.

    Args:
        space: the classes of the data set.

    Raises:
        ConfigError, CheckpointError: what cannot be, with the key that says it.
    """
    postpone_compiler()
    for cause, keys in run.experiment.idle.items():
        print(f"warning: with {cause} there is no effect of {', '.join(keys)}", flush=True)
    for what, key, path, todo in named_files(run.experiment):
        if not path.is_file():
            raise ConfigError(f"{what} not found: {path.absolute()}", where=key, todo=todo)
    lender = _lender(run, space)
    for stage, key, size, parts in _batches(run.experiment):
        if size % parts:
            raise ConfigError(
                f"{size} images per update cannot be divided into {parts} parts",
                where=f"{key}.batch_size; accumulation, and the processes of run.resources.{stage}",
                todo=f"choose a multiple of {parts}, for example {max(round(size / parts), 1) * parts}",
            )
        if parts > _processes(run.experiment, stage):
            print(
                f"warning: {key}.accumulation: BatchNorm sees the images of one micro-batch at a time, so the result "
                "is not that of the whole batch",
                flush=True,
            )
    _build(run, space, lender or run.experiment)


def _lender(run: Run, space: ClassSpace) -> Experiment | None:
    """The experiment that `posterior.from` names."""
    name = run.experiment.posterior.from_
    if name is None:
        return None
    where = "posterior.from"
    if name == (run.workflow or run.folder).name:
        raise ConfigError(f"{name!r} names itself", where=where, todo="leave `from` out")
    try:
        other = Run.open(name, results=run.folder.parent)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.what}", where=error.where, todo=error.todo) from error
    if other.experiment.posterior.from_:
        known = other.experiment.posterior.from_
        raise ConfigError(f"{name!r} has its X^-1 from {known!r} itself", where=where, todo=f"name {known!r}")
    with contextlib.suppress(DataError, ConfigError):  # its data may be elsewhere: its own check says so
        theirs = other.declared_space().names
        if theirs != space.names:
            raise CheckpointError(
                f"{name!r} has other classes: {_differ(theirs, space.names)}",
                where=where,
                todo="name an experiment with the same classes in the same order",
            )
    return other.experiment


def _differ(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    if len(theirs) != len(ours):
        return f"{len(theirs)}, not {len(ours)}"
    return next(f"class {i} is {a!r}, not {b!r}" for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)


def _batches(experiment: Experiment) -> Iterator[tuple[Stage, str, int, int]]:
    """Of what is trained here: stage, section, images per update, and the parts they are divided into."""
    tokenizer, refined = experiment.tokenizer, experiment.reconstruction
    if tokenizer.source == "train" and not experiment.posterior.from_:
        retrained = refined.max_rounds and refined.retrain_steps and tokenizer.train.palettes == "fixed"
        stages: tuple[Stage, ...] = ("tokenizer", "reconstruct") if retrained else ("tokenizer",)
        for stage in stages:
            yield stage, "tokenizer.train", tokenizer.train.batch_size, _processes(experiment, stage)
    if not experiment.latent_prior.checkpoint:
        training = experiment.latent_prior.training
        parts = training.accumulation * _processes(experiment, "latent_prior")
        yield "latent_prior", "latent_prior.training", training.batch_size, parts
    part = experiment.posterior
    if not (part.checkpoint or part.from_ or part.variant == "nearest"):
        parts = part.training.accumulation * _processes(experiment, "posterior")
        yield "posterior", "posterior.training", part.training.batch_size, parts


def _processes(experiment: Experiment, stage: Stage) -> int:
    """As far as they are named: how many GPUs there are is known where the stage runs."""
    asked = experiment.resources(stage)
    return experiment.made_for(stage) or asked.nodes * (asked.processes or 1)


def _build(run: Run, space: ClassSpace, lender: Experiment) -> None:
    """Build the networks on torch's `meta` device and send a batch through them, as training and evaluation do."""
    experiment, config = run.experiment, run.experiment.latent_prior
    meta_device = torch.device("meta")
    named = experiment.palette
    if named.strategy == "maximal":  # which takes long; any colours will do
        named = named.model_copy(update={"strategy": "grid"})
    palette = start_palette(named, space)
    sizes = lender.tokenizer if lender.tokenizer.source == "train" else Tokenizer()  # those of OpenAI's files
    with meta_device:
        dvae = DVAE(sizes.vocab_size, sizes.n_hid, sizes.n_init, sizes.blocks_per_group)
    described = latent_prior.describe(run, space, palette, dvae)
    backbone, tensors = config.backbone, None
    with _names("latent_prior.backbone"):
        if backbone.weights and not config.checkpoint:
            if backbone.weights.startswith("timm:"):  # downloaded when it is needed
                timm_tag(backbone.name, backbone.weights)
            else:
                read = read_backbone_weights(backbone.name, backbone.weights, data_folder())
                tensors = {name: value.to(meta_device) for name, value in read.items()}
        with meta_device:
            prior = build_prior(described, tensors)
    with _names("latent_prior.training"):
        lr_factors(prior, loop_settings(run, config.training, config.milestones[-1]))
    with _names("posterior"), meta_device:
        build_posterior({**described, "posterior": posterior.describe(run)})(torch.zeros(2, 3, _WINDOW, _WINDOW))
    kinds: dict[str, Kind] = {"latent_prior": "gss_ff", "posterior": "posterior"}
    for part, kind in kinds.items():
        file = getattr(experiment, part).checkpoint
        if file:
            state = read_published(data_folder() / file)
            with _names(f"{part}.checkpoint"), meta_device:
                _, imported, x_inverse = build_for(run, described, kind, state)
            load_published(state, imported, x_inverse, where=data_folder() / file)
    with _names("augment.crop, and the images per process of latent_prior.training"):
        batch = next((size // parts for stage, _, size, parts in _batches(experiment) if stage == "latent_prior"), 2)
        _through(prior, torch.empty(batch, 3, *experiment.augment.crop, device=meta_device))
    with _names("evaluation"), torch.no_grad():
        protocol = experiment.evaluation
        Inference(protocol.mode, protocol.crop, protocol.stride, protocol.scale, protocol.flip)
        width, height = protocol.scale or experiment.augment.base_scale  # sizes of images are not known yet
        size = protocol.crop if protocol.mode == "slide" else (height, width)
        _through(prior.eval(), torch.empty(1, 3, *size, device=meta_device))


def _through(prior: LatentPrior, image: Tensor) -> None:
    maps = prior.backbone(image)
    fused = prior.head.fuse(maps)
    prior.head.pixel_logits(maps, fused)
    prior.head.hidden(fused[:, :, : _WINDOW // 8, : _WINDOW // 8])


@contextlib.contextmanager
def _names(where: str) -> Iterator[None]:
    """Errors name the keys that they come from; what torch and timm raise becomes one of them."""
    try:
        yield
    except (ConfigError, CheckpointError) as error:
        raise type(error)(error.what, where=error.where or where, todo=error.todo) from error
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"such a network cannot be built or used: {reason}",
            where=where,
            todo="compare these keys with docs/reference/config.md",
        ) from error
