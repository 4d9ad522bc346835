"""Labels of annotations: the pixels of every shape, every format, what is refused, and what is only counted."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from gss.config.schema import Annotations
from gss.data.annotations import masks
from gss.data.annotations.formats import FORMATS
from gss.data.annotations.scalabel import read_scalabel
from gss.data.annotations.shapes import Shape, box, covered
from gss.data.images import read_native_label
from gss.errors import DataError
from tests.data.annotated import (
    CAR,
    EXPECTED,
    SIZE,
    TREE,
    WRITERS,
    annotated,
    coco,
    embedded,
    label,
    labelme,
    made,
    picture,
    png,
    write,
)


def pixels(shape: Shape, size: tuple[int, int] = (6, 8), width: float = 1.0) -> list[str]:
    """The pixels of a shape, as rows of `#` and `.`."""
    found = np.zeros(size, bool)
    mask, top, left = covered(shape, size, width)
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return ["".join(".#"[int(value)] for value in row) for row in found]


def total(shape: Shape, size: tuple[int, int] = (6, 8), width: float = 1.0) -> int:
    return "".join(pixels(shape, size, width)).count("#")


# ---- shapes


def test_a_polygon_has_the_pixels_whose_centre_is_inside() -> None:
    # the edge from (7, 0) to (3, 4) goes through centres, which it leaves to the other side
    assert pixels(Shape("", "polygon", [TREE])) == ["...###..", "...##...", "...#....", *3 * ["........"]]
    assert pixels(Shape("", "polygon", [[1.5, 1.5, 4.5, 1.5, 4.5, 3.5, 1.5, 3.5]]))[1:3] == [".###....", ".###...."]


def test_areas_with_a_common_edge_leave_neither_gap_nor_overlap() -> None:
    rng = np.random.default_rng(0)
    corners = [(0, 0), (40, 0), (40, 30), (0, 30)]
    for _ in range(20):
        middle = rng.uniform((0, 0), (40, 30))
        parts = [Shape("", "polygon", [[*corners[k], *corners[(k + 1) % 4], *middle]]) for k in range(4)]
        times = sum(
            np.pad(m, ((t, 30 - t - m.shape[0]), (l, 40 - l - m.shape[1]))).astype(int)
            for m, t, l in (covered(part, (30, 40), 1) for part in parts)
        )
        assert (times == 1).all()


def test_a_polygon_is_even_odd_and_several_are_joined() -> None:
    # a pentagram leaves its middle out; two rings that lie over each other do not
    star = [(50 + 40 * np.sin(4 * np.pi * k / 5), 50 - 40 * np.cos(4 * np.pi * k / 5)) for k in range(5)]
    found = pixels(Shape("", "polygon", [[value for point in star for value in point]]), (100, 100))
    assert found[50][50] == "." and found[20][50] == "#"
    assert total(Shape("", "polygon", [CAR, [2, 2, 6, 2, 6, 5, 2, 5]])) == 12 + 12 - 6


def test_what_lies_outside_is_cut_off() -> None:
    assert total(Shape("", "polygon", [[-3, -3, 100, -3, 100, 2, -3, 2]])) == 16
    assert total(Shape("", "polygon", [[20, 20, 30, 20, 30, 30]])) == 0
    assert total(Shape("", "polygon", [[-9, -9, -3, -9, -3, -3]])) == 0
    assert total(Shape("", "line", [[-5, 2.5, 100, 2.5]]), width=1) == 8


def test_boxes_may_be_turned() -> None:
    assert pixels(Shape("", "box", [box(1, 1, 5, 3)]))[:4] == ["........", ".####...", ".####...", "........"]
    turned = pixels(Shape("", "box", [box(1, 2, 5, 4, 90)]))
    assert turned[1:5] == ["..##....", "..##....", "..##....", "..##...."]


def test_an_ellipse_has_its_radii() -> None:
    assert abs(total(Shape("", "ellipse", [100, 100, 60, 40]), (200, 200)) - np.pi * 60 * 40) < 20
    wide, turned = (pixels(Shape("", "ellipse", [50, 50, 40, 10, angle]), (100, 100)) for angle in (0, 90))
    assert wide[50][11] == turned[11][50] == "#" and wide[30][50] == turned[50][30] == "."


def test_lines_and_points_have_a_width() -> None:
    assert pixels(Shape("", "line", [[1.5, 2.5, 5.5, 2.5]]), width=1)[2] == ".#####.."
    assert total(Shape("", "line", [[10, 10, 90, 10, 90, 60]]), (100, 100), 10) == pytest.approx(130 * 10 + 75, abs=25)
    assert total(Shape("", "point", [[50, 50]]), (100, 100), 10) == pytest.approx(np.pi * 25, abs=6)
    assert total(Shape("", "point", [[20, 50, 80, 50]]), (100, 100), 10) == pytest.approx(2 * np.pi * 25, abs=12)


# ---- masks of runs


def test_runs_as_text_are_those_that_cocos_own_code_writes() -> None:
    """Written by pycocotools 2.0.11 of these masks."""
    small = np.zeros((4, 5), bool)
    small[1:3, 1:4] = True
    assert (masks.of_runs("5220003", (4, 5)) == small).all()
    assert (masks.of_runs([5, 2, 2, 2, 2, 2, 5], (4, 5)) == small).all()
    noise = np.random.default_rng(0).random((5, 7)) > 0.5
    assert (masks.of_runs(NOISE, (5, 7)) == noise).all()
    long = np.zeros((300, 400), bool)
    long[100:200, 50:53] = True
    assert (masks.of_runs(LONG, (300, 400)) == long).all()


NOISE = "031N0001020O0N31M11O"
LONG = "lg>T3X6000PbU3"


def test_runs_of_a_real_file_share_out_every_pixel(gss_data: Path) -> None:
    """Eleven masks of BDD100K's semantic labels: each pixel is in one of them."""
    file = gss_data / "wild/formats/bdd_scalabel/test-rle.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    times = np.zeros((720, 1280), int)
    for shape in read_scalabel(file, "", []).pictures[0].shapes:
        mask, top, left = covered(shape, (720, 1280), 1)
        times[top : top + mask.shape[0], left : left + mask.shape[1]] += mask
    assert (times == 1).all()


