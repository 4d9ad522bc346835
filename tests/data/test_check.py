import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gss.data.check import fault_error, scan
from gss.data.classes import ClassSpace, read_class_space
from gss.data.manifest import Rows, manifest_sha256, read_manifest, write_manifest
from gss.data.pairing import SplitFolders
from gss.errors import DataError, GssError
from gss.files import sha256_file, write_json

CAMVID_COUNTS = {  # pixels and frames per class, from the table that comes with the data
    "train": (
        [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967],
        [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201],
        2503995,
    ),
    "val": (
        [1601620, 4531180, 98499, 5053176, 1521751, 2851125, 155724, 537197, 304716, 113531, 387010],
        [101] * 11,
        297271,
    ),
    "test": (
        [6870982, 9906732, 473895, 10390661, 3731857, 4530895, 406612, 476807, 1599124, 255232, 76220],
        [232, 233, 232, 233, 233, 228, 226, 90, 223, 222, 77],
        1543383,
    ),
}


def test_a_sound_set_has_no_faults_and_right_counts(tiny):
    manifest, statistics, faults = tiny.scan()
    assert faults == []
    labels = np.stack([np.asarray(Image.open(tiny.label(f"train/{name}"))) for name in "abcd"])
    train = statistics["splits"]["train"]
    assert train["images"] == 4
    assert train["sizes"] == {"40x56": 4}
    assert train["ignored_pixels"] == (labels == 255).sum()
    assert [row["pixels"] for row in train["classes"]] == [(labels == k).sum() for k in range(3)]
    assert sum(row["pixels"] for row in train["classes"]) + train["ignored_pixels"] == train["pixels"] == labels.size
    assert [row["image"] for row in manifest["splits"]["val"]] == ["images/val/e.jpg", "images/val/f.jpg"]


def test_manifest_is_read_back(tiny):
    manifest = tiny.manifest()
    pairs = manifest.pairs("train")
    assert [pair.image for pair in pairs] == [tiny.image(f"train/{name}") for name in "abcd"]
    assert (pairs[0].label, pairs[0].height, pairs[0].width) == (tiny.label("train/a"), 40, 56)
    assert manifest.space == tiny.space
    with pytest.raises(DataError, match="no split 'test'; there are train, val"):
        manifest.pairs("test")


def test_manifest_knows_the_files_but_not_their_place(tiny, tmp_path):
    before = tiny.manifest()
    moved = tmp_path / "moved"
    shutil.copytree(tiny.root, moved)
    tiny.root = moved
    after = tiny.manifest()
    assert after.rows == before.rows
    tiny.write_label("train/a", np.zeros((40, 56), np.uint8))
    assert tiny.manifest().rows != before.rows


def test_missing_partners_are_named_with_what_is_expected(tiny):
    tiny.label("train/b").unlink()
    tiny.image("val/e").unlink()
    _, _, faults = tiny.scan()
    assert faults == [
        "images/train/b.jpg: its label is missing, expected labels/train/b.png",
        "labels/val/e.png: its image is missing in images/val",
    ]


def test_another_number_of_images_is_a_fault(tiny):
    tiny.splits["train"] = SplitFolders("images/train", "labels/train", count=4)
    tiny.splits["val"] = SplitFolders("images/val", "labels/val", count=3)
    _, _, faults = tiny.scan()
    (fault,) = faults
    assert "split val has 2 images, expected 3" in fault
    assert "remove data.splits.val.count" in fault


def test_size_mismatch_names_both_sizes(tiny):
    tiny.write_label("train/c", np.zeros((40, 55), np.uint8))
    _, _, faults = tiny.scan()
    assert faults == ["labels/train/c.png: the label is 40x55, its image images/train/c.jpg is 40x56 (height x width)"]


def test_unknown_ids_are_named_with_file_values_and_remap(tiny):
    label = np.zeros((40, 56), np.uint8)
    label[0, :5] = 9
    tiny.write_label("train/d", label)
    _, statistics, faults = tiny.scan()
    assert faults[0].startswith("remap: if these ids are void (9 0.04 % of the pixels) add label_map: {9: 255}")
    assert faults[1:] == ["labels/train/d.png: ids found that are no class: 9 (5 pixels); allowed: 0..2, 255"]
    assert statistics["splits"]["train"]["unknown_ids"] == {"9": {"pixels": 5, "files": 1}}
    assert tiny.scan(ClassSpace(tiny.space.names, label_map={9: 255}))[2] == []


