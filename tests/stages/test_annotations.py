"""Annotations through the verbs: labels among the results, what becomes of every class, real files in every format."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gss.cli import main
from gss.data.manifest import BESIDE, read_manifest
from gss.stages.run import Run
from tests.data.annotated import EXPECTED, coco, embedded, labelme, picture, write

SPLITS = {split: {"images": split, "labels": f"{split}.json"} for split in ("train", "val")}
DATA: dict[str, Any] = {"root": "yard", "annotations": {"format": "coco"}, "classes": ["tree", "car"], "splits": SPLITS}
FOLDERS = {split: {"images": split, "labels": split} for split in SPLITS}
MANIFEST = Path("results/mine/data/manifest.json")


def experiment(data: dict[str, Any], name: str = "mine", **sections: Any) -> None:
    content = {
        "recipe": "pixel",
        "data": data,
        "augment": {"base_scale": [32, 32], "crop": [32, 32]},
        "pixel": {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 2, "warmup_steps": 1}},
        **sections,
    }
    write(Path(f"config/experiments/{name}.yaml"), yaml.safe_dump(content, sort_keys=False))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two photographs in COCO's JSON for each split, and one without annotation; nothing in the folder is changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    root = tmp_path / "sets/yard"
    for seed, split in enumerate(SPLITS):
        images = [{"id": k, "file_name": f"{split}/a {k}.jpg", "height": 6, "width": 8} for k in range(2)]
        drawn = [{**each, "image_id": k} for k in range(2) for each in coco()["annotations"]]
        write(root / f"{split}.json", coco(images=images, annotations=drawn))
        (root / split).mkdir()
        for k in range(3):
            picture(seed=3 * seed + k).save(root / split / f"a {k}.jpg")
    before = state(root)
    yield root
    assert state(root) == before


def test_the_check_sees_label_files(yard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(DATA)
    assert main(["check", "mine"]) == 0
    said = capsys.readouterr().out
    assert "annotations of yard: coco, overlap last, unlabelled ground ignored" in said
    assert "train: 2 pictures (4 polygon)" in said and "car          2 shapes            18 pixels" in said
    assert "0  car    18.75 %  car" in said and "1  tree   12.50 %  tree" in said
    assert "train: 1 images have no annotation and are passed over, e.g. train/a 2.jpg" in said
    manifest = Run.open("mine").manifest
    labels = [pair.read_label() for split in SPLITS for pair in manifest.pairs(split)]
    expected = np.select([EXPECTED == 0, EXPECTED == 1], [1, 0], 255)  # `classes` has the other order
    assert len(labels) == 4 and all((label == expected).all() for label in labels)
    record = json.loads(Path("results/mine/data/labels.json").read_text())["sources"]["yard"]
    assert record["overlap"] == "last" and record["background"] == "ignore" and record["classes"] == ["car", "tree"]
    assert record["splits"]["val"]["pixels"] == {"car": 18, "tree": 12}
    assert Image.open("results/mine/data/annotated/0/train.png").size[0] > 600


def test_results_may_move(yard: Path, tmp_path: Path) -> None:
    experiment(DATA)
    assert main(["check", "mine"]) == 0
    assert str(tmp_path) not in MANIFEST.read_text()
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    manifest = read_manifest(tmp_path / "elsewhere/mine/data/manifest.json").at(yard, yard.parent)
    assert manifest.pairs("train")[0].read_label().shape == manifest.pairs("train")[0].read_image().shape[:2]


def test_other_settings_use_the_labels_of_the_workflow(yard: Path) -> None:
    experiment(DATA)
    assert main(["check", "mine"]) == 0
    other = Run.open("mine", ["seed=7"])
    assert other.folder != Path("results/mine")
    assert other.manifest.pairs("train")[0].label.is_relative_to(Path("results/mine").resolve())


def test_a_network_trains_and_is_measured_on_them(yard: Path) -> None:
    experiment(DATA, evaluation={"splits": ["val"], "pictures": 1})
    assert main(["check", "mine"]) == 0
    assert main(["train", "pixel", "mine"]) == 0
    assert main(["evaluate", "mine"]) == 0
    metrics = json.loads(Path("results/mine/evaluation/pixel/val/metrics.json").read_text())
    assert metrics["images"] == 2 and set(metrics["IoU"]) == {"tree", "car"}


def test_classes_that_nothing_names_are_refused_with_their_shapes(
    yard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment({**DATA, "classes": ["plant", "car"]})
    assert main(["check", "mine"]) == 2
    said = capsys.readouterr().err
    assert "nothing says what becomes of 1 classes of the annotations: tree (4 shapes)" in said
    assert "mapping: {tree: CLASS}" in said
    assert not MANIFEST.exists()
    experiment({**DATA, "classes": ["plant", "car"], "mapping": {"tree": "plant"}})
    assert main(["check", "mine"]) == 0
    experiment({**DATA, "classes": ["plant", "car"], "mapping": {"tree": "plant", "bush": "plant"}})
    assert main(["check", "mine"]) == 2
    assert "`mapping` names 'bush'" in capsys.readouterr().err


def test_settings_are_tried_before_labels_are_made(yard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(DATA, pixel={"backbone": {"name": "no_such_net"}, "steps": 2})
    assert main(["check", "mine"]) == 2
    assert "no_such_net" in capsys.readouterr().err and not Path("results/mine/data/annotated").exists()


def test_classes_may_be_those_of_the_annotations(yard: Path) -> None:
    experiment({**DATA, "annotations": {"format": "coco", "background": "ground"}, "classes": "annotations"})
    assert main(["check", "mine"]) == 0
    assert Run.open("mine").manifest.space.names == ("car", "tree", "ground")
    label = Run.open("mine").manifest.pairs("val")[0].read_label()
    assert (label == np.where(EXPECTED == 9, 2, EXPECTED)).all()


def test_a_test_set_may_have_annotations(yard: Path) -> None:
    village = {"root": "yard", "annotations": {"format": "coco"}, "splits": {"val": SPLITS["val"]}}
    village |= {"classes": "annotations", "model_mapping": {"thing": "car"}}
    data = {**DATA, "classes": ["thing"], "mapping": {"car": "thing", "tree": "ignore"}}
    experiment(
        {**data, "annotations": {"format": "coco", "background": "thing"}}, evaluation={"sets": {"village": village}}
    )
    assert main(["labels", "mine"]) == 0
    made = Path("results/mine/data/sets/village")
    assert (made / "labels.json").is_file() and Path("results/mine/data/labels.json").is_file()
    assert main(["check", "mine", "--only", "village"]) == 0
    manifest = read_manifest(made / "manifest.json")
    assert manifest.space.names == ("car", "tree")
    assert manifest.rows["val"][0]["label"] == f"{BESIDE}annotated/0/val/labels/a 0.png"
    assert manifest.at(yard, yard.parent).pairs("val")[0].read_label().max() == 255
    assert (made / "taxonomy.csv").read_text() == "model,set\nthing,car\n"


def test_pictures_within_annotations_are_read(yard: Path, tmp_path: Path) -> None:
    for name, seed in {"train/x": 0, "val/y": 1}.items():
        content = labelme(imagePath=f"{name}.jpg", imageData=embedded(picture(seed=seed)))
        write(tmp_path / f"sets/inside/{name}.json", content)
    experiment({**DATA, "root": "inside", "annotations": {"format": "labelme"}, "splits": FOLDERS})
    assert main(["check", "mine"]) == 0
    pair = Run.open("mine").manifest.pairs("train")[0]
    assert pair.image.is_relative_to(Path("results/mine/data").resolve()) and pair.read_image().shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": None}, "`labels: train.json` is no folder: name its format"),
        ({"annotations": {"format": "voc"}}, "data.annotations.format"),
        ({"label_suffix": "_x"}, "`label_suffix` is of label files"),
        ({"native_classes": ["a"]}, "and of no other format"),
        ({"annotations": {"format": "yolo"}}, "`native_classes` names the classes"),
        ({"label_map": {3: 0}}, "name what a class becomes in `mapping`"),
        (
            {"annotations": None, "splits": {s: {"images": s, "labels": s} for s in SPLITS}, "classes": "annotations"},
            "is of",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(
    change: dict[str, Any], said: str, yard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment({**DATA, **change})
    assert main(["check", "mine"]) == 2
    assert said in capsys.readouterr().err


def test_without_annotations_there_is_nothing_to_make(yard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment({"root": "yard", "classes": ["a"], "splits": FOLDERS})
    assert main(["labels", "mine"]) == 2
    assert "there are no `annotations`" in capsys.readouterr().err


# ---- real files

# format, images, annotations; classes and their pixels
REAL: dict[str, tuple[str, str, str, dict[str, int]]] = {
    "coco_json_4": (
        "coco",
        "pictures_2label",
        "coco_json_4/instances_default.json",
        {"rectangle": 25900, "triangle": 19176, "ellipse": 47646, "strawberry": 21020},
    ),
    "cvat_xml": (
        "cvat",
        "pictures_2label",
        "cvat_xml/annotations.xml",
        {"rectangle": 25900, "triangle": 19176, "ellipse": 47100, "line": 4953, "strawberry": 21020},
    ),
    "labelme3_xml": (
        "labelme_xml",
        "pictures_2label",
        "labelme3_xml",
        {"rectangle": 25900, "triangle": 19176, "ellipse": 47646, "strawberry": 21020},
    ),
    "labelme_json_embedded": (
        "labelme",
        "labelme_json_embedded",
        "labelme_json_embedded",
        {"rectangle": 26128, "triangle": 19143, "circle": 20744, "line": 4969, "black_grape": 68858},
    ),
    "coco_panoptic": (
        "coco_panoptic",
        "coco_panoptic/input_images",
        "coco_panoptic/panoptic_examples.json",
        {"person": 85111, "horse": 31728, "sports ball": 175, "tree-merged": 221807},
    ),
    "coco_panoptic_runs": (
        "coco",
        "coco_panoptic/input_images",
        "coco_panoptic/panoptic_coco_detection_format.json",
        {"person": 85111, "horse": 31728, "sports ball": 175, "tree-merged": 221807},
    ),
}


def real(gss_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = gss_data / "wild/formats"
    if not folder.is_dir():
        pytest.skip(f"no annotation files in {folder}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(gss_data))
    return folder


def checked(data: dict[str, Any]) -> dict[str, int]:
    """Pixels of each class that has some, by the check."""
    experiment({"classes": "annotations", **data})
    assert main(["check", "mine"]) == 0
    statistics = json.loads(Path("results/mine/data/statistics.json").read_text())
    return {row["name"]: row["pixels"] for row in statistics["splits"]["train"]["classes"] if row["pixels"]}


@pytest.mark.parametrize("name", REAL)
def test_real_annotations_go_through_the_check(
    name: str, gss_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = real(gss_data, monkeypatch, tmp_path)
    kind, images, labels, expected = REAL[name]
    split = {"images": images, "labels": labels}
    if images == "pictures_2label":  # two of the four annotated pictures are there
        (tmp_path / "two.txt").write_text("shapes.jpg\nstrawberry.jpg\n")
        split["list"] = str(tmp_path / "two.txt")
    before = state(folder)
    found = checked({"root": "wild/formats", "annotations": {"format": kind}, "splits": {"train": split, "val": split}})
    assert {each: found.get(each) for each in expected} == expected
    assert state(folder) == before


def stand_in(root: Path, name: str, height: int, width: int, labels: Path) -> dict[str, Any]:
    """A data section of annotations whose photographs are not there: others of the same size take their places."""
    write(root / "photos" / name, b"")
    picture((height, width)).save(root / "photos" / name)
    split = {"images": str(root / "photos"), "labels": str(labels)}
    return {"root": str(root), "splits": {"train": split, "val": split}}


@pytest.mark.parametrize(
    ("file", "name", "classes", "some"),
    [
        ("panseg_bdd100k.json", "panseg_mask.jpg", 14, {}),
        ("example_annotation.json", "b1c81faa-3df17267-0000001.jpg", 2, {}),
        ("test-rle.json", "9159d511-fb308249.jpg", 11, {"road": 302007, "sky": 343787, "building": 201}),
    ],
)
def test_real_files_of_scalabel_go_through_the_check(
    file: str,
    name: str,
    classes: int,
    some: dict[str, int],
    gss_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = real(gss_data, monkeypatch, tmp_path)
    data = stand_in(tmp_path, name, 720, 1280, folder / "bdd_scalabel" / file)
    found = checked({**data, "annotations": {"format": "scalabel", "background": "nothing"}})
    assert len(found) == classes and {each: found[each] for each in some} == some


def test_polygons_of_bdd_are_those_of_its_masks(
    gss_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask that BDD100K's own tool made of the same polygons: R is the category."""
    folder = real(gss_data, monkeypatch, tmp_path) / "bdd_scalabel"
    data = stand_in(tmp_path, "panseg_mask.jpg", 720, 1280, folder / "panseg_bdd100k.json")
    checked({**data, "annotations": {"format": "scalabel"}})
    pair = Run.open("mine").manifest.pairs("train")[0]
    label, theirs = pair.read_label(), np.asarray(Image.open(folder / "panseg_mask.png"))[..., 0]
    of = {each: int(np.bincount(theirs[label == each]).argmax()) for each in np.unique(label) if each != 255}
    assert len(set(of.values())) == len(of), "each class has a category of its own"
    same = sum(np.count_nonzero((label == each) & (theirs == category)) for each, category in of.items())
    assert same / np.count_nonzero(label != 255) > 0.99


def test_real_polygons_of_taco_go_through_the_check(
    gss_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = real(gss_data, monkeypatch, tmp_path) / "coco_json_taco/annotations_first10.json"
    data: dict[str, Any] = {}
    for image in json.loads(file.read_text())["images"]:
        data = stand_in(tmp_path, image["file_name"], image["height"], image["width"], file)
    found = checked({**data, "annotations": {"format": "coco", "background": "ground", "overlap": "smallest"}})
    assert len(found) == 11 + 1 and found["Aerosol"] == 238642
