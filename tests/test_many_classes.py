"""400 classes: labels and predictions of 16 bits, from the files to the pages; with few classes nothing changes."""

import base64
import zlib
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from compare.made import Made
from procedural import CASE_B, procedural_dvae
from synthetic_results import SyntheticResults

import gss
from gss.compare.compare import compare
from gss.compare.images import show
from gss.compare.runs import read_runs
from gss.data.augment import Augment, draw
from gss.data.check import scan
from gss.data.classes import ClassSpace, read_class_space
from gss.data.images import read_label, write_png
from gss.data.loader import TrainLoader
from gss.data.manifest import Manifest, read_manifest, write_manifest
from gss.data.metrics import confusion
from gss.data.pairing import SplitFolders
from gss.evaluate.pictures import error_picture, paint_ids
from gss.files import write_text
from gss.nets.losses import pixel_loss_sum
from gss.recipes.gss.learners import LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.palette.maskige import nearest, paint
from gss.recipes.gss.palette.palette import Palette, read_palette, write_palette
from gss.recipes.gss.palette.strategies import grid_colours, with_ignore
from gss.recipes.gss.posterior import ConvPosterior
from gss.recipes.gss.tokenizer.crops import MaskigeCrops
from gss.recipes.gss.tokenizer.reconstruct import reconstruct
from gss.recipes.gss.tokenizer.targets import token_targets
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import build_pixel_network
from gss.recipes.pixel.stage import pixel
from gss.report.layers import layers
from gss.results.reader import Results
from gss.stages.check import check
from gss.stages.evaluate import evaluate
from gss.stages.run import Run
from gss.train.distributed import World
from gss.use.folder import predict_files
from gss.use.onnx import _Graph, describe
from tests.models.test_training import make
from tests.use.models import write_models

N, FEW, IGNORED = 400, 5, 65535
NAMES = tuple(f"class {index}" for index in range(N))
COLOURS = with_ignore(grid_colours(N, np.random.default_rng(0)))  # [N+1,3]
SPLITS = {"train": 4, "val": 2, "test": 2}
VOID = 1000  # the native id of what is ignored
ALONE = World(0, 1, 0, torch.device("cpu"))


