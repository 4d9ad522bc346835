"""`gss.load`: what it predicts is what `gss evaluate` measured, for everything that can stand for an image."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import gss
from gss.data.images import read_image
from gss.data.loader import read_pair
from gss.data.metrics import confusion
from gss.data.toy import make_toy
from gss.errors import CheckpointError, ConfigError, DataError, TokenizerError
from gss.evaluate.inference import Inference, extra_pictures
from gss.files import read_table
from gss.recipes.gss import latent_prior
from gss.results.reader import Results
from gss.stages.check import check
from gss.stages.evaluate import evaluate
from gss.stages.run import Run
from gss.train.distributed import World
from gss.use import predictor

from .models import NETWORKS, write_models

ALONE = World(0, 1, 0, torch.device("cpu"))


def picture(height: int = 40, width: int = 52, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("gss_ft", {"mode": "slide", "crop": [48, 64], "stride": [32, 40], "flip": True}),
        ("gss_ff", {"scale": [128, 80], "vote_temperature": 50.0}),
        ("gss_ff", {"token_temperature": 0.1, "pixel_weight": 0.5}),
        (
            "gss_ft",
            {"token_temperature": 0.1, "pixel_weight": 0.5, "protocol": "mseg", "base_sizes": [48], "crop": [48, 48]},
        ),
    ],
)
def test_predictions_are_those_of_the_evaluation(name: str, protocol: dict, tmp_path: Path) -> None:
    make_toy(tmp_path / "toy", sizes={"train": 1, "val": 1, "test": 3})
    changes = [f"evaluation.{key}={value}" for key, value in {**protocol, "pictures": 1}.items()]
    run = Run.open("toy", [f"data.root={tmp_path / 'toy'}", *changes], tmp_path)
    check(run)
    write_models(run.folder, classes=run.space.names, kind="ff", **run.experiment.evaluation.model_dump(mode="json"))
    evaluate(run, ALONE, name, "test")
    model = gss.load(run.folder / f"{name}.pth")
    stored = sorted((run.folder / "evaluation" / name / "test" / "predictions").glob("*.png"))
    pairs = run.manifest.pairs("test")
    assert len(stored) == len(pairs) == 3
    for pair, file in zip(pairs, stored, strict=True):
        ids = model.predict(pair.image)
        assert len(np.unique(ids)) > 1
        np.testing.assert_array_equal(ids, cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
    assert model.classes == run.space.names
    assert model.colours.tolist() == [list(colour) for colour in run.space.colours or ()]
    (drawn,) = (run.folder / "evaluation" / name / "test" / "maskiges").iterdir()
    picture = read_image(pairs[1].image)
    expected = extra_pictures(model.model, picture, model.inference, device=model.device)["maskige"]
    np.testing.assert_array_equal(cv2.imread(str(drawn), cv2.IMREAD_COLOR_RGB), expected)
    (drawn,) = (run.folder / "evaluation" / name / "test" / "uncertainties").iterdir()
    grey = np.round(model.uncertainty(pairs[1].image) * 255).astype(np.uint8)
    np.testing.assert_array_equal(cv2.imread(str(drawn), cv2.IMREAD_UNCHANGED), grey)
    (drawn,) = (run.folder / "evaluation" / name / "test" / "uncertainty_of_tokens").iterdir()
    shown = cv2.imread(str(drawn), cv2.IMREAD_COLOR_RGB)
    assert shown.shape == expected.shape and (shown > 250).all()  # untrained: all tokens are equally likely
    measured = Results(run.folder).evaluations[name, "test"]
    assert 0 <= measured.metrics["ECE"] <= 1 and measured.metrics["class_ECE"].keys() == measured.metrics["IoU"].keys()
    table = read_table(measured.folder / "reliability.csv")
    assert table["pixels"].astype(int).sum() == measured.metrics["pixels"]


SPACES: dict[str, dict | str | None] = {
    "as then": {"names": ["sky", "road", "car"]},
    "reordered": {"names": ["road", "sky", "car"]},
    "longer": {"names": ["sky", "road", "car", "bus"]},
    "other names": {"names": ["sky", "street", "car"]},
    "damaged": "{",
    "gone": None,
}


def write_space(folder: Path, space: dict | str | None) -> None:
    """The manifest beside a model, as a later check wrote it: class k is (k, 99, 0)."""
    if isinstance(space, dict):
        colours = [[index, 99, 0] for index in range(len(space["names"]))]
        space = json.dumps(
            {
                "version": 1,
                "root": "x",
                "splits": {},
                "classes": {**space, "colours": colours, "reduce_zero_label": False, "label_map": {}},
            }
        )
    if space is not None:
        (folder / "data").mkdir()
        (folder / "data" / "manifest.json").write_text(space)


def describe(folder: Path, **meta: object) -> None:
    """Change what the model files say."""
    for path in folder.glob("*.pth"):
        content = torch.load(path, weights_only=True)
        content["meta"] |= meta
        torch.save(content, path)


@pytest.mark.parametrize("space", SPACES)
def test_colours_belong_to_the_model_file(space: str, tmp_path: Path) -> None:
    """Older files have none: they take those of the same classes beside them, or their palette's."""
    write_models(tmp_path, classes=("sky", "road", "car"))
    write_space(tmp_path, SPACES[space])
    palette = torch.load(tmp_path / "gss_ft.pth", weights_only=True)["meta"]["palette"][:-1]
    beside = [[0, 99, 0], [1, 99, 0], [2, 99, 0]]
    assert gss.load(tmp_path / "gss_ft.pth").colours.tolist() == (beside if space == "as then" else palette)
    for own in ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], None):  # None: the data set had none
        describe(tmp_path, colours=own)
        assert gss.load(tmp_path / "gss_ft.pth").colours.tolist() == (own or palette)


