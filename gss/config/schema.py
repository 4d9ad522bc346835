"""The sections of an experiment: typed, frozen, the one source of defaults, JSON schema and reference page."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gss.config.names import Name, Place
from gss.config.stages import Stage

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive]


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
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate of each level of the image encoder as a multiple of the next one's, the head's being `lr`; none: 1.
    X^-1 has no encoder to train."""
    schedule: Literal["poly", "cosine"] = "poly"
    """The learning rate falls to 0 as (1 - step / steps)^`power`, or as half a cosine wave."""
    power: Rate = 1.0
    """Exponent of `poly`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 1500
    """Updates of linear warm-up."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of `sgd`."""
    nesterov: bool = False
    """Of `sgd`: Nesterov's momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay; of AdamW beside the gradient, of SGD a part of it."""
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
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Updates between two measurements on `val` of what would be exported, as `gss evaluate` measures; the last update
    is followed by one, too; 0: none. Curves of mIoU and IoU per class for the report and MLflow; it changes no result
    unless `keep: best`."""
    validate_images: Annotated[int, Field(ge=0)] = 0
    """Images of `val` that are measured while training, evenly spaced; 0: all."""
    keep: Literal["last", "best"] = "last"
    """Weights that are exported: of the last update, or of the measured one with the highest mIoU."""

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> Self:
        if self.optimizer != "sgd" and (self.momentum != 0.9 or self.nesterov):
            raise ValueError("`momentum` and `nesterov` are of `optimizer: sgd`")
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` needs a `momentum` above 0")
        if self.schedule != "poly" and self.power != 1:
            raise ValueError("`power` is of `schedule: poly`")
        if self.keep == "best" and not self.validate_every:
            raise ValueError("`keep: best` needs `validate_every` above 0")
        return self


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
