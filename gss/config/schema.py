"""The configuration: typed, frozen, the one source of defaults, of the JSON schema and of the reference page."""

import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gss.files import sha256_json

Stage = Literal[
    "prepare", "check", "palette", "tokenizer", "reconstruct",
    "latent_prior", "posterior", "import", "merge", "evaluate",
]  # fmt: skip
STAGES: tuple[Stage, ...] = get_args(Stage)
GPU_STAGES: frozenset[Stage] = frozenset(("tokenizer", "reconstruct", "latent_prior", "posterior", "evaluate"))
# Raise a stage's number when its results change for the same configuration: results made before are redone.
STAGE_VERSIONS: dict[Stage, int] = {
    **dict.fromkeys(STAGES, 1),
    "check": 2,
    "tokenizer": 2,
    "reconstruct": 2,
    "latent_prior": 3,
    "posterior": 3,
    "evaluate": 3,
}

_TAKEN = ("comparisons", "mlflow.log")  # what else lies in the results folder


def valid_name(name: str) -> str:
    """The name of an experiment or a comparison as its files have it, Unicode composed (NFC).

    Raises:
        ValueError: it would need quotes in a shell, hides its folder, looks like an option or a file, or is taken.
    """
    composed = unicodedata.normalize("NFC", name)
    if not re.fullmatch(r"\w[\w.-]*", composed) or composed.lower().endswith((".yaml", ".yml")):
        raise ValueError(
            f"{name!a} cannot be a name: names have letters, digits, `_`, `.` and `-`, begin with none of the last two "
            "and do not end in `.yaml`"
        )
    if composed in _TAKEN:
        raise ValueError(f"{name!r} cannot be a name: results/{name} is something else")
    return composed


def results_name(name: str) -> str:
    """The name of a results folder: that of an experiment, or of other settings of one, `<experiment>+<hash>`.

    Raises:
        ValueError: see `valid_name`.
    """
    experiment, plus, digest = name.partition("+")
    return valid_name(experiment) + plus + digest if re.fullmatch("[0-9a-f]{8}", digest) else valid_name(name)


