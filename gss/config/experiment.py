"""An experiment: its sections together, and what of them influences which stage."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import model_validator

from gss.config.schema import (
    Augment,
    Data,
    Evaluation,
    LatentPrior,
    Palette,
    Posterior,
    Published,
    Reconstruction,
    Resources,
    Run,
    Section,
    Seed,
    Tokenizer,
)
from gss.config.stages import READS, READS_FOR_REFERENCE, STAGE_VERSIONS, STAGES, Stage
from gss.errors import ConfigError
from gss.files import sha256_json


class Experiment(Section):
    data: Data
    """The data set."""
    augment: Augment
    """Random changes of the training images."""
    palette: Palette = Palette()
    """The colours."""
    tokenizer: Tokenizer = Tokenizer()
    """The discrete VAE."""
    reconstruction: Reconstruction = Reconstruction()
    """The check of palette and tokenizer, and the refinement of the palette."""
    latent_prior: LatentPrior
    """Image -> tokens, GSS-FF."""
    posterior: Posterior = Posterior()
    """Tokens -> classes, GSS-FT."""
    evaluation: Evaluation = Evaluation()
    """The protocol of the final figures."""
    seed: Seed = 0
    """Seed of sampling, augmentation and initialisation."""
    numerics: Literal["default", "reference"] = "default"
    """`reference` keeps what the published code does where this project does better, see docs/deviations.md."""
    reference: dict[str, Any] = {}
    """Sections whose values replace those above with `numerics: reference`."""
    published: Published = Published()
    """Scores to expect, shown beside those achieved. Changes no result."""
    run: Run = Run()
    """How to run. Nothing here changes a result but the number of processes: each draws its own dropout, and BatchNorm
    sees what is computed at once: on CPUs the images of its own process, on fewer GPUs than `run.resources` names those
    of a micro-batch."""

    @model_validator(mode="after")
    def _start_exists(self) -> Self:
        start = self.posterior.start_step
        if start is not None and start not in self.latent_prior.milestones:
            raise ValueError(
                f"posterior.start_step {start} is no milestone; "
                f"latent_prior.milestones are {list(self.latent_prior.milestones)}"
            )
        return self

    @model_validator(mode="after")
    def _imported_or_trained(self) -> Self:
        if self.latent_prior.checkpoint and self.posterior.start_step:
            raise ValueError("`posterior.start_step` names a step of a training, but `latent_prior.checkpoint` imports")
        return self

    @model_validator(mode="after")
    def _one_palette(self) -> Self:
        if self.posterior.from_ and self.palette.file:
            raise ValueError("`posterior.from` brings its palette: `palette.file` would have no effect")
        return self

    @model_validator(mode="after")
    def _reference_is_fp32(self) -> Self:
        trainings = self.latent_prior.training, self.posterior.training
        if self.numerics == "reference" and any(training.precision == "bf16" for training in trainings):
            raise ValueError("`numerics: reference` trains in fp32; remove `training.precision: bf16`")
        return self

    @model_validator(mode="after")
    def _something_is_evaluated(self) -> Self:
        if not set(self.evaluation.splits) & set(self.data.splits):
            raise ValueError(
                f"evaluation.splits are {list(self.evaluation.splits)}, data.splits {list(self.data.splits)}: "
                "nothing would be evaluated"
            )
        return self

    @model_validator(mode="after")
    def _validation_has_images(self) -> Self:
        for part in _TRAINED:
            if getattr(self, part).training.validate_every and "val" not in self.data.splits:
                raise ValueError(f"`{part}.training.validate_every` measures on `val`, which data.splits lacks")
        return self

    @property
    def idle(self) -> dict[str, list[str]]:
        """What takes the effect from keys that are set -> these keys; a change of them runs nothing again."""
        given = self._set()
        found = {cause: [key for key in keys if _drop(given, key)] for cause, is_so, keys in _IDLE if is_so(self)}
        return {cause: keys for cause, keys in found.items() if keys}

    def _set(self) -> dict[str, Any]:
        """The values that are no defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def milestones(self) -> list[int]:
        return list(self.latent_prior.milestones)

    @property
    def evaluated(self) -> list[Literal["val", "test"]]:
        """Those of `evaluation.splits` that the data set has."""
        return [split for split in self.evaluation.splits if split in self.data.splits]

    @property
    def last_split(self) -> Literal["val", "test"]:
        """What is measured where nobody names a split: `test`, or `val` where there is no other."""
        return "test" if "test" in self.data.splits else "val"

    def require_split(self, split: str, name: str) -> None:
        """Raise ConfigError unless the data set has this split.

        Args:
            name: of the experiment.
        """
        if split not in self.data.splits:
            raise ConfigError(
                f"the data set of {name!r} has no split {split!r}; it has {', '.join(self.data.splits)}",
                where=f"data.splits of {name}",
                todo="name its folders there, or evaluate another split",
            )

    def resources(self, stage: Stage) -> Resources:
        return self.run.resources.get(stage, Resources())

    def divided(self, stage: Stage) -> int | None:
        """What the processes of a stage divide evenly among them; None: any number of processes will do."""
        if stage in ("tokenizer", "reconstruct"):
            return self.tokenizer.train.batch_size if self.tokenizer.source == "train" else None
        if stage not in ("latent_prior", "posterior"):
            return None
        training = getattr(self, stage).training
        # Where the number of GPUs is named, `accumulation` follows from how many there are.
        return training.batch_size if self.made_for(stage) else training.batch_size // training.accumulation

    def made_for(self, stage: Stage) -> int | None:
        """The number of GPUs that a stage is made for, over all nodes; None: any."""
        asked = self.resources(stage)
        return None if asked.gpus in ("auto", 0) else asked.nodes * (asked.processes or int(asked.gpus))

    def slice(self, stage: Stage) -> dict[str, Any]:
        """What influences a stage beyond its input files: the configured values without defaults.

        The rules take it as their `params`, so that a change re-runs just what depends on it.
        """
        dumped = self._set()
        for keys in self.idle.values():
            for key in keys:
                _drop(dumped, key)
        for section, key in _WITHOUT_EFFECT:
            if f"{section}.{key}" not in READS[stage]:
                dumped.get(section, {}).pop(key, None)
        for part in _TRAINED:
            if getattr(self, part).training.keep == "last" and dumped.get(part, {}).get("training"):
                for key in _MEASURED:
                    dumped[part]["training"].pop(key, None)
                if not dumped[part]["training"]:
                    del dumped[part]["training"]
        dumped["latent_prior"]["milestones"] = self.milestones[-1:]  # the earlier ones only name files
        content: dict[str, Any] = {"version": STAGE_VERSIONS[stage]}
        if stage in ("tokenizer", "reconstruct"):  # they work in fp32
            dumped.get("tokenizer", {}).pop("precision", None)
        reads = READS[stage] + (READS_FOR_REFERENCE.get(stage, ()) if self.numerics == "reference" else ())
        if stage in _TRAINED and getattr(self, stage).training.keep == "best":  # which one is depends on the protocol
            reads += tuple(f"evaluation.{key}" for key in Evaluation.model_fields if key not in ("splits", "pictures"))
        for path in reads:
            value: Any = dumped
            for key in path.split("."):
                value = value.get(key, {})
            content[path] = value
        return {key: value for key, value in content.items() if value != {}}

    def settings(self) -> dict[str, Any]:
        """Everything that can change a result, with the values of defaults: what runs are compared by."""
        dumped = self.model_dump(mode="json", by_alias=True)
        for section, key in _WITHOUT_EFFECT:
            dumped[section].pop(key)
        for part in _TRAINED:
            if dumped[part]["training"]["keep"] == "last":
                for key in _MEASURED:
                    dumped[part]["training"].pop(key)
        sections = {path.split(".")[0] for paths in READS.values() for path in paths}
        return {key: value for key, value in dumped.items() if key in sections}

    @property
    def sha256(self) -> str:
        """Hash of everything that can change a result."""
        return sha256_json({stage: self.slice(stage) for stage in STAGES})


