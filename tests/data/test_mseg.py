"""MSeg's master table as a taxonomy: every training set becomes universal classes as published."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import gss
from gss.data.classes import IGNORE, ClassSpace, read_classes
from gss.data.native import NativeClasses
from gss.data.taxonomy import read_taxonomy, targets
from gss.files import read_table

SETS = ["ade20k-150", "bdd", "cityscapes-19", "coco-panoptic-133", "idd-39", "mapillary-public65", "sunrgbd-37"]
RELABELED = [f"{name}-relabeled" for name in SETS]
TRAINED = [*SETS, *RELABELED, "cityscapes-34", "cityscapes-34-relabeled"]
UNIVERSAL, _ = read_classes(Path(gss.__file__).parent / "resources" / "classes" / "mseg.csv")
COUNTS = dict(zip(TRAINED, [150, 19, 19, 133, 39, 65, 37, 141, 21, 21, 155, 30, 51, 48, 34, 26], strict=True))


@pytest.fixture(scope="module")
def mseg(gss_data: Path) -> Path:
    folder = gss_data / "mseg"
    if not folder.is_dir():
        pytest.skip(f"no tables of MSeg at {folder}")
    return folder


@cache
def names(mseg: Path) -> dict[str, list[str]]:
    return json.loads((mseg / "class_names.json").read_text())


@cache
def becomes(mseg: Path, name: str) -> dict[int, int | None]:
    """Universal class of each class of a training set."""
    native = NativeClasses(dict(enumerate(names(mseg)[name])))
    return targets(native, UNIVERSAL, {}, read_taxonomy(mseg / "taxonomy.tsv", name, "universal"), name)


def fed(mseg: Path, sets: list[str]) -> list[set[int]]:
    return [{target for target in becomes(mseg, name).values() if target is not None} for name in sets]


def test_the_table_names_the_shipped_classes_in_their_order(mseg: Path) -> None:
    table = read_table(mseg / "taxonomy.tsv", separator="\t")
    assert table.shape == (195, 30) and table["universal"].is_unique
    assert (*UNIVERSAL, "unlabeled") == tuple(table["universal"].str.strip()) and len(UNIVERSAL) == 194
    parents = Counter(table["Parent Category"][:-1])
    assert len(parents) == 25 and parents[""] == 9 and parents["furniture"] == 32
    landmarks = {"backpack": 0, "building": 35, "road": 98, "rider_other": 126, "sky": 142, "window_blind": 193}
    assert {name: UNIVERSAL.index(name) for name in landmarks} == landmarks


@pytest.mark.parametrize("name", TRAINED)
def test_every_class_becomes_what_was_published(mseg: Path, name: str) -> None:
    published = json.loads((mseg / "train_to_universal.json").read_text())[name]
    found = becomes(mseg, name)
    assert len(found) == len(published) == COUNTS[name]
    assert [255 if target is None else target for target in found.values()] == published
    space = ClassSpace(
        UNIVERSAL,
        label_map={native: IGNORE if target is None else target for native, target in found.items()},
        native=NativeClasses(dict(enumerate(names(mseg)[name]))),
    )
    label = np.random.default_rng(0).choice([*range(len(found)), 255], (40, 50)).astype(np.uint8)
    universal = space.to_classes(label)
    assert np.array_equal(universal, np.array([*published, *[255] * (256 - len(published))])[label])
    assert space.table()[255] == 255 and (space.table()[len(found) : 255] == -1).all()  # never class 0


@pytest.mark.parametrize("name", TRAINED)
def test_every_class_is_in_one_row(mseg: Path, name: str) -> None:
    cells = [cell.strip("{}").split(",") for cell in read_table(mseg / "taxonomy.tsv", separator="\t")[name] if cell]
    assert sorted(part.strip() for cell in cells for part in cell) == sorted(names(mseg)[name])


def test_relabeled_sets_are_one_to_one(mseg: Path) -> None:
    for name in RELABELED:
        found = becomes(mseg, name)
        assert None not in found.values() and len(set(found.values())) == len(found)
        assert [UNIVERSAL[target] for target in found.values() if target is not None] == names(mseg)[name]


def test_counts_of_the_universal_classes(mseg: Path) -> None:
    semseg, relabeled = fed(mseg, SETS), fed(mseg, RELABELED)
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
    ignored = {name: list(becomes(mseg, name).values()).count(None) for name in TRAINED}
    some = {"ade20k-150": 9, "idd-39": 9, "mapillary-public65": 5, "cityscapes-34": 8}
    assert ignored == {name: some.get(name, 0) for name in TRAINED}


def test_relabelling_changes_pixels_and_no_rule(mseg: Path) -> None:
    tables = json.loads((mseg / "raw_remap.json").read_text())["tables"]
    for name in SETS:
        direct, second = becomes(mseg, name), becomes(mseg, f"{name}-relabeled")
        first = tables[f"{name}->{name}-relabeled"]
        assert [second.get(first[native]) for native in direct] == list(direct.values()), name


def test_worked_examples(mseg: Path) -> None:
    def of(name: str, *classes: str) -> set[str]:
        found = {becomes(mseg, name)[names(mseg)[name].index(each)] for each in classes}
        return {UNIVERSAL[target] for target in found if target is not None}

    assert becomes(mseg, "mapillary-public65")[21] == 128
    assert of("ade20k-150", "minibike") == {"motorcycle"}
    assert of("ade20k-150", "booth", "building", "grandstand", "house", "hovel", "skyscraper", "tower") == {"building"}
    assert of("idd-39", "road", "parking", "drivable fallback") == {"road"}
    assert of("coco-panoptic-133", "sand", "grass-merged", "dirt-merged") == {"terrain"}
    assert [of(name, "rider") for name in ("cityscapes-19", "idd-39", "bdd")] == [
        {"bicyclist"},
        {"motorcyclist"},
        {"rider_other"},
    ]
    assert (becomes(mseg, "idd-39")[0], becomes(mseg, "idd-39-relabeled")[19]) == (98, 98)
    assert becomes(mseg, "cityscapes-19-relabeled")[11] == 98


def test_a_test_column_is_no_way_into_the_universal_classes(mseg: Path) -> None:
    with pytest.raises(Exception, match="sends 'Bicyclist' to 'bicyclist' and to 'bicycle'"):
        read_taxonomy(mseg / "taxonomy.tsv", "camvid-11", "universal")