def plain_path(path: str) -> str:
    """A path as it is: nothing in it is replaced.

    Raises:
        ValueError: it says what only a shell or Windows understands.
    """
    if re.match(r"~|[^:]*\$(\{|[A-Za-z_])", path):
        raise ValueError("`~` and `$NAME` are not replaced in paths: write it out, or relative to GSS_DATA")
    if "\\" in path:
        raise ValueError("folders in paths are separated by `/`")
    return path


Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive]
Name = Annotated[str, AfterValidator(valid_name)]
Place = Annotated[str, AfterValidator(plain_path)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`flip: true` would mean the probability 1, `batch_size: yes` one image."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and not {kind, *get_args(kind)} & {bool, Any, str}:
            raise ValueError("true and false are no values here")
        return value


class Split(Section):
    images: Place
    """Folder of photographs, relative to `data.root`; searched recursively."""
    labels: Place
    """Folder of one-channel PNG labels with the same relative names."""
    count: Positive | None = None
    """Number of images the split must have."""


class Archive(Section):
    file: Place
    """Path of a zip or tar file, found like `data.root`."""
    into: Place = "."
    """Folder its content belongs in, found like `data.root`."""
    checksum: Annotated[str, Field(pattern="^(sha256|sha1|md5):[0-9a-f]+$")] | None = None
    """`sha256:...`, `sha1:...` or `md5:...` of the file."""


class Data(Section):
    root: Place
    """Folder of the data set: absolute, or relative to `GSS_DATA`, else to `data_root` of config/config.yaml."""
    splits: dict[Literal["train", "val", "test"], Split]
    """Image and label folders of each split."""
    classes: Place | tuple[str, ...]
    """CSV `index,name[,r,g,b]` in `data.root`, a shipped list (`ade20k`, `cityscapes`, `mseg`), or the names."""
    reduce_zero_label: bool = False
    """Native id 0 is ignored and every other id moves down by one (ADE20K)."""
    label_map: dict[int, int] = {}
    """Native id -> class id, 255 to ignore it; ids not listed stay as they are."""
    image_suffix: str = ""
    """End of the image names (before the extension) that the label names lack."""
    label_suffix: str = ""
    """End of the label names (before the extension) that the image names lack."""
    exif_orientation: Literal["apply", "stored"] | None = None
    """What labels follow where photographs carry an EXIF orientation: the turned picture, or the one as stored."""
    archives: tuple[Archive, ...] = ()
    """Archives that `gss prepare` unpacks where folders of the splits are missing."""
    generate: Literal["toy"] | None = None
    """Make this built-in synthetic data set in `data.root` first."""
    obtain: str = ""
    """Where the data come from: shown when the folder is missing."""

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_are_text(cls, classes: Any) -> Any:
        if not isinstance(classes, str | list | tuple):
            raise ValueError("a list of names, or one name of a class table, is expected")
        for name in () if isinstance(classes, str) else classes:
            if not isinstance(name, str):
                raise ValueError(f"the class name {name!r} is no text; in quotes it is")
        return classes

    @model_validator(mode="after")
    def _classes_have_names(self) -> Self:
        names = list(self.classes) if isinstance(self.classes, tuple) else ["a table"]
        if not names or not all(name.strip() for name in names):
            raise ValueError("`classes` needs a name for every class")
        if twice := [name for index, name in enumerate(names) if name in names[:index]]:
            found = ", ".join(map(repr, twice))
            raise ValueError(f"`classes` names {found} more than once: name every class differently")
        return self

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if "train" not in self.splits or len(self.splits) < 2:
            raise ValueError("`splits` needs `train` and at least one of `val` and `test`")
        return self


class Augment(Section):
    base_scale: Size
    """(width, height) that a resize ratio of 1 fits the image into, keeping its aspect."""
    crop: Size
    """(height, width) of the training crop, pixels."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the random resize ratio."""
    cat_max_ratio: Fraction = 0.75
    """Largest share one class may have in a crop (tried ten times)."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    photometric: bool = True
    """Random brightness, contrast, saturation and hue."""

    @model_validator(mode="after")
    def _ratio_is_a_range(self) -> Self:
        low, high = self.ratio
        if not 0 < low <= high:
            raise ValueError(f"`ratio` is a smallest and a largest ratio above 0, not {list(self.ratio)}")
        return self


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


class Training(Section):
    batch_size: Positive = 16
    """Images per update, over all processes."""
    lr: Rate = 1.5e-3
    """Base learning rate."""
    backbone_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    """The image encoder's learning rate as a multiple of `lr`; X^-1 has none, and takes 1.0 alone."""
    warmup_steps: Annotated[int, Field(ge=0)] = 1500
    """Updates of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW weight decay."""
    decay_rule: Literal["default", "published"] = "default"
    """Spared from decay: all 1-D parameters and bias tables, or the published list of names."""
    clip_norm: Rate | None = None
    """Largest gradient norm."""
    ema: Fraction | None = None
    """Decay of an exponential moving average of the weights; the average is what is exported."""
    class_balance: Fraction = 0.0
    """Exponent p of class weights (median frequency / frequency)^p in the losses; 0: none, as published."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Arithmetic of the trained network."""
    accumulation: Positive = 1
    """Micro-batches per update, one after the other: less memory. The loss is that of the whole batch, but BatchNorm
    sees one micro-batch at a time, and dropout and stochastic depth draw anew in each: not the result of 1."""


class Backbone(Section):
    name: str
    """A timm model that gives features at strides 4, 8, 16 and 32."""
    weights: Place | None = None
    """Pretrained: a safetensors or .pth file, found like `data.root`, or `timm:TAG`, downloaded; none: random."""
    options: dict[str, Any] = {}
    """Keywords for timm's constructor, e.g. `window_size`."""
    drop_path: Fraction = 0.0
    """Stochastic depth."""
    output_stride: Literal[8, 16, 32] = 32
    """Stride of the coarsest level: 8 and 16 dilate the later stages (ResNet)."""
    frozen_levels: Annotated[int, Field(ge=0, le=4)] = 0
    """Leading feature levels that are not trained."""
    norm_eval: bool = False
    """BatchNorm uses its stored statistics: right for small batches."""

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        if "pretrained" in self.options:
            raise ValueError("`options.pretrained` would load weights that nothing names: write `weights: timm:TAG`")
        return self


class LatentPrior(Section):
    backbone: Backbone
    """The image encoder."""
    checkpoint: Place | None = None
    """A published (mmseg) GSS-FF checkpoint to import instead of training, found like `data.root`."""
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
    from_: Annotated[Name | None, Field(alias="from")] = None
    """Take X^-1, palette and tokenizer of this experiment instead of training them."""
    checkpoint: Place | None = None
    """A published (mmseg) GSS-FT-W checkpoint to take X^-1 from instead of training it, found like `data.root`."""
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

    @model_validator(mode="after")
    def _no_encoder_is_trained(self) -> Self:
        if self.training.backbone_lr_factor != 1:
            raise ValueError("`training.backbone_lr_factor` would have no effect: the encoder before X^-1 is frozen")
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.variant == "window" and self.channels % self.num_heads:
            raise ValueError(f"`channels` {self.channels} is no multiple of `num_heads` {self.num_heads}")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.from_ and self.checkpoint:
            raise ValueError("X^-1 is taken `from` an experiment or of a `checkpoint`, not both")
        return self


class Evaluation(Section):
    mode: Literal["whole", "slide"] = "whole"
    """One pass over the image, or overlapping windows."""
    crop: Size = (768, 768)
    """(height, width) of a window."""
    stride: Size = (512, 512)
    """(vertical, horizontal) step of the windows."""
    scale: Size | None = None
    """(width, height) a test image is fitted into, keeping its aspect; none: its own size."""
    flip: bool = False
    """Average with the scores of the mirrored image."""
    vote_temperature: Annotated[float, Field(gt=0)] | None = None
    """GSS-FF: votes exp(-d^2 / T) of a decoded pixel at RGB distance d; none: one vote for the nearest colour."""
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")
    """Splits to evaluate."""
    pictures: Annotated[int, Field(ge=0)] = 8
    """Images of a split drawn as panels, evenly spaced; by the reconstruction check, too."""


class Published(Section):
    gss_ff: dict[Literal["mIoU", "mAcc", "aAcc", "h_mean"], Fraction] = {}
    """Figures of GSS-FF, fractions; `h_mean`: harmonic mean of the mIoU of several test sets, not measured here."""
    gss_ft: dict[Literal["mIoU", "mAcc", "aAcc", "h_mean"], Fraction] = {}
    """Figures of GSS-FT."""
    split: Literal["val", "test"] = "val"
    """Split they were measured on."""
    source: str = ""
    """Where they were published."""


class Resources(Section):
    nodes: Positive = 1
    """Machines; all that follows but `minutes` is for each. Without a cluster, one machine does the work of all."""
    processes: Positive | None = None
    """Processes of `torchrun`, with GPUs at most one for each; default: one per GPU, without GPUs one."""
    gpus: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """GPUs; `auto`, for stages that gain by them: those of the machine, on a cluster those its profile grants."""
    threads: Positive = 2
    """CPU cores, shared by the processes."""
    memory_mb: Positive = 4000
    """Memory, MB."""
    minutes: Positive = 120
    """Longest run time; a training that needs more goes on in another job."""


class Run(Section):
    resources: dict[Stage, Resources] = {}
    """What each stage asks for; a stage not listed takes the defaults."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Loader processes of each training process."""
    log_every: Positive = 50
    """Steps between progress lines."""
    save_every: Positive = 1000
    """Steps between checkpoints."""
    save_minutes: Annotated[float, Field(gt=0)] = 20
    """Longest time between checkpoints."""
    keep_checkpoints: Positive = 2
    """Checkpoints kept for a restart."""
    deadline_margin: Annotated[float, Field(ge=0)] = 60
    """Seconds before the end of a job's time at which a training stops with a checkpoint; more when saving is slow."""
    deterministic: bool = False
    """On GPUs only algorithms that give the same bits every time: slower; on CPUs it is always so."""


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
            if f"{section}.{key}" not in _SLICES[stage]:
                dumped.get(section, {}).pop(key, None)
        dumped["latent_prior"]["milestones"] = self.milestones[-1:]  # the earlier ones only name files
        content: dict[str, Any] = {"version": STAGE_VERSIONS[stage]}
        if stage in ("tokenizer", "reconstruct"):  # they work in fp32
            dumped.get("tokenizer", {}).pop("precision", None)
        for path in _SLICES[stage] + (_REFERENCE_SLICES.get(stage, ()) if self.numerics == "reference" else ()):
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
        sections = {path.split(".")[0] for paths in _SLICES.values() for path in paths}
        return {key: value for key, value in dumped.items() if key in sections}

    @property
    def sha256(self) -> str:
        """Hash of everything that can change a result."""
        return sha256_json({stage: self.slice(stage) for stage in STAGES})


_SLICES: dict[Stage, tuple[str, ...]] = {
    "prepare": ("data.archives",),
    "check": ("data",),
    "palette": ("palette",),
    "tokenizer": ("tokenizer", "seed"),
    "reconstruct": ("reconstruction", "tokenizer", "seed"),
    "latent_prior": ("latent_prior", "augment", "seed", "numerics", "tokenizer.precision"),
    "posterior": ("posterior", "augment", "seed", "numerics", "tokenizer.precision"),
    "import": (),  # its inputs say it all
    "merge": (),
    "evaluate": ("evaluation", "numerics", "tokenizer.precision"),
}
_REFERENCE_SLICES: dict[Stage, tuple[str, ...]] = {"reconstruct": ("numerics", "evaluation.scale")}
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
    ("`latent_prior.checkpoint`", lambda e: e.latent_prior.checkpoint is not None,
     ("latent_prior.training", "latent_prior.backbone.weights")),
    ("`posterior.checkpoint`", lambda e: e.posterior.checkpoint is not None, ("posterior.steps", "posterior.training")),
    ("`posterior.variant: conv`", lambda e: e.posterior.variant == "conv", _SIZES),
    ("`posterior.variant: nearest`", lambda e: e.posterior.variant == "nearest",
     ("posterior.channels", *_SIZES, "posterior.steps", "posterior.training")),
    ("`posterior.from`", lambda e: e.posterior.from_ is not None,
     ("palette", "tokenizer.source", *_TOKENIZER, *_OPENAI, *_REFINEMENT, "reconstruction.max_rounds",
      "posterior.steps", "posterior.training")),
    ("`evaluation.mode: whole`", lambda e: e.evaluation.mode == "whole", ("evaluation.crop", "evaluation.stride")),
)  # fmt: skip


