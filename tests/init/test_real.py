"""Real sets with real labels: what is decided passes the check without an edit."""

import shutil
from pathlib import Path

import pytest

from gss.errors import DataError
from tests.init.made import checks, data

STREET = ["road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"]
STREET += ["terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]


@pytest.fixture
def real(gss_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GSS_DATA", str(gss_data))
    return gss_data


def place(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"no data set at {folder}")
    return folder


def test_bdd100k(real: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, place(real / "wild/bdd100k"))
    assert found["classes"] == STREET
    assert (found["native_classes"], found["mapping"]) == ("classes.csv", {"void": "ignore"})
    assert list(found["splits"]) == ["train", "val"] and "encoding" not in found


def test_comma10k(real: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, place(real / "wild/comma10k"))
    assert (found["classes"], found["encoding"]) == ("classes.csv", "colours") and found["divide"]["val"] == 0.25


def test_a2d2(real: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, place(real / "wild/a2d2"))
    assert found["label_name"] == ["_camera_", "_label_"] and found["encoding"] == "colours"
    assert len(found["classes"]) == 38 and found["mapping"]["Car 4"] == "Car"


def test_kitti(real: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, place(real / "wild/kitti"))
    assert found["splits"] == {"train": {"images": "semantics/image_2", "labels": "semantics/semantic"}}
    assert found["classes"] == STREET and found["mapping"]["caravan"] == "ignore"


def test_coco_stuff(real: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, place(real / "wild/coco_stuff"))
    assert found["splits"]["val"] == {"images": "images/val", "labels": "labels/val"}
    assert len(found["classes"]) == 182 and found["mapping"] == {"unlabeled": "ignore"}


def test_camvid_without_its_table(real: Path, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            files = sorted(place(real / "camvid" / kind / split).iterdir())[::4]
            (root / kind / split).mkdir(parents=True)
            for file in files:
                shutil.copy(file, root / kind / split)
    found = checks(tmp_path, root)
    assert found["classes"] == [f"class_{k}" for k in range(12)] and list(found["splits"]) == ["train", "val"]


SHAPES = ["background", "ellipse", "rectangle", "strawberry", "triangle"]


@pytest.mark.parametrize(
    ("name", "labels", "form", "classes"),
    [
        ("coco_json_4", "coco_json_4/instances_default.json", "coco", SHAPES),
        ("cvat_xml", "cvat_xml/annotations.xml", "cvat", sorted([*SHAPES, "line"])),
        ("labelme3_xml", "labelme3_xml", "labelme_xml", SHAPES),
    ],
)
def test_annotations_beside_their_photographs(
    real: Path, tmp_path: Path, name: str, labels: str, form: str, classes: list[str]
) -> None:
    formats = place(real / "wild/formats")
    found = checks(tmp_path, formats / name, formats / "pictures_2label")
    assert found["splits"] == {"train": {"images": "pictures_2label", "labels": labels}}
    assert found["annotations"] == {"format": form, "background": "background", "missing": "skip"}
    assert sorted(found["classes"]) == classes


def test_labelme_with_its_pictures(real: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, place(real / "wild/formats/labelme_json_embedded"))
    assert found["annotations"] == {"format": "labelme", "background": "background"}
    assert found["classes"] == "annotations"


def test_panoptic_and_instances_of_the_same_photographs(real: Path, tmp_path: Path) -> None:
    folder = place(real / "wild/formats/coco_panoptic")
    with pytest.raises(DataError, match=r"(?s)several annotations.*detection_format.json.*panoptic_examples.json"):
        data(folder)
    for file, form in (("panoptic_examples", "coco_panoptic"), ("panoptic_coco_detection_format", "coco")):
        found = checks(tmp_path, folder / "input_images", folder / f"{file}.json")
        assert found["annotations"] == {"format": form, "background": "ignore"} and len(found["classes"]) == 8


@pytest.mark.parametrize("name", ["coco_json_taco", "bdd_scalabel"])
def test_annotations_without_their_photographs(real: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"none of its \d+ pictures is there"):
        data(place(real / "wild/formats" / name))
