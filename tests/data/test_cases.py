"""What users have: small data sets that look sound file by file, or are said to be broken although they are sound.

Every row makes its set, checks it and says what has to come out: nothing, or lines that contain some words.
"""

import os
import socket
import struct
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from gss.config import load_experiment
from gss.data.check import scan
from gss.data.classes import ClassSpace, Colour
from gss.data.images import Orientation, inspect_image, read_image, read_native_label
from gss.data.loader import read_pair
from gss.data.manifest import Pairs
from gss.data.pairing import SplitFolders
from gss.errors import ConfigError, DataError, GssError

SIZE = 24, 32
FILES = {"train": 6, "val": 3}
BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 255, 0)

Write = Callable[[str, int, np.ndarray], np.ndarray]
"""Split, number and ids 0, 1, 2 of a label -> what its file holds."""


@dataclass
class Set:
    """A data set, sound until it is changed: six train and three val pairs, three classes, nothing ignored."""

    root: Path
    classes: Sequence[str] = ("bg", "a", "b")
    colours: tuple[Colour, ...] | None = None
    space: dict = field(default_factory=dict)
    folders: dict = field(default_factory=dict)
    orientation: Orientation | None = None

    def __post_init__(self) -> None:
        for split, count in FILES.items():
            for number in range(count):
                self.write("images", split, number, photograph(split, number))
                self.write("labels", split, number, ids(number))

    def path(self, kind: str, split: str, number: int, ending: str = ".png") -> Path:
        return self.root / kind / split / f"f{number}{ending}"

    def write(self, kind: str, split: str, number: int, pixels: np.ndarray, **options: object) -> None:
        path = self.path(kind, split, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)

    def relabel(self, change: Write, palette: Callable[[str, int], Sequence[Colour]] | None = None) -> None:
        for split, count in FILES.items():
            for number in range(count):
                picture = Image.fromarray(change(split, number, ids(number)).astype(np.uint8))
                if palette is not None and (colours := palette(split, number)):
                    picture = picture.convert("P")
                    picture.putpalette([value for colour in colours for value in colour])
                picture.save(self.path("labels", split, number))

    def check(self) -> tuple[dict, list[str], list[str]]:
        """Manifest, warnings and faults."""
        space = ClassSpace(tuple(self.classes), self.colours, **self.space)
        splits = {
            split: SplitFolders(**{"images": f"images/{split}", "labels": f"labels/{split}", **self.folders})
            for split in FILES
        }
        manifest, statistics, faults = scan(self.root, splits, space, orientation=self.orientation)
        return manifest, statistics["warnings"], faults

    def pairs(self) -> int:
        return sum(map(len, self.check()[0]["splits"].values()))


@pytest.fixture
def made(tmp_path: Path) -> Set:
    return Set(tmp_path / "data")


def photograph(split: str, number: int) -> np.ndarray:
    """Smooth, so that JPEG changes little, and never dark."""
    coarse = np.random.default_rng((len(split), number)).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    coarse[0, 0] = 255
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def ids(number: int) -> np.ndarray:
    """Background 0, an upper square 1, a lower one 2: no symmetry, and most of it background."""
    label = np.zeros(SIZE, np.uint8)
    label[2:10, 3 + number : 12 + number] = 1
    label[14:20, 8 + number : 16 + number] = 2
    return label


def of(table: Sequence[int]) -> Write:
    """All files with other values for 0, 1 and 2."""
    return lambda split, number, label: np.array(table, np.uint8)[label]


def mixed(odd: Sequence[int], even: Sequence[int]) -> Write:
    return lambda split, number, label: np.array(odd if number % 2 else even, np.uint8)[label]


def by_split(train: Sequence[int], val: Sequence[int]) -> Write:
    return lambda split, number, label: np.array(train if split == "train" else val, np.uint8)[label]


def few(rare: Sequence[int], usual: Sequence[int]) -> Write:
    """One label of val differs."""
    return lambda split, number, label: np.array(rare if (split, number) == ("val", 2) else usual, np.uint8)[label]


