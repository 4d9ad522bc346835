"""Splits by lists: which pairs of a folder count."""

from pathlib import Path

import pytest

from gss.errors import DataError
from tests.data.sets import Set


def listed(made: Set, *lines: str, **folders: object) -> tuple[list[str], list[str], list[str]]:
    """Labels of val, warnings and faults, with a list for val."""
    path = made.root / "val.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    made.folders = {"images": "images/val", "labels": "labels/val", "list": path, **folders}
    manifest, warnings, faults = made.check()
    return [Path(row["label"]).name for row in manifest["splits"]["val"]], warnings, faults


@pytest.mark.parametrize(
    "line", ["f1", "f1.png", "images/val/f1.png", "images/val/f1.png labels/elsewhere/f1.png", " f1\t1"]
)
def test_a_line_names_an_image_in_any_of_the_ways_that_lists_do(made: Set, line: str) -> None:
    labels, _, faults = listed(made, line, "", "f2")
    assert (labels, faults) == (["f1.png", "f2.png"], [])


def test_suffixes_may_stand_in_a_line(made: Set) -> None:
    for kind, suffix in (("images", "_photo"), ("labels", "_L")):
        for path in (made.root / kind / "val").iterdir():
            path.rename(path.with_stem(path.stem + suffix))
    labels, _, faults = listed(made, "f1_photo.png", "f2", image_suffix="_photo", label_suffix="_L")
    assert (labels, faults) == (["f1_L.png", "f2_L.png"], [])


def test_images_and_labels_may_lie_beside_each_other_in_many_folders(made: Set) -> None:
    """As ScanNet has them, whose names differ by a folder."""
    for scene in ("one", "two"):
        for kind, folder in (("images", "color"), ("labels", "label20")):
            (made.root / "scenes" / scene).mkdir(parents=True, exist_ok=True)
            (made.root / "scenes" / scene / folder).symlink_to(made.root / kind / "val")
    made.folders = {"images": "scenes", "labels": "scenes", "label_name": ("/color/", "/label20/")}
    lines = ("one/color/f0", "scenes/two/color/f0.png", "two/color/f2")
    folders = {"images": "scenes", "labels": "scenes", "label_name": ("/color/", "/label20/")}
    labels, _, faults = listed(made, *lines, **folders)
    assert (labels, faults) == (["f0.png", "f0.png", "f2.png"], [])


def test_what_no_line_names_does_not_count(made: Set) -> None:
    made.path("labels", "val", 0).unlink()
    made.path("images", "val", 2).unlink()
    assert listed(made, "f1")[::2] == (["f1.png"], [])


def test_what_is_listed_and_missing_is_named(made: Set) -> None:
    made.path("labels", "val", 0).unlink()
    labels, _, faults = listed(made, "f0", "f1", "f7")
    assert labels == ["f1.png"]
    assert "images/val/f0.png: its label is missing, expected labels/val/f0.png" in faults
    assert "images/val/f7: the image is missing; val.txt lists it" in faults
    assert any("split val is empty: no image that val.txt lists is there" in line for line in listed(made, "f8")[2])
    assert any("split val has 1 images, expected 3" in line for line in listed(made, "f1", count=3)[2])


def test_an_image_that_is_listed_twice_counts_once(made: Set) -> None:
    labels, warnings, faults = listed(made, "f1", "f2", "images/val/f1.png")
    assert (labels, faults) == (["f1.png", "f2.png"], [])
    assert "val.txt lists 1 images more than once, e.g. f1: each counts once" in warnings


def test_a_list_that_cannot_be_read_is_named(made: Set) -> None:
    made.folders = {"list": made.root / "none.txt"}
    with pytest.raises(DataError, match="the list of images of train cannot be read: No such file"):
        made.check()
