"""The sections of an experiment with recipe `gss`, and what of them influences which stage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gss.config.experiment import Experiment, Job, NamedFile
from gss.config.load import PUT_IT_THERE, data_folder, start_file, weights_download, weights_file
from gss.config.names import Place, RunName
from gss.config.schema import (
    Backbone,
    Evaluation,
    Figures,
    Fraction,
    Positive,
    Published,
    Rate,
    Section,
    Seed,
    Training,
)

Temperature = Annotated[float, Field(ge=1e-6)]  # divided by less, scores might become infinite


class Palette(Section):
    strategy: Literal["maximal", "grid", "dataset", "published", "file"] = "maximal"
    """Where the colours come from: optimised distances, the published random grid, the data set's, a published list,
    a file."""
    published: Literal["ade20k", "cityscapes", "mseg"] | None = None
    """The published list, with `strategy: published`."""
    file: Place | None = None
    """A CSV like `palette.csv` of the results, absolute or relative to the project folder; means `strategy: file`."""
    seed: Seed = 0
    """Seed of `maximal` and `grid`."""

    @model_validator(mode="before")
    @classmethod
    def _file_is_a_strategy(cls, content: Any) -> Any:
        named = isinstance(content, dict) and content.get("file") is not None
        return {"strategy": "file", **content} if named else content

    @model_validator(mode="after")
    def _source_is_named(self) -> Self:
        for name, value in (("published", self.published), ("file", self.file)):
            if (self.strategy == name) != (value is not None):
                raise ValueError(f"`{name}` names the list exactly when strategy is `{name}`")
        return self


class TokenizerTraining(Section):
    steps: Positive = 2000
    """Updates."""
    batch_size: Positive = 32
    """Crops per update, over all processes."""
    crop: Annotated[int, Field(gt=0, multiple_of=8)] = 64
    """Side of the square maskige crops, pixels; a multiple of 8."""
    lr: Rate = 3e-3
    """Peak learning rate."""
    palettes: Literal["fixed", "random"] = "fixed"
    """Learn the experiment's palette, or freshly drawn colours in every crop, so that any palette can follow."""

    accumulation: ClassVar[int] = 1


class Tokenizer(Section):
    source: Literal["train", "openai"] = "train"
    """Train a dVAE on the maskiges of the training labels, or import DALL-E's."""
    vocab_size: Positive = 8192
    """Number of tokens V."""
    n_hid: Annotated[int, Field(gt=0, multiple_of=4)] = 256
    """Width of the first encoder group, a multiple of 4."""
    n_init: Positive = 128
    """Width of a token's embedding in the decoder."""
    blocks_per_group: Positive = 2
    """Residual blocks in each of the four groups."""
    encoder: Place | None = None
    """`openai`: path or URL of encoder.pkl."""
    decoder: Place | None = None
    """`openai`: path or URL of decoder.pkl."""
    encoder_sha256: str | None = None
    """`openai`: expected SHA-256 of encoder.pkl; required for a URL."""
    decoder_sha256: str | None = None
    """`openai`: expected SHA-256 of decoder.pkl; required for a URL."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of its convolutions while the networks around it are trained or used. CPUs without instructions for
    bf16 use fp32, and no CPU uses fp16."""
    train: TokenizerTraining = TokenizerTraining()
    """`train`: how."""

    @model_validator(mode="after")
    def _files_are_named(self) -> Self:
        if self.source == "openai" and not (self.encoder and self.decoder):
            raise ValueError("source `openai` needs `encoder` and `decoder`: paths or URLs of the two pickles")
        for file, sha256 in ((self.encoder, self.encoder_sha256), (self.decoder, self.decoder_sha256)):
            if "://" in (file or "") and not (sha256 and str(file).startswith(("http://", "https://"))):
                raise ValueError(f"{file}: only http(s) URLs are read, and need `encoder_sha256` or `decoder_sha256`")
        return self


