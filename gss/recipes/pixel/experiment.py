"""The sections of an experiment with recipe `pixel`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gss.config.experiment import Experiment, NamedFile
from gss.config.load import PUT_IT_THERE, data_folder, start_file, weights_download, weights_file
from gss.config.names import Place
from gss.config.schema import Backbone, Figures, Fraction, Positive, Published, Rate, Section, Training


class Auxiliary(Section):
    weight: Rate = 0.4
    """Factor of its loss."""
    channels: Positive = 256
    """Width."""
    dropout: Fraction = 0.1
    """Channel dropout before its classifier."""


class CCSA(Section):
    weight: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Its share of the loss; cross-entropies have the rest."""
    pairs: Positive = 1000
    """Pairs of pixels of one class drawn from a micro-batch, at most, and three times as many of two classes; both of
    different sources, and none of ignored pixels."""
    broadcast: bool = False
    """As published, where every pair counts as one of either kind, by the share of the kinds."""


class Pixel(Section):
    backbone: Backbone
    """The image encoder."""
    checkpoint: Place | None = None
    """A published checkpoint, of CAE with UPerNet or of MSeg's HRNet, to import instead of training, found like
    `data.root`."""
    start_from: Place | None = None
    """A model to go on from, for other classes, data or schedules: a file as `results/other/pixel.pth`, or a folder of
    `gss export`; relative to the project. Tensors of equal names and shapes are taken, of a classifier the rows of
    classes with equal names."""
    head: Literal["plain", "fcn", "hrnet", "upernet", "psp"] = "plain"
    """What makes scores of the four maps: `plain` adds them up, `fcn` concatenates them, `hrnet` does so as in MSeg's
    HRNetV2 and trains the encoder with its BatchNorm momentum and start values, `upernet` is UPerNet; `psp` is
    PSPNet's, of the last map alone (`backbone.output_stride: 8`)."""
    channels: Positive = 128
    """Width of the head."""
    dropout: Fraction = 0.0
    """Channel dropout before the classifier."""
    auxiliary: Auxiliary | None = None
    """A second head on the map of stride 16, in training only; `{}`: as published; none: there is none."""
    ccsa: CCSA | None = None
    """A contrastive loss on the encoder's last map (`backbone.output_stride: 8`: of stride 8), which draws together
    pixels of one class and different `data.sources`; `{}`: as MSeg described it; none: there is none."""
    steps: Positive = 40000
    """Updates."""
    training: Training = Training()
    """Optimisation."""

    def architecture(self) -> dict[str, Any]:
        """The arguments of the network's builder, as a model file says them."""
        training: Any = dict.fromkeys(("checkpoint", "start_from", "ccsa", "steps", "training"), True)
        beside = {"backbone": {"weights"}, "auxiliary": {"weight"}, **training}
        return self.model_dump(mode="json", exclude=beside)


class PixelPublished(Published):
    pixel: Figures = {}
    """Figures of the network."""


class PixelExperiment(Experiment):
    recipe: Literal["pixel"] = "pixel"
    """The system: a network that gives every pixel its class."""
    pixel: Pixel
    """Image -> classes."""
    published: PixelPublished = PixelPublished()
    """Scores to expect, shown beside those achieved. Changes no result."""

    trainings: ClassVar[dict[str, str]] = {"pixel": "pixel.training"}
    backbone: ClassVar[str] = "pixel.backbone"
    unpublished: ClassVar[tuple[str, ...]] = ("bf16",)  # CAE's networks were trained in fp16
    unhashed: ClassVar[tuple[str, ...]] = (*Experiment.unhashed, "import")
    idle_keys: ClassVar[Any] = (
        (
            "`pixel.checkpoint`",
            lambda e: e.pixel.checkpoint is not None,
            ("pixel.training", "pixel.steps", "pixel.backbone.weights", "pixel.ccsa", "pixel.start_from"),
        ),
        *Experiment.idle_keys,
    )

    @model_validator(mode="after")
    def _pairs_are_of_two_sources(self) -> Self:
        if self.pixel.ccsa and not any("train" in source.splits for source in self.data.sources):
            raise ValueError("`pixel.ccsa` draws pairs of different sources: `data.sources` has none with `train`")
        return self

    @property
    def trained(self) -> dict[str, str]:
        return {} if self.pixel.checkpoint else self.trainings

    def named_files(self) -> Iterator[NamedFile]:
        if file := self.pixel.checkpoint:
            yield NamedFile("checkpoint", "pixel.checkpoint", data_folder() / file, PUT_IT_THERE)
        else:
            yield from weights_file(self.pixel.backbone, "pixel.backbone")
            yield from start_file(self.pixel.start_from, "pixel")

    def downloads(self) -> Iterator[tuple[str, str, str]]:
        if not self.pixel.checkpoint:
            yield from weights_download(self.pixel.backbone)
