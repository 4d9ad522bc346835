"""A model as an ONNX file: image in, class ids and scores out, at one size.

Letters: N classes; H, W size of the image the file takes.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import gss
from gss.data.ids import tensor_dtype
from gss.data.images import read_image
from gss.errors import GssError
from gss.evaluate.inference import MSegInference
from gss.evaluate.segmenter import Segmenter
from gss.files import write_atomic
from gss.use.predictor import Predictor

OPSET = 20
EQUAL_PIXELS = 0.999  # share of pixels whose class must be torch's


@dataclass(frozen=True)
class Agreement:
    """How an ONNX file's answers compare with torch's on some images.

    Args:
        images: number of images.
        equal: share of pixels with the same class.
        difference: largest difference of two scores.
        largest: largest absolute score of torch, to compare the difference with.
    """

    images: int
    equal: float
    difference: float
    largest: float

    def __str__(self) -> str:
        return (
            f"onnxruntime and torch on {self.images} images: {100 * self.equal:.4f} % of the pixels have the same "
            f"class, scores differ by at most {self.difference:.2g} (largest score {self.largest:.3g})"
        )


class _Graph(nn.Module):
    """uint8 [1, H, W, 3] RGB -> ids uint8 or int32 [1, H, W], scores float32 [1, N, H, W]."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.model.scores(self.model.normalise(image.permute(0, 3, 1, 2)))
        return scores.argmax(1).to(tensor_dtype(scores.shape[1])), scores  # the lowest id on ties


def write_onnx(
    path: Path, predictor: Predictor, size: tuple[int, int], images: Sequence[Path], origin: dict[str, Any]
) -> Agreement:
    """Write a model as ONNX, after onnxruntime and torch agreed on real images.

    Args:
        predictor: on the CPU.
        size: (H, W) of the images the file takes.
        images: files to compare on; they are resized to `size`.
        origin: what is noted in the file's metadata beside classes, colours, sizes and protocol.

    Raises:
        GssError: torch cannot export the model, less than `EQUAL_PIXELS` of the pixels have torch's class, or the file
            would exceed 2 GB; nothing is written.
    """
    graph = _Graph(predictor.model).eval()
    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecated calls
            program = torch.onnx.export(
                graph,
                (torch.zeros(1, height, width, 3, dtype=torch.uint8),),
                input_names=["image"],
                output_names=["ids", "scores"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        if told := next((cause for cause in _causes(error) if isinstance(cause, GssError)), None):
            raise GssError(told.what, where="--size", todo=f"export it for another size: {told.todo}") from error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise GssError(f"torch cannot write this model as ONNX: {reason}", where=path) from error
    assert program is not None
    program.model.producer_name, program.model.producer_version = "gss", gss.__version__
    program.model.metadata_props.update(describe(predictor, size, origin))
    try:
        content = program.model_proto.SerializeToString()
    except ValueError as error:
        raise GssError("the model is larger than 2 GB, the most an ONNX file can hold", where=path) from error
    agreement = compare(content, graph, [_fitted(image, size) for image in images])
    if agreement.equal < EQUAL_PIXELS:
        raise GssError(
            f"the ONNX graph does not compute what the model does: {agreement}; at least {100 * EQUAL_PIXELS} % must",
            where=path,
            todo="nothing was written; please report it with the model's backbone and the versions of torch and onnx",
        )
    write_atomic(path, lambda file: file.write(content))
    return agreement


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def describe(predictor: Predictor, size: tuple[int, int], origin: dict[str, Any]) -> dict[str, str]:
    """`metadata_props` of the file: every value but text is JSON."""
    height, width = size
    ids = str(tensor_dtype(len(predictor.classes))).removeprefix("torch.")
    content: dict[str, Any] = {
        "classes": list(predictor.classes),
        "colours": predictor.colours.tolist(),
        "image": f"uint8 [1, {height}, {width}, 3], RGB, 0..255; the graph normalises it itself",
        "ids": f"{ids} [1, {height}, {width}], index into classes",
        "scores": f"float32 [1, {len(predictor.classes)}, {height}, {width}], before softmax; the largest wins",
        "protocol": asdict(predictor.inference),
        **origin,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in content.items()}


def compare(content: bytes, graph: nn.Module, images: Sequence[np.ndarray]) -> Agreement:
    """Run an ONNX file and torch on the same images, uint8 [H, W, 3]."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    equal = pixels = 0
    difference = largest = 0.0
    for image in images:
        ids, scores = session.run(None, {"image": image[None]})
        with torch.inference_mode():
            own_ids, own_scores = (output.numpy() for output in graph(torch.from_numpy(image[None])))
        equal += int((ids == own_ids).sum())
        pixels += ids.size
        difference = max(difference, float(np.abs(scores - own_scores).max()))
        largest = max(largest, float(np.abs(own_scores).max()))
    return Agreement(len(images), equal / pixels, difference, largest)


def missing_steps(predictor: Predictor) -> list[str]:
    """What `gss evaluate` does beside the graph, a sentence each; empty: the graph is the whole protocol."""
    inference, steps = predictor.inference, []
    if inference.scale:
        fit = " x ".join(map(str, inference.scale))
        steps.append(
            f"fits images into {fit} before (cv2.resize, INTER_LINEAR) and resizes the scores to the image's size after"
        )
    if isinstance(inference, MSegInference):
        scales = ", ".join(map(str, inference.scales))
        steps.append(
            f"resizes images to a shorter side of {inference.base_size}, times {scales}, and probabilities back after"
        )
        steps.append("stands smaller images in a border of the mean colour")
    if inference.mode == "slide":
        crop, stride = (" x ".join(map(str, pair[::-1])) for pair in (inference.crop, inference.stride))
        what = "probabilities" if isinstance(inference, MSegInference) else "scores"
        steps.append(f"averages the {what} of windows of {crop} at steps of {stride}")
    if inference.flip:
        steps.append("averages the probabilities with those of the mirrored image")
    return steps


def _fitted(image: Path, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(read_image(image), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