def blocks(rng: np.random.Generator, count: int, void: int) -> np.ndarray:
    """uint16 [48, 64]: squares of classes below a strip of `void`."""
    label = np.kron(rng.integers(0, count, (6, 8)), np.ones((8, 8), int)).astype(np.uint16)
    label[:5] = void
    return label


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose label files have 16 bits."""
    root, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for split, count in SPLITS.items():
        for index in range(count):
            write_png(root / "images" / split / f"{index}.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            write_png(root / "labels" / split / f"{index}.png", blocks(rng, N, VOID))
    rows = [
        f"{index},{name},{r},{g},{b}" for index, (name, (r, g, b)) in enumerate(zip(NAMES, COLOURS[:-1], strict=True))
    ]
    write_text(root / "classes.csv", "\n".join(["index,name,r,g,b", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    """Checked, and with models that were not trained."""
    settings = [f"data.root={root}", "data.generate=null", "data.label_map={1000: ignore}", "evaluation.pictures=1"]
    run = Run.open("toy", settings, root / "results")
    check(run)
    write_models(run.folder, classes=NAMES)
    return run


def native(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


# ---- the same as with few classes


def pairs_of_few(folder: Path, space: ClassSpace, void: int) -> Manifest:
    """The same labels of five classes, whatever space they are of."""
    rng = np.random.default_rng(3)
    for index in range(4):
        write_png(folder / "images" / f"{index}.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        write_png(folder / "labels" / f"{index}.png", blocks(rng, FEW, void).astype(space.dtype))
    manifest, _, faults = scan(folder, {"train": SplitFolders("images", "labels")}, space)
    assert not faults
    write_manifest(folder / "manifest.json", manifest)
    return read_manifest(folder / "manifest.json")


def widened(label: torch.Tensor) -> torch.Tensor:
    """A label of five classes as one of 400."""
    return torch.where(label == 255, IGNORED, label.int())


@pytest.mark.parametrize("uint8", [False, True])
def test_batches_hold_the_same_crops(tmp_path: Path, uint8: bool) -> None:
    few = pairs_of_few(tmp_path / "few", ClassSpace(NAMES[:FEW]), 255)
    many = pairs_of_few(tmp_path / "many", ClassSpace(NAMES), IGNORED)
    augment = Augment((64, 48), (0.5, 1.5), (40, 72), uint8=uint8)
    batches = [
        [step[0] for step in islice(TrainLoader(m.pairs("train"), m.space, augment, seed=1, batch_size=4), 3)]
        for m in (few, many)
    ]
    for one, other in zip(*batches, strict=True):
        assert (one["label"].dtype, other["label"].dtype) == (torch.uint8, torch.int32)
        assert (one["label"] == 255).any()
        assert torch.equal(widened(one["label"]), other["label"])
        for key in ("image", "valid", "photometric", "position"):
            assert torch.equal(one[key], other[key])


def test_crops_of_high_ids_are_drawn_again_like_those_of_low_ones() -> None:
    settings = Augment((64, 48), (1.0, 1.0), (16, 16), cat_max_ratio=0.75)
    label = blocks(np.random.default_rng(1), 2, 255).astype(np.uint8)
    high = np.where(label == 255, np.uint16(IGNORED), label + np.uint16(300))
    draws = [[draw(np.random.RandomState(seed), given, settings) for seed in range(40)] for given in (label, high)]
    assert draws[0] == draws[1]


def test_crops_for_the_tokenizer_are_the_same() -> None:
    rng = np.random.default_rng(0)
    labels = [blocks(rng, FEW, 255).astype(np.uint8) for _ in range(3)]
    wide = [widened(torch.from_numpy(label)).numpy().astype(np.uint16) for label in labels]
    for crop in (64, 160):  # the second needs padding
        one, other = (
            next(iter(MaskigeCrops(given, count, seed=1, batch_size=6, crop=crop)))[0]["label"]
            for given, count in ((labels, FEW), (wide, N))
        )
        assert torch.equal(widened(one), other)


def few_label() -> torch.Tensor:
    """uint8 [2, 48, 64]."""
    rng = np.random.default_rng(5)
    return torch.from_numpy(np.stack([blocks(rng, FEW, 255) for _ in range(2)]).astype(np.uint8))


def test_targets_of_the_latent_prior_are_the_same() -> None:
    label, dvae = few_label(), procedural_dvae(CASE_B)
    logits = torch.randn(2, N, 12, 16, generator=torch.Generator().manual_seed(0))
    logits[:, FEW:] = -100
    colours = torch.from_numpy(COLOURS)
    tokens, doubled = token_targets(dvae, label, logits[:, :FEW], torch.cat([colours[:FEW], colours[-1:]]))
    wide_tokens, wide_doubled = token_targets(dvae, widened(label), logits, colours)
    assert torch.equal(tokens, wide_tokens)
    assert torch.equal(widened(doubled), wide_doubled)


def test_figures_are_the_same() -> None:
    label = few_label()
    prediction = torch.randint(0, FEW, label.shape, generator=torch.Generator().manual_seed(0)).byte()
    counts = confusion(prediction.int(), widened(label), N)
    assert torch.equal(counts[:FEW, :FEW], confusion(prediction, label, FEW))
    assert counts.sum() == (label != 255).sum()


# ---- files


def test_the_check_counts_every_class(run: Run, root: Path) -> None:
    space = run.manifest.space
    assert (space.num_classes, space.ignore_index, space.dtype) == (N, IGNORED, np.uint16)
    labels = np.stack([native(path) for path in sorted((root / "labels" / "train").iterdir())])
    assert (labels == 255).any() or (labels == 256).any(), "8 bits would do"
    pair = run.manifest.pairs("train")[0]
    assert np.array_equal(read_label(pair.label, space), np.where(labels[0] == VOID, IGNORED, labels[0]))
    folders = {"train": SplitFolders("images/train", "labels/train")}
    _, statistics, faults = scan(root, folders, space)
    train = statistics["splits"]["train"]
    assert faults == []
    assert [row["pixels"] for row in train["classes"]] == [(labels == k).sum() for k in range(N)]
    assert train["ignored_pixels"] == train["native_ids"][str(VOID)] == (labels == VOID).sum() > 0


def test_unknown_ids_are_named_with_the_word_that_ignores_them(root: Path) -> None:
    space = read_class_space(root / "classes.csv")
    *_, faults = scan(root, {"val": SplitFolders("images/val", "labels/val")}, space)
    assert faults[0].startswith(
        f"remap: if these ids are void ({VOID} 10.42 % of the pixels) add label_map: {{1000: ignore}}"
    )
    assert "labels/val/0.png: ids found that are no class: 1000 (320 pixels); allowed: 0..399, 65535" in faults
    mended = read_class_space(root / "classes.csv", label_map={VOID: "ignore"})
    assert scan(root, {"val": SplitFolders("images/val", "labels/val")}, mended)[2] == []


# ---- losses


def test_losses_ignore_65535_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, N, (2, 40, 52), generator=generator).int()
    label[0, 0, :4] = 255  # a class here
    label[:, :9] = IGNORED
    batch = {
        "image": torch.randint(0, 256, (2, 3, 40, 52), dtype=torch.uint8, generator=generator),
        "label": label,
        "valid": torch.tensor([[0, 0, 40, 52]] * 2),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]] * 2),
    }
    weights = torch.rand(N, generator=generator)
    valid = label[:, 9:].long()
    for class_weights in (None, weights):
        prior, dvae = make(num_classes=N)
        learners = (
            LatentPriorLearner(prior, dvae, torch.from_numpy(COLOURS), class_weights=class_weights),
            PosteriorLearner(prior, dvae, ConvPosterior(N, 8), class_weights=class_weights),
        )
        network = build_pixel_network(N, {"name": "test_resnet"}, channels=8)
        learners = (*learners, PixelLearner(network, class_weights=class_weights))
        for learner, scale in zip(learners, (4, 1, 1), strict=True):
            sums, _ = learner(batch, 0)
            expected = float(valid.numel() if class_weights is None else weights[valid].double().sum())
            assert learner.counts(batch)[-1].item() == pytest.approx(scale * expected, rel=1e-6)
            assert sums.isfinite().all()
    scores = torch.randn(2, N, 40, 52, generator=generator)
    loss, _ = pixel_loss_sum(scores, label, ignore_index=IGNORED)
    plain = torch.nn.functional.cross_entropy(scores[:, :, 9:], valid, reduction="sum")
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


# ---- predictions


def test_predictions_are_measured_written_and_predicted_again(run: Run, tmp_path: Path) -> None:
    evaluate(run, ALONE, "gss_ff", "test")
    folder = run.folder / "evaluation" / "gss_ff" / "test"
    counted, model = np.zeros((N, N), np.int64), gss.load(run.folder / "gss_ff.pth")
    pairs = run.manifest.pairs("test")
    predict_files(run.folder / "gss_ff.pth", [str(pairs[0].image.parent)], tmp_path, device="cpu")
    for pair, file in zip(pairs, sorted((folder / "predictions").iterdir()), strict=True):
        label, ids = native(pair.label), native(file)
        np.add.at(counted, (label[label != VOID], ids[label != VOID]), 1)
        predicted = model.predict(pair.image)
        assert predicted.dtype == ids.dtype == np.uint16
        np.testing.assert_array_equal(predicted, ids)
        np.testing.assert_array_equal(native(tmp_path / f"{pair.image.stem}.png"), ids)
        colour = cv2.imread(str(tmp_path / f"{pair.image.stem}_colour.png"), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(colour, COLOURS[ids])
        np.testing.assert_array_equal(model.scores(pair.image).argmax(0), ids)
    np.testing.assert_array_equal(np.load(folder / "confusion.npz")["confusion"], counted)
    assert ids.max() > 255, "8 bits would do"
    assert len(list((folder / "pictures").iterdir())) == 1


def test_a_per_pixel_network_is_trained_and_evaluated(root: Path, tmp_path: Path) -> None:
    experiment = {
        "recipe": "pixel",
        "data": {
            "root": str(root),
            "classes": "classes.csv",
            "label_map": {VOID: "ignore"},
            "splits": {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in SPLITS},
        },
        "augment": {"base_scale": [64, 48], "crop": [48, 64]},
        "pixel": {
            "backbone": {"name": "test_resnet"},
            "channels": 8,
            "steps": 2,
            "training": {"batch_size": 2, "warmup_steps": 1, "class_balance": 0.5},
        },
        "evaluation": {"pictures": 1},
        "run": {"workers": 0},
    }
    write_text(tmp_path / "many.yaml", yaml.safe_dump(experiment))
    run = Run.open(str(tmp_path / "many.yaml"), [], tmp_path / "results")
    check(run)
    pixel(run, ALONE)
    evaluate(run, ALONE, "pixel", "test")
    folder = run.folder / "evaluation" / "pixel" / "test"
    model = gss.load(run.folder / "pixel.pth")
    for pair, file in zip(run.manifest.pairs("test"), sorted((folder / "predictions").iterdir()), strict=True):
        ids = native(file)
        assert ids.dtype == np.uint16 and ids.max() > 255
        np.testing.assert_array_equal(model.predict(pair.image), ids)
    labels = np.stack([native(pair.label) for pair in run.manifest.pairs("test")])
    counts = np.load(folder / "confusion.npz")["confusion"]
    np.testing.assert_array_equal(counts.sum(1), np.bincount(labels[labels != VOID], minlength=N))
    assert len(list((folder / "pictures").iterdir())) == 1


def test_onnx_gives_ids_that_hold_400_classes(run: Run) -> None:
    model = gss.load(run.folder / "gss_ft.pth")
    image = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ids, scores = _Graph(model.model).eval()(image)
    assert torch.equal(ids, scores.argmax(1).int()) and ids.max() > 255
    assert describe(model, (48, 64), {})["ids"] == "int32 [1, 48, 64], index into classes"


def test_pictures_paint_all_400() -> None:
    label = np.array([[0, 255, 256, 399, IGNORED]], np.uint16)
    colours = COLOURS[:-1].astype(np.uint8)
    np.testing.assert_array_equal(paint_ids(label, colours)[0], [*colours[[0, 255, 256, 399]], (0, 0, 0)])
    prediction = np.array([[0, 255, 0, 143, 7]], np.uint16)  # 399 and 143 are the same modulo 256
    red, grey = [214, 39, 40], [150, 150, 150]
    found = error_picture(np.full((1, 5, 3), 255, np.uint8), label, prediction)[0].tolist()
    assert [colour if colour in (red, grey) else None for colour in found] == [None, None, red, red, grey]


# ---- palette and tokenizer


def test_a_palette_of_300_classes_is_written_read_painted_and_found_again(tmp_path: Path) -> None:
    names = NAMES[:300]
    palette = Palette(with_ignore(grid_colours(300, np.random.default_rng(1))), names)
    write_palette(tmp_path / "palette.csv", palette)
    again = read_palette(tmp_path / "palette.csv")
    assert again.names == names and np.array_equal(again.colours, palette.colours)
    colours = torch.from_numpy(again.colours)
    label = torch.arange(300, dtype=torch.int32).view(1, 15, 20)
    assert torch.equal(nearest(255 * paint(label, colours), colours), label.long())
    assert torch.equal(255 * paint(torch.full((1, 1, 1), IGNORED), colours)[0, :, 0, 0], colours[-1].float())


@pytest.mark.parametrize("doubled", [True, False])
def test_reconstruction_leaves_out_65535_alone(doubled: bool) -> None:
    rng = np.random.default_rng(0)
    label = blocks(rng, N, IGNORED)
    label[8, :8] = 255
    found = reconstruct(procedural_dvae(CASE_B), [label], torch.from_numpy(COLOURS), doubled=doubled).confusion
    np.testing.assert_array_equal(found.sum(1), np.bincount(label[label != IGNORED], minlength=N))


# ---- pages


def test_runs_of_400_classes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSS_DATA", str(tmp_path))
    made = Made(tmp_path, NAMES)
    made.run("a/gss_ff", 0.3)
    made.run("b/gss_ff", 0.2, seed=2, order=range(N)[::-1])
    runs = read_runs(["a/gss_ff", "b/gss_ff"], None, made.results)
    shown = show(*(run.first for run in runs), 3, COLOURS[:-1].astype(np.uint8))
    both, only_second, only_first, _ = shown.who
    assert (both + only_first, both + only_second) == pytest.approx((shown.baseline, shown.run))
    assert 255 < max(shown.classes) < N
    compare(["a/gss_ff", "b/gss_ff"], split=None, output=tmp_path / "out", results=made.results)
    table = (tmp_path / "out" / "per_class.csv").read_text()
    assert all(f",{name}," in table for name in NAMES)
    assert (tmp_path / "out" / "index.html").read_text().count("<img") > 0


def test_the_report_carries_ids_of_16_bits(tmp_path: Path) -> None:
    made = SyntheticResults(tmp_path, NAMES, images=2, splits=("test",))
    results = Results(made.folder)
    (first, *_) = layers(results)["page"]["pictures"]
    pair = results.manifest.pairs("test")[first["index"]]
    for text, path in (
        (first["label"], pair.label),
        (
            first["predictions"]["gss_ft"],
            next((made.folder / "evaluation/gss_ft/test/predictions").glob(f"{first['index']:05}_*")),
        ),
    ):
        ids = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint16).reshape(first["height"], first["width"])
        np.testing.assert_array_equal(ids, native(path))
