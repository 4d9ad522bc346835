import re

import numpy as np
import pytest

from gss.data.classes import ClassSpace
from gss.data.remap import propose_remap

NAMES = ("sky", "road", "tree")


def pixels(**counts: int) -> np.ndarray:
    native = np.zeros(256, np.int64)
    for key, value in counts.items():
        native[int(key.removeprefix("id"))] = value
    return native


@pytest.mark.parametrize(
    ("found", "names", "proposal"),
    [
        (pixels(id1=5, id2=5, id3=5), NAMES, r"shifted by one: set reduce_zero_label: true"),
        (pixels(id0=1, id1=5, id2=5, id3=5), NAMES, r"if 3 is void .*label_map: \{3: 255\}; if 0 is void \(6.25 %"),
        (pixels(id0=1, id2=5, id200=5), NAMES, r"label_map: \{200: 255\}"),
        (pixels(id0=9, id1=5, id3=5), NAMES, r"^remap: if these ids are void \(3 .*else give each the number"),
        (pixels(id0=1, id7=2, id9=5), NAMES, r"label_map: \{7: 255, 9: 255\}"),
        (np.ones(256, np.int64), NAMES, r"252 unknown ids \(3..254\) look like grey values"),
    ],
)
def test_known_patterns_are_recognised(found, names, proposal):
    line = propose_remap(found, ClassSpace(names))
    assert line is not None
    assert re.search(proposal, line), line
    assert "\n" not in line


def test_sound_ids_need_no_remap():
    assert propose_remap(pixels(id0=1, id1=2, id255=3), ClassSpace(NAMES)) is None


def test_each_proposal_cures_its_pattern():
    shifted = pixels(id1=5, id2=5, id3=5)
    assert propose_remap(shifted, ClassSpace(NAMES, reduce_zero_label=True)) is None
    extra = pixels(id0=1, id1=5, id2=5, id3=5)
    assert propose_remap(extra, ClassSpace(NAMES, label_map={3: 255})) is None
    assert propose_remap(extra, ClassSpace(NAMES, reduce_zero_label=True)) is None