class Reconstruction(Section):
    min_iou: Fraction = 0.9
    """Classes that reconstruct worse than this get new colours."""
    max_rounds: Annotated[int, Field(ge=0)] = 3
    """Bound on refinement rounds; 0 keeps the palette."""
    retrain_steps: Annotated[int, Field(ge=0)] = 300
    """A tokenizer trained here learns the new colours for this many updates per round."""
    refine_images: Positive = 64
    """Training labels the refinement looks at, evenly spaced."""


class LatentPrior(Section):
    backbone: Backbone
    """The image encoder."""
    checkpoint: Place | None = None
    """A published (mmseg) GSS-FF checkpoint to import instead of training, found like `data.root`."""
    start_from: Place | None = None
    """A model to go on from, for other classes, data or schedules: a file as `results/other/gss_ff.pth`, or a folder of
    `gss export`; relative to the project. Tensors of equal names and shapes are taken, of the pixel branch the rows
    of classes with equal names, the token classifier where the tokenizer is the same."""
    milestones: tuple[Positive, ...] = (160000,)
    """Steps at which a model file is written; the last one is the length of the training."""
    head: Literal["ff", "single_fusion"] = "ff"
    """Two fusions (GSS-FF) or one shared by tokens and pixels (MSeg configurations)."""
    channels: Positive = 384
    """Width of each level before fusion."""
    seg_channels: Positive = 512
    """Width of the token branch, a multiple of `num_heads`."""
    cls_channels: Positive = 2048
    """Width before the token classifier."""
    swin_depth: Positive = 2
    """Window-attention blocks."""
    num_heads: Positive = 16
    """Attention heads."""
    token_stride: Literal[4, 8] = 4
    """Pixels per token in height and width; 8 has a quarter of the tokens and of their cost, and coarser borders."""
    dropout: Fraction = 0.1
    """Channel dropout before the token classifier."""
    training: Training = Training()
    """Optimisation."""

    def architecture(self) -> dict[str, Any]:
        """The arguments of the network's builder, as a model file says them."""
        training: Any = dict.fromkeys(("checkpoint", "start_from", "milestones", "head", "training"), True)
        beside = {"backbone": {"weights"}, **training}
        return {**self.model_dump(mode="json", exclude=beside), "kind": self.head}

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("`milestones` must be one or more ascending steps, e.g. [32000, 160000]")
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.seg_channels % self.num_heads:
            raise ValueError(f"`seg_channels` {self.seg_channels} is no multiple of `num_heads` {self.num_heads}")
        return self


class Posterior(Section):
    variant: Literal["window", "conv", "nearest"] = "window"
    """X^-1: window attention (FT-W), three 3x3 convolutions (FT), or the nearest colour (nothing trained)."""
    experiment: RunName | None = None
    """Take X^-1, palette and tokenizer of this experiment instead of training them."""
    checkpoint: Place | None = None
    """A published (mmseg) GSS-FT-W checkpoint to take X^-1 from instead of training it, found like `data.root`."""
    start_from: Place | None = None
    """A model whose X^-1 is gone on from, see `latent_prior.start_from`."""
    start_step: Positive | None = None
    """Train behind this milestone of the latent prior; default: the last one."""
    steps: Positive = 40000
    """Updates."""
    channels: Positive = 128
    """Width; with window attention a multiple of `num_heads`."""
    depth: Positive = 2
    """Window-attention blocks."""
    num_heads: Positive = 4
    """Attention heads."""
    training: Training = Training()
    """Optimisation."""

    def architecture(self) -> dict[str, Any]:
        """The arguments of X^-1's builder, as a model file says them."""
        sizes = {"window": {"channels", "depth", "num_heads"}, "conv": {"channels"}, "nearest": set()}
        return self.model_dump(mode="json", include={"variant", *sizes[self.variant]})

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, values: Any) -> Any:
        """Results of earlier versions say `from`."""
        if isinstance(values, dict) and "from" in values:
            values = {"experiment" if key == "from" else key: value for key, value in values.items()}
        return values

    @model_validator(mode="after")
    def _no_encoder_is_trained(self) -> Self:
        for key, none in (("backbone_lr_factor", 1), ("layer_decay", None)):
            if getattr(self.training, key) != none:
                raise ValueError(f"`training.{key}` would have no effect: the encoder before X^-1 is frozen")
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.variant == "window" and self.channels % self.num_heads:
            raise ValueError(f"`channels` {self.channels} is no multiple of `num_heads` {self.num_heads}")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.experiment and self.checkpoint:
            raise ValueError("X^-1 is taken `from` an experiment or of a `checkpoint`, not both")
        return self


