"""Labels as they lie there: colours, classes of a source's own, and what becomes of them."""

import numpy as np
import pytest
from PIL import Image

from gss.data.classes import ClassSpace
from gss.data.images import read_label, read_native_label
from gss.data.native import NativeClasses, read_native_classes
from gss.data.taxonomy import read_taxonomy, targets
from gss.errors import ConfigError, DataError

CAR, ROAD, SKY = (255, 0, 0), (9, 9, 9), (0, 0, 255)
OTHER_CAR = (200, 0, 0)
PAINTED = NativeClasses({0: "car", 3: "road", 700: "sky"}, {CAR: 0, OTHER_CAR: 0, ROAD: 3, SKY: 700})
TO_CLASSES = ClassSpace(("road", "thing"), label_map={0: 1, 3: 0, 700: "ignore"}, native=PAINTED)


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def painted() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] of four colours, and which of the four it is."""
    which = np.random.default_rng(0).integers(0, 4, (13, 17))
    return np.array([CAR, OTHER_CAR, ROAD, SKY], np.uint8)[which], which


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_read_as_the_classes_they_mean(mode, tmp_path, painted) -> None:
    colours, which = painted
    picture = Image.fromarray(colours)
    if mode == "P":
        picture = picture.quantize(4, dither=Image.Dither.NONE)
        assert np.array_equal(np.asarray(picture.convert("RGB")), colours)
    elif mode == "RGBA":  # an RGB table does not ask for transparency
        picture = Image.fromarray(np.dstack((colours, (which * 50).astype(np.uint8))))
    picture.save(tmp_path / "label.png")
    native = read_native_label(tmp_path / "label.png", PAINTED)
    assert native.dtype == np.uint16 and np.array_equal(native, np.array([0, 0, 3, 700])[which])
    label = read_label(tmp_path / "label.png", TO_CLASSES)
    assert label.dtype == np.uint8 and np.array_equal(label, np.array([1, 1, 0, 255])[which])


def test_where_the_table_has_transparency_it_tells_classes_apart(tmp_path) -> None:
    native = NativeClasses({0: "a", 1: "b"}, {(1, 2, 3, 0): 0, (1, 2, 3, 255): 1})
    Image.fromarray(np.array([[[1, 2, 3, 0], [1, 2, 3, 255]]], np.uint8)).save(tmp_path / "rgba.png")
    Image.fromarray(np.array([[[1, 2, 3], [1, 2, 3]]], np.uint8)).save(tmp_path / "rgb.png")
    assert read_native_label(tmp_path / "rgba.png", native).tolist() == [[0, 1]]
    assert read_native_label(tmp_path / "rgb.png", native).tolist() == [[1, 1]]  # opaque
    Image.fromarray(np.array([[[1, 2, 3, 7]]], np.uint8)).save(tmp_path / "half.png")
    with pytest.raises(DataError, match=r"\(1, 2, 3, 7\) \(1 pixels\)"):
        read_native_label(tmp_path / "half.png", native)


def test_every_colour_counts_to_the_last_bit(tmp_path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (400, 3), dtype=np.uint8)
    colours = {tuple(int(v) for v in value): index for index, value in enumerate(np.unique(values, axis=0))}
    native = NativeClasses({index: str(index) for index in colours.values()}, colours)
    Image.fromarray(values.reshape(20, 20, 3)).save(tmp_path / "label.png")
    expected = np.array([colours[tuple(int(v) for v in value)] for value in values])
    assert np.array_equal(read_native_label(tmp_path / "label.png", native).ravel(), expected)


def test_an_unknown_colour_is_named_with_its_pixels_and_file(tmp_path, painted) -> None:
    colours, which = painted
    colours[which == 2] = (10, 9, 9)
    colours[0, 0] = (1, 2, 3)
    Image.fromarray(colours).save(tmp_path / "label.png")
    first = np.count_nonzero(which.ravel()[1:] == 2)
    with pytest.raises(DataError, match=rf"\(10, 9, 9\) \({first} pixels\), \(1, 2, 3\) \(1 pixels\)") as error:
        read_native_label(tmp_path / "label.png", PAINTED)
    assert error.value.where == tmp_path / "label.png"


@pytest.mark.parametrize(("name", "said"), [("label.jpg", "JPEG"), ("label.tif", "mode I;16")])
def test_colours_that_are_not_exact_are_refused(name, said, tmp_path) -> None:
    pixels = np.zeros((8, 8), np.uint16) if name.endswith("tif") else np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    with pytest.raises(DataError, match=said):
        read_native_label(tmp_path / name, PAINTED)


# ---- tables of native classes


def test_tables_are_read_as_they_are_met(tmp_path) -> None:
    kitti = write(tmp_path / "kitti.csv", "id,name,trainId\n7,road,0\n0,unlabeled,255\n33,bicycle,18\n")
    assert read_native_classes(kitti, painted=False) == NativeClasses({7: "road", 0: "unlabeled", 33: "bicycle"})
    bdd = write(tmp_path / "bdd.csv", "index,name,r,g,b\n0,road,128,64,128\n255,void,,,\n")
    assert read_native_classes(bdd, painted=False).names == {0: "road", 255: "void"}
    assert read_native_classes(bdd, painted=True).colours == {(128, 64, 128): 0}
    several = write(
        tmp_path / "several.csv", '\ufeffname,R,G,B,A\ncar,1,2,3,4\n"sky, clouds",5,6,7,255\ncar,8,9,10,0\n'
    )
    assert read_native_classes(several, painted=True) == NativeClasses(
        {0: "car", 1: "sky, clouds"}, {(1, 2, 3, 4): 0, (5, 6, 7, 255): 1, (8, 9, 10, 0): 0}
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("index,name\n0,a\n0,b\n", "index 0 is named 'a' and 'b'"),
        ("index,name\n0, \n", "index 0 has no name"),
        ("index,name\nx,a\n", "'x' where a whole number 0..65535"),
        ("index,name\n65536,a\n", "'65536' where"),
        ("index,label\n0,a\n", "header of the table of native classes: index,label"),
        ("name\na\n", "header"),
        ("index,name\n", "no class"),
        ("", "header of the table of native classes: nothing"),
        ("name,r,g,b\na,1,2,3\nb,1,2,3\n", r"the colour \(1, 2, 3\) is that of 'a' and of 'b'"),
        ("name,r,g,b\na,1,2,256\n", "'256' where a whole number 0..255"),
        ("name,r,g,b\na,1,2,\n", "'' where"),
    ],
)
def test_wrong_tables_are_refused(text, said, tmp_path) -> None:
    with pytest.raises(DataError, match=said):
        read_native_classes(write(tmp_path / "table.csv", text), painted="r,g" in text)


def test_painted_labels_need_colours(tmp_path) -> None:
    with pytest.raises(DataError, match="header"):
        read_native_classes(write(tmp_path / "table.csv", "index,name\n0,a\n"), painted=True)


# ---- taxonomies


NATIVE = NativeClasses(dict(enumerate(("Car 1", "Car 2", "street", "NA", "weird"))))
CLASSES = ("road", "car", "NA")


def test_a_class_becomes_what_mapping_says_then_the_taxonomy(tmp_path) -> None:
    path = write(tmp_path / "t.csv", "native,common\nCar 1,car\nCar 2,car\nstreet,NA\nNA,NA\nweird,\n")
    taxonomy = read_taxonomy(path, "native", "common")
    assert targets(NATIVE, CLASSES, {"street": "road"}, taxonomy, "x") == {0: 1, 1: 1, 2: 0, 3: 2, 4: None}
    said = {"Car 1": "car", "Car 2": "car", "street": "road", "weird": "ignore"}
    assert targets(NATIVE, CLASSES, said, None, "x") == {0: 1, 1: 1, 2: 0, 3: 2, 4: None}  # NA: equal names


def test_cells_of_several_names_and_rows_of_one_set(tmp_path) -> None:
    path = write(
        tmp_path / "t.tsv",
        "set\tone\tuniversal\nA\t{Car 1,Car 2}\tcar\nA\tstreet\troad\nB\tstreet\tcar\nA\t{NA, weird}\tunlabeled\n",
    )
    taxonomy = read_taxonomy(path, "one", "universal", {"set": "A"})
    assert targets(NATIVE, CLASSES, {}, taxonomy, "x") == {0: 1, 1: 1, 2: 0, 3: None, 4: None}
    with pytest.raises(DataError, match="sends 'street' to 'road' and to 'car'"):
        read_taxonomy(path, "one", "universal")
    with pytest.raises(DataError, match="no row with 'C' in column 'set'"):
        read_taxonomy(path, "one", "universal", {"set": "C"})
    with pytest.raises(DataError, match="no column 'two'"):
        read_taxonomy(path, "two", "universal")


@pytest.mark.parametrize(
    ("table", "mapping", "said"),
    [
        ("Car 1,car\nCar 2,car\nstret,road\nNA,NA\nweird,\n", {}, "1 of 5 native classes: street; rows .* stret"),
        ("Car 1,cra\nCar 2,cra\nstreet,road\nNA,NA\nweird,\n", {}, "'Car 1', 'Car 2' becomes 'cra', which is no class"),
        ("Car 1,car\nCar 2,car\nstreet,road\nNA,NA\nweird,\n", {"Weird": "ignore"}, "names 'Weird'"),
        ("", {"weird": "ignore"}, "3 of 5 native classes: Car 1, Car 2, street"),
    ],
)
def test_mistakes_in_a_taxonomy_are_found(table, mapping, said, tmp_path) -> None:
    taxonomy = (
        read_taxonomy(write(tmp_path / "t.csv", f"native,common\n{table}"), "native", "common") if table else None
    )
    with pytest.raises(ConfigError, match=said) as error:
        targets(NATIVE, CLASSES, mapping, taxonomy, "source 'two'")
    assert "source 'two'" in str(error.value.where)


def test_an_id_without_a_name_is_no_class_and_never_class_0() -> None:
    space = ClassSpace(("road", "car"), label_map={7: 0, 26: 1}, native=NativeClasses({7: "road", 26: "car"}))
    table = space.table()
    assert table[[7, 26, 255]].tolist() == [0, 1, 255] and (np.delete(table, [7, 26, 255]) == -1).all()
    with pytest.raises(DataError, match="ids found: 0; allowed: 7, 26, 255"):
        space.to_classes(np.array([[7, 0]], np.uint8))
    assert ClassSpace.from_dict(space.as_dict()) == space
    assert ClassSpace.from_dict(TO_CLASSES.as_dict()) == TO_CLASSES


def test_ignored_of_a_source_is_a_matter_of_its_own_bits() -> None:
    """255 in the files of a source of few classes is ignored though the data set has many."""
    space = ClassSpace(tuple(map(str, range(316))), label_map={0: 300}, native=NativeClasses({0: "a"}))
    assert space.to_classes(np.array([[0, 255]], np.uint8)).tolist() == [[300, 65535]]


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_masks_of_one_bit_eight_and_sixteen_are_read_by_their_names(mode, tmp_path) -> None:
    top = {"1": 1, "L": 255, "I;16": 1000}[mode]
    which = np.random.default_rng(0).integers(0, 2, (9, 11))
    pixels = which.astype(bool) if mode == "1" else (which * top).astype(np.uint16 if top > 255 else np.uint8)
    Image.fromarray(pixels).save(tmp_path / "label.png")
    native = read_native_classes(write(tmp_path / "t.csv", f"index,name\n0,nothing\n{top},thing\n"), painted=False)
    found = targets(native, ("thing", "other"), {"nothing": "other"}, None, "x")
    space = ClassSpace(("thing", "other"), label_map={k: v for k, v in found.items() if v is not None}, native=native)
    assert np.array_equal(read_label(tmp_path / "label.png", space), 1 - which)
