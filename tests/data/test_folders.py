"""What people have in folders: hidden and linked ones, odd names, labels beside images, names that do not pair."""

import os
import socket
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gss.data.check import scan
from gss.data.classes import ClassSpace
from gss.data.images import read_image
from gss.data.pairing import SplitFolders
from gss.errors import GssError
from tests.data.sets import FILES, SIZE, Set


def link(path: Path, target: Path) -> None:
    path.symlink_to(target.resolve(), target_is_directory=True)


def hidden(made: Set) -> None:
    for name in (".ipynb_checkpoints", ".git", "@eaDir", "__MACOSX"):
        for kind in ("images", "labels"):
            folder = made.root / kind / "train" / name
            folder.mkdir()
            (folder / "copy.png").write_bytes(made.path(kind, "train", 0).read_bytes())
    (made.root / "images/train/._f0.png").write_text("of macOS")


def linked(made: Set) -> None:
    for kind in ("images", "labels"):
        elsewhere = made.root / "elsewhere" / kind / "deeper"
        elsewhere.mkdir(parents=True)
        for number in (1, 2, 3):
            made.path(kind, "train", number).rename(elsewhere / f"f{number}.png")
        link(made.root / kind / "train" / "more", elsewhere.parent)
        link(elsewhere / "here", elsewhere)
        link(elsewhere / "above", elsewhere.parent)
        link(made.root / kind / "train" / "again", elsewhere.parent)
        link(made.root / kind / "train" / "all", made.root)


def decomposed(made: Set) -> None:
    for kind, form in (("images", "NFD"), ("labels", "NFC")):
        path = made.path(kind, "train", 0)
        path.rename(path.with_name(unicodedata.normalize(form, "Grünfläche.png")))


def one_folder(made: Set, ending: str = ".png", kind: str = ".jpg") -> None:
    for split, count in FILES.items():
        for number in range(count):
            image, label = made.path("images", split, number), made.path("labels", split, number)
            Image.open(image).save(image.with_suffix(kind))
            if kind != ".png":
                image.unlink()
            label.rename(image.with_name(image.stem + ending))


def inside(made: Set) -> None:
    for split in FILES:
        (made.root / "labels" / split).rename(made.root / "images" / split / "masks")


def upper(made: Set) -> None:
    for path in [*made.root.rglob("*.png")]:
        path.rename(path.with_suffix(".PNG"))


@pytest.mark.parametrize(
    ("change", "folders", "said"),
    [
        (hidden, {}, "hidden folders are no data: 8 passed over (.git, .ipynb_checkpoints, @eaDir, __MACOSX)"),
        (linked, {}, "links to folders that are looked at anyway: 8 passed over"),
        (decomposed, {}, "different Unicode forms, paired all the same: 1 file (e.g. images/train/Gru"),
        (one_folder, {"labels": "images"}, ""),
        (lambda made: one_folder(made, "_mask.png", ".png"), {"labels": "images", "label_suffix": "_mask"}, ""),
        (lambda made: one_folder(made, "_mask.png"), {"labels": "images", "label_suffix": "_mask"}, ""),
        (lambda made: one_folder(made, ".png", ".tif"), {"labels": "images"}, ""),
        (inside, {"labels": "images/{}/masks"}, ""),
        (upper, {}, ""),
    ],
)
def test_folders_hold_what_a_person_sees_in_them(made, change, folders, said):
    change(made)
    splits = {}
    for split in FILES:
        where = {key: value.format(split) for key, value in folders.items()}
        if where.get("labels") == "images":
            where["labels"] = f"images/{split}"
        splits[split] = SplitFolders(**{"images": f"images/{split}", "labels": f"labels/{split}", **where})
    manifest, statistics, faults = scan(made.root, splits, ClassSpace(tuple(made.classes)))
    assert faults == []
    assert {split: len(rows) for split, rows in manifest["splits"].items()} == FILES
    warnings = statistics["warnings"]
    assert len(warnings) == bool(said) and all(said in line for line in warnings), warnings
    rows = [row for rows in manifest["splits"].values() for row in rows]
    files = {os.path.realpath(made.root / row[kind]) for row in rows for kind in ("image", "label")}
    assert len(files) == 2 * sum(FILES.values())