class GSSEvaluation(Evaluation):
    vote_temperature: Annotated[float, Field(gt=0)] | None = None
    """GSS-FF: votes exp(-d^2 / T) of a decoded pixel at RGB distance d; none: one vote for the nearest colour."""
    token_temperature: Temperature | None = None
    """Decode the mixture of all tokens, by their probabilities softmax(scores / T); none: the most probable token."""
    token_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weigh the logarithms of the classes' shares in the tokens in, w against 1 for the log-probabilities of X^-1;
    0: X^-1 alone."""
    pixel_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weigh the log-probabilities of the latent prior's pixel branch in, w against 1 for those of X^-1; 0: X^-1
    alone."""


BEYOND = ("token_temperature", "token_weight", "pixel_weight")
"""Keys of `evaluation` that a protocol names only where they are set: earlier versions do not know them."""


class GSSPublished(Published):
    gss_ff: Figures = {}
    """Figures of GSS-FF."""
    gss_ft: Figures = {}
    """Figures of GSS-FT."""


_TOKENIZER = tuple(f"tokenizer.{key}" for key in ("vocab_size", "n_hid", "n_init", "blocks_per_group", "train"))
_OPENAI = tuple(f"tokenizer.{key}" for key in ("encoder", "decoder", "encoder_sha256", "decoder_sha256"))
_REFINEMENT = ("reconstruction.min_iou", "reconstruction.retrain_steps")
_SIZES = ("posterior.depth", "posterior.num_heads")
_TRAINED = ("posterior.steps", "posterior.training", "posterior.start_from")


