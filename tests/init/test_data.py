"""What `gss init` makes of folders: made up, of every kind, each decided and passed by the check."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gss.errors import DataError
from gss.init.plan import Plan
from gss.init.splits import _divide
from tests.init.made import checks, data, decided, ids, label, pairs, photograph, planned

FOLDERS = {"images": "images", "labels": "labels"}


def paint(path: Path, seed: int, colours: list[tuple[int, ...]], values: tuple[int, ...] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = ids(seed, values or tuple(range(len(colours))))
    Image.fromarray(np.array(colours, np.uint8)[chosen]).save(path)


# ---- ids


def test_a_folder_of_images_and_one_of_ids(base: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, pairs(base / "set"))
    assert found["root"] == "set"
    assert found["classes"] == ["class_0", "class_1", "class_2", "class_3"]
    assert found["splits"] == {"train": FOLDERS}
    assert found["divide"]["val"] == found["divide"]["test"] == 0.15
    assert not {"encoding", "label_map", "native_classes"} & found.keys()


@pytest.mark.parametrize("object_id", [1, 255])
def test_masks_of_one_object(base: Path, tmp_path: Path, object_id: int) -> None:
    found = checks(tmp_path, pairs(base / "set", values=(0, object_id)))
    assert found["classes"] == ["background", "object"]
    assert found.get("label_map") == ({255: 1} if object_id == 255 else None)


def test_masks_of_one_bit(base: Path, tmp_path: Path) -> None:
    pairs(base / "set", values=(0, 1))
    for path in (base / "set/labels").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(bool)).save(path)
    assert checks(tmp_path, base / "set")["classes"] == ["background", "object"]


def test_masks_of_both_conventions(base: Path, tmp_path: Path) -> None:
    pairs(base / "set", values=(0, 1))
    for path in sorted((base / "set/labels").iterdir())[::2]:
        label(path, np.asarray(Image.open(path)) * 255)
    assert checks(tmp_path, base / "set")["label_map"] == {255: 1}


def test_255_beside_classes_is_ignored(base: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, pairs(base / "set", values=(0, 1, 2, 255)))
    assert found["classes"] == ["class_0", "class_1", "class_2"]


def test_sparse_ids_are_led_to_classes(base: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, pairs(base / "set", values=(0, 100, 200)))
    assert found["classes"] == ["class_0", "class_100", "class_200"]
    assert found["label_map"] == {100: 1, 200: 2}


def test_ids_of_16_bits(base: Path, tmp_path: Path) -> None:
    found = checks(tmp_path, pairs(base / "set", values=(0, 300, 7000)))
    assert found["classes"] == ["class_0", "class_300", "class_7000"]


def test_what_holds_no_classes_is_refused(base: Path) -> None:
    pairs(base / "one", values=(3,))
    with pytest.raises(DataError, match="one class cannot be learned"):
        data(base / "one")
    root = pairs(base / "depth", count=8)
    for number, path in enumerate((root / "labels").iterdir()):
        label(path, np.arange(32 * 48).reshape(32, 48) // 8 + 400 * number)
    with pytest.raises(DataError, match="1536 different values"):
        data(root)


# ---- class tables


def test_a_table_of_classes_is_named(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set")
    (root / "classes.csv").write_text("index,name,r,g,b\n0,sky,1,1,1\n1,road,2,2,2\n2,car,3,3,3\n3,Void,0,0,0\n")
    found = checks(tmp_path, root)
    assert found["classes"] == "classes.csv" and found["label_map"] == {3: "ignore"}


def test_an_id_that_the_table_lacks_is_ignored_and_told(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set", values=(0, 1, 1, 1, 2, 2, 2, 2, 2, 9))
    (root / "classes.csv").write_text("index,name\n0,sky\n1,road\n2,car\n")
    assert checks(tmp_path, root)["label_map"] == {9: "ignore"}
    assert "9 has no name" in decided(root)[1]["data.label_map"]


def test_a_table_with_train_ids_says_what_is_ignored(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set", values=(0, 7, 8, 11))
    (root / "labels.csv").write_text("id,name,trainId\n0,ego,255\n7,road,0\n8,walk,1\n11,house,2\n")
    found = checks(tmp_path, root)
    assert found["native_classes"] == "labels.csv"
    assert (found["classes"], found["mapping"]) == (["road", "walk", "house"], {"ego": "ignore"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "sky\nroad\ncar\ndog\n"),
        ("labels.txt", "0: sky\n1: road\n2: car\n3: dog\n"),
        ("classes.json", '["sky", "road", "car", "dog"]'),
        ("classes.json", '{"sky": 0, "road": 1, "car": 2, "dog": 3}'),
        ("classes.json", '{"0": "sky", "1": "road", "2": "car", "3": "dog"}'),
        (
            "config.json",
            '{"labels": [{"id": 0, "name": "sky"}, {"id": 1, "name": "road"}, {"id": 2, "name": "car"}, '
            '{"id": 3, "name": "dog"}]}',
        ),
    ],
)
def test_names_in_other_forms_are_taken_over(base: Path, name: str, content: str) -> None:
    root = pairs(base / "set")
    (root / name).write_text(content)
    assert data(root)["classes"] == ["sky", "road", "car", "dog"]


def test_names_that_count_from_one(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set", values=(1, 2, 3))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    found = checks(tmp_path, root)
    assert found["classes"] == ["sky", "road", "car"] and found["reduce_zero_label"] is True


def test_one_id_more_than_names_is_a_question(base: Path) -> None:
    root = pairs(base / "set", values=(0, 1, 2, 3))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    with pytest.raises(DataError, match=r"(?s)is 0 \(25.00 % of the pixels\) no class, or 3 .*index,name"):
        data(root)


def test_every_class_has_its_share_of_the_pixels(base: Path) -> None:
    root = pairs(base / "set", values=(0, 1, 1, 3))
    for name, table, said in (
        ("classes.txt", "sky\nroad\ncar\nvoid\n", ["25.00 %", "50.00 %", "none"]),
        ("classes.csv", "id,name,trainId\n0,sky,0\n1,road,1\n3,ego,255\n", ["25.00 %", "50.00 %"]),
    ):
        (root / name).write_text(table)
        _, reasons, _ = decided(root)
        assert [reasons[f"data.classes[{k}]"] for k in range(len(said))] == said, name
        assert "25.00 % of the pixels are ignored" in reasons["data.classes"]
        (root / name).unlink()
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        paint(path, number, COLOURS, (0, 0, 1, 2))
    (root / "classes.csv").write_text("index,name,r,g,b\n0,sky,0,255,0\n1,road,255,0,0\n2,car,0,0,0\n")
    said = decided(root)[1]["data.classes"]
    assert said.endswith("car 50.00 %, sky 25.00 %, road 25.00 %")


# ---- colours

COLOURS = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]


@pytest.mark.parametrize("channels", [3, 4])
def test_painted_labels_without_a_table(base: Path, tmp_path: Path, channels: int) -> None:
    root = pairs(base / "set")
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        paint(path, number, [(*colour, 255)[:channels] for colour in COLOURS], (0, 0, 0, 1, 1, 2))
    found = checks(tmp_path, root)
    assert found["encoding"] == "colours"
    assert found["native_classes"] == {"class_0": [0, 0, 0], "class_1": [255, 0, 0], "class_2": [0, 255, 0]}


def test_painted_labels_with_a_table(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set")
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        paint(path, number, COLOURS)
    (root / "classes.csv").write_text("index,name,r,g,b\n0,sky,0,0,0\n1,road,255,0,0\n2,car,0,255,0\n")
    found = checks(tmp_path, root)
    assert (found["classes"], found["encoding"]) == ("classes.csv", "colours") and "native_classes" not in found


def test_colours_of_one_class_by_their_names(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set")
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        paint(path, number, [*COLOURS, (9, 9, 9)], (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3))
    (root / "list.json").write_text('{"#000000": "sky", "#ff0000": "Car 1", "#00ff00": "Car 2"}')
    found = checks(tmp_path, root)
    assert found["classes"] == ["sky", "Car"]
    assert found["mapping"] == {"Car 1": "Car", "Car 2": "Car", "unnamed": "ignore"}
    assert found["native_classes"]["unnamed"] == [9, 9, 9]


def test_cvats_and_camvids_tables_of_colours(base: Path) -> None:
    for name, lines in (
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:255,0,0::\ncar:0,255,0::\n"),
        ("label_colors.txt", "0 0 0\tsky\n255 0 0\troad\n0 255 0\tcar\n"),
    ):
        root = pairs(base / name, count=8)
        for number, path in enumerate(sorted((root / "labels").iterdir())):
            paint(path, number, COLOURS)
        (root / name).write_text(lines)
        assert data(root)["native_classes"] == {"sky": [0, 0, 0], "road": [255, 0, 0], "car": [0, 255, 0]}, name


def test_ids_in_three_channels_are_painted(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set")
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        paint(path, number, [(0, 0, 0), (1, 1, 1), (2, 2, 2)])
    (root / "classes.csv").write_text("index,name\n0,sky\n1,road\n2,car\n")
    found = checks(tmp_path, root)
    assert found["native_classes"] == {"sky": [0, 0, 0], "road": [1, 1, 1], "car": [2, 2, 2]}


def test_palettes_are_ids_unless_they_disagree(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set")
    palette = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
    for path in sorted((root / "labels").iterdir()):
        picture = Image.open(path).convert("L").copy()
        picture = Image.fromarray(np.asarray(picture), "P")
        picture.putpalette(palette)
        picture.save(path)
    assert "encoding" not in checks(tmp_path, root)
    for path in sorted((root / "labels").iterdir())[::2]:
        picture = Image.open(path).copy()
        picture.putpalette(palette[3:] + palette[:3])
        picture.save(path)
    assert data(root)["encoding"] == "colours"


# ---- which files


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        ("x/{:03}.png", "y/{:03}.png", {}),
        ("x/{:03}_left.jpg", "y/{:03}_mask.png", {"image_suffix": "_left", "label_suffix": "_mask"}),
        ("x/{:03}.jpg", "y/{:03}_mask.png", {"label_suffix": "_mask"}),
        ("all/{:03}.jpg", "all/{:03}.png", {}),
        ("all/{:03}.jpg", "all/{:03}_mask.png", {"label_suffix": "_mask"}),
        ("x/a_camera_{:03}.jpg", "y/a_label_{:03}.png", {"label_name": ["_camera_", "_label_"]}),
        ("x/img_{:03}.jpg", "y/mask_{:03}.png", {"label_name": ["^img_", "mask_"]}),
        ("x/image{:03}.jpg", "y/{:03}.png", {"label_name": ["^image", ""]}),
    ],
)
def test_how_names_pair(base: Path, images: str, labels: str, expected: dict[str, object]) -> None:
    found = data(pairs(base / "set", images=images, labels=labels))
    assert {key: found[key] for key in ("image_suffix", "label_suffix", "label_name") if key in found} == expected
    folders = found["splits"]["train"]
    assert (folders["images"], folders["labels"]) == (images.split("/")[0], labels.split("/")[0])


@pytest.mark.parametrize(
    ("image", "mask", "suffixes"),
    [
        ("image.jpg", "mask.png", ("image", "mask")),
        ("image.png", "mask.png", ("image", "mask")),
        ("my_{0}_img.png", "my_{0}_label.png", ("_img", "_label")),
        ("my_{0}.png", "my_{0}_mask.png", (None, "_mask")),
        ("0.png", "1.png", ("0", "1")),
    ],
)
def test_a_folder_for_each_pair(
    base: Path, tmp_path: Path, image: str, mask: str, suffixes: tuple[str | None, str]
) -> None:
    image, mask = (f"my_{{0}}/{name}" for name in (image, mask))
    root = pairs(base / "set", count=8, images=image, labels=mask)
    found = checks(tmp_path, root)
    assert found["splits"] == {"train": {"images": ".", "labels": "."}}
    assert (found.get("image_suffix"), found.get("label_suffix")) == suffixes


def test_a_folder_for_each_pair_in_splits(base: Path, tmp_path: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        pairs(base / "set" / split, count=count, images="{}/image.png", labels="{}/mask.png")
        photograph(base / "set" / split / "1/preview.png", 0)  # beside one
    assert checks(tmp_path, base / "set")["splits"]["val"] == {"images": "val", "labels": "val"}


@pytest.mark.parametrize(
    ("images", "labels", "train", "val"),
    [
        ("images/{}", "labels/{}", "train", "val"),
        ("{}/images", "{}/labels", "train", "valid"),
        ("{}", "{}annot", "train", "val"),
        ("img/{}/town", "gt/{}/town", "training", "validation"),
        ("images/{}", "annotations/{}", "train2017", "val2017"),
    ],
)
def test_splits_that_lie_there(base: Path, images: str, labels: str, train: str, val: str) -> None:
    for split in (train, val):
        folders = (images.format(split), labels.format(split))
        pairs(base / "set", count=4, images=f"{folders[0]}/{split}{{}}.jpg", labels=f"{folders[1]}/{split}{{}}.png")
    found = data(base / "set")
    assert found["splits"] == {
        name: {
            "images": images.format(split).removesuffix("/town"),
            "labels": labels.format(split).removesuffix("/town"),
        }
        for name, split in (("train", train), ("val", val))
    }
    assert "divide" not in found


def test_a_test_split_alone_gets_a_val_beside_it(base: Path, tmp_path: Path) -> None:
    for split, count in (("train", 24), ("test", 4)):
        pairs(base / "set", count=count, images=f"images/{split}/{{}}.jpg", labels=f"labels/{split}/{{}}.png")
    found = checks(tmp_path, base / "set")
    assert (
        list(found["splits"]) == ["train", "test"] and found["divide"]["val"] == 0.15 and "test" not in found["divide"]
    )


def test_lists_that_lie_there(base: Path, tmp_path: Path) -> None:
    root = pairs(base / "set", images="JPEGImages/{:03}.jpg", labels="SegmentationClass/{:03}.png")
    photograph(root / "JPEGImages/unlabelled.jpg", 99)  # no list names it
    for split, numbers in (("train", range(16)), ("val", range(16, 24)), ("trainval", range(24))):
        path = root / "ImageSets/Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{number:03} 1\n" for number in numbers))
    assert planned(root)[1].counts == {"train": 16, "val": 8}
    found = checks(tmp_path, root)
    assert {split: folders["list"] for split, folders in found["splits"].items()} == {
        "train": "set/ImageSets/Segmentation/train.txt",
        "val": "set/ImageSets/Segmentation/val.txt",
    }


def test_films_stay_together(base: Path) -> None:
    root = base / "set"
    for film in range(8):
        pairs(root, count=4, images=f"images/film{film}_{{:03}}.jpg", labels=f"labels/film{film}_{{:03}}.png")
    assert data(root)["divide"]["group"] == r"^(.*?)\d+$"


def test_of_very_many_no_more_are_measured_than_tell_much() -> None:
    plan = Plan()
    counts = _divide(plan, [f"{number:06}" for number in range(100_000)], ["val", "test"])
    assert 1800 < counts["val"] < 2200 and 1800 < counts["test"] < 2200
    assert "about 2000 pairs measure as well as more would" in plan.reasons["data.divide"]


def test_few_series_are_told(base: Path) -> None:
    _, reasons, _ = decided(pairs(base / "set"))
    assert "neighbouring frames are in several splits" in reasons["data.divide"]


def test_two_folders_may_be_named(base: Path) -> None:
    root = pairs(base / "set")
    pairs(root / "other")
    found = data(root / "images", root / "labels")
    assert found["splits"] == {"train": FOLDERS}


def test_tables_are_those_of_the_folders_that_are_named(base: Path) -> None:
    root = pairs(base / "set")
    (root / "labels/classes.csv").write_text("index,name\n0,sky\n1,road\n2,car\n3,dog\n")
    (base / "set/other").mkdir()
    (base / "set/other/classes.csv").write_text("index,name\n0,a\n1,b\n2,c\n3,d\n")
    assert data(root / "images", root / "labels")["classes"] == [f"class_{k}" for k in range(4)]


def test_of_drawings_the_first_of_two_folders_has_the_photographs(base: Path) -> None:
    for number in range(8):
        label(base / f"set/one/{number}.png", ids(number))
        label(base / f"set/two/{number}.png", ids(number, (0, 1)))
    with pytest.raises(DataError, match="everything looks like labels: say which is which"):
        data(base / "set")
    for one, other in (("one", "two"), ("two", "one")):
        found = data(base / "set" / one, base / "set" / other)
        assert found["splits"]["train"] == {"images": one, "labels": other}


def test_two_sets_are_a_question_with_the_answers(base: Path) -> None:
    for name in ("one", "two"):
        pairs(base / "set" / name, labels="labels/{:03}.png", images=f"{name}/{{:03}}.jpg")
    with pytest.raises(DataError, match=r"several folders may be") as told:
        data(base / "set")
    assert f"gss init NAME {base}/set/one/one {base}/set/one/labels" in str(told.value)


def test_the_likelier_labels_of_the_same_photographs(base: Path) -> None:
    root = pairs(base / "set", labels="semantic/{:03}.png")
    for number in range(24):
        label(root / f"instance/{number:03}.png", ids(number) * 256)
        paint(root / f"semantic_rgb/{number:03}.png", number, [*COLOURS, (7, 7, 7)])
    content, _, notes = decided(root)
    assert content["data"]["splits"]["train"]["labels"] == "semantic"
    assert any("instance" in note and "semantic_rgb" in note for note in notes)


def test_photographs_without_labels_are_told(base: Path) -> None:
    root = pairs(base / "set", count=8)
    pairs(root / "other", count=4, images="photos/a{:03}.jpg", labels="instance/a{:03}.png")  # have labels
    photograph(root / "more/1.jpg", 1)
    notes = [note for note in decided(root)[2] if "without labels" in note]
    assert len(notes) == 1 and "more" in notes[0] and "photos" not in notes[0]


def test_what_has_no_partner_is_named(base: Path) -> None:
    root = pairs(base / "set")
    (root / "labels/007.png").unlink()
    with pytest.raises(DataError, match=r"images/007.jpg: its label is missing"):
        data(root)


def test_nothing_to_pair_is_told(base: Path) -> None:
    (base / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        data(base / "empty")
    root = base / "set"
    for number in range(4):
        photograph(root / f"images/{number}.jpg", number)
    with pytest.raises(DataError, match=r"(?s)no photographs and labels that belong together.*labels: none"):
        data(root)


def test_a_damaged_label_is_named(base: Path) -> None:
    root = pairs(base / "set", count=8)
    path = root / "labels/000.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"labels that cannot be read: 000.png"):
        data(root)


def test_a_label_of_another_size_is_named(base: Path) -> None:
    root = pairs(base / "set", count=8)
    label(root / "labels/003.png", ids(3, size=(16, 24)))
    with pytest.raises(DataError, match=r"label has 24 x 16 pixels and its photograph 48 x 32(?s:.*)003.png"):
        data(root)


def test_annotation_files_are_said_not_to_be_read(base: Path) -> None:
    for number in range(4):
        photograph(base / f"set/{number}.jpg", number)
        (base / f"set/{number}.json").write_text("{}")
    (base / "bare").mkdir()
    (base / "bare/a.xml").write_text("<a/>")
    for name, files in (("set", r"4 \*.json"), ("bare", r"1 \*.xml")):
        with pytest.raises(DataError, match=rf"annotation files \({files}\) are not read"):
            data(base / name)


def test_a_mask_for_each_class_is_told(base: Path) -> None:
    root = pairs(base / "set", count=8, labels="labels/{:03}_car.png", values=(0, 255))
    pairs(root, count=8, labels="labels/{:03}_dog.png", values=(0, 255))
    with pytest.raises(DataError, match=r"(?s)several kinds lie in one folder.*_car .*_dog"):
        data(root)


def test_exif_orientation_follows_the_labels(base: Path, tmp_path: Path) -> None:
    for stored in (False, True):
        root = base / f"set{stored}"
        for number in range(8):
            exif = Image.Exif()
            exif[0x0112] = 6
            photograph(root / f"images/{number}.jpg", number, exif=exif)
            label(root / f"labels/{number}.png", ids(number, size=(32, 48) if stored else (48, 32)))
        found = checks(tmp_path, root)
        assert found["exif_orientation"] == ("stored" if stored else "apply")


def test_the_same_folder_gives_the_same_experiment(base: Path) -> None:
    root = pairs(base / "set")
    assert decided(root)[:2] == decided(root)[:2]