_TRAINED: tuple[Literal["latent_prior"], Literal["posterior"]] = ("latent_prior", "posterior")
_MEASURED = ("validate_every", "validate_images")  # of a training: they decide about its result with `keep: best` alone
_WITHOUT_EFFECT = (("data", "obtain"), ("data", "archives"), ("posterior", "from"), ("evaluation", "splits"))
_TOKENIZER = tuple(f"tokenizer.{key}" for key in ("vocab_size", "n_hid", "n_init", "blocks_per_group", "train"))
_OPENAI = tuple(f"tokenizer.{key}" for key in ("encoder", "decoder", "encoder_sha256", "decoder_sha256"))
_REFINEMENT = ("reconstruction.min_iou", "reconstruction.retrain_steps")
_SIZES = ("posterior.depth", "posterior.num_heads")
_IDLE: tuple[tuple[str, Callable[[Experiment], bool], tuple[str, ...]], ...] = (
    ("a palette that is given", lambda e: e.palette.strategy not in ("maximal", "grid"), ("palette.seed",)),
    ("`tokenizer.source: train`", lambda e: e.tokenizer.source == "train", _OPENAI),
    ("`tokenizer.source: openai`", lambda e: e.tokenizer.source == "openai", (*_TOKENIZER, _REFINEMENT[1])),
    ("`tokenizer.train.palettes: random`", lambda e: e.tokenizer.train.palettes == "random", _REFINEMENT[1:]),
    ("`reconstruction.max_rounds: 0`", lambda e: e.reconstruction.max_rounds == 0, _REFINEMENT),
    (
        "`latent_prior.checkpoint`",
        lambda e: e.latent_prior.checkpoint is not None,
        ("latent_prior.training", "latent_prior.backbone.weights"),
    ),
    ("`posterior.checkpoint`", lambda e: e.posterior.checkpoint is not None, ("posterior.steps", "posterior.training")),
    ("`posterior.variant: conv`", lambda e: e.posterior.variant == "conv", _SIZES),
    (
        "`posterior.variant: nearest`",
        lambda e: e.posterior.variant == "nearest",
        ("posterior.channels", *_SIZES, "posterior.steps", "posterior.training"),
    ),
    (
        "`posterior.from`",
        lambda e: e.posterior.from_ is not None,
        (
            "palette",
            "tokenizer.source",
            *_TOKENIZER,
            *_OPENAI,
            *_REFINEMENT,
            "reconstruction.max_rounds",
            "posterior.steps",
            "posterior.training",
        ),
    ),
    ("`evaluation.mode: whole`", lambda e: e.evaluation.mode == "whole", ("evaluation.crop", "evaluation.stride")),
)


def _drop(content: dict[str, Any], key: str) -> bool:
    """Take a dotted key out; whether it was there."""
    *sections, last = key.split(".")
    for section in sections:
        content = content.get(section, {})
    return content.pop(last, None) is not None
