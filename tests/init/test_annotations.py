"""What `gss init` makes of annotation files: in every format what it writes passes the check without an edit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gss.errors import DataError
from gss.init.annotations import format_of
from tests.data.annotated import WRITERS, annotated, embedded, picture, write
from tests.init.made import SIZE, checks, data, decided, pairs, photograph

SHAPES = [("car", [8, 8, 24, 8, 24, 24, 8, 24]), ("tree", [30, 4, 44, 4, 30, 28])]
DENSE = [("road", [0, 16, 48, 16, 48, 32, 0, 32]), ("sky", [0, 0, 48, 0, 48, 15, 0, 15])]
Shapes = Sequence[tuple[str, list[float]]]


def coco(path: Path, names: Sequence[str], shapes: Shapes = SHAPES, classes: Sequence[str] = ()) -> None:
    known = list(classes or dict.fromkeys(name for name, _ in shapes))
    categories = [{"id": 3 * k + 1, "name": name} for k, name in enumerate(known)]
    images = [{"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(names)]
    drawn = [
        {"id": k, "image_id": k, "category_id": 3 * known.index(name) + 1, "segmentation": [ring], "iscrowd": 0}
        for k in range(len(names))
        for name, ring in shapes
    ]
    write(path, {"images": images, "categories": categories, "annotations": drawn})


def labelme(folder: Path, names: Sequence[str], shapes: Shapes = SHAPES, **change: Any) -> None:
    for name in names:
        found = [
            {"label": own, "shape_type": "polygon", "points": [ring[k : k + 2] for k in range(0, len(ring), 2)]}
            for own, ring in shapes
        ]
        size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        write(
            folder / f"{Path(name).stem}.json", {"shapes": found, "imagePath": name, "imageData": None, **size} | change
        )


def cvat(path: Path, names: Sequence[str], shapes: Shapes = SHAPES) -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name, _ in shapes)
    drawn = "".join(
        f'<polygon label="{name}" points="{";".join(f"{x},{y}" for x, y in zip(ring[::2], ring[1::2], strict=True))}"/>'
        for name, ring in shapes
    )
    images = "".join(f'<image name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">{drawn}</image>' for name in names)
    write(path, f"<annotations><meta><task><labels>{labels}</labels></task></meta>{images}</annotations>")


def yolo(folder: Path, names: Sequence[str], shapes: Shapes = SHAPES) -> None:
    lines = [
        " ".join([str(number), *(f"{value / SIZE[1 - k % 2]:.6f}" for k, value in enumerate(ring))])
        for number, (_, ring) in enumerate(shapes)
    ]
    for name in names:
        write(folder / f"{Path(name).stem}.txt", "\n".join(lines))


def photographs(folder: Path, count: int = 8, first: int = 0) -> list[str]:
    """Their names."""
    for number in range(first, first + count):
        photograph(folder / f"{number:03}.jpg", number)
    return [f"{number:03}.jpg" for number in range(first, first + count)]


# ---- formats


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_format_is_told_by_what_stands_in_a_file(name: str, tmp_path: Path) -> None:
    annotated(tmp_path, name)
    (file, *_) = [path for path in sorted(tmp_path.rglob("*")) if path.suffix in (".json", ".xml", ".txt")]
    assert format_of(file) == name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", ""),
        ("a.json", '{"labels": [{"id": 0, "name": "sky"}]}'),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "a dog"}]}'),
        ("a.xml", "<annotation><object><name>dog</name><bndbox/></object></annotation>"),
        ("a.txt", "dog\ncat\n"),
        ("a.txt", "000012 1 -1 0 0 0\n000013 1 -1 7 9 1\n"),
        ("a.txt", "64 128 64 Animal\n"),
        ("a.txt", ""),
    ],
)
def test_other_files_are_of_no_format(name: str, content: str, tmp_path: Path) -> None:
    write(tmp_path / name, content)
    assert format_of(tmp_path / name) == ""


def test_coco(base: Path, tmp_path: Path) -> None:
    names = photographs(base / "set/photos")
    coco(base / "set/export.json", names)
    found = checks(tmp_path, base / "set")
    assert found["annotations"] == {"format": "coco", "background": "background"}
    assert found["classes"] == "annotations"
    assert (
        found["splits"] == {"train": {"images": "photos", "labels": "export.json"}} and found["divide"]["val"] == 0.25
    )
    _, reasons, _ = decided(base / "set")
    assert "shapes cover 27.60 % of the pixels in 8 pictures" in reasons["data.annotations.background"]
    assert reasons["data.classes"] == "all that they have: background 72.40 %, car 16.67 %, tree 10.94 %"


def test_labelme_beside_the_photographs(base: Path, tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 8)):
        folder = base / "set" / split
        labelme(folder, photographs(folder, first=first))
    found = checks(tmp_path, base / "set")
    assert found["annotations"]["format"] == "labelme" and "divide" not in found
    assert found["splits"] == {split: {"images": split, "labels": split} for split in ("train", "val")}


def test_cvat(base: Path, tmp_path: Path) -> None:
    names = photographs(base / "set/images")
    cvat(base / "set/annotations.xml", [f"task/{name}" for name in names])
    found = checks(tmp_path, base / "set")
    assert found["annotations"]["format"] == "cvat"
    assert found["splits"]["train"] == {"images": "images", "labels": "annotations.xml"}


@pytest.mark.parametrize(
    ("file", "content", "classes"),
    [
        ("data.yaml", "path: ../set\nnames:\n  0: car\n  1: tree\n", ["car", "tree"]),
        ("data.yaml", "nc: 2\nnames: [car, tree]\n", ["car", "tree"]),
        ("labels/classes.txt", "car\ntree\n", ["car", "tree"]),
        ("images/train/classes.txt", "car\ntree\n", ["car", "tree"]),
        ("notes.md", "nothing", ["class_0", "class_1"]),
    ],
)
def test_yolo(base: Path, tmp_path: Path, file: str, content: str, classes: list[str]) -> None:
    for split, first in (("train", 0), ("val", 8)):
        yolo(base / "set/labels" / split, photographs(base / "set/images" / split, first=first))
    (base / "set/labels/train/000.txt").write_text("")  # a picture without a shape
    write(base / "set" / file, content)
    found = checks(tmp_path, base / "set")
    assert found["native_classes"] == classes and found["classes"] == "annotations"
    assert found["splits"]["val"] == {"images": "images/val", "labels": "labels/val"}


@pytest.mark.parametrize("name", ["coco_panoptic", "labelme_xml", "scalabel"])
def test_other_formats(base: Path, name: str) -> None:
    annotated(base / "set", name)
    (base / "set/photos/x").unlink()
    with pytest.raises(DataError, match="1 pair: too few"):  # it was found
        data(base / "set")


# ---- splits


def test_splits_that_annotation_files_are_called_after(base: Path, tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 8)):
        names = photographs(base / f"set/{split}2017", first=first)
        coco(base / f"set/annotations/instances_{split}2017.json", names)
        coco(base / f"set/annotations/person_keypoints_{split}2017.json", names, SHAPES[:1])
        write(base / f"set/annotations/captions_{split}2017.json", {"images": [], "annotations": []})
    found = checks(tmp_path, base / "set")
    assert found["splits"] == {
        split: {"images": f"{split}2017", "labels": f"annotations/instances_{split}2017.json"}
        for split in ("train", "val")
    }
    (note,) = [note for note in decided(base / "set")[2] if note.startswith("not taken")]
    assert "person_keypoints_train2017.json" in note and f"gss init NAME {base}/set/train2017" in note


def test_splits_with_the_same_names_are_not_mixed_up(base: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        coco(base / f"set/{split}/_annotations.coco.json", photographs(base / "set" / split, count))
    (base / "set/val/003.jpg").unlink()
    found = data(base / "set")
    assert found["splits"]["val"] == {"images": "val", "labels": "val/_annotations.coco.json"}
    assert found["annotations"]["missing"] == "skip"


def test_a_val_alone_is_divided(base: Path, tmp_path: Path) -> None:
    coco(base / "set/instances_val2017.json", photographs(base / "set/val2017"))
    coco(base / "set/instances_train2017.json", [f"9{number}.jpg" for number in range(8)])  # not downloaded
    found = checks(tmp_path, base / "set")
    assert found["splits"] == {"train": {"images": "val2017", "labels": "instances_val2017.json"}}
    assert found["divide"]["val"] == 0.25


def test_files_of_a_folder_are_one(base: Path, tmp_path: Path) -> None:
    for task, first in (("one", 0), ("two", 8)):
        cvat(base / f"set/export/{task}/annotations.xml", photographs(base / "set/images", first=first))
    assert checks(tmp_path, base / "set")["splits"] == {"train": {"images": "images", "labels": "export"}}


# ---- pictures


def test_pictures_that_are_not_there_are_passed_over(base: Path, tmp_path: Path) -> None:
    names = photographs(base / "set/images")
    coco(base / "set/all.json", [*names, "gone.jpg", "gone_too.jpg"])
    found = checks(tmp_path, base / "set")
    assert found["annotations"]["missing"] == "skip"
    assert decided(base / "set")[1]["data.annotations.missing"] == "2 of 10 annotated pictures are not there"


def test_names_may_have_folders(base: Path, tmp_path: Path) -> None:
    names = [
        f"{day}/{name}"
        for day, first in (("mon", 0), ("tue", 4))
        for name in photographs(base / f"set/x/{day}", 4, first)
    ]
    coco(base / "set/all.json", names)
    assert checks(tmp_path, base / "set")["splits"]["train"]["images"] == "x"


def test_pictures_within_annotations(base: Path, tmp_path: Path) -> None:
    for number in range(4):
        image = embedded(picture(SIZE, number))
        labelme(base / "set", [f"{number}.jpg"], imageData=image)
    assert checks(tmp_path, base / "set")["splits"] == {"train": {"images": ".", "labels": "."}}


def test_turned_photographs(base: Path, tmp_path: Path) -> None:
    for number in range(8):
        exif = Image.Exif()
        exif[0x0112] = 6
        photograph(base / f"set/{number}.jpg", number, exif=exif)
    coco(base / "set/stored.json", [f"{number}.jpg" for number in range(8)])  # their size as stored
    assert checks(tmp_path, base / "set")["exif_orientation"] == "stored"


# ---- labels beside annotations


def test_labels_are_taken_rather_than_annotations(base: Path) -> None:
    root = pairs(base / "set", count=8)
    coco(root / "export/instances.json", [f"{number:03}.jpg" for number in range(8)])
    labelme(root / "images", [f"{number:03}.jpg" for number in range(8)])
    content, _, notes = decided(root)
    assert "annotations" not in content["data"]
    said = [note for note in notes if "not the annotations" in note]
    assert [note.partition(": ")[2] for note in said] == [
        f"gss init NAME {root}/images {root}/export/instances.json",
        f"gss init NAME {root}/images",
    ]
    for note, name in zip(said, ("coco", "labelme"), strict=True):
        places = map(Path, note.partition("gss init NAME ")[2].split())
        assert data(*places)["annotations"]["format"] == name


def test_pictures_of_instances_are_no_labels_beside_annotations(base: Path) -> None:
    root = pairs(base / "set", count=8, labels="instance/{:03}.png")
    coco(root / "a.json", [f"{number:03}.jpg" for number in range(8)])
    assert data(root)["splits"]["train"]["labels"] == "a.json"
    (root / "a.json").unlink()
    assert data(root)["splits"]["train"]["labels"] == "instance"


def test_annotations_in_the_folder_of_labels_are_written_by_hand(base: Path) -> None:
    root = pairs(base / "set", count=8, images="all/{:03}.jpg", labels="all/{:03}_mask.png")
    labelme(root / "all", [f"{number:03}.jpg" for number in range(8)])
    (note,) = [note for note in decided(root)[2] if "not the annotations" in note]
    assert note.endswith("all (labelme): written by hand (docs/how-to/annotations.md)")


# ---- what annotations leave to decide


def test_what_nobody_named_is_ignored_where_shapes_cover_most(base: Path, tmp_path: Path) -> None:
    coco(base / "set/a.json", photographs(base / "set"), DENSE)
    assert checks(tmp_path, base / "set")["annotations"] == {"format": "coco", "background": "ignore"}
    assert "shapes cover 96.88 %" in decided(base / "set")[1]["data.annotations.background"]
    coco(base / "set/a.json", photographs(base / "set"), [("all", ring) for _, ring in DENSE])  # one class is none
    assert checks(tmp_path, base / "set")["annotations"]["background"] == "background"


def test_ground_joins_a_class_of_its_name(base: Path, tmp_path: Path) -> None:
    coco(base / "set/a.json", photographs(base / "set"), classes=["Background", "car", "tree"])
    found = checks(tmp_path, base / "set")
    assert found["annotations"]["background"] == "Background" and found["classes"] == "annotations"


def test_classes_without_a_shape_and_those_that_are_none(base: Path, tmp_path: Path) -> None:
    shapes = [*SHAPES, ("void", [0, 0, 4, 0, 4, 4, 0, 4])]
    coco(base / "set/a.json", photographs(base / "set"), shapes, ["dog", "tree", "void", "car"])
    found = checks(tmp_path, base / "set")
    assert (found["classes"], found["mapping"]) == (["tree", "car", "background"], {"void": "ignore"})
    reasons = decided(base / "set")[1]
    assert "left out, as they have no shape: dog (1)" in reasons["data.classes"]
    assert reasons["data.classes[1]"] == "16.67 %"


@pytest.mark.parametrize("hidden", [False, True])
def test_the_order_of_shapes_is_said_where_it_matters(base: Path, tmp_path: Path, hidden: bool) -> None:
    house = ("house", [4, 4, 44, 4, 44, 28, 4, 28])
    coco(base / "set/a.json", photographs(base / "set"), [*SHAPES, house] if hidden else [house, *SHAPES])
    found = checks(tmp_path, base / "set")
    assert found["annotations"].get("overlap") == ("smallest" if hidden else None)
    if hidden:
        why = decided(base / "set")[1]["data.annotations.overlap"]
        assert why.startswith("27.60 % of the pixels depend on which of two shapes is above; of 24 shapes 16 are")


def test_boxes_and_lines_are_told(base: Path) -> None:
    labelme(base / "set", photographs(base / "set"))
    for path in (base / "set").glob("*.json"):
        content = json.loads(path.read_text())
        content["shapes"][0] |= {"shape_type": "rectangle", "points": [[8, 8], [24, 24]]}
        content["shapes"][1] |= {"shape_type": "linestrip"}
        write(path, content)
    said = "\n".join(decided(base / "set")[2])
    assert "8 of 16 shapes are boxes" in said and "8 of 16 shapes are lines or points" in said


# ---- what it asks


def test_several_annotations_of_the_same_pictures_are_a_question(base: Path) -> None:
    names = photographs(base / "set/images")
    coco(base / "set/a.json", names)
    cvat(base / "set/b.xml", names)
    with pytest.raises(DataError, match=r"(?s)several annotations.*say which") as told:
        data(base / "set")
    for name in ("a.json", "b.xml"):
        assert f"gss init NAME {base}/set/images {base}/set/{name}" in str(told.value)
        assert data(base / "set/images", base / "set" / name)["splits"]["train"]["labels"] == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ["x.jpg"]}, r"a.json \(coco\): none of its 1 pictures is there, such as x.jpg"),
        ({"shapes": [("car", [1, 1])]}, r"a.json \(coco\): no shape; 8 shapes of too few points"),
    ],
)
def test_why_annotations_are_not_taken(base: Path, change: dict[str, Any], said: str) -> None:
    names = photographs(base / "set")
    coco(base / "set/a.json", **{"names": names, **change})
    with pytest.raises(DataError, match=rf"(?s)annotation files that cannot be taken.*{said}"):
        data(base / "set")


def test_a_strange_file_among_them_is_named(base: Path) -> None:
    labelme(base / "set", photographs(base / "set"))
    write(base / "set/settings.json", {"a": 1})
    with pytest.raises(DataError, match=r"\. \(labelme\): settings.json is none of them: move it away"):
        data(base / "set")


def test_what_gss_labels_would_stop_at_is_said(base: Path) -> None:
    names = photographs(base / "set")
    coco(base / "set/a.json", names)
    photograph(base / "set/003.jpg", 3, (16, 24))
    with pytest.raises(
        DataError, match=r"(?s)a.json \(coco\) cannot be used.*sizes that are not those.*003.jpg: 32x48"
    ):
        data(base / "set")