def test_the_protocol_belongs_to_the_model_file(folder: Path, tmp_path: Path) -> None:
    """What a file of another version asks for and this one does not know is said, or refused where it decides."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    protocol = {"mode": "slide", "crop": [48, 40], "stride": [32, 24], "tokenizer_precision": "fp32"}
    described = {"protocol": protocol, "training_crop": [64, 80], "provenance": {}, "colours": None}
    describe(tmp_path, **described)
    model = gss.load(tmp_path / "gss_ft.pth")
    assert model.inference == Inference("slide", (48, 40), (32, 24)) and model.crop == (64, 80)
    describe(tmp_path, protocol=protocol | {"angles": [1, 2]})
    with pytest.warns(UserWarning, match=r"asks for angles, which gss .* does not know and passes over"):
        assert gss.load(tmp_path / "gss_ft.pth").inference == model.inference
    describe(tmp_path, protocol=protocol | {"mode": "pyramid"})
    with pytest.raises(CheckpointError, match=r"(?s)cannot be used: .*'whole' or 'slide'.*written by gss"):
        gss.load(tmp_path / "gss_ft.pth")


@pytest.mark.filterwarnings("error:.*passes over")
def test_older_files_have_the_configuration_of_their_version(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = torch.load(tmp_path / "gss_ft.pth", weights_only=True)["meta"]["provenance"]["config"]
    older = {
        "evaluation": {"mode": "whole", "pictures": 3, "splits": ["val"]},
        "tokenizer": {},
        "augment": {"crop": [32, 48], "gone": 1},
    }
    describe(tmp_path, provenance={"config": older})
    model = gss.load(tmp_path / "gss_ft.pth")
    assert model.inference == Inference() and model.crop == (32, 48)
    del config["augment"]["crop"]
    describe(tmp_path, provenance={"config": config})
    with pytest.raises(CheckpointError, match=r"what the file says of its model lacks 'crop'"):
        gss.load(tmp_path / "gss_ft.pth")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"latent_prior": {"hexagons": 6}}, "hexagons"),
        ({"posterior": {"variant": "window", "width": 3}}, "width"),
    ],
)
def test_a_network_of_another_version_is_refused(changed: dict, said: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    meta = torch.load(tmp_path / "gss_ft.pth", weights_only=True)["meta"]
    describe(tmp_path, **{key: value and {**meta[key], **value} for key, value in changed.items()})
    with pytest.raises(CheckpointError, match=said) as error:
        gss.load(tmp_path / "gss_ft.pth")
    assert f"written by gss {gss.__version__}" in error.value.what


def test_what_is_no_model_is_named_with_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_models(tmp_path / "results" / "mine")
    monkeypatch.chdir(tmp_path)
    for path in ("config/experiments/new.yaml", "results/begun/config.yaml", "photos/a.jpg", "hub/config.json", "x/y"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("{}")
    for given, said in {
        "mine": "name of an experiment, not of a model file.*give results/mine/gss_ft.pth",
        "results/mine": "folder of a model, not the model.*give results/mine/gss_ft.pth",
        "results/mine/gss_tf.pth": "not found.*did you mean results/mine/gss_ft.pth",
        "new": "not found.*build it: snakemake results/new/gss_ft.pth",
        "results/new/gss_ft.pth": "not found.*build it: snakemake results/new/gss_ft.pth",
        "results/begun": "no model is finished.*snakemake results/begun/gss_ft.pth",
        "photos": "a folder of images.*the model comes first",
        "x": "this folder holds no model",
        "hub": "not a folder that gss export wrote.*other models are run by their own code",
        "nothing": "not found.*give the gss_ft.pth of an experiment",
    }.items():
        with pytest.raises(CheckpointError, match=f"(?s){said}"):
            gss.load(given)
    Path("results/mine/tokenizer.safetensors").unlink()
    with pytest.raises(TokenizerError, match=r"(?s)not found.*beside the model file in the results: copy it"):
        gss.load("results/mine/gss_ft.pth")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gss_ff", "gss_ft"])
def test_camvid_is_predicted_as_measured(name: str, gss_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = os.environ.get("GSS_CAMVID_RESULTS")
    if not results:
        pytest.skip("GSS_CAMVID_RESULTS names no finished results/camvid")
    monkeypatch.setenv("GSS_DATA", str(gss_data))
    run = Run.open("camvid", results=Path(results).parent)
    counts = np.load(run.folder / "evaluation" / name / "test" / "confusion.npz")
    model = gss.load(run.folder / f"{name}.pth")
    pairs = run.manifest.pairs("test")
    for index in range(0, len(pairs), 30):
        _, label = read_pair(pairs[index])
        ids = model.predict(pairs[index].image)
        found = confusion(torch.from_numpy(ids), torch.from_numpy(label), len(model.classes)).numpy()
        np.testing.assert_array_equal(np.diag(found), counts["intersection"][index])
        np.testing.assert_array_equal(found.sum(0), counts["predicted"][index])


@pytest.mark.filterwarnings("error")
def test_array_file_and_pil_image_are_the_same_image(folder: Path, tmp_path: Path) -> None:
    model, pixels = gss.load(folder / "gss_ft.pth"), picture()
    file, turned = tmp_path / "a.png", tmp_path / "turned.jpg"
    Image.fromarray(pixels).save(file)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(turned, exif=exif)
    expected = model.predict(pixels)
    assert expected.dtype == np.uint8 and expected.shape == (40, 52)
    locked, mirrored = pixels.copy(), pixels[:, ::-1].copy()
    locked.setflags(write=False)
    for image in (file, str(file), Image.open(file), Image.open(file).convert("RGBA"), locked, mirrored[:, ::-1]):
        np.testing.assert_array_equal(model.predict(image), expected)
    assert model.predict(turned).shape == (52, 40)
    np.testing.assert_array_equal(model.predict(Image.open(turned)), model.predict(turned))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_images_keep_their_high_byte(ending: str, tmp_path: Path) -> None:
    """Pillow alone would cut them off at 255, which makes them white."""
    grey = picture()[..., 0]
    cv2.imwrite(str(tmp_path / f"a.{ending}"), grey.astype(np.uint16) << 8 | 77)
    for image in (read_image(tmp_path / f"a.{ending}"), predictor.as_array(Image.open(tmp_path / f"a.{ending}"))):
        np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_transparency_is_ignored(name: str, tmp_path: Path) -> None:
    """OpenCV would darken the colours of a TIFF by it, or by whatever a fourth channel holds."""
    pixels = picture()
    alpha = np.random.default_rng(1).integers(0, 256, pixels.shape[:2], dtype=np.uint8)
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / name, **options)
    np.testing.assert_array_equal(read_image(tmp_path / name), pixels)


def test_channels_that_are_no_picture_are_named(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[content.index(b"\x15\x01\x03\0") + 8] = 5  # samples per pixel
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match="5 channels, not 1, 3 or 4"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("image", [picture()[..., 0], picture().astype(np.float32), picture()[:0], picture()[None]])
def test_other_arrays_are_refused(image: np.ndarray, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"an image is uint8 \[H, W, 3\] RGB, not"):
        predictor.as_array(image)


@pytest.mark.parametrize("backbone", NETWORKS)
def test_any_size_can_be_predicted(backbone: str, tmp_path: Path) -> None:
    write_models(tmp_path, backbone=backbone)
    write_models(tmp_path / "fitted", backbone=backbone, scale=(64, 32))
    for path in (tmp_path / "gss_ft.pth", tmp_path / "gss_ff.pth", tmp_path / "fitted" / "gss_ft.pth"):
        model = gss.load(path)
        for size in ((1, 1), (2, 3), (37, 1024), (1024, 37)):
            assert model.predict(picture(*size)).shape == size


@pytest.mark.parametrize("name", ["gss_ff", "gss_ft"])
@pytest.mark.parametrize("protocol", [{}, {"mode": "slide", "crop": (24, 24), "stride": (16, 16)}, {"scale": (80, 60)}])
def test_scores_are_probabilities_whose_maximum_is_predicted(name: str, protocol: dict, tmp_path: Path) -> None:
    model = gss.load(write_models(tmp_path, **protocol) / f"{name}.pth")
    ids, scores = model.predict(picture()), model.scores(picture())
    assert scores.dtype == np.float32 and scores.shape == (5, 40, 52)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-5)
    chosen = np.take_along_axis(scores, ids[None].astype(np.int64), 0)[0]
    assert (chosen >= scores.max(0) - 1e-6).all()  # the order of equals is rounding
    uncertainty = model.uncertainty(picture())
    assert uncertainty.dtype == np.float32 and uncertainty.shape == (40, 52)
    entropy = -(scores * np.log(np.maximum(scores, 1e-30))).sum(0) / np.log(5)
    np.testing.assert_allclose(uncertainty, entropy, atol=1e-5)


def test_uncertainty_of_tokens_is_that_of_their_probabilities(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces and at once; the picture beside the maskige is of its size."""
    model = gss.load(folder / "gss_ft.pth").model
    image = model.normalise(torch.from_numpy(picture(33, 47)).permute(2, 0, 1)[None])
    with torch.inference_mode():
        head, maps = model.prior.head, model.prior.backbone(model.prior.backbone.fit(image))
        logits = head.conv_seg(head.hidden(head.fuse(maps)))  # [1, V, h, w]
        expected = torch.special.entr(logits.double().softmax(1)).sum(1)[:, :9, :12] / np.log(32)
        monkeypatch.setattr(latent_prior, "scores_at_once", lambda hidden: 7 * 32)
        found = model.prior.token_uncertainty(image)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
        shown = model.extras(image)
    assert torch.equal(shown[:, :3], model.rgb(image)) and shown.shape == (1, 6, 72, 96)
    assert torch.equal(shown[:, 3], shown[:, 5]) and float(shown[:, 3].min()) >= 0 and float(shown[:, 3].max()) <= 1


