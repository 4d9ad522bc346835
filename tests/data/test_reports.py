"""What users of other tools report in public: data that are read as something else, or whose faults nobody names."""

import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from gss.data.classes import ClassSpace
from gss.data.images import inspect_image, read_image, read_native_label
from gss.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
IDS = np.array([0, 15, 20], np.uint8)


def warnings_of(tiny) -> list[str]:
    return tiny.scan()[1]["warnings"]


# ---- labels


def resized(interpolation: int) -> Callable[[np.ndarray], np.ndarray]:
    """The upper left corner of a label, enlarged to the size of the whole one."""
    return lambda label: cv2.resize(IDS[label % 255][:36, :48], label.shape[::-1], interpolation=interpolation)


def through_jpeg(label: np.ndarray) -> np.ndarray:
    shifted = np.roll(IDS[label % 255], (3, 3), (0, 1))  # off the blocks of 8 x 8
    return cv2.imdecode(cv2.imencode(".jpg", shifted)[1], cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("change", "classes", "said"),
    [
        (resized(cv2.INTER_LINEAR), 21, "warning"),
        (resized(cv2.INTER_AREA), 21, "warning"),
        (resized(cv2.INTER_CUBIC), 21, "fault"),  # it goes beyond the largest id
        (through_jpeg, 254, "warning"),
        (through_jpeg, 21, "fault"),
        (resized(cv2.INTER_NEAREST), 21, ""),
        (lambda label: np.where(cv2.dilate(label % 255, np.ones((3, 3))) > label % 255, 255, label), 3, ""),  # as VOC
    ],
)
def test_ids_that_smoothing_made_are_no_classes(tiny, change, classes, said):
    tiny.rewrite_labels(change)
    _, statistics, faults = tiny.scan(ClassSpace(tuple(f"class {k}" for k in range(classes))))
    lines = {"warning": statistics["warnings"], "fault": faults}
    for where, found in lines.items():
        assert any("were resized smoothly or compressed with loss" in line for line in found) == (where == said), found
    assert bool(faults) == (said == "fault") and not any("label_map" in line for line in faults)


def test_labels_that_pillow_gives_up_are_named(tiny, monkeypatch):
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    image.save(tiny.root / "two.tif", save_all=True, append_images=[image])
    content = bytearray((tiny.root / "two.tif").read_bytes())
    width = content.rfind(struct.pack("<HH", 256, 4))
    content[width : width + 2] = b"\xff\xff"  # the second page has no width: a TypeError in Pillow
    (tiny.root / "two.tif").write_bytes(content)
    with pytest.raises(DataError, match="the label cannot be decoded"):
        read_native_label(tiny.root / "two.tif")
    assert inspect_image(tiny.root / "two.tif")[0] == (4, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    faults = tiny.scan()[2]
    assert len(faults) == 6
    assert all("more pixels than Pillow reads; cut the image and its label into tiles" in fault for fault in faults)


# ---- photographs


@pytest.mark.parametrize(("mode", "options"), [("RGB", {262: 1}), ("CMYK", {262: 1}), ("RGB", {262: 0})])
def test_channels_of_a_tiff_that_are_no_colours_are_not_read_as_grey(tmp_path, mode, options):
    Image.fromarray(COLOURS).convert(mode).save(tmp_path / "a.tif", tiffinfo=options)
    with pytest.raises(DataError, match=f"{len(mode)} channels that its TIFF does not call colours"):
        read_image(tmp_path / "a.tif")


def test_inverted_values_of_16_bits_are_refused(tmp_path):
    Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match="stored inverted"):
        read_image(tmp_path / "a.tif")
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "b.tif", tiffinfo={262: 0})  # of 8 bits they are turned
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif")[..., 0], COLOURS[..., 0])


@pytest.mark.parametrize(
    ("ending", "mode", "alpha"),
    [(ending, mode, alpha) for ending in (".png", ".tif", ".webp") for mode, alpha in (("RGBA", 255), ("RGBA", 254))]
    + [(ending, "LA", alpha) for ending in (".png", ".tif") for alpha in (255, 0)],
)
def test_a_channel_that_is_not_read_is_told(tiny, ending, mode, alpha):
    picture = Image.fromarray(COLOURS).convert(mode)
    picture.putalpha(alpha)
    tiny.image("train/a").unlink()
    picture.save(tiny.image("train/a").with_suffix(ending))
    told = [line for line in warnings_of(tiny) if "a channel beside the colours that is not read" in line]
    # a TIFF of two channels may be grey and something else
    assert len(told) == (alpha < 255 or (mode, ending) == ("LA", ".tif")), told
    assert all(f"1 file (e.g. images/train/a{ending})" in line for line in told)


def test_a_damaged_jpeg_that_is_decoded_all_the_same_is_named(tiny, capfd):
    path = tiny.image("val/e")
    Image.fromarray(COLOURS).save(path, quality=95)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert read_image(path).shape == COLOURS.shape and "Corrupt JPEG data" in capfd.readouterr().err
    (told,) = warnings_of(tiny)
    assert told.startswith("photographs of val that are damaged JPEGs") and "1 file (e.g. images/val/e.jpg)" in told
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [3, 6])
def test_orientation_of_a_big_tiff(tmp_path, number):
    Image.fromarray(COLOURS).save(tmp_path / "a.tif", big_tiff=True, tiffinfo={274: number})
    assert inspect_image(tmp_path / "a.tif")[1].orientation == number
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", "stored"), COLOURS)


def test_one_photograph_with_two_labels_is_told(tiny):
    tiny.image("train/b").write_bytes(tiny.image("train/a").read_bytes())
    (told,) = warnings_of(tiny)
    assert told == (
        "1 images of train are there more than once, 1 of them with different labels, e.g. "
        "images/train/a.jpg = images/train/b.jpg"
    )
    tiny.label("train/b").write_bytes(tiny.label("train/a").read_bytes())
    assert "different" not in warnings_of(tiny)[0]


# ---- names


def test_formats_that_are_not_read_are_told_and_lists_are_not(tiny):
    for name in ("x.HEIC", "y.HEIC", "Thumbs.db", "classes.txt"):
        (tiny.root / "images/train" / name).write_bytes(b"x")
    (told,) = warnings_of(tiny)
    assert told.startswith("files in formats that are not read are passed over: 2 *.HEIC in images/train")


@pytest.mark.parametrize(("name", "said"), [("_classes.csv", False), ("x.heic", True)])
def test_a_list_is_not_what_a_folder_without_pictures_lacks(tiny, name, said):
    for path in (tiny.root / "images/val").iterdir():
        path.unlink()
    for path in (tiny.root / "labels/val").iterdir():
        path.unlink()
    (tiny.root / "images/val" / name).write_bytes(b"x")
    assert any("a format that is not read: save images as JPEG or PNG" in fault for fault in tiny.scan()[2]) == said


@pytest.mark.parametrize(
    ("names", "said"), [(["Thumbs.db"], ""), (["classes.txt", "a.json"], "*.json, a format"), (["b.json"], "")]
)
def test_what_lies_beside_labels_is_not_taken_for_a_missing_one(tiny, names, said):
    tiny.label("train/a").unlink()
    for name in names:
        (tiny.root / "labels/train" / name).write_bytes(b"x")
    faults = tiny.scan()[2]
    assert len(faults) == 1 + bool(said) and said in faults[0]
