"""Labels that look sound file by file and follow two conventions, or are said to be broken although they are sound."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gss.data.classes import Colour
from tests.data.sets import BLACK, GREEN, RED, SHORT, by_split, few, mixed, of

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
        (
            TWO,
            {},
            mixed(MASK, ONE),
            [
                "4 files (e.g. labels/train/f1.png) hold only 0 and 255",
                "5 files (e.g. labels/train/f0.png) hold other",
                "{255: 1}, which reads both",
            ],
        ),
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
)
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
OTHER = (BLACK, GREEN, RED)
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
)
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