def test_flip_averages_the_scores(tmp_path: Path) -> None:
    plain = gss.load(write_models(tmp_path / "plain") / "gss_ft.pth")
    both = gss.load(write_models(tmp_path / "flip", flip=True) / "gss_ft.pth")
    mirrored = plain.scores(picture()[:, ::-1].copy())[..., ::-1]
    np.testing.assert_allclose(both.scores(picture()), (plain.scores(picture()) + mirrored) / 2, atol=1e-6)


def test_an_image_too_large_for_one_pass_is_cut_and_said_to_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gss.load(folder / "gss_ft.pth")
    large, limit = picture(200, 190), picture(192, 192)
    whole = model.predict(large)
    monkeypatch.setattr(predictor, "PIXELS_AT_ONCE", 0)  # leaves four crops of 96 x 96
    assert model.cut(*limit.shape[:2]) == ""
    with pytest.warns(UserWarning, match="190 x 200 is too large for one pass: cut into windows of 96 x 96"):
        cut = model.predict(large)
    model.inference = Inference("slide", (96, 96), (64, 64))
    np.testing.assert_array_equal(model.predict(large), cut)
    assert (cut != whole).any()


def test_what_cannot_be_loaded_is_named(folder: Path, tmp_path: Path) -> None:
    for device in ("nonsense", "mps", "meta", "hpu", "0", ""):
        with pytest.raises(ConfigError, match=f"the device '{device}' cannot be used: .{{5,250}}\n"):
            gss.load(folder / "gss_ft.pth", device)
    with pytest.raises(CheckpointError, match=r"(?s)model file not found.*gone.pth"):
        gss.load(tmp_path / "gone.pth")
    with pytest.raises(DataError, match=r"(?s)No such file.*gone.png"):
        gss.load(folder / "gss_ft.pth").predict(tmp_path / "gone.png")
    content = torch.load(folder / "gss_ft.pth", weights_only=True)
    torch.save({**content, "kind": "posterior"}, tmp_path / "posterior.pth")
    (tmp_path / "tokenizer.safetensors").write_bytes((folder / "tokenizer.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="'posterior' alone predicts no classes"):
        gss.load(tmp_path / "posterior.pth")
    content["meta"]["tokenizer"] = "f" * 64
    torch.save(content, tmp_path / "gss_ft.pth")
    with pytest.raises(CheckpointError, match="made for the tokenizer ffffffffffff, not for"):
        gss.load(tmp_path / "gss_ft.pth")
