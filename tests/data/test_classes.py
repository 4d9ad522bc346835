import json

import numpy as np
import pytest

from gss.config import load_experiment
from gss.data.classes import ClassSpace, format_ids, read_class_space, read_classes
from gss.errors import ConfigError, DataError

NAMES = ("sky", "road", "tree")


def test_identity_ignore_and_unknown():
    table = ClassSpace(NAMES).table()
    assert table.shape == (65536,)
    assert table[[0, 1, 2, 255]].tolist() == [0, 1, 2, 255]
    assert (table[3:255] == -1).all() and (table[256:] == -1).all()


def test_zero_label_is_ignored_and_the_rest_moves_down():
    table = ClassSpace(NAMES, reduce_zero_label=True).table()
    assert table[[0, 1, 2, 3, 4, 255]].tolist() == [255, 0, 1, 2, -1, 255]


def test_label_map_wins_over_the_other_rules():
    table = ClassSpace(NAMES, reduce_zero_label=True, label_map={0: 2, 9: 1, 1: 255, 255: 0}).table()
    assert table[[0, 1, 2, 9, 255]].tolist() == [2, 255, 1, 1, 0]


@pytest.mark.parametrize(("count", "dtype", "ignored"), [(254, np.uint8, 255), (255, np.uint16, 65535)])
def test_the_number_of_classes_decides_how_many_bits_labels_have(count: int, dtype: type, ignored: int) -> None:
    space = ClassSpace(tuple(f"class {index}" for index in range(count)), label_map={1000: "ignore", 2000: 7})
    native = np.array([[0, count - 1, ignored, 1000, 2000]], np.uint16)
    label = space.to_classes(native)
    assert (label.dtype, label.tolist()) == (dtype, [[0, count - 1, ignored, ignored, 7]])
    few = space.to_classes(native[:, :2].astype(np.uint8))
    assert (few.dtype, few.tolist()) == (dtype, [[0, count - 1]])
    with pytest.raises(DataError, match=f"ids found: {count}, 3000; allowed: 0..{count - 1}, .*1000, 2000"):
        space.to_classes(np.array([[count, 3000]], np.uint16))
    assert ClassSpace.from_dict(json.loads(json.dumps(space.as_dict()))) == space


def test_in_a_space_of_many_classes_255_is_one_of_them() -> None:
    space = ClassSpace(tuple(f"class {index}" for index in range(300)), label_map={9: 255})
    assert space.table()[[9, 255, 65535]].tolist() == [255, 255, 65535]


def test_unknown_ids_are_named_with_the_allowed_ones():
    label = np.array([[0, 1, 255], [7, 8, 12]], np.uint8)
    with pytest.raises(DataError, match=r"ids found: 7, 8, 12; allowed: 0..2, 255"):
        ClassSpace(NAMES).to_classes(label)


def test_to_classes_equals_the_table():
    rng = np.random.RandomState(0)
    space = ClassSpace(NAMES, label_map={native: native % 4 if native % 4 < 3 else 255 for native in range(256)})
    for native in (rng.randint(0, 256, (30, 40), dtype=np.uint8), rng.randint(0, 256, (30, 40), dtype=np.uint16)):
        assert (space.to_classes(native) == space.table()[native]).all()
    many = ClassSpace(tuple(map(str, range(70))), label_map={native: native % 71 % 70 for native in range(65536)})
    native = rng.randint(0, 65536, (300, 400), dtype=np.uint16)
    assert (many.to_classes(native) == many.table()[native]).all()


def test_space_survives_json():
    space = ClassSpace(NAMES, ((1, 2, 3), (4, 5, 6), (7, 8, 9)), True, {11: 255, 3: 0})
    assert ClassSpace.from_dict(space.as_dict()) == space


@pytest.mark.parametrize("label_map", [{65536: 0}, {3: 3}, {-1: 0}, {3: -1}, {3: 65535}, {3: "void"}])
def test_a_map_that_leads_nowhere_is_refused(label_map):
    with pytest.raises(ConfigError, match="label_map sends id"):
        ClassSpace(NAMES, label_map=label_map)


def test_class_tables_with_and_without_colours(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("index,name\n0,sky\n1,road\n")
    assert read_classes(path) == (("sky", "road"), None)
    path.write_text("index,name,r,g,b\n0,sky,1,2,3\n1,road,4,5,6\n")
    assert read_classes(path) == (("sky", "road"), ((1, 2, 3), (4, 5, 6)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,class\n0,sky\n", "header of the class table: id,class"),
        ("", "header of the class table: nothing"),
        ("index,name\n", "no class"),
        ("index,name\n0,sky\n2,road\n", "row 2,road where index 1 is expected"),
        ("index,name,r,g,b\n0,sky,1,2,256\n", "row 0,sky,1,2,256"),
        ("index,name,r,g,b\n0,sky,1,2\n", "row 0,sky,1,2 "),
        ("index,name\n0,sky\n1,sky\n", "classes 0 and 1 are named 'sky'"),
    ],
)
def test_faults_of_class_tables_are_named(tmp_path, text, message):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(path)


def test_void_rows_at_the_end_are_no_classes(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("index,name,r,g,b\n0,sky,1,2,3\n1,road,4,5,6\n2,Void,0,0,0\n")
    space = read_class_space(path, label_map={2: 255})
    assert space.names == ("sky", "road")
    assert space.colours == ((1, 2, 3), (4, 5, 6))
    assert read_class_space(path, label_map={2: "ignore"}) == ClassSpace(
        space.names, space.colours, False, {2: "ignore"}
    )
    assert read_class_space(path).num_classes == 3
    assert read_class_space(path, label_map={2: 255, 9: 2}).num_classes == 3, "class 2 has pixels under another id"


def test_runs_of_ids_are_joined():
    assert format_ids(np.array([0, 1, 2, 3, 7, 8, 255])) == "0..3, 7, 8, 255"
    assert format_ids(np.arange(0, 256, 2)).endswith("250, 252, 254")
    assert format_ids(np.arange(0, 2000, 2)).endswith("250, 252, 254, and 872 more")


def test_names_of_classes_differ():
    base = "augment={base_scale: [9, 9], crop: [9, 9]}"
    for classes, message in (("[bg, a, a]", "'a' more than once"), ("[]", "a name"), ("[a, '  ']", "a name")):
        with pytest.raises(ConfigError, match=message):
            load_experiment("config/experiments/toy.yaml", [f"data.classes={classes}", base])
    with pytest.raises(ConfigError, match="classes 0 and 2 are named 'a'"):
        ClassSpace(("a", "b", "a"))