def _drop(content: dict[str, Any], key: str) -> bool:
    """Take a dotted key out; whether it was there."""
    *sections, last = key.split(".")
    for section in sections:
        content = content.get(section, {})
    return content.pop(last, None) is not None


def read_settings(stage: Stage) -> tuple[str, ...]:
    """Dotted keys of the sections and values that a stage reads."""
    return _SLICES[stage]


def run_parts(run: str) -> tuple[str, str]:
    """Experiment and model of a run named `EXPERIMENT[/MODEL]`, GSS-FT by default.

    Raises:
        ValueError: it is no such name.
    """
    experiment, slash, model = run.partition("/")
    if slash and model not in ("gss_ff", "gss_ft"):
        raise ValueError(f"{run!r} is no run: write EXPERIMENT, EXPERIMENT/gss_ff or EXPERIMENT/gss_ft")
    return results_name(experiment), model or "gss_ft"


class Mlflow(Section):
    upload_models: bool = False
    """Copy each merged model with its tokenizer into MLflow; otherwise its path and SHA-256 are noted there."""


class Project(Section):
    experiments: tuple[Name, ...] = ("toy",)
    """What `snakemake all` builds: names of files in config/experiments."""
    data_root: Place = "data"
    """Folder of the data sets when the environment does not name one (`GSS_DATA`)."""
    comparisons: dict[Name, tuple[str, ...]] = {}
    """Pages `results/comparisons/NAME/`: two or more runs `EXPERIMENT[/MODEL]`, the baseline first."""
    mlflow: Mlflow = Mlflow()
    """What MLflow gets beside numbers, tables and figures."""

    @model_validator(mode="after")
    def _comparisons_name_runs(self) -> Self:
        for name, runs in self.comparisons.items():
            if len({run_parts(run) for run in runs}) < max(2, len(runs)):
                raise ValueError(f"comparison {name!r} needs two or more different runs")
        return self


