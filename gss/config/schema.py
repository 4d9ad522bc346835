"""The sections that all recipes have: typed, frozen, the one source of defaults, JSON schema and reference page."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gss.config.names import Name, Place, SetName

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive]
Channel = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Channel, ...], Field(min_length=3, max_length=4)]


def _several(colours: Any) -> Any:
    """One colour is a list of colours, too."""
    is_one = isinstance(colours, list | tuple) and all(isinstance(value, int) for value in colours)
    return (colours,) if is_one else colours


Painted = dict[str, Annotated[tuple[Colour, ...], Field(min_length=1), BeforeValidator(_several)]]
"""Name of a class -> its colour or colours, RGB or RGBA."""


OF_ANNOTATIONS = "annotations"  # as `classes`


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
    """Folder of one-channel PNG labels with the same relative names; with `annotations` the file of these, or a folder
    of such files."""
    list: Place | None = None
    """Text file with an image in each line: only these count. Found like `data.root`, or shipped (`mseg/voc2012`). A
    line is a path below `images` or below the root, with extension and `image_suffix` or without; what follows behind a
    blank, such as the label, is passed over."""
    count: Positive | None = None
    """Number of images the split must have."""


class Divide(Section):
    val: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share that becomes `val`; 0: none."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that becomes `test`; 0: none."""
    seed: Seed = 0
    """Another one divides in another way."""
    group: str | None = None
    """Regular expression: images in whose names it finds the same stay together, as the frames of a film; what counts
    is its first group, or all of it. A name is a path below `images`, without extension. None: each image alone."""

    @field_validator("group")
    @classmethod
    def _is_an_expression(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return group

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if not self.shares:
            raise ValueError("`divide` needs a share of `val` or `test`")
        if sum(self.shares.values()) >= 1:
            raise ValueError(f"`divide` leaves nothing to train on: val {self.val} and test {self.test}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Of the splits that it makes."""
        return {split: share for split, share in (("test", self.test), ("val", self.val)) if share}


class Archive(Section):
    file: Place
    """Path of a zip or tar file, found like `data.root`."""
    into: Place = "."
    """Folder its content belongs in, found like `data.root`."""
    checksum: Annotated[str, Field(pattern="^(sha256|sha1|md5):[0-9a-f]+$")] | None = None
    """`sha256:...`, `sha1:...` or `md5:...` of the file."""


class Taxonomy(Section):
    file: Place
    """CSV with a heading, or tab separated as `.tsv`; found like `data.root`, or a shipped one (`mseg`)."""
    native: str = "native"
    """Column of the names in `native_classes`; a cell may hold several, `{house, tower}`."""
    common: str = "common"
    """Column of the names in `data.classes`; empty, `ignore`, `unlabeled` or `void`: ignored."""
    rows: dict[str, str] = {}
    """What columns hold in the rows that count, `{dataset: kitti}`."""


class Annotations(Section):
    format: Literal["coco", "coco_panoptic", "labelme", "labelme_xml", "cvat", "scalabel", "yolo"]
    """What the files are."""
    overlap: Literal["last", "smallest", "error"] | None = None
    """Which of two shapes of different classes has a pixel: the later one in the file (of `cvat` the one with
    the higher `z_order` before that), the smaller one, or it is a fault. Default: `last`, as the tools show and export
    them; of `yolo` `smallest`, as its own training paints them."""
    background: str = "ignore"
    """What no shape covers: ignored, or a class of this name among those of the annotations, which it joins."""
    line_width: Rate = 10.0
    """Pixels across of lines and points, which have no area; 10 as LabelMe paints them."""
    missing: Literal["error", "skip"] = "error"
    """Annotated pictures that are not there are a fault, or passed over and counted, as where a part of a data set was
    downloaded."""


class Source(Section):
    root: Place
    """Folder of the data set: absolute, or relative to `GSS_DATA`, else to `data_root` of config/config.yaml."""
    splits: dict[Literal["train", "val", "test"], Split]
    """Image and label folders of each split."""
    divide: Divide | None = None
    """Make `val` or `test` of the pairs in the folders of `train`: by their names, so that each stays where it is when
    others are added. The check writes what it divides into `data/lists`. None: every split has folders of its own."""
    reduce_zero_label: bool = False
    """Native id 0 is ignored and every other id moves down by one (ADE20K)."""
    label_map: dict[int, int | Literal["ignore"]] = {}
    """Native id -> class id, or `ignore` (or 255, with up to 254 classes); ids not listed stay as they are."""
    encoding: Literal["ids", "colours"] = "ids"
    """What labels hold: ids (8 or 16 bits, palettes), or colours, RGB or RGBA, by the table of the classes."""
    native_classes: Place | tuple[str, ...] | Painted | None = None
    """Classes of its own that the labels hold: a CSV in the root (`index,name`, with gaps if need be; `name,r,g,b[,a]`
    for colours, with several rows for a class if need be), a shipped list, the names, or `{name: [r, g, b]}`. None:
    those of `classes`."""
    taxonomy: Taxonomy | None = None
    """Table of what `native_classes` become; without one they are the classes of the same names."""
    mapping: dict[str, str] = {}
    """Native class -> class, or `ignore`; wins over `taxonomy` and equal names."""
    image_suffix: str = ""
    """End of the image names (before the extension) that the label names lack."""
    label_suffix: str = ""
    """End of the label names (before the extension) that the image names lack."""
    label_name: tuple[str, str] | None = None
    """Where names differ within: regular expression, and what its matches in an image's name are in that of its
    label, `[_camera_, _label_]`."""
    repeat: Positive = 1
    """Of `data.sampling: repeat`: how often a pass over all training pairs takes each of this source, beside others."""
    prepared: Place | None = None
    """Record of labels that are made of those the data set is published with, found like `data.root`:
    `mseg_dataset/prepared/camvid-11.json` of `gss mseg-labels camvid-11`. Snakemake makes them where it is missing."""
    annotations: Annotations | None = None
    """`labels` are annotations, such as polygons in COCO's JSON: `gss labels` makes label files of them, among the
    results. Their classes are native ones; `native_classes` names them only where the files do not (`yolo`)."""
    exif_orientation: Literal["apply", "stored"] | None = None
    """What labels follow where photographs carry an EXIF orientation: the turned picture, or the one as stored."""

    @model_validator(mode="before")
    @classmethod
    def _divided(cls, content: Any) -> Any:
        """The splits that `divide` makes have the folders of `train`."""
        if (
            not isinstance(content, dict)
            or content.get("divide") is None
            or not isinstance(content.get("splits"), dict)
        ):
            return content
        divide, splits = Divide.model_validate(content["divide"]), content["splits"]
        for split in divide.shares:
            if splits.get(split, splits.get("train")) != splits.get("train"):
                raise ValueError(f"`divide` makes `{split}` of the pairs of `train`, and `splits` has another one")
        made = {split: splits["train"] for split in ("val", "test") if split in divide.shares and "train" in splits}
        return {**content, "splits": {**splits, **made}}

    @field_validator("label_name")
    @classmethod
    def _replaces(cls, label_name: tuple[str, str] | None) -> tuple[str, str] | None:
        try:
            re.sub(*(label_name or ("", "")), "")
        except (re.error, IndexError) as error:
            raise ValueError(f"no regular expression and replacement: {error}") from error
        return label_name

    @property
    def has_own_classes(self) -> bool:
        """Whether the labels hold others than ids of `classes`: then every one of them is sent to one of these."""
        return self.native_classes is not None or self.annotations is not None

    @model_validator(mode="after")
    def _annotations_say_what_they_are(self) -> Self:
        if self.annotations is None:
            files = [split.labels for split in self.splits.values() if split.labels.endswith((".json", ".xml"))]
            if files:
                known = ", ".join(get_args(Annotations.model_fields["format"].annotation))
                raise ValueError(
                    f"`labels: {files[0]}` is no folder: name its format, `annotations: {{format: ...}}` of {known}"
                )
            return self
        for key in ("encoding", "image_suffix", "label_suffix", "label_name", "prepared"):
            if getattr(self, key) != Source.model_fields[key].default:
                raise ValueError(f"`{key}` is of label files: with `annotations` these are made")
        if (self.native_classes is None) == (self.annotations.format == "yolo"):
            raise ValueError(
                "`native_classes` names the classes of `annotations` with `format: yolo`, whose files have numbers, "
                "and of no other format"
            )
        if not self.annotations.background.strip():
            raise ValueError("`annotations.background` is a class, or `ignore`")
        return self

    @model_validator(mode="after")
    def _labels_are_read_in_one_way(self) -> Self:
        if not self.has_own_classes and (self.mapping or self.taxonomy):
            raise ValueError("`mapping` and `taxonomy` are of `native_classes`: name what the labels hold")
        if (self.has_own_classes or self.encoding == "colours") and (self.label_map or self.reduce_zero_label):
            raise ValueError(
                "`label_map` and `reduce_zero_label` are of ids of `data.classes`: with `native_classes`, "
                "`annotations` or `encoding: colours` name what a class becomes in `mapping`"
            )
        if self.native_classes in ((), "", {}):
            raise ValueError("`native_classes` needs a name for every id")
        if isinstance(self.native_classes, dict) and self.encoding != "colours":
            raise ValueError("`native_classes` with colours are of `encoding: colours`")
        if self.encoding == "colours" and isinstance(self.native_classes, tuple):
            raise ValueError("`encoding: colours` needs a table with colours, not a list of names")
        return self


class DataSet(Source):
    classes: Place | tuple[str, ...]
    """CSV `index,name[,r,g,b]` in its root, a shipped list (`ade20k`, `cityscapes`, `mseg`, `mseg/bdd`), or names; or
    `annotations`: those of its `annotations`, in their order."""

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_are_text(cls, classes: Any) -> Any:
        if not isinstance(classes, str | list | tuple):
            raise ValueError("a list of names, or one name of a class table, is expected")
        for name in () if isinstance(classes, str) else classes:
            if not isinstance(name, str):
                raise ValueError(f"the class name {name!r} is no text; in quotes it is")
        return classes

    @property
    def class_table(self) -> str | None:
        """The table that names the classes, as the configuration names it; None where it has the names, or the
        annotations have."""
        return self.classes if isinstance(self.classes, str) and self.classes != OF_ANNOTATIONS else None

    @model_validator(mode="after")
    def _classes_have_names(self) -> Self:
        if self.classes == OF_ANNOTATIONS and self.annotations is None:
            raise ValueError(f"`classes: {OF_ANNOTATIONS}` is of labels that are made of `annotations`")
        names = list(self.classes) if isinstance(self.classes, tuple) else ["a table"]
        if not names or not all(name.strip() for name in names):
            raise ValueError("`classes` needs a name for every class")
        if twice := [name for index, name in enumerate(names) if name in names[:index]]:
            found = ", ".join(map(repr, twice))
            raise ValueError(f"`classes` names {found} more than once: name every class differently")
        return self


class Data(DataSet):
    sources: tuple[Source, ...] = ()
    """Further data sets whose pairs join those of the splits of the same names: folders of their own, and labels whose
    ids lead to the same classes by keys of their own."""
    sampling: Literal["repeat", "balanced"] = "repeat"
    """What an update of a training is made of, where there are `sources`. `repeat`: pairs in one random order over all,
    each as often as its source says, and the loss is a mean over all of them. `balanced`: as many pairs of one source
    as of another, each source in an order of its own, and the loss is the mean over sources of their means, as MSeg
    published it; a source without a valid pixel adds 0. GSS's tokenizer takes every label once either way."""
    archives: tuple[Archive, ...] = ()
    """Archives that `gss prepare` unpacks where folders of the splits are missing."""
    generate: Literal["toy"] | None = None
    """Make this built-in synthetic data set in `data.root` first."""
    obtain: str = ""
    """Where the data come from: shown when the folder is missing."""

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if "train" not in self.splits or len(self.splits) < 2:
            raise ValueError("`splits` needs `train` and at least one of `val` and `test`")
        for source in self.sources:
            if strange := [split for split in source.splits if split not in self.splits]:
                raise ValueError(f"the source {source.root!r} has a split {strange[0]!r}, which `data.splits` lacks")
        roots = [self.root, *(source.root for source in self.sources)]
        if twice := [root for index, root in enumerate(roots) if root in roots[:index]]:
            raise ValueError(f"`sources` name {twice[0]!r} again: one root, one source")
        if not self.sources and self.repeat > 1:
            raise ValueError("`repeat` weighs sources against each other: there are no `sources`")
        if self.sampling == "balanced" and len(self.balanced) < 2:
            raise ValueError("`sampling: balanced`: nothing to balance, one source alone has training pairs")
        return self

    @property
    def annotated(self) -> bool:
        """Whether label files are made of annotations."""
        return any(source.annotations for source in (self, *self.sources))

    @property
    def balanced(self) -> tuple[str, ...]:
        """Roots of the sources that every update holds as many pairs of; empty: the sampling is another one."""
        if self.sampling != "balanced":
            return ()
        return tuple(source.root for source in (self, *self.sources) if "train" in source.splits)


class Augment(Section):
    base_scale: Size | Positive
    """(width, height) that a resize ratio of 1 fits the image into, keeping its aspect; or one number: the short side
    of a first resize, which the one by the ratio follows, as MSeg published it."""
    crop: Size
    """(height, width) of the training crop, pixels."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the random resize ratio."""
    cat_max_ratio: Fraction | None = 0.75
    """Largest share one class may have in a crop (tried ten times); none: any crop is taken."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle, degrees, by which one image of two is rotated, in either direction."""
    blur: bool = False
    """Blur one image of two, as a Gaussian of 5 x 5 pixels does."""
    padding: Literal["corner", "centre"] = "corner"
    """Where an image smaller than the crop stands in it: at the top left, or in the middle."""
    photometric: bool = True
    """Random brightness, contrast, saturation and hue."""

    @model_validator(mode="after")
    def _ratio_is_a_range(self) -> Self:
        low, high = self.ratio
        if not 0 < low <= high:
            raise ValueError(f"`ratio` is a smallest and a largest ratio above 0, not {list(self.ratio)}")
        if isinstance(self.base_scale, int) and round(self.base_scale * low) < 1:
            raise ValueError(f"a short side of {self.base_scale} pixels times the `ratio` {low} leaves none")
        return self

    @property
    def box(self) -> Size:
        """(width, height) of a typical image at ratio 1; with a short side alone, of one of proportions 4:3."""
        side = self.base_scale
        return (side * 4 // 3, side) if isinstance(side, int) else side


class Training(Section):
    batch_size: Positive = 16
    """Images per update, over all processes."""
    lr: Rate = 1.5e-3
    """Base learning rate."""
    backbone_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    """The image encoder's learning rate as a multiple of `lr`; what has none takes 1.0 alone."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate of each level of the image encoder as a multiple of the next one's, the head's being `lr`; none:
    1."""
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
    decay_rule: Literal["default", "published", "vectors", "all"] = "default"
    """Spared from decay: all 1-D parameters and bias tables, GSS's published list of names, as CAE published it 1-D
    parameters and biases alone, or with `all` none, as MSeg."""
    clip_norm: Rate | None = None
    """Largest gradient norm."""
    ema: Fraction | None = None
    """Decay of an exponential moving average of the weights; the average is what is exported."""
    class_balance: Fraction = 0.0
    """Exponent p of class weights (median frequency / frequency)^p in the losses; 0: none, as published."""
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    """Arithmetic of the trained network; with `fp16` the loss is scaled, and a step whose gradients overflow updates
    nothing."""
    multitask: Literal["none", "mgda", "mgda_fw"] = "none"
    """With `data.sampling: balanced`, what an update follows: the gradient of the mean loss of the sources, or the
    shortest combination of the gradients of their own losses (MGDA), found as in MSeg's training (`mgda`, where two
    sources weigh alike) or by Frank-Wolfe (`mgda_fw`). It costs a backward pass and a copy of the gradients for each
    source; the weights are curves beside the loss."""
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
    """A timm model that gives features at strides 4, 8, 16 and 32, or a plain transformer such as ViT, BEiT, DINOv2 and
    EVA, behind which a pyramid is trained."""
    weights: Place | None = None
    """Pretrained: a safetensors or .pth file, found like `data.root`, or `timm:TAG`, downloaded; none: random."""
    options: dict[str, Any] = {}
    """Keywords for timm's constructor, e.g. `window_size`, `img_size`; of a plain transformer also `out_indices`, the
    four blocks that give the maps of stride 4, 8, 16 and 32."""
    normalisation: Literal["timm", "imagenet"] = "timm"
    """Mean and deviation of photographs: those that timm says the model was made for, or ImageNet's."""
    drop_path: Fraction = 0.0
    """Stochastic depth."""
    output_stride: Literal[8, 16, 32] = 32
    """Stride of the coarsest level: 8 and 16 dilate the later stages (ResNet)."""
    frozen_levels: Annotated[int, Field(ge=0, le=4)] = 0
    """Leading feature levels that are not trained; of a plain transformer the blocks up to that of the level."""
    norm_eval: bool = False
    """BatchNorm uses its stored statistics: right for small batches; that of a transformer's new pyramid does not."""

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        if "pretrained" in self.options:
            raise ValueError("`options.pretrained` would load weights that nothing names: write `weights: timm:TAG`")
        return self


class Relabelled(Section):
    labels: Place
    """Folder of the labels; their names are those of the set's labels."""
    encoding: Literal["ids", "colours"] = "ids"
    """What they hold, see the keys of the same names of a source."""
    native_classes: Place | tuple[str, ...] | None = None
    """Classes of their own."""
    taxonomy: Taxonomy | None = None
    """Table of what these become."""
    mapping: dict[str, str] = {}
    """Native class -> class, or `ignore`."""


class EvaluationSet(DataSet):
    model_taxonomy: Taxonomy | None = None
    """Table of what the model's classes (column `native`) count as among `classes` (column `common`), several as one;
    without one they are the classes of the same names. The model's classes that it does not name, leaves empty or
    ignores have no target."""
    model_mapping: dict[str, str] = {}
    """The model's class -> class of the set, or `ignore`: no target; wins over `model_taxonomy` and equal names."""
    prediction: Literal["hard", "hard_ignore", "soft"] = "hard"
    """How scores become classes of the set. `hard`: the target of the winning class; without one class 0, as GSS
    published it. `hard_ignore`: without one no class, wrong everywhere. `soft`: the largest sum of the probabilities
    of the classes with one target, as MSeg published it; those without one are left out."""
    absent: Literal["nan", "zero"] = "nan"
    """A class that is in no label and nowhere predicted is left out of means, or counts as 0, as MSeg published it."""
    counted: Literal["all", "mapped"] = "all"
    """The classes that are in means: all, or those alone that classes of the labels become, as MSeg published it for
    its training sets."""
    relabelled: Relabelled | None = None
    """Labels of the same images in the sense that the model was trained on; those of the set are what counts. Where
    the two differ, a prediction like the relabelled one is right and any other wrong."""
    oracle: Name | None = None
    """An experiment that is trained on this set's training data in this set's classes: what it reaches on the same
    images is shown beside, where it was evaluated, and is in no mean. Nothing is trained for it."""

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if len(self.splits) != 1:
            raise ValueError(f"a set has one split; `splits` has {', '.join(self.splits) or 'none'}")
        if self.repeat > 1:
            raise ValueError("`repeat` is of trainings")
        if self.counted == "mapped" and not self.has_own_classes:
            raise ValueError("`counted: mapped` is of `native_classes`: without them all classes are mapped")
        if self.relabelled:
            self.relabelled_source()  # refuses what no source may have
        return self

    def relabelled_source(self) -> Source:
        """The pairs of the images and the relabelled labels."""
        assert self.relabelled is not None
        ((name, split),) = self.splits.items()
        shared = {"root", "image_suffix", "label_suffix", "label_name", "exif_orientation"}
        labels = self.relabelled.model_dump()
        return Source.model_validate(
            {
                **self.model_dump(include=shared),
                "splits": {name: {**split.model_dump(), "labels": labels.pop("labels")}},
                **labels,
            }
        )


class Evaluation(Section):
    protocol: Literal["gss", "mseg"] = "gss"
    """How images go through the network. `gss`: as the keys from `mode` to `flip` say. `mseg`: as MSeg published it, at
    several sizes, of which the one with the highest mIoU counts; windows of `crop` (default 713) at steps of two thirds
    of it, always with the mirror image, the mean of probabilities."""
    base_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (360, 720, 1080)
    """Of `mseg`: lengths of the shorter side, pixels. Where one result is asked for, in a validation while training and
    when a model is used, the one in the middle of the list counts."""
    scales: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1.0,)
    """Of `mseg`: multiples of a base size that are averaged; multi-scale as published is 0.5, 0.75, 1, 1.25, 1.5,
    1.75."""
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
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")
    """Splits to evaluate."""
    pictures: Annotated[int, Field(ge=0)] = 8
    """Images of a split drawn as panels, evenly spaced."""
    sets: dict[SetName, EvaluationSet] = {}
    """Test sets with classes of their own, by the name of their results: letters, digits, `.` and `-`."""

    @model_validator(mode="before")
    @classmethod
    def _the_protocol_decides(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("protocol") != "mseg":
            return content
        return {"crop": _MSEG_CROP, "stride": _two_thirds(content.get("crop", _MSEG_CROP)), **_MSEG, **content}

    @model_validator(mode="after")
    def _keys_are_of_the_protocol(self) -> Self:
        if self.protocol == "gss":
            given = [key for key in _OF_MSEG if getattr(self, key) != type(self).model_fields[key].default]
            if given:
                raise ValueError(f"`{given[0]}` is of `protocol: mseg`")
            return self
        decided = {"stride": _two_thirds(self.crop), **_MSEG}
        for key, value in decided.items():
            if getattr(self, key) != value:
                raise ValueError(f"`{key}` cannot be chosen with `protocol: mseg`, which has {value}: remove it")
        for key in _OF_MSEG:
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"`{key}` has one twice")
        side, scale = min(self.base_sizes), min(self.scales)
        if round(scale * side) < 1:
            raise ValueError(f"of `base_sizes` {side} the scale {scale} leaves no pixel")
        return self


_MSEG_CROP = (713, 713)
_MSEG: dict[str, Any] = {"mode": "slide", "scale": None, "flip": True}
_OF_MSEG = ("base_sizes", "scales")


def _two_thirds(crop: Any) -> Any:
    """MSeg's steps of windows of a size; of what is no size what says so when it is looked at."""
    whole = isinstance(crop, list | tuple) and all(isinstance(side, int) for side in crop)
    return tuple(-(-2 * side // 3) for side in crop) if whole else crop


Figures = dict[Literal["mIoU", "mAcc", "aAcc", "h_mean"], Fraction]
"""Fractions; `h_mean`: harmonic mean of the mIoU of several test sets, not those of `split`."""


class Published(Section):
    @field_validator("*", mode="before")
    @classmethod
    def _left_out(cls, figures: Any) -> Any:
        """Those of a base that are null here."""
        return (
            {name: each for name, each in figures.items() if each is not None} if isinstance(figures, dict) else figures
        )

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


class Debug(Section):
    images: Positive | None = None
    """Pairs of each split and source that count, evenly spaced; none: all. `gss check` looks at these alone."""
    overfit: bool = False
    """Trainings see their first batch again and again: what can learn at all brings its loss near to 0."""


class Run(Section):
    resources: dict[str, Resources] = {}
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
    watch_data: bool = True
    """Whether Snakemake looks through the folders of the data set before anything runs and has it checked again where
    files are new, gone or changed; false: where that takes too long. `gss check` always does."""
    profile: Annotated[int, Field(ge=0)] = 0
    """Steps of each training, behind its first two since a start, whose calls are traced into `work/STAGE/trace.json`
    of the results, for chrome://tracing or Perfetto; 0: none."""
    deterministic: bool = False
    """On GPUs only algorithms that give the same bits every time: slower; on CPUs it is always so."""