def test_polygons_of_a_real_file_have_the_areas_that_it_says(gss_data: Path) -> None:
    file = gss_data / "wild/formats/coco_json_taco/annotations_first10.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    content = json.loads(file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for each in content["annotations"]:
        mask, _, _ = covered(Shape("", "polygon", each["segmentation"]), sizes[each["image_id"]], 1)
        assert np.count_nonzero(mask) == pytest.approx(each["area"], rel=0.002)


def test_runs_go_down_columns_or_along_rows() -> None:
    assert masks.of_runs([1, 2, 3], (2, 3)).tolist() == [[False, True, False], [True, False, False]]
    assert masks.of_runs([1, 2, 3], (2, 3), order="C").tolist() == [[False, True, True], [False, False, False]]


@pytest.mark.parametrize("counts", [[5, 2], [30, -10], "5220", "52200", "5!", "5220003P"])
def test_damaged_runs_are_refused(counts: Any) -> None:
    with pytest.raises(DataError):
        masks.of_runs(counts, (4, 5))


# ---- formats


def test_the_configuration_knows_every_format() -> None:
    assert set(get_args(Annotations.model_fields["format"].annotation)) == set(FORMATS) == set(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    annotated(tmp_path, name)
    record = made(tmp_path, name)
    ids = {each: index for index, each in enumerate(record["classes"])}
    expected = np.select([EXPECTED == 0, EXPECTED == 1], [ids["car"], ids["tree"]], 255)
    assert label(tmp_path).tolist() == expected.tolist()
    assert read_native_label(tmp_path / "made/train/labels/a.png").tolist() == expected.tolist()
    found = record["splits"]["train"]
    assert found["files"] == 1 and found["shapes"] == {**dict.fromkeys(ids, 0), "car": 1, "tree": 1}
    assert found["pixels"] == {**dict.fromkeys(ids, 0), "car": 9, "tree": 6} and found["ignored_pixels"] == 33


def test_classes_have_the_order_of_the_file_or_of_names(tmp_path: Path) -> None:
    for name, order in {"coco": ["car", "tree"], "labelme": ["car", "tree"], "cvat": ["car", "tree"]}.items():
        annotated(tmp_path / name, name)
        assert made(tmp_path / name, name)["classes"] == order
    write(
        tmp_path / "coco/labels.json",
        coco(categories=[{"id": 9, "name": "a"}, {"id": 5, "name": "tree"}, {"id": 2, "name": "car"}]),
    )
    assert made(tmp_path / "coco", "coco")["classes"] == ["car", "tree", "a"], "by their numbers"
    assert made(tmp_path / "coco", "coco", background="ground")["classes"] == ["car", "tree", "a", "ground"]
    assert made(tmp_path / "coco", "coco", background="car")["classes"] == ["car", "tree", "a"]


def test_more_than_254_classes_have_16_bits(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    write(tmp_path / "labels.json", coco(categories=[{"id": k, "name": f"c{k}"} for k in range(300)]))
    made(tmp_path, "coco")
    assert label(tmp_path).dtype == np.uint16 and set(np.unique(label(tmp_path))) == {2, 5, 65535}


def test_crowds_are_of_their_class_and_a_bbox_alone_is_a_box(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    runs = {"counts": [7, 3, 3, 3, 3, 3, 3, 3, 20], "size": [6, 8]}
    crowd = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": runs, "bbox": [0, 0, 1, 1], "iscrowd": 1}
    drawn = {"id": 2, "image_id": 1, "category_id": 5, "segmentation": [], "bbox": [6, 4, 2, 2], "iscrowd": 0}
    write(tmp_path / "labels.json", coco(annotations=[crowd, drawn]))
    record = made(tmp_path, "coco")["splits"]["train"]
    assert record["kinds"] == {"box": 1, "mask": 1} and record["pixels"] == {"car": 12, "tree": 4}


def test_all_shapes_of_labelme_are_read(tmp_path: Path) -> None:
    annotated(tmp_path, "labelme")
    mask = base64.b64encode(png(np.array([[0, 255], [255, 255]], np.uint8))).decode()
    shapes = [
        {"label": "a", "shape_type": "circle", "points": [[50, 50], [50, 70]]},
        {"label": "b", "shape_type": "line", "points": [[10, 90], [90, 90]]},
        {"label": "c", "shape_type": "linestrip", "points": [[10, 10], [20, 10], [20, 20]]},
        {"label": "d", "shape_type": "point", "points": [[80, 20]]},
        {"label": "e", "shape_type": "mask", "points": [[90, 0], [91, 1]], "mask": mask},
        {"label": "f", "points": [[0, 60], [9, 60], [9, 70], [0, 70]]},
    ]
    picture((100, 100)).save(tmp_path / "photos/a.jpg")
    write(tmp_path / "labels/a.json", labelme(shapes=shapes, imageHeight=100, imageWidth=100))
    record = made(tmp_path, "labelme", line_width=4)["splits"]["train"]
    assert record["kinds"] == {"ellipse": 1, "line": 2, "mask": 1, "point": 1, "polygon": 1}
    assert record["pixels"]["e"] == 3 and record["pixels"]["f"] == 90
    assert record["pixels"]["a"] == pytest.approx(np.pi * 400, abs=20)
    assert record["pixels"]["b"] == pytest.approx(80 * 4 + 4 * np.pi, abs=8)


def test_pictures_within_labelme_become_files(tmp_path: Path) -> None:
    annotated(tmp_path, "labelme")
    (tmp_path / "photos/a.jpg").unlink()
    write(tmp_path / "labels/b/c.json", labelme(imagePath="c.jpg", imageData=embedded(picture())))
    (tmp_path / "labels/a.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert made(tmp_path, "labelme")["splits"]["train"]["embedded"]
    file = tmp_path / "made/train/images/b/c.jpg"
    assert base64.b64encode(file.read_bytes()).decode() == embedded(picture())
    assert label(tmp_path, "b/c").shape == SIZE
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing of the user's is changed"


def test_curves_of_scalabel_are_drawn(tmp_path: Path) -> None:
    """A circle of four cubic curves: its area is pi r^2 but for 0.03 %."""
    annotated(tmp_path, "scalabel")
    picture((100, 100)).save(tmp_path / "photos/a.jpg")
    k, r = 0.5523, 40
    quarter = [(r, 0), (r, k * r), (k * r, r)]
    points = []
    for turn in range(4):
        for x, y in quarter:
            for _ in range(turn):
                x, y = -y, x
            points.append([50 + x, 50 + y])
    labels = [{"category": "car", "poly2d": [{"vertices": points, "types": "LCC" * 4, "closed": True}]}]
    write(tmp_path / "labels.json", [{"name": "a.jpg", "labels": labels}])
    assert made(tmp_path, "scalabel")["splits"]["train"]["pixels"]["car"] == pytest.approx(np.pi * 1600, rel=0.005)


def test_yolo_has_boxes_and_empty_files(tmp_path: Path) -> None:
    annotated(tmp_path, "yolo")
    picture().save(tmp_path / "photos/b.jpg")
    write(tmp_path / "labels/b.txt", "")
    write(tmp_path / "labels/classes.txt", "car\ntree\n")
    record = made(tmp_path, "yolo", background="ground")["splits"]["train"]
    assert record["files"] == 2 and record["pixels"] == {"car": 9, "tree": 6, "ground": 33 + 48}


def test_text_files_of_windows_are_read(tmp_path: Path) -> None:
    annotated(tmp_path, "yolo")
    text = (tmp_path / "labels/a.txt").read_text()
    write(tmp_path / "labels/a.txt", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert made(tmp_path, "yolo")["splits"]["train"]["pixels"] == {"car": 9, "tree": 6}


@pytest.mark.parametrize(("file", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_either_unicode_form_are_found(file: str, named: str, tmp_path: Path) -> None:
    photo, name = (unicodedata.normalize(form, "Straßenbäume.jpg") for form in (file, named))  # type: ignore[arg-type]
    (tmp_path / "photos").mkdir()
    picture().save(tmp_path / "photos" / photo)
    write(tmp_path / "labels.json", coco(images=[{"id": 1, "file_name": name, "height": 6, "width": 8}]))
    assert made(tmp_path, "coco")["splits"]["train"]["files"] == 1
    assert label(tmp_path, photo.removesuffix(".jpg")).shape == (6, 8)


# ---- what is over what


def test_overlaps_are_decided_as_asked(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    first, second = coco()["annotations"]
    write(tmp_path / "labels.json", coco(annotations=[second, first]))
    assert made(tmp_path, "coco")["splits"]["train"]["pixels"] == {"car": 12, "tree": 3}, "the last one"
    assert made(tmp_path, "coco", overlap="smallest")["splits"]["train"]["pixels"] == {"car": 9, "tree": 6}
    with pytest.raises(DataError, match=r"1 overlaps of shapes of two classes: a.jpg: car over tree, 3 pixels"):
        made(tmp_path, "coco", overlap="error")
    write(tmp_path / "labels.json", coco(annotations=[first, {**first, "id": 3}]))
    made(tmp_path, "coco", overlap="error")  # of one class they are no matter


# ---- faults: one line, a number, three examples


def lines(root: Path, name: str = "coco", **options: Any) -> str:
    with pytest.raises(DataError) as raised:
        made(root, name, **options)
    return str(raised.value)


def test_equal_faults_are_one_line(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 6, "width": 8} for k in range(5)]
    write(tmp_path / "labels.json", coco(images=images, annotations=[]))
    said = lines(tmp_path)
    assert "train: 5 pictures that are missing in photos" in said and "e.g. 0.jpg, 1.jpg, 2.jpg\n" in said
    assert not list((tmp_path / "made").rglob("*.png"))


def test_pictures_that_are_missing_may_be_passed_over(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    images = [*coco()["images"], {"id": 7, "file_name": "gone.jpg", "height": 6, "width": 8}]
    write(tmp_path / "labels.json", coco(images=images))
    found = made(tmp_path, "coco", missing="skip")["splits"]["train"]
    assert found["files"] == 1
    assert found["remarks"] == ["1 pictures that are missing in photos, passed over: gone.jpg"]
    (tmp_path / "photos/a.jpg").unlink()
    with pytest.raises(DataError, match=r"train: no annotated picture in labels.json"):
        made(tmp_path, "coco", missing="skip")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 8}]}, "a.jpg: 60x8, the picture is 6x8"),
        ({"categories": [{"id": 2, "name": "car"}]}, "1 annotations of a category that is not declared: annotation 2"),
        ({"images": []}, "2 annotations of an image that is not declared: annotation 1 of labels.json: image 1"),
        ({"images": 2 * coco()["images"]}, None),
        (
            {"images": [*coco()["images"], {**coco()["images"][0], "id": 2}]},
            "1 pictures that are annotated twice: a.jpg",
        ),
        ({"annotations": 3}, "no COCO JSON: it has no list 'annotations'"),
        (
            {"annotations": [{"image_id": 1, "category_id": 2, "segmentation": {"counts": [3], "size": [6, 8]}}]},
            "runs of",
        ),
        ({"annotations": [{"image_id": 1, "category_id": 2, "segmentation": {"counts": [4], "size": [2, 2]}}]}, "2x2"),
    ],
)
def test_what_would_be_learned_wrongly_is_refused(change: dict[str, Any], said: str | None, tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    write(tmp_path / "labels.json", coco(**change))
    if said is None:
        made(tmp_path, "coco")
    else:
        assert said in lines(tmp_path)


@pytest.mark.parametrize("ring", [[1, 1, 5, 1, 5, 4, 1], [1, 1, 5, 1, 5, "x"], [1, 1, 5, 1, 5, float("nan")]])
def test_points_that_are_none_are_refused(ring: list[Any], tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    drawn = {**coco()["annotations"][0], "segmentation": [ring]}
    write(tmp_path / "labels.json", coco(annotations=[drawn]))
    assert "pictures whose annotation cannot be used: a.jpg" in lines(tmp_path)


def test_annotations_without_any_class_are_none(tmp_path: Path) -> None:
    annotated(tmp_path, "scalabel")
    write(tmp_path / "labels.json", [{"name": "a.jpg"}])
    with pytest.raises(DataError, match=r"train: no annotated picture in labels\.json"):
        made(tmp_path, "scalabel")


def test_a_class_may_be_called_ignore(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    write(tmp_path / "labels.json", coco(categories=[{"id": 2, "name": "ignore"}, {"id": 5, "name": "tree"}]))
    assert made(tmp_path, "coco")["splits"]["train"]["pixels"] == {"ignore": 9, "tree": 6}


def test_files_of_another_format_are_named(tmp_path: Path) -> None:
    for name in WRITERS:
        annotated(tmp_path / name, name)
    for name, other in {"coco": "scalabel", "scalabel": "coco", "labelme": "coco", "cvat": "labelme_xml"}.items():
        place = next(path for path in (tmp_path / other).rglob("*") if path.suffix == FORMATS[name].ending)
        assert f"{place}: no " in lines(tmp_path / name, name, labels=str(place))
    write(tmp_path / "cut.json", '{"images": [')
    assert "files that cannot be read" in lines(tmp_path / "coco", labels="../cut.json")
    assert "no such annotations" in lines(tmp_path / "coco", labels="nowhere.json")
    assert "no folder with files *.json" in lines(tmp_path / "coco", labels="photos")


def test_what_has_no_area_or_leaves_the_picture_is_counted(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    first, second = coco()["annotations"]
    wrong = [
        {**first, "segmentation": [[1, 1, 2, 2]]},
        {**first, "segmentation": [[7, 5, 20, 5, 20, 20]]},
        {**first, "segmentation": [[2.6, 2.6, 2.9, 2.6, 2.9, 2.9]]},
    ]
    write(tmp_path / "labels.json", coco(annotations=[first, second, *wrong]))
    for _ in range(2):  # the second time of what the label says of itself
        remarks = made(tmp_path, "coco")["splits"]["train"]["remarks"]
        assert remarks == [
            "1 shapes of too few points, which have no area, left out: annotation 1 of labels.json (car)",
            "1 shapes that reach outside of their picture, clipped: a.jpg (car)",
            "1 shapes that cover no pixel's centre: a.jpg (car)",
        ]


def test_segments_that_the_json_forgets_are_refused(tmp_path: Path) -> None:
    annotated(tmp_path, "coco_panoptic")
    info = [{"id": 300, "category_id": 2}]
    write(tmp_path / "labels.json", coco(annotations=[{"image_id": 1, "file_name": "a.png", "segments_info": info}]))
    assert "segments that the JSON does not name: a.jpg: 7" in lines(tmp_path, "coco_panoptic")


# ---- made once


def test_labels_are_made_again_only_when_something_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotated(tmp_path, "coco")
    file = tmp_path / "made/train/labels/a.png"

    def run(**options: Any) -> tuple[bool, bytes]:
        made(tmp_path, "coco", **options)
        return "1 of 1 labels made" in capsys.readouterr().out, file.read_bytes()

    first = run()
    assert first[0] and run() == (False, first[1])
    assert run(overlap="smallest")[0] and run(background="ground")[0] and run() == first
    write(tmp_path / "labels.json", coco(annotations=coco()["annotations"][:1]))
    assert run()[0]
    file.write_bytes(file.read_bytes()[:60])
    assert run()[0]
    assert read_native_label(file).shape == SIZE


def test_labels_of_what_is_no_more_annotated_go(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    picture().save(tmp_path / "photos/b.jpg")
    other = {"id": 2, "file_name": "b.jpg", "height": 6, "width": 8}
    write(tmp_path / "labels.json", coco(images=[*coco()["images"], other]))
    made(tmp_path, "coco")
    assert label(tmp_path, "b").tolist() == np.full(SIZE, 255).tolist(), "a picture without a shape"
    write(tmp_path / "labels.json", coco())
    made(tmp_path, "coco")
    assert [path.name for path in (tmp_path / "made").rglob("*.png")] == ["a.png"]


MANY = """
import sys
from pathlib import Path
from tests.data.annotated import made
made(Path(sys.argv[1]), "coco", Path(sys.argv[1]) / sys.argv[2])
"""


def test_who_is_killed_goes_on_and_ends_with_the_same(tmp_path: Path) -> None:
    annotated(tmp_path, "coco")
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 300, "width": 300} for k in range(60)]
    drawn = [
        {**coco()["annotations"][0], "id": k, "image_id": k, "segmentation": [[0, 0, k, 9, 300, 300]]}
        for k in range(60)
    ]
    for k in range(60):
        picture((300, 300), k).save(tmp_path / f"photos/{k}.jpg")
    write(tmp_path / "labels.json", coco(images=images, annotations=drawn))
    ahead = [sys.executable, "-c", MANY, str(tmp_path)]
    folder = tmp_path / "made/train/labels"
    with subprocess.Popen([*ahead, "made"], stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2]) as process:
        while process.poll() is None and len(list(folder.glob("[0-9]*.png"))) < 5:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    begun = {path.name: path.stat().st_mtime_ns for path in folder.glob("[0-9]*.png")}
    record = made(tmp_path, "coco")
    assert 5 <= len(begun) < 60 and record["splits"]["train"]["files"] == 60
    assert {name: (folder / name).stat().st_mtime_ns for name in begun} == begun, "these were there"
    assert not [path for path in folder.iterdir() if path.suffix != ".png"], "no half-written file is left"
    assert made(tmp_path, "coco", tmp_path / "anew") == record
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "anew/train/labels" / path.name).read_bytes()