TWO = ("bg", "obj")
MASK, ONE, VOID = (0, 255, 255), (0, 1, 1), (0, 1, 255)
REDUCED = {"reduce_zero_label": True}


@pytest.mark.parametrize(
    ("classes", "space", "write", "said"),
    [
        # one class
        (("obj",), {}, of(MASK), ["classes: [background, obj] with label_map: {255: 1}", "Ids found: 0, 255;"]),
        (("obj",), {}, of(ONE), ["classes: [background, obj]", "255 and not 1, with label_map: {255: 1}"]),
        (("obj",), {}, of((0, 0, 0)), ["cannot be learned against itself"]),
        (("obj",), {}, of((0, 127, 127)), ["label_map: {127: 1}"]),
        (("obj",), REDUCED, of(ONE), ["[background, obj], without reduce_zero_label"]),
        (("obj",), {"label_map": {255: 0}}, of(MASK), ["cannot be learned against itself"]),
        (TWO, {}, of((0, 0, 0)), ["the labels of train hold one class only (bg)"]),
        (TWO, {"label_map": {255: 1}}, of(MASK), []),
        # 255: object or ignored
        (TWO, {}, of(MASK), ["hold only 0 and 255", "if 255 is obj set label_map: {255: 1}"]),
        (TWO, {}, of((1, 255, 255)), ["hold only 1 and 255", "label_map: {1: 0, 255: 1}"]),
        (TWO, {}, mixed(MASK, ONE), ["4 files (e.g. labels/train/f1.png) hold only 0 and 255",
                                     "5 files (e.g. labels/train/f0.png) hold other", "{255: 1}, which reads both"]),
        (TWO, {}, few(MASK, ONE), ["1 file (e.g. labels/val/f2.png) hold only 0 and 255"]),
        (TWO, {}, few(ONE, MASK), ["the labels of train follow another convention", "which reads both"]),
        (TWO, {}, by_split(ONE, MASK), ["the labels of val follow another convention", "which reads both"]),
        (TWO, {}, by_split(MASK, ONE), ["the labels of train follow another convention", "which reads both"]),
        (TWO, {}, by_split(VOID, MASK), ["the labels of val follow another convention", "write them again"]),
        (("bg", "a", "b"), {}, mixed(MASK, (0, 1, 2)), ["two conventions", "{255: its number}"]),
        (TWO, {"label_map": {255: 1}}, mixed(MASK, ONE), []),
        (TWO, {"label_map": {255: 255}}, mixed(MASK, ONE), []),
        (TWO, {}, of(VOID), []),
        (TWO, {}, mixed(MASK, VOID), []),  # 255 stands beside both classes elsewhere
        (("bg", "a", "b"), {}, mixed((0, 255, 2), (255, 1, 2)), []),
        # other values
        (TWO, {}, mixed((0, 127, 127), ONE), ["label_map: {127: 1}", "They are in 4 of 9 labels"]),
        (TWO, {}, of((0, 254, 254)), ["label_map: {254: 1}"]),
        (("bg", "a", "b"), {}, of((0, 128, 255)), ["evenly spread", "label_map: {128: 1, 255: 2}"]),
        (("bg", "a", "b"), {}, of((0, 50, 100)), ["evenly spread", "label_map: {50: 1, 100: 2}"]),
        (("bg", "a", "b"), {}, by_split((0, 1, 2), (7, 8, 24)), ["They are in 3 of 9 labels, only in val"]),
        # shifted by one
        (("bg", "a", "b"), REDUCED, by_split((1, 2, 3), (0, 1, 2)), ["the labels of val follow another convention"]),
        (("bg", "a", "b", "c"), {}, by_split((0, 1, 2), (1, 2, 3)), ["the labels of val", "k there has", "id k - 1"]),
        (("bg", "a", "b"), REDUCED, of((0, 1, 2)), ["reduce_zero_label is set", "3 (b) never occurs"]),
        (("bg", "a", "b"), REDUCED, of((1, 2, 3)), []),
        (("a", "b"), REDUCED, of((0, 1, 2)), []),
        # ignored
        (("bg", "a", "b"), {}, by_split((255, 255, 255), (0, 1, 2)), ["all 6 labels of train are ignored as a whole"]),
        (("bg", "a", "b"), {}, by_split((0, 1, 2), (255, 255, 255)), ["all 3 labels of val are ignored as a whole"]),
        (("a", "b"), {"label_map": dict.fromkeys((0, 1, 2), 255)}, of((0, 1, 2)), ["ignored as a whole"]),
        (("bg", "a", "b"), {}, few((255, 255, 255), (0, 1, 2)), []),
    ],
)  # fmt: skip
def test_labels_of_two_conventions_are_refused(made, classes, space, write, said):
    made.classes, made.space = classes, space
    made.relabel(write)
    faults = made.check()[2]
    assert bool(faults) == bool(said), faults
    missing = [words for words in said if not any(words in fault for fault in faults)]
    assert not missing, faults


