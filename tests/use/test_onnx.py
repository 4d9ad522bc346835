"""ONNX files: the same classes as torch in onnxruntime, or no file."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import gss
from gss.cli import main
from gss.errors import GssError
from gss.recipes.gss.model import GSS
from gss.use.onnx import missing_steps, write_onnx
from tests.use.experiment import write_experiment

pytestmark = pytest.mark.slow  # torch's exporter takes some ten seconds for the smallest network

NAMES = ("sky", "road", "früh | spät", "d", "e")


@pytest.mark.parametrize(
    ("model", "size", "options"),
    [
        # large enough for the pieces in which torch computes large maps of window attention
        ("gss_ft", (200, 180), {"backbone": "swin", "variant": "window"}),
        ("gss_ft", (70, 90), {"backbone": "efficientnet", "variant": "conv"}),
        ("gss_ff", (70, 90), {"backbone": "resnet, dilated", "vote_temperature": 300.0}),
        (
            "gss_ft",
            (70, 90),
            {"variant": "conv", "kind": "ff", "token_temperature": 0.05, "token_weight": 0.5, "pixel_weight": 0.5},
        ),
        ("gss_ff", (70, 90), {"kind": "ff", "token_temperature": 1e-6, "pixel_weight": 0.5}),
        ("gss_ff", (72, 96), {"backbone": "efficientnet"}),  # maskige of exactly twice the size: votes of 2 x 2
    ],
)
def test_onnxruntime_gives_the_classes_of_torch(
    model: str,
    size: tuple[int, int],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = write_experiment(tmp_path, NAMES, **options)
    monkeypatch.chdir(tmp_path)
    height, width = size
    arguments = [] if size == (70, 90) else ["--size", f"{width}x{height}"]  # that of the data set is the default
    assert main(["export", "exp.yaml", "--model", model, "-o", "out/model.onnx", *arguments]) == 0
    said = capsys.readouterr().out
    assert "on 3 images" in said and f"takes images of {width} x {height}" in said
    assert "note:" not in said  # the file is the whole protocol

    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(uint8)", [1, height, width, 3])
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(NAMES) and told["model"] == model
    assert json.loads(told["colours"])[1] == [9, 200, 7]
    assert json.loads(told["protocol"])["mode"] == "whole"

    image = cv2.resize(cv2.imread("private/photos/test/2.png"), (width, height))
    predictor = gss.load(results / f"{model}.pth")
    ids, scores = session.run(["ids", "scores"], {"image": image[None]})
    assert ids.dtype == np.uint8 and ids.shape == (1, height, width)
    assert scores.shape == (1, len(NAMES), height, width)
    own = predictor.predict(image)
    assert len(np.unique(own)) > 1
    assert (ids[0] == own).mean() >= 0.999


class Fickle(GSS):
    """Computes something else while it is exported."""

    def scores(self, image: Tensor) -> Tensor:
        scores = super().scores(image)
        return -scores if torch.compiler.is_exporting() else scores


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    results = write_experiment(tmp_path, NAMES, variant="conv")
    predictor = gss.load(results / "gss_ft.pth")
    predictor.model.__class__ = Fickle
    (tmp_path / "out").mkdir()
    images = [tmp_path / "private" / "photos" / "test" / "0.png"]
    with pytest.raises(GssError, match="the ONNX graph does not compute what the model does"):
        write_onnx(tmp_path / "out" / "model.onnx", predictor, (70, 90), images, {})
    assert not list((tmp_path / "out").iterdir())


def test_what_the_file_leaves_out_of_the_protocol_is_said(tmp_path: Path) -> None:
    results = write_experiment(
        tmp_path, NAMES, scale=[128, 64], mode="slide", crop=[64, 96], stride=[32, 48], flip=True
    )
    scale, windows, flip = missing_steps(gss.load(results / "gss_ft.pth"))
    assert "128 x 64" in scale and "96 x 64 at steps of 48 x 32" in windows and "mirrored" in flip