def test_unreadable_files_are_faults_and_the_scan_goes_on(tiny):
    whole = tiny.image("train/a").read_bytes()
    tiny.image("train/a").write_bytes(whole[: len(whole) // 2])
    tiny.image("train/b").write_text("no picture")
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(tiny.label("train/c"))
    Image.fromarray(np.zeros((40, 56), np.int32)).save(tiny.label("train/d").with_suffix(".tif"))
    tiny.label("train/d").with_suffix(".tif").rename(tiny.label("train/d"))
    manifest, _, faults = tiny.scan()
    assert len(faults) == 4
    assert faults[0].startswith(f"images/train/a.jpg: the image cannot be decoded ({len(whole) // 2} bytes")
    assert faults[1].startswith("images/train/b.jpg: the image cannot be decoded because it is text")
    assert faults[2].startswith("labels/train/c.png: a label with 3 channels (RGB)")
    assert faults[3].startswith("labels/train/d.png: a 32-bit label")
    assert all("\n" not in fault for fault in faults)
    assert len(manifest["splits"]["train"]) == 0
    assert len(manifest["splits"]["val"]) == 2


def test_measurements_of_16_bits_are_no_labels(tiny):
    rng = np.random.RandomState(0)
    tiny.image("train/d").unlink()
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tiny.image("train/d"))
    tiny.write_label("train/d", rng.permutation(10000).reshape(100, 100).astype(np.uint16))
    *_, faults = tiny.scan()
    assert "labels/train/d.png: 10000 values from 0 to 9999: measurements, as of depth, and no ids" in faults


def test_empty_split_is_a_fault(tiny):
    for name in ("val/e", "val/f"):
        tiny.image(name).unlink()
        tiny.label(name).unlink()
    assert tiny.scan()[2] == ["split val is empty: no image (*.jpg|.jpeg|.png|.bmp|.tif|.tiff|.webp) in images/val"]


def test_missing_folders_are_one_error_with_the_whole_plan(tiny):
    shutil.rmtree(tiny.root / "labels" / "val")
    with pytest.raises(DataError) as caught:
        scan(tiny.root, tiny.splits, tiny.space, obtain="ask the authors")
    message = str(caught.value)
    assert "1 of 4 folders are missing" in message
    assert f"labels of val: {tiny.root}/labels/val  (missing)" in message
    assert f"images of train: {tiny.root}/images/train\n" in message
    assert "the data: ask the authors" in message


def test_suffixes_and_nested_folders_find_partners(tiny):
    root = tiny.root / "cities"
    for kind, folder in (("leftImg8bit", "images"), ("gtFine_labelTrainIds", "labels"), ("gtFine_color", "labels")):
        (root / folder / "aachen").mkdir(parents=True, exist_ok=True)
        source = tiny.image("train/a") if folder == "images" else tiny.label("train/a")
        shutil.copy(source, root / folder / "aachen" / f"aachen_000_{kind}{source.suffix}")
    folders = SplitFolders("images", "labels", "_leftImg8bit", "_gtFine_labelTrainIds")
    manifest, _, faults = scan(root, {"train": folders}, tiny.space)
    assert faults == []
    assert manifest["splits"]["train"][0]["label"] == "labels/aachen/aachen_000_gtFine_labelTrainIds.png"


def test_two_files_of_one_name_are_a_fault(tiny):
    shutil.copy(tiny.image("train/a"), tiny.image("train/a").with_suffix(".png"))
    assert tiny.scan()[2] == ["images/train/a.png: a.jpg has the same name; keep one of them"]


def test_the_same_image_in_two_splits_is_a_warning(tiny):
    shutil.copy(tiny.image("train/b"), tiny.image("val/e"))
    _, statistics, faults = tiny.scan()
    assert faults == []
    assert "1 images are in train and val at once, e.g. images/train/b.jpg = images/val/e.jpg" in statistics["warnings"]


def test_classes_that_never_occur_are_a_warning(tiny):
    tiny.rewrite_labels(lambda label: np.where(label == 2, 0, label).astype(np.uint8))
    assert "classes that never occur in train: tree" in tiny.scan()[1]["warnings"]


def test_result_does_not_depend_on_the_number_of_processes(tiny):
    for copy in range(70):
        for path in (tiny.image, tiny.label):
            shutil.copy(path("train/a"), path(f"train/copy{copy}"))
    tiny.image("train/copy7").write_text("no picture")
    assert tiny.scan(workers=1) == tiny.scan(workers=2)


def test_progress(tiny, capsys):
    scan(tiny.root, tiny.splits, tiny.space)
    assert capsys.readouterr().out == ""
    scan(tiny.root, tiny.splits, tiny.space, quiet=False)
    assert capsys.readouterr().out.startswith("check 6/6  ")


def test_many_faults_are_counted_and_the_first_ones_shown(tiny):
    error = fault_error(90, [f"fault {k}" for k in range(30)], tiny.root, limit=2)
    assert str(error).startswith("the data set has 90 faults:\n  fault 0\n  fault 1\n  ... and 28 other kinds\n")


def test_camvid_counts(gss_data, tmp_path):
    root = gss_data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    space = read_class_space(root / "classes.csv", label_map={11: 255})
    splits = {split: SplitFolders(f"images/{split}", f"labels/{split}") for split in CAMVID_COUNTS}
    manifest, statistics, faults = scan(root, splits, space, workers=2)
    assert (space.num_classes, faults, statistics["warnings"]) == (11, [], [])
    for split, (pixels, images, ignored) in CAMVID_COUNTS.items():
        table = statistics["splits"][split]["classes"]
        assert [row["pixels"] for row in table] == pixels
        assert [row["images"] for row in table] == images
        assert statistics["splits"][split]["ignored_pixels"] == ignored
    write_manifest(tmp_path / "manifest.json", manifest)
    assert [len(read_manifest(tmp_path / "manifest.json").pairs(split)) for split in splits] == [367, 101, 233]


def test_an_interrupted_scan_goes_on(tiny, tmp_path, capsys):
    record = tmp_path / "work" / "pairs.jsonl"

    def scanned():
        return scan(tiny.root, tiny.splits, tiny.space, record=record, quiet=False)

    whole = scanned()
    record.write_bytes(record.read_bytes()[:-100])  # the last line is cut off, as after a kill
    assert capsys.readouterr().out.count("looked at before") == 0
    assert scanned() == whole
    assert "5 pairs were looked at before" in capsys.readouterr().out
    lines = record.read_text().splitlines()
    lines[0] = lines[0].replace("train/a", "train/x")  # as if another pair had been found, and this one never
    record.write_text("\n".join(lines[:3]))
    assert scanned() == whole


def test_after_a_repair_only_what_changed_is_read_again(tiny, tmp_path):
    record = tmp_path / "pairs.jsonl"

    def faults():
        return scan(tiny.root, tiny.splits, tiny.space, record=record)[2]

    sound = tiny.label("train/d").read_bytes()
    tiny.write_label("train/c", np.zeros((40, 56, 3), np.uint8))
    tiny.write_label("train/d", np.full((40, 56), 9, np.uint8))
    assert len(faults()) == 3
    assert record.read_text().count("\n") == 5  # c could not be read, and is looked at again
    shutil.copy(tiny.label("train/a"), tiny.label("train/c"))
    tiny.label("train/d").write_bytes(sound)
    assert faults() == []
    text = record.read_text().replace('"images/val/e.jpg"', '"images/val/gone.jpg"')
    record.write_text(text.replace("[40,56]", "[1,2]"))
    # sizes come from the record where the files are the same: nothing was read
    manifest, _, faults_ = scan(tiny.root, tiny.splits, tiny.space, record=record)
    assert faults_ == []
    assert [(row["height"], row["width"]) for row in manifest["splits"]["train"]] == [(1, 2)] * 4
    assert [(row["height"], row["width"]) for row in manifest["splits"]["val"]] == [(40, 56), (1, 2)]


def test_what_another_version_kept_is_read_again(tiny, tmp_path):
    record = tmp_path / "pairs.jsonl"
    whole = scan(tiny.root, tiny.splits, tiny.space, record=record)
    lines = [json.loads(line) for line in record.read_text().splitlines() if line]
    older = [[*line[:7], line[8], [1], line[-1]] for line in lines]  # without what came later, and a wrong count
    record.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert scan(tiny.root, tiny.splits, tiny.space, record=record) == whole


def test_a_manifest_without_hashes_is_refused(tiny, tmp_path):
    content = json.loads(json.dumps({**tiny.scan()[0], "splits": {}}))
    content["splits"] = {"val": [{"image": "a.png", "label": "a.png", "height": 1, "width": 1}]}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(GssError, match="cannot be read as a manifest: 1 rows have no SHA-256"):
        read_manifest(tmp_path / "manifest.json")


def test_the_manifest_is_written_as_json_is(tiny, tmp_path):
    shutil.copy(tiny.image("train/a"), tiny.image('train/ä "b"'))
    shutil.copy(tiny.label("train/a"), tiny.label('train/ä "b"'))
    manifest, _, _ = tiny.scan()
    manifest["splits"]["test"] = Rows()
    write_manifest(tmp_path / "rows.json", manifest)
    lists = {split: list(rows) for split, rows in manifest["splits"].items()}
    write_json(tmp_path / "dicts.json", {**manifest, "splits": lists})
    assert (tmp_path / "rows.json").read_bytes() == (tmp_path / "dicts.json").read_bytes()
    read = read_manifest(tmp_path / "rows.json")
    assert read.rows == manifest["splits"]
    assert read.sha256 == sha256_file(tmp_path / "rows.json") == manifest_sha256(manifest)