def test_folders_are_found_in_either_unicode_form(made):
    for kind in ("images", "labels"):
        (made.root / kind).rename(made.root / (kind + unicodedata.normalize("NFD", "ü")))
    made.folders = {}
    splits = {s: SplitFolders(f"imagesü/{s}", f"labelsü/{s}") for s in FILES}
    manifest, _, faults = scan(made.root, splits, ClassSpace(tuple(made.classes)))
    assert faults == [] and read_image(made.root / manifest["splits"]["val"][0]["image"]).shape == (*SIZE, 3)


def test_names_that_are_no_text_are_escaped(made):
    for kind in ("images", "labels"):
        path = made.path(kind, "train", 0)
        os.rename(path, os.fsencode(path.parent) + b"/stra\xdfe.png")
        made.path(kind, "train", 1).rename(path.with_name("two\nlines\x1b.png"))
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(made.root / "labels/train/two\nlines\x1b.png")
    faults = made.check()[2]
    assert any(fault.startswith(r"images/train/stra\xdfe.png: the name is not UTF-8") for fault in faults)
    assert any(fault.startswith(r"labels/train/two\nlines\x1b.png: ids found") for fault in faults)
    assert all(fault.isprintable() for fault in faults)
    assert "\n" not in str(GssError("x", where=made.root / "a\nb")).partition("where: ")[2]


def test_what_cannot_be_read_is_a_fault(made, monkeypatch):
    folder = made.root / "images" / "train"
    (folder / "locked").mkdir()
    (folder / "gone").symlink_to("/nowhere/at/all")
    made.path("labels", "val", 0).unlink()
    made.path("labels", "val", 0).symlink_to("/nowhere.png")
    with socket.socket(socket.AF_UNIX) as opened:
        monkeypatch.chdir(folder)  # the path of a socket is short
        opened.bind("pipe.png")
    (folder / "itself").symlink_to("itself")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    faults = made.check()[2]
    for words in (
        "images/train/locked: the folder cannot be read: Permission denied",
        "images/train/gone: a link that leads nowhere",
        "images/train/itself: Too many levels",
        "images/train/pipe.png: neither a file nor a folder",
        "labels/val/f0.png: file not found",
    ):
        assert any(fault.startswith(words) for fault in faults), (words, faults)


@pytest.mark.parametrize(
    ("endings", "kind", "folders", "said"),
    [
        (("_image", "_annotation"), ".png", {}, "set image_suffix: _image, label_suffix: _annotation in"),
        (("", "_mask"), ".png", {}, "set label_suffix: _mask in"),
        (("_rgb", ""), ".png", {}, "set image_suffix: _rgb in"),
        (("", "_L"), ".png", {"label_suffix": "_GT"}, "no picture in labels/train ends in _GT (label_suffix): 6 files"),
        (("", ""), ".gif", {}, "labels/train holds 6 files *.gif, a format that is not read: save labels as PNG"),
        (("", ""), ".npy", {}, "labels/val holds 3 files *.npy"),
    ],
)
def test_names_without_partner_are_explained(made, endings, kind, folders, said):
    for path in [*made.root.rglob("*.png")]:
        is_label = "labels" in path.parts
        path.rename(path.with_name(f"{path.stem}{endings[is_label]}{kind if is_label else '.png'}"))
    made.folders = folders
    faults = made.check()[2]
    assert any(said in fault for fault in faults[:2]), faults


def test_the_more_common_of_several_ends_are_proposed(made):
    for path in [*(made.root / "labels").rglob("*.png")]:
        for end in ("_color", "_labelIds"):
            path.with_name(f"{path.stem}{end}.png").write_bytes(path.read_bytes())
        path.unlink()
    assert "set label_suffix: _color or label_suffix: _labelIds" in made.check()[2][0]
