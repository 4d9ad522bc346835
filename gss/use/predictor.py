"""A model file at work: an image in, class ids out, by the protocol the model was evaluated with.

Letters: N classes; H, W size of the image.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gss import __version__
from gss.config import all_models, recipe_of_model
from gss.data.classes import ids_dtype
from gss.data.images import Orientation, nearly_black, read_image
from gss.data.manifest import read_manifest
from gss.errors import CheckpointError, ConfigError, GssError
from gss.evaluate.inference import Inference, one_inference, predict
from gss.evaluate.segmenter import Segmenter
from gss.modelfile import ModelFile, described, load_model
from gss.use.given import no_model_there
from gss.use.hub import is_export, read_folder

CROPS_AT_ONCE = 4  # a network input of more pixels than this many training crops is cut into windows ...
PIXELS_AT_ONCE = 2**21  # ... but none of up to this many, 2048 x 1024

Picture = Image.Image | np.ndarray | str | Path
"""A PIL image, a file, or uint8 [H, W, 3] RGB."""


@dataclass(eq=False)
class Predictor:
    """Gives every pixel of an image its class.

    Args:
        model: in eval mode, on `device`.
        classes: names of the N classes.
        colours: uint8 [N, 3], RGB, by the model file: those of its data set, or else of its palette.
        inference: how an image goes through the network: that of `gss evaluate` when the model was made.
        crop: (height, width) of the model's training crops.
        device: where it works.
        orientation: what is done with an EXIF orientation: as with the photographs it was trained on.
    """

    model: Segmenter
    classes: tuple[str, ...]
    colours: np.ndarray
    inference: Inference
    crop: tuple[int, int]
    device: torch.device
    orientation: Orientation = "apply"

    def predict(self, image: Picture) -> np.ndarray:
        """The class of every pixel, as `gss evaluate` measures it, to the bit.

        Args:
            image: of any size. The EXIF orientation is applied, or not, as `orientation` says; transparency is ignored.

        Returns:
            [H, W], 0..N-1: uint8 for up to 254 classes, else uint16.

        Raises:
            DataError: the file cannot be read.
            ValueError: an array of another shape or type.
        """
        pixels = as_array(image, self.orientation)
        for message in filter(None, (self.cut(pixels.shape[0], pixels.shape[1]), nearly_black(pixels))):
            warnings.warn(message, stacklevel=2)
        return self.launch(pixels).cpu().numpy().astype(ids_dtype(len(self.classes)), copy=False)

    def scores(self, image: Picture) -> np.ndarray:
        """The probability of every class at every pixel.

        Returns:
            float32 [N, H, W], 0..1. Of GSS-FF: the share of a class in the votes of the maskige's pixels.
        """
        pixels = as_array(image, self.orientation)
        result = torch.empty(len(self.classes), *pixels.shape[:2])
        self.launch(pixels, probabilities=result)
        return result.numpy()

    def uncertainty(self, image: Picture) -> np.ndarray:
        """How undecided the model is at every pixel: the entropy of the probabilities of `scores`, divided by log N.

        Returns:
            float32 [H, W], 0: one class is certain .. 1: all are equally likely.
        """
        pixels = as_array(image, self.orientation)
        certainty = torch.empty(2, *pixels.shape[:2], device=self.device)
        self.launch(pixels, certainty=certainty)
        return certainty[1].cpu().numpy()

    def launch(
        self, pixels: np.ndarray, *, probabilities: Tensor | None = None, certainty: Tensor | None = None
    ) -> Tensor:
        """Like `predict`, of uint8 [H, W, 3] RGB: a tensor [H, W] on the device, which may still be at work on it.

        Args:
            probabilities: [N, H, W], filled: float32 in 0..1, or uint8 in 255ths.
            certainty: float32 [2, H, W] on the device, filled: confidence and uncertainty, 0..1.
        """
        return predict(
            self.model,
            pixels,
            self._protocol(pixels.shape[0], pixels.shape[1]),
            device=self.device,
            probabilities=probabilities,
            certainty=certainty,
        )

    def cut(self, height: int, width: int) -> str:
        """What to say when an image of this size is cut into windows although the protocol says `whole`; else ''."""
        inference = self._protocol(height, width)
        if inference.mode == self.inference.mode:
            return ""
        crop = " x ".join(map(str, inference.crop[::-1]))
        return (
            f"{width} x {height} is too large for one pass: cut into windows of {crop}, the size trained on; "
            "a smaller picture of the same is often understood better"
        )

    def _protocol(self, height: int, width: int) -> Inference:
        rows, columns = self.inference.input_size(height, width)
        bound = max(PIXELS_AT_ONCE, CROPS_AT_ONCE * self.crop[0] * self.crop[1])
        if self.inference.mode == "slide" or rows * columns <= bound:
            return self.inference
        stride = (self.crop[0] * 2 // 3, self.crop[1] * 2 // 3)  # the published overlap
        return replace(self.inference, mode="slide", crop=self.crop, stride=stride)


def load(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """A trained model, ready to predict.

    Args:
        path: the model file of an experiment, with what its recipe keeps beside it (GSS: `tokenizer.safetensors`), or a
            folder `gss export` wrote.
        device: `cpu`, `cuda`, `cuda:1` ...

    Raises:
        CheckpointError: missing, damaged, or made for another tokenizer.
        ConfigError: no such device.
    """
    # Torch reads it at the first allocation and asks for large pages then: less time on CPUs, see bench/step.md.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    path, device = Path(path), usable_device(device)
    if is_export(path):
        return build_predictor(*read_folder(path), where=path, device=device)
    if not path.is_file():
        raise no_model_there(path)
    file = load_model(path)
    if "colours" not in file.meta:  # files of version 0.1.0
        file.meta["colours"] = _colours_beside(path, file.meta)
    _require_model(file, path)
    beside = recipe_of_model(file.kind).part("assemble").read_beside(path.with_name)
    return build_predictor(file, beside, where=path, device=device)


def _colours_beside(path: Path, meta: Mapping[str, Any]) -> Sequence[Sequence[int]] | None:
    """Colours of the data set that was checked beside a model file, if its classes are the model's."""
    try:
        space = read_manifest(path.parent / "data" / "manifest.json").space
    except GssError:
        return None
    return space.colours if list(space.names) == meta.get("classes") else None


