"""Photographs that are turned, deep, dark, or no plain photographs."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from gss.data.images import inspect_image, read_image
from gss.data.loader import read_pair
from gss.data.manifest import read_manifest, write_manifest
from tests.data.sets import FILES, SIZE, ids, photograph


def orient(path: Path, number: int) -> None:
    tags = Image.Exif()
    tags[274] = number
    options = {"quality": 95} if path.suffix == ".jpg" else {"lossless": True} if path.suffix == ".webp" else {}
    Image.open(path.with_suffix(".png")).save(path, exif=tags, **options)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_orientations_are_read_as_told(made, ending, number):
    path = made.path("images", "train", 0, ending)
    stored = read_image(path.with_suffix(".png"))
    orient(path, number)
    with Image.open(path) as file:
        turned = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    tolerance = 4 if ending == ".jpg" else 0
    for orientation, expected in (("apply", turned), ("stored", stored)):
        found = read_image(path, orientation)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() <= tolerance
    size, facts = inspect_image(path)
    assert (size, facts.orientation) == (turned.shape[:2], number)


@pytest.mark.parametrize("number", [2, 3, 6])
def test_an_orientation_has_to_be_decided(made, number):
    for split, count in FILES.items():
        for n in range(count):
            orient(made.path("images", split, n, ".jpg"), number)
            made.path("images", split, n).unlink()
    faults = made.check()[2]
    assert faults[0].startswith(f"9 of 9 photographs carry an EXIF orientation (9 of number {number})")
    assert "set data.exif_orientation: apply" in faults[0] and len(faults) == (10 if number == 6 else 1)
    assert number != 6 or "0 labels follow the turned picture, 9 the stored one" in faults[0]
    made.orientation = "stored"
    manifest, warnings, faults = made.check()
    assert faults == [] and manifest["exif_orientation"] == "stored" and "they are read as stored" in warnings[0]
    write_manifest(made.root / "manifest.json", manifest)
    pair = read_manifest(made.root / "manifest.json").pairs("val")[0]
    image, label = read_pair(pair)
    assert image.shape[:2] == label.shape == SIZE
    made.orientation = "apply"
    manifest, warnings, faults = made.check()
    assert "exif_orientation" not in manifest and "they are turned by it" in warnings[0]
    assert len(faults) == (9 if number == 6 else 0)
    assert all(f"after its EXIF orientation {number} turns it: see data.exif_orientation" in fault for fault in faults)


def test_values_are_read_by_the_range_they_have(made):
    def deep(bits: int, which: Callable[[int], bool] = lambda number: True) -> None:
        for split, count in FILES.items():
            for number in filter(which, range(count)):
                values = photograph(split, number).astype(np.uint16) * 257 >> 16 - bits
                cv2.imwrite(str(made.path("images", split, number)), values)

    for bits in (10, 12, 14):
        deep(bits)
        (fault,) = made.check()[2]
        assert f"16 bits whose values fill only {bits} (0..{2**bits - 1}): 9 files (e.g. images/train/f0.png)" in fault
    deep(16)
    assert made.check()[1:] == ([], [])
    deep(12, lambda number: number == 1)  # a dark one among others
    _, warnings, faults = made.check()
    assert faults == []
    assert warnings == [
        f"photographs of {split} without a value of 16 of 255: 1 file (e.g. images/{split}/f1.png)" for split in FILES
    ]
    for number in range(FILES["val"]):
        made.write("images", "val", number, ids(number))  # labels in the place of photographs
    assert any("the photographs of val are nearly black, no value is above 2" in fault for fault in made.check()[2])


def test_what_is_no_plain_photograph_is_named(made):
    Image.fromarray(photograph("x", 0)[..., 0] / np.float32(255)).save(path := made.path("images", "train", 0, ".tif"))
    made.path("images", "train", 0).unlink()
    pages = [Image.fromarray(photograph("x", n)) for n in range(2)]
    pages[0].save(made.path("images", "train", 1, ".tif"), save_all=True, append_images=pages[1:])
    made.path("images", "train", 1).unlink()
    _, warnings, faults = made.check()
    (fault,) = faults
    assert f"f0.tif: the image cannot be decoded ({path.stat().st_size} bytes: values of floating point" in fault
    assert warnings == [
        "photographs of train with several pages or frames, the first is read: 1 file (e.g. images/train/f1.tif)"
    ]