def test_what_is_doubtful_is_a_warning(made):
    made.classes = TWO
    made.relabel(lambda split, number, label: np.array(VOID if number == 0 else MASK)[label])
    assert any("more than the 2 in which 255 stands beside" in line for line in made.check()[1])
    made.classes = ("bg", "a", "b")
    made.relabel(few((255, 255, 255), (0, 1, 255)))
    warnings = made.check()[1]
    assert "1 of 3 labels of val are ignored as a whole, e.g. labels/val/f2.png" in warnings
    assert any("b never occurs, and 255 is read as ignored: if 255 is b set label_map: {255: 2}" in w for w in warnings)
    made.classes = ("car", "Car ", "b")
    assert "classes that only blanks or case tell apart: 'car', 'Car '" in made.check()[1]


WHITE, IDS = (255, 255, 255), [(value, value, value) for value in range(256)]
VOC = (BLACK, (128, 0, 0), (0, 128, 0))
SHORT, OTHER = (BLACK, RED, GREEN), (BLACK, GREEN, RED)
CAMVID = ((0, 128, 192), (128, 0, 0), (64, 0, 128))  # one colour of VOC's palette, at another class


def either(odd: Sequence[Colour], even: Sequence[Colour] | None) -> Callable[[str, int], Sequence[Colour] | None]:
    return lambda split, number: odd if number % 2 else even


@pytest.mark.parametrize(
    ("table", "palette", "write", "said"),
    [
        (None, either(SHORT, SHORT), of((0, 1, 2)), []),
        (None, either(SHORT, None), of((0, 1, 2)), []),  # grayscale files beside
        (None, lambda split, number: (*SHORT, (number,) * 3), of((0, 1, 2)), []),  # an unused entry differs
        (None, either(IDS, IDS), of((0, 1, 2)), []),
        (None, either([BLACK] * 3, [BLACK] * 3), of((0, 1, 2)), []),  # no palette to speak of
        (None, either(SHORT, SHORT), mixed((0, 1, 0), (0, 2, 0)), []),
        (None, either((BLACK, WHITE), (BLACK, WHITE)), of((0, 1, 0)), []),  # a bitmap
        (SHORT, either(SHORT, SHORT), of((0, 1, 2)), []),
        (CAMVID, either(VOC, VOC), of((0, 1, 2)), []),
        (None, either((GREEN, BLACK, RED), SHORT), mixed((1, 2, 0), (0, 1, 2)), "index 0 is (0, 0, 0) in 5 files"),
        (None, lambda split, number: OTHER if split == "val" else SHORT, of((0, 1, 2)), "index 1 is (255, 0, 0) in 6"),
        (None, either((BLACK, GREEN), (BLACK, RED)), of((0, 1, 0)), "palettes of indexed labels disagree"),
        (None, either(OTHER, SHORT), mixed((0, 1, 0), (0, 2, 0)), "(0, 255, 0) is index 1 in"),
        (OTHER, either(SHORT, SHORT), of((0, 1, 2)), "index 1 (a) has the colour (255, 0, 0) of b"),
        (None, either([IDS[0], IDS[2], IDS[1]], None), of((0, 2, 1)), "index 1 has the grey value 2"),
    ],
)  # fmt: skip
def test_palettes_have_to_agree(made, table, palette, write, said):
    made.colours = table
    made.relabel(write, palette)
    faults = made.check()[2]
    assert bool(faults) == bool(said), faults
    assert all(said in fault and "Labels as colours" in fault for fault in faults), faults