def build_predictor(file: ModelFile, beside: Any, *, where: str | Path, device: torch.device) -> Predictor:
    """A predictor from a model's content, wherever that came from.

    What the file says and this version does not know is passed over with a warning.

    Args:
        beside: what its recipe keeps beside it, as `read_beside` gives it; becomes part of the predictor.
        where: named in messages.

    Raises:
        CheckpointError: no whole model, made for another tokenizer, described as this version cannot build or use it,
            or the tensors do not fit.
    """
    _require_model(file, where)
    recipe = recipe_of_model(file.kind)
    section = recipe.experiment.model_fields["evaluation"].annotation
    assert section is not None
    with described(file, where):
        stored, crop = _protocol(file.meta)
        protocol = section.model_validate({key: stored[key] for key in stored if key in section.model_fields})
    if unknown := sorted(stored.keys() - {*section.model_fields, *recipe.part("assemble").PROTOCOL}):
        warnings.warn(
            f"{where} was made by gss {file.version} and asks for {', '.join(unknown)}, which gss {__version__} does "
            "not know and passes over: predictions may differ from those it was measured with",
            stacklevel=3,
        )
    model = recipe.part("assemble").build_segmenter(file, beside, protocol=stored, where=where, device=device)
    return Predictor(
        model.requires_grad_(False),
        tuple(file.meta["classes"]),
        np.array(file.meta.get("colours") or file.meta["palette"][:-1], np.uint8),
        one_inference(protocol),
        crop,
        device,
        _orientation(file.meta),
    )


def _require_model(file: ModelFile, where: str | Path) -> None:
    if file.kind not in all_models():
        names = " or ".join(f"{name}.pth" for name in all_models())
        raise CheckpointError(f"{file.kind!r} alone predicts no classes", where=where, todo=f"take {names}")


def _protocol(meta: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    """How a model is evaluated, and the (height, width) of its training crops; files of 0.1.0 have a configuration."""
    if "protocol" in meta:
        height, width = meta["training_crop"]
        return meta["protocol"], (height, width)
    config = meta["provenance"]["config"]
    height, width = config["augment"]["crop"]
    precision = config["tokenizer"].get("precision", "fp32")
    return {**config["evaluation"], "tokenizer_precision": precision}, (height, width)


def _orientation(meta: Mapping[str, Any]) -> Orientation:
    """What was done with the EXIF orientation of the photographs that a model was trained on."""
    if "exif_orientation" in meta:
        return meta["exif_orientation"]
    data = meta.get("provenance", {}).get("config", {}).get("data", {})
    return data.get("exif_orientation") or "apply"


def usable_device(name: str | torch.device) -> torch.device:
    """The device of this name.

    Raises:
        ConfigError: this machine or this torch has none.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` computes nothing
    except (RuntimeError, AssertionError, ImportError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ConfigError(f"the device {str(name)!r} cannot be used: {reason}", todo="choose cpu, or cuda") from error
    return device


def as_array(image: Picture, orientation: Orientation = "apply") -> np.ndarray:
    """uint8 [H, W, 3] RGB of what a user may give, see `Predictor.predict`."""
    if isinstance(image, str | Path):
        return read_image(Path(image), orientation)
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image) if orientation == "apply" else image
        if image.mode.startswith("I;16"):  # Pillow would cut values off at 255; files are read like this, too
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode in ("I", "F"):
            raise ValueError(f"a PIL image of mode {image.mode!r} has no known range of values: convert it first")
        image = np.asarray(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"an image is uint8 [H, W, 3] RGB, not {image.dtype} {list(image.shape)}")
    return np.require(image, requirements=["C", "W"])  # the same, or a copy where it is a view torch cannot take