class GSSExperiment(Experiment):
    recipe: Literal["gss"] = "gss"
    """The system: Generative Semantic Segmentation."""
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
    evaluation: GSSEvaluation = GSSEvaluation()
    """The protocol of the final figures."""
    published: GSSPublished = GSSPublished()
    """Scores to expect, shown beside those achieved. Changes no result."""

    trainings: ClassVar[dict[str, str]] = {
        "latent_prior": "latent_prior.training",
        "posterior": "posterior.training",
    }
    backbone: ClassVar[str] = "latent_prior.backbone"
    narrower: ClassVar[dict[str, str]] = dict.fromkeys(("tokenizer", "reconstruct"), "tokenizer.n_hid")
    without_effect: ClassVar[tuple[str, ...]] = (*Experiment.without_effect, "posterior.experiment")
    idle_keys: ClassVar[Any] = (
        ("a palette that is given", lambda e: e.palette.strategy not in ("maximal", "grid"), ("palette.seed",)),
        ("`tokenizer.source: train`", lambda e: e.tokenizer.source == "train", _OPENAI),
        ("`tokenizer.source: openai`", lambda e: e.tokenizer.source == "openai", (*_TOKENIZER, _REFINEMENT[1])),
        ("`tokenizer.train.palettes: random`", lambda e: e.tokenizer.train.palettes == "random", _REFINEMENT[1:]),
        ("`reconstruction.max_rounds: 0`", lambda e: e.reconstruction.max_rounds == 0, _REFINEMENT),
        (
            "`latent_prior.checkpoint`",
            lambda e: e.latent_prior.checkpoint is not None,
            ("latent_prior.training", "latent_prior.backbone.weights", "latent_prior.start_from"),
        ),
        ("`posterior.checkpoint`", lambda e: e.posterior.checkpoint is not None, _TRAINED),
        ("`posterior.variant: conv`", lambda e: e.posterior.variant == "conv", _SIZES),
        (
            "`posterior.variant: nearest`",
            lambda e: e.posterior.variant == "nearest",
            ("posterior.channels", *_SIZES, *_TRAINED),
        ),
        (
            "`posterior.experiment`",
            lambda e: e.posterior.experiment is not None,
            (
                *("palette", "tokenizer.source", *_TOKENIZER, *_OPENAI),
                *(*_REFINEMENT, "reconstruction.max_rounds", *_TRAINED),
            ),
        ),
        *Experiment.idle_keys,
    )

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
        if self.posterior.experiment and self.palette.file:
            raise ValueError("`posterior.experiment` brings its palette: `palette.file` would have no effect")
        return self

    @property
    def milestones(self) -> list[int]:
        return list(self.latent_prior.milestones)

    @property
    def trained(self) -> dict[str, str]:
        found = {}
        if self.tokenizer.source == "train" and not self.posterior.experiment:
            found["tokenizer"] = "tokenizer.train"
            refined = self.reconstruction
            if refined.max_rounds and refined.retrain_steps and self.tokenizer.train.palettes == "fixed":
                found["reconstruct"] = "tokenizer.train"
        if not self.latent_prior.checkpoint:
            found["latent_prior"] = self.trainings["latent_prior"]
        part = self.posterior
        if not (part.checkpoint or part.experiment or part.variant == "nearest"):
            found["posterior"] = self.trainings["posterior"]
        return found

    def borrowed(self) -> tuple[str | None, ...]:
        return (self.posterior.experiment,)

    def _segments(self, stage: str) -> Iterator[Job]:
        if self.posterior.experiment and stage in ("palette", "tokenizer", "posterior"):
            return
        if stage == "latent_prior":
            yield from (Job(f"{stage}_{step}", stage, until=step) for step in self.milestones[:-1])
            yield Job(stage, stage, until=self.milestones[-1])
        else:
            yield Job(stage, stage)

    def named_files(self) -> Iterator[NamedFile]:
        tokenizer, prior, base = self.tokenizer, self.latent_prior, data_folder()
        if self.palette.file:
            todo = "put it there: a copy of palette.csv, edited"
            yield NamedFile("palette", "palette.file", Path(self.palette.file), todo)
        if tokenizer.source == "openai" and not self.posterior.experiment:
            for what, file in (("encoder", tokenizer.encoder), ("decoder", tokenizer.decoder)):
                if file and "://" not in file:
                    todo = f"{PUT_IT_THERE}; it is OpenAI's DALL-E {what}.pkl"
                    yield NamedFile(f"dVAE {what}", f"tokenizer.{what}", base / file, todo)
        if not prior.checkpoint:
            yield from weights_file(prior.backbone, "latent_prior.backbone")
        for key in ("latent_prior", "posterior"):
            yield from start_file(self.at(key).start_from, key)
        for part, file in (("latent_prior", prior.checkpoint), ("posterior", self.posterior.checkpoint)):
            if file:
                yield NamedFile(f"checkpoint of {part}", f"{part}.checkpoint", base / file, PUT_IT_THERE)

    def downloads(self) -> Iterator[tuple[str, str, str]]:
        if self.tokenizer.source == "openai":
            for file in (self.tokenizer.encoder, self.tokenizer.decoder):
                if file and "://" in file:
                    yield "the dVAE", file, file
        if not self.latent_prior.checkpoint:
            yield from weights_download(self.latent_prior.backbone)

    def protocol(self) -> dict[str, Any]:
        said = {key: value for key, value in super().protocol().items() if value or key not in BEYOND}
        return {**said, "tokenizer_precision": self.tokenizer.precision}

    def _narrow(self, dumped: dict[str, Any], stage: str) -> None:
        dumped["latent_prior"]["milestones"] = self.milestones[-1:]  # the earlier ones only name files
        if stage in ("tokenizer", "reconstruct"):  # they work in fp32
            dumped.get("tokenizer", {}).pop("precision", None)
