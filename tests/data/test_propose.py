"""Keys that the check proposes, because files beside the data say what they are; equal faults are one line."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gss.data.cases import Fault, summed
from gss.data.check import scan
from gss.data.classes import ClassSpace
from gss.data.native import read_native_classes
from gss.data.pairing import SplitFolders

COLOURS = np.array([(70, 130, 180), (128, 64, 128), (0, 200, 0)], np.uint8)


def paint(tiny) -> None:
    tiny.rewrite_labels(lambda label: COLOURS[label % 3])


def test_equal_faults_are_one_line_with_their_number_and_three_examples(tiny):
    for name in ("train/a", "train/b", "train/c", "train/d"):
        tiny.label(name).unlink()
    tiny.write_label("val/e", np.full((40, 56), 9, np.uint8))
    _, statistics, faults = tiny.scan()
    assert len(faults) == 6  # the proposal of `label_map`, four files, and one
    names = ", ".join(f"images/train/{name}.jpg" for name in "abc")
    line = f"4 files (e.g. {names}): its label is missing, expected labels/train/a.png"
    assert line in statistics["faults"] and len(statistics["faults"]) == 3
    assert "images/train/d.jpg: its label is missing, expected labels/train/d.png" in faults


def test_other_faults_are_other_lines():
    found = [Fault("a", "x 1", "x"), Fault("b", "y"), Fault("c", "x 2", "x"), Fault("", "z")]
    assert list(summed(found)) == ["2 files (a, c): x 1", "b: y", "z"]


def test_the_table_of_the_colours_is_found(tiny):
    paint(tiny)
    (tiny.root / "a.csv").write_text("name,r,g,b\nother,1,2,3\n")
    (tiny.root / "broken.csv").write_bytes(b"\xff\xfe\x00")
    assert not any("painted in the colours of" in fault for fault in tiny.scan()[2])
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(tiny.space.names, COLOURS, strict=True)]
    (tiny.root / "colours.csv").write_text("\n".join(["name,r,g,b", *rows]))
    _, statistics, faults = tiny.scan()
    key = "the labels are painted in the colours of colours.csv: set encoding: colours, native_classes: colours.csv"
    assert faults[0].startswith(key) and len(statistics["faults"]) == 2
    native = read_native_classes(tiny.root / "colours.csv", painted=True)  # what is proposed is taken
    space = ClassSpace(tiny.space.names, label_map={0: 0, 1: 1, 2: 2}, native=native)
    assert tiny.scan(space)[2] == []


@pytest.mark.parametrize("place", ["train.txt", "ImageSets/Segmentation/train.txt"])
def test_a_list_of_the_images_that_count_is_found(tiny, place):
    shutil.copy(tiny.image("train/a"), tiny.image("train/z"))
    path = tiny.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x\ny\nz\n")
    assert not any("that count" in fault for fault in tiny.scan()[2])  # it names others
    path.write_text("a\nb\nimages/train/c.jpg labels/train/c.png\nd\n")
    said = f"train.txt names the images of train that count: set list: {path} in data.splits.train"
    assert tiny.scan()[2][0] == said
    tiny.splits["train"] = SplitFolders("images/train", "labels/train", list=path)
    assert tiny.scan()[2] == []


def test_splits_that_are_the_same_files_are_told_apart_by_lists(tiny):
    splits = dict.fromkeys(("train", "val"), SplitFolders("images", "labels"))
    (tiny.root / "train.txt").write_text("train/a\ntrain/b\n")
    warnings = scan(tiny.root, splits, tiny.space)[1]["warnings"]
    key = f"set list: {tiny.root}/train.txt in data.splits.train, a `list` for val"
    assert f"train and val are the same files: {key}" in warnings
    assert not any("the same files" in warning for warning in tiny.scan()[1]["warnings"])


def test_shifted_ids_get_their_key(tiny):
    tiny.rewrite_labels(lambda label: np.where(label == 255, 255, label + 1).astype(np.uint8))
    faults = tiny.scan()[2]
    assert "label_map: {1: 0, 2: 1, 3: 2}" in faults[0] or "reduce_zero_label" in faults[0], faults[0]


def test_painted_images_of_another_size_are_two_kinds(tiny):
    paint(tiny)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tiny.label("val/f"))
    assert sum(": a label with 3 channels" in line for line in tiny.scan()[1]["faults"]) == 1
    assert sum("the label is 8x8" in line for line in tiny.scan()[1]["faults"]) == 1
