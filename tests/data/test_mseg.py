"""MSeg's tables as they are shipped: those published, and what every class becomes by them."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gss.config import shipped
from gss.data.classes import IGNORE, ClassSpace
from gss.data.native import NativeClasses, read_native_classes
from gss.data.taxonomy import read_taxonomy, targets
from gss.files import read_table
from tests.mseg_tables import TABLE, UNIVERSAL, becomes, names

SETS = ["ade20k-150", "bdd", "cityscapes-19", "coco-panoptic-133", "idd-39", "mapillary-public65", "sunrgbd-37"]
RELABELED = [f"{name}-relabeled" for name in SETS]
TRAINED = [*SETS, *RELABELED]
TESTED = {"camvid-11": 11, "kitti-19": 19, "pascal-context-60": 60, "scannet-20": 20, "voc2012": 21, "wilddash-19": 19}
COUNTS = dict(zip(TRAINED, [150, 19, 19, 133, 39, 65, 37, 141, 21, 21, 155, 30, 51, 48], strict=True)) | TESTED
RESOURCES = Path(str(shipped("classes", "mseg"))).parents[1]
NAIVE = Path(str(shipped("taxonomies", "mseg/naive")))


@pytest.fixture(scope="module")
def mseg(gss_data: Path) -> Path:
    folder = gss_data / "mseg"
    if not folder.is_dir():
        pytest.skip(f"no tables of MSeg at {folder}")
    return folder


def test_the_shipped_tables_are_those_published(mseg: Path) -> None:
    table, published = (read_table(file, separator="\t") for file in (TABLE, mseg / "taxonomy.tsv"))
    assert list(table) == ["universal", *(each for name in SETS for each in (name, f"{name}-relabeled")), *TESTED]
    assert all((table[column] == published[column].str.strip()).all() for column in table)
    parents = Counter(published["Parent Category"][:-1])
    assert (len(parents), parents[""], parents["furniture"], published.shape) == (25, 9, 32, (195, 30))
    classes = json.loads((mseg / "class_names.json").read_text())
    files = {path.stem: path for path in (RESOURCES / "classes/mseg").iterdir() if path.stem != "naive"}
    assert files.keys() == classes.keys() - {"cityscapes-34-relabeled"}
    assert all(names(name) == classes[name] for name in files)
    decoded = json.loads((mseg / "raw_remap.json").read_text())["rgb_decode"]
    for name in files:
        painted = "r" in read_table(files[name])
        assert painted == (name in decoded)
        if painted:
            colours = read_native_classes(files[name], painted=True).colours or {}
            assert {tuple(colour): index for index, colour in enumerate(decoded[name])} == colours
    assert (RESOURCES / "mseg/relabel_counts.csv").read_bytes() == (mseg / "relabel_counts.csv").read_bytes()


def test_the_shipped_lists_are_those_published(mseg: Path) -> None:
    for name in (*TESTED, "sunrgbd-37"):
        lines = (RESOURCES / f"lists/mseg/{name}.txt").read_text().split()
        changed = [line.replace("/color/", "/").removeprefix("img-") for line in lines]
        (file,) = (mseg / "lists").glob(f"{name}*.txt")
        assert changed == file.read_text().split()


def test_numbers_of_the_evaluation_lists() -> None:
    lines = {path.stem: path.read_text().split() for path in (RESOURCES / "lists/mseg").iterdir()}
    assert all(len(set(stems)) == len(stems) for stems in lines.values())
    assert {name: len(stems) for name, stems in lines.items()} == {
        "voc2012": 1449,
        "pascal-context-60": 5105,
        "camvid-11": 101,
        "wilddash-19": 70,
        "kitti-19": 50,
        "scannet-20": 5436,
        "sunrgbd-37": 475,
    }
    assert sum(len(lines[name]) for name in TESTED) == 12211
    assert len({line.split("/")[0] for line in lines["scannet-20"]}) > 55  # with the scene, which GSS's list has lost


def test_numbers_of_the_relabelled_segments() -> None:
    rows = list(csv.DictReader((RESOURCES / "mseg/relabel_counts.csv").read_text().splitlines()))
    changed = [row for row in rows if row["class_before"] != row["class_after"]]
    counts = [sum(int(row["n_segments"]) for row in part) for part in (rows, changed)]
    to_unlabeled = sum(int(row["n_segments"]) for row in changed if row["class_after"] == "unlabeled")
    assert (len(rows), *counts, to_unlabeled) == (349, 226413, 99276, 10033)
    by_set: Counter[str] = Counter()
    for row in changed:
        by_set[row["dataset"]] += int(row["n_segments"])
    assert [by_set[name] for name in SETS] == [4209, 449, 2315, 56772, 31980, 511, 3040]


def test_the_naive_space_has_a_class_for_every_name(mseg: Path) -> None:
    space = names("naive")
    published = json.loads((mseg / "naive_taxonomy.json").read_text())
    assert [None if index == 255 else name for index, name in enumerate(space)] == published["classes"]
    assert (len(space), len(set(space)), space[255], space[254]) == (316, 316, "unused", "non-drivable fallback")
    assert [space.index(name) for name in ("road", "sky", "wall", "dog", "autorickshaw")] == [101, 118, 144, 198, 256]
    for name in SETS:  # every class becomes its name in lower case
        native = NativeClasses(dict(enumerate(names(name))))
        found = targets(native, tuple(space), {}, read_taxonomy(NAIVE, name, "naive"), name)
        assert [space[found[index] or 0] for index in found] == [each.lower() for each in names(name)]
    pairs = {}
    for name in TESTED:
        native = NativeClasses(dict(enumerate(space)))
        table = read_taxonomy(NAIVE, "naive", name)
        found = targets(native, tuple(names(name)), {}, table, name, partial=True)
        pairs[name] = [[index, target] for index, target in found.items() if target is not None]
        assert sorted(pairs[name]) == sorted(published["to_test"][name])
    assert [len(pairs[name]) for name in TESTED] == [8, 19, 49, 19, 15, 19]


def test_the_naive_space_follows_from_the_names() -> None:
    seen = dict.fromkeys(name.lower() for each in SETS for name in names(each))
    assert [*seen] == [name for index, name in enumerate(names("naive")) if index != 255]


def fed(sets: list[str]) -> list[set[int]]:
    return [{target for target in becomes(name).values() if target is not None} for name in sets]


def test_the_table_names_the_shipped_classes_in_their_order() -> None:
    table = read_table(TABLE, separator="\t")
    assert table.shape == (195, 21) and table["universal"].is_unique
    assert (*UNIVERSAL, "unlabeled") == tuple(table["universal"]) and len(UNIVERSAL) == 194
    assert {name: len(names(name)) for name in COUNTS} == COUNTS
    landmarks = {"backpack": 0, "building": 35, "road": 98, "rider_other": 126, "sky": 142, "window_blind": 193}
    assert {name: UNIVERSAL.index(name) for name in landmarks} == landmarks


@pytest.mark.parametrize("name", TRAINED)
def test_every_class_becomes_what_was_published(mseg: Path, name: str) -> None:
    published = json.loads((mseg / "train_to_universal.json").read_text())[name]
    found = becomes(name)
    assert len(found) == len(published) == COUNTS[name]
    assert [255 if target is None else target for target in found.values()] == published
    space = ClassSpace(
        UNIVERSAL,
        label_map={native: IGNORE if target is None else target for native, target in found.items()},
        native=NativeClasses(dict(enumerate(names(name)))),
    )
    label = np.random.default_rng(0).choice([*range(len(found)), 255], (40, 50)).astype(np.uint8)
    universal = space.to_classes(label)
    assert np.array_equal(universal, np.array([*published, *[255] * (256 - len(published))])[label])
    assert space.table()[255] == 255 and (space.table()[len(found) : 255] == -1).all()  # never class 0


@pytest.mark.parametrize(("name", "zeros"), [("ade20k-150", 105), ("bdd", 236), ("coco-panoptic-133", 123)])
def test_what_the_published_tables_fill_with_zeros(name: str, zeros: int) -> None:
    """Ids without a class become class 0 there (backpack); here they are refused, see above."""
    known = {**becomes(name), 255: None}
    assert sum(native not in known or known[native] == 0 for native in range(256)) == zeros


@pytest.mark.parametrize("name", TRAINED)
def test_every_class_is_in_one_row(name: str) -> None:
    cells = [cell.strip("{}").split(",") for cell in read_table(TABLE, separator="\t")[name] if cell]
    assert sorted(part.strip() for cell in cells for part in cell) == sorted(names(name))


def test_relabeled_sets_are_one_to_one() -> None:
    for name in RELABELED:
        found = becomes(name)
        assert None not in found.values() and len(set(found.values())) == len(found)
        assert [UNIVERSAL[target] for target in found.values() if target is not None] == names(name)


def test_counts_of_the_universal_classes() -> None:
    semseg, relabeled = fed(SETS), fed(RELABELED)
    assert [len(found) for found in semseg] == [117, 19, 19, 122, 25, 44, 37]
    assert [len(found) for found in relabeled] == [141, 21, 21, 155, 30, 51, 48]
    exclusive = {"semseg": [46, 0, 0, 52, 1, 6, 3], "relabeled": [24, 0, 0, 36, 1, 5, 1]}
    by_number = {"semseg": [108, 36, 31, 1, 4, 12, 2], "relabeled": [67, 48, 52, 6, 4, 15, 2]}
    for kind, sets in (("semseg", semseg), ("relabeled", relabeled)):
        assert set().union(*sets) == set(range(194))
        times = Counter(target for found in sets for target in found)
        assert [sum(count == number for count in times.values()) for number in range(1, 8)] == by_number[kind]
        assert {UNIVERSAL[target] for target, count in times.items() if count == 7} == {"person", "wall"}
        assert [sum(times[target] == 1 for target in found) for found in sets] == exclusive[kind]
    gains = [len(new - old) for old, new in zip(semseg, relabeled, strict=True)]
    assert gains == [24, 2, 2, 33, 5, 7, 11] and all(o <= n for o, n in zip(semseg, relabeled, strict=True))
    ignored = {name: list(becomes(name).values()).count(None) for name in TRAINED}
    some = {"ade20k-150": 9, "idd-39": 9, "mapillary-public65": 5}
    assert ignored == {name: some.get(name, 0) for name in TRAINED}


def test_relabelling_changes_pixels_and_no_rule(mseg: Path) -> None:
    tables = json.loads((mseg / "raw_remap.json").read_text())["tables"]
    for name in SETS:
        direct, second = becomes(name), becomes(f"{name}-relabeled")
        first = tables[f"{name}->{name}-relabeled"]
        assert [second.get(first[native]) for native in direct] == list(direct.values()), name


def test_worked_examples() -> None:
    def of(name: str, *classes: str) -> set[str]:
        found = {becomes(name)[names(name).index(each)] for each in classes}
        return {UNIVERSAL[target] for target in found if target is not None}

    assert becomes("mapillary-public65")[21] == 128
    assert of("ade20k-150", "minibike") == {"motorcycle"}
    assert of("ade20k-150", "booth", "building", "grandstand", "house", "hovel", "skyscraper", "tower") == {"building"}
    assert of("idd-39", "road", "parking", "drivable fallback") == {"road"}
    assert of("coco-panoptic-133", "sand", "grass-merged", "dirt-merged") == {"terrain"}
    assert [of(name, "rider") for name in ("cityscapes-19", "idd-39", "bdd")] == [
        {"bicyclist"},
        {"motorcyclist"},
        {"rider_other"},
    ]
    assert (becomes("idd-39")[0], becomes("idd-39-relabeled")[19]) == (98, 98)
    assert becomes("cityscapes-19-relabeled")[11] == 98


def test_targets_in_the_test_sets() -> None:
    table = read_table(TABLE, separator="\t")[:-1]
    assert [int((table[name] == "").sum()) for name in TESTED] == [182, 172, 0, 157, 0, 171]
    nothing = table[[*TESTED]].isin(["", "background"])
    assert int(nothing.all(axis=1).sum()) == 73 and not (table[[*TESTED]] == "").all(axis=1).any()
    assert {"elephant", "microwave", "kite"} <= set(table["universal"][nothing.all(axis=1)])
    unreached = {name: set(names(name)) - set(table[name]) for name in TESTED}
    assert {name: missing for name, missing in unreached.items() if missing} == {
        "pascal-context-60": {"flower", "wood"}
    }


def test_a_test_column_is_no_way_into_the_universal_classes() -> None:
    with pytest.raises(Exception, match="sends 'Bicyclist' to 'bicyclist' and to 'bicycle'"):
        read_taxonomy(TABLE, "camvid-11", "universal")
