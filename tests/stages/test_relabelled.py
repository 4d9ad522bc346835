"""Training sets as test sets: labels of before and relabelled ones, and the classes that count."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gss.config import load_experiment
from gss.data.classes import IGNORE, ClassSpace
from gss.data.images import read_native_label, write_png
from gss.data.manifest import read_manifest
from gss.data.metrics import scores
from gss.data.native import NativeClasses
from gss.errors import ConfigError
from gss.evaluate.measure import comparable
from gss.results.reader import Results
from tests.mseg_tables import UNIVERSAL, becomes, names
from tests.stages.village import MODEL, metrics, run, trained, write

# unrelabelled, relabelled, prediction -> prediction and label that are compared; 255 is ignored, or no class
WORKED = [
    (1, 1, 1, 1, 1),  # nothing changed, right
    (1, 1, 2, 2, 1),  # nothing changed, wrong
    (1, 2, 2, 1, 1),  # as relabelled: rewarded
    (1, 2, 1, 255, 1),  # as before, which is wrong by now
    (1, 2, 0, 255, 1),  # neither
    (1, 255, 1, 255, 255),  # not known any more: not counted
    (1, 255, 0, 255, 255),
    (255, 2, 2, 255, 255),  # was not known before: not counted
    (255, 2, 1, 255, 255),
    (255, 255, 1, 1, 255),
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_worked_pixels(dtype: torch.dtype) -> None:
    label, relabelled, prediction, *expected = torch.tensor(WORKED, dtype=dtype).T
    if dtype == torch.int32:  # 300 classes
        label, relabelled, prediction, *expected = (
            torch.where(each == 255, 65535, each) for each in (label, relabelled, prediction, *expected)
        )
    before = prediction.clone(), label.clone()
    found = comparable(prediction, label, relabelled, 3 if dtype == torch.uint8 else 300)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert found[0].dtype == dtype and torch.equal(prediction, before[0]) and torch.equal(label, before[1])


def test_only_counted_classes_are_in_means() -> None:
    counts = np.array([[6, 2, 0, 1], [0, 0, 0, 0], [1, 0, 3, 1], [0, 0, 0, 0]])
    found = scores(counts, "zero", frozenset({0, 2}))
    assert found.iou == (6 / 10, None, 3 / 5, None)
    assert found.mIoU == pytest.approx((6 / 10 + 3 / 5) / 2) and found.mAcc == pytest.approx((6 / 9 + 3 / 5) / 2)
    assert scores(counts, "nan", frozenset({0, 1, 2})).iou == (6 / 10, 0.0, 3 / 5, None)
    assert scores(counts, "zero", frozenset({0, 3})).iou[3] == 0.0


COUNTED = {  # published: universal classes that labels from before the relabelling become, and relabelled ones
    "ade20k-150": (117, 141),
    "bdd": (19, 21),
    "cityscapes-19": (19, 21),
    "coco-panoptic-133": (122, 155),
    "idd-39": (25, 30),
    "mapillary-public65": (44, 51),
    "sunrgbd-37": (37, 48),
}


@pytest.mark.parametrize("name", COUNTED)
def test_as_many_classes_count_as_published(name: str) -> None:
    found = []
    for column in (name, f"{name}-relabeled"):
        label_map = {index: IGNORE if target is None else target for index, target in becomes(column).items()}
        native = NativeClasses(dict(enumerate(names(column))))
        found.append(len(ClassSpace(UNIVERSAL, label_map=label_map, native=native).reached))
    assert tuple(found) == COUNTED[name]


# ---- through the commands: a model of road, car, person on a set whose labels know lanes and things

OLD = {
    "root": "hamlet",
    "splits": {"train": {"images": "photos", "labels": "old"}},
    "classes": ["road", "car", "person"],
}
OLD |= {"native_classes": ["lane", "thing", "other"], "mapping": {"lane": "road", "thing": "car", "other": "ignore"}}
NEW = {"labels": "new", "native_classes": ["road", "car", "person"]}


@pytest.fixture
def hamlet(project: Path) -> Path:
    """Things are cars by the old labels; the new ones find the persons among them, and forget some lanes."""
    rng = np.random.default_rng(5)
    root = project / "sets/hamlet"
    for index in range(3):
        write_png(root / f"photos/{index}.png", rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
        old = np.kron(rng.integers(0, 3, (8, 12)), np.ones((4, 4))).astype(np.uint8)
        new = np.where(old == 2, 255, old)
        new[(old == 1) & (rng.random(old.shape) < 0.5)] = 2
        new[(old == 0) & (rng.random(old.shape) < 0.1)] = 255
        write_png(root / f"old/{index}.png", old)
        write_png(root / f"new/{index}.png", new)
    return root


def with_hamlet(**keys: object) -> Callable[[dict], object]:
    return lambda content: content["evaluation"].update(sets={"hamlet": {**OLD, **keys}})


def test_a_relabelled_training_set(hamlet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(with_hamlet(relabelled=NEW, counted="mapped", absent="zero"))
    trained()
    assert "what becomes of the classes of hamlet, relabelled:" in capsys.readouterr().out
    manifest = read_manifest(Path("results/mine/data/sets/hamlet/manifest.json"))
    assert manifest.splits == ("train", "relabelled") and not list(Path("results/mine/work").glob("check*.jsonl"))
    run("evaluate", "mine")
    counts = np.zeros((3, 4), np.int64)
    for index in range(3):
        old, new = (read_native_label(hamlet / f"{name}/{index}.png") for name in ("old", "new"))
        kept = read_native_label(MODEL / f"hamlet/predictions/0000{index}_{index}.png")
        assert kept.max() < 3  # the model's own
        for u, r, p in zip(np.array([0, 1, 255])[old].flat, new.flat, kept.flat, strict=True):
            if u != r:
                p = u if p == r else 3
            if u != 255 and r != 255:
                counts[u, p] += 1
    assert (counts[1, 1] and counts[1, 3] and counts.sum(0)[2] == 0) or counts[:, 2].any()
    with np.load(MODEL / "hamlet/confusion.npz") as arrays:
        assert np.array_equal(arrays["confusion"], counts)
    found = metrics("hamlet")
    iou = [counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in range(2)]
    assert found["IoU"] == {"road": iou[0], "car": iou[1], "person": None}
    assert found["mIoU"] == pytest.approx(sum(iou) / 2)
    assert found["protocol"]["counted"] == ["road", "car"] and found["protocol"]["relabelled"] is True
    read = Results(Path("results/mine")).sets["pixel", "hamlet"]
    assert read.scores.mIoU == found["mIoU"]
    run("report", "mine")
    page = Path("results/mine/report.html").read_text()
    assert "2 of 3 classes count" in page and "compared by relabelled labels" in page


def test_without_relabelled_labels_mapped_classes_count(hamlet: Path) -> None:
    write(with_hamlet(counted="mapped"))
    trained()
    run("evaluate", "mine")
    found = metrics("hamlet")
    assert found["IoU"]["person"] is None and found["protocol"]["relabelled"] is False
    assert found["mIoU"] == pytest.approx((found["IoU"]["road"] + found["IoU"]["car"]) / 2)
    write(lambda content: (with_hamlet(counted="mapped")(content), content.update(seed=5)), name="other")
    for words in (("check", "other"), ("train", "pixel", "other"), ("evaluate", "other")):
        run(*words)
    run("compare", "mine", "other", "--split", "hamlet", "-o", "compared")
    assert f"{found['mIoU']:.6f}"[:6] in Path("compared/summary.csv").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda path: path.unlink(), "relabelled: "),
        (lambda path: write_png(path, np.zeros((16, 48), np.uint8)), "relabelled: new/1.png"),
        (lambda path: write_png(path, np.full((32, 48), 7, np.uint8)), "relabelled: "),
    ],
)
def test_faults_of_the_second_labels_are_found(
    wrong: Callable[[Path], None], said: str, hamlet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong(hamlet / "new/1.png")
    write(with_hamlet(relabelled=NEW))
    from gss.cli import main

    assert main(["check", "mine"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("results/mine/data/sets/hamlet/manifest.json").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"native_classes": None, "mapping": {}, "counted": "mapped"}, "`counted: mapped` is of `native_classes`"),
        ({"relabelled": {"labels": "new", "mapping": {"a": "road"}}}, "`mapping` and `taxonomy` are of"),
    ],
)
def test_keys_that_mean_nothing_are_refused(keys: dict, said: str, project: Path) -> None:
    write(with_hamlet(**keys))
    with pytest.raises(ConfigError, match=said):
        load_experiment("mine")


def test_what_depends_on_them(project: Path) -> None:
    write(with_hamlet())
    plain = load_experiment("mine")
    write(with_hamlet(counted="mapped"))
    counted = load_experiment("mine")
    write(with_hamlet(relabelled=NEW))
    relabelled = load_experiment("mine")
    assert plain.slice("check", "hamlet") == counted.slice("check", "hamlet") != relabelled.slice("check", "hamlet")
    assert plain.slice("evaluate", "hamlet") != counted.slice("evaluate", "hamlet")
    assert json.dumps(plain.slice("evaluate")) == json.dumps(relabelled.slice("evaluate"))