def test_brightness_of_colours_is_recognised(made):
    made.colours = SHORT
    made.relabel(of((0, 76, 150)))  # what Pillow makes of black, red and green
    assert any("brightness of the classes' colours" in f and "{76: 1, 150: 2}" in f for f in made.check()[2])


# ---- folders


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


def test_names_of_classes_differ():
    base = "augment={base_scale: [9, 9], crop: [9, 9]}"
    for classes, message in (("[bg, a, a]", "'a' more than once"), ("[]", "a name"), ("[a, '  ']", "a name")):
        with pytest.raises(ConfigError, match=message):
            load_experiment("config/experiments/toy.yaml", [f"data.classes={classes}", base])
    with pytest.raises(ConfigError, match="classes 0 and 2 are named 'a'"):
        ClassSpace(("a", "b", "a"))


# ---- photographs


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
    pair = Pairs(made.root, manifest["splits"]["val"], manifest["exif_orientation"])[0]
    image, label = read_pair(pair, ClassSpace(tuple(made.classes)))
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
    assert warnings == ["photographs of train with several pages or frames, the first is read: 1 file (e.g. "
                        "images/train/f1.tif)"]  # fmt: skip


# ---- labels of other kinds


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grayscale PNG of 1, 2 or 4 bits, which Pillow does not write."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    places = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :]  # [H, W, bits]
    rows = np.packbits(places.reshape(len(values), -1), axis=1)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ids_of_few_bits_are_ids(tmp_path, bits):
    values = (np.arange(24 * 31).reshape(24, 31) % 2**bits).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(grey_png(values, bits))
    np.testing.assert_array_equal(read_native_label(tmp_path / "a.png"), values)


@pytest.mark.parametrize(
    ("picture", "options", "said"),
    [
        (np.float32(1) * ids(0), {}, r"a floating point label with values 0\.0\.\.2\.0"),
        (ids(0).astype(np.int32), {}, r"a 32-bit label with values 0\.\.2"),
        (ids(0), {"save_all": True, "append_images": [Image.fromarray(ids(1))]}, "holds 2 pictures"),
        (ids(0), {"exif": {274: 3}}, r"carries an EXIF orientation \(3\)"),
        (ids(0), {"tiffinfo": {262: 0}}, "stored inverted"),
    ],
)
def test_labels_that_would_be_read_otherwise_than_meant_are_refused(tmp_path, picture, options, said):
    if "exif" in options:
        options = {"exif": Image.Exif()}
        options["exif"][274] = 3
    Image.fromarray(picture).save(tmp_path / "a.tif", **options)
    with pytest.raises(DataError, match=said):
        read_native_label(tmp_path / "a.tif")


def test_the_lines_for_painted_labels_make_ids(made, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "check.md"
    code = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    table = np.array(SHORT, np.uint8)
    for path in sorted((made.root / "labels").rglob("*.png")):
        painted = tmp_path / "painted" / path.relative_to(made.root / "labels")
        painted.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table[read_native_label(path)]).save(painted)
        path.unlink()
    rows = [f"{index},{name},{r},{g},{b}" for index, (name, (r, g, b)) in enumerate(zip("xyz", SHORT, strict=True))]
    (tmp_path / "classes.csv").write_text("\n".join(["index,name,r,g,b", *rows]))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    (tmp_path / "labels").rename(tmp_path / "again")
    np.testing.assert_array_equal(read_native_label(tmp_path / "again" / "val" / "f2.png"), ids(2))