class Cluster(Section):
    """The block `config: cluster:` of a Snakemake profile: what one cluster is like."""

    partition: str | None = None
    """Partition of the jobs; none: the cluster's default."""
    gpu_partition: str | None = None
    """Partition of the jobs with GPUs; default: `partition`."""
    account: str | None = None
    """Account the jobs are charged to."""
    gpus_per_node: Positive | None = None
    """GPUs a node has: a stage that asks for more on a node is spread over several."""
    max_minutes: Positive | None = None
    """Longest run time the cluster grants."""
    stages: dict[Stage, Resources] = {}
    """What a stage asks for, in place of `run.resources` of the experiments: `{latent_prior: {nodes: 2, gpus: 8}}`."""

    def fit(self, asked: Resources, stage: Stage) -> Resources:
        """What a stage asks this cluster for, `processes` and `gpus` as numbers: its own wishes, then those of
        `stages`, put on as many nodes as its GPUs need.

        `gpus: auto` of an experiment is what `stages` grants, else none: that a node has GPUs gives nobody a claim to
        them. `gpus: auto` in `stages` is all of a node, `gpus_per_node`.

        Raises:
            ValueError: its GPUs or processes cannot be shared out evenly.
        """
        wishes = self.stages[stage].model_dump(exclude_unset=True) if stage in self.stages else {}
        asked = asked.model_copy(update=wishes)
        minutes = min(asked.minutes, self.max_minutes or asked.minutes)
        gpus = asked.gpus if asked.gpus != "auto" else (self.gpus_per_node or 0) if "gpus" in wishes else 0
        processes, parts = asked.processes or max(1, gpus), 1
        if self.gpus_per_node is not None and gpus > self.gpus_per_node:
            parts, rest = divmod(gpus, self.gpus_per_node)
            if rest or processes % parts:
                raise ValueError(
                    f"{stage} asks for {gpus} GPUs and {processes} processes on a node, a node has "
                    f"{self.gpus_per_node} GPUs (gpus_per_node), and they cannot be shared out evenly over several"
                )
        shared = {key: -(-getattr(asked, key) // parts) for key in ("threads", "memory_mb")}
        return asked.model_copy(
            update={**shared, "nodes": asked.nodes * parts, "gpus": gpus // parts, "processes": processes // parts,
                    "minutes": minutes}
        )  # fmt: skip
