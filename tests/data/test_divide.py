"""Splits that are made by names: disjoint, complete, and where they were when others come."""

from pathlib import Path

import pytest
import yaml

from gss.cli import main
from gss.config.schema import Source
from gss.data.divide import Division
from gss.errors import DataError
from tests.data.sets import Set

SHARES = {"test": 0.15, "val": 0.15}
NAMES = [f"photo{number}" for number in range(400)]


def test_every_name_is_in_one_split_and_shares_are_about_right() -> None:
    parts = Division(SHARES).divide(NAMES)
    assert sorted(name for names in parts.values() for name in names) == sorted(NAMES)
    assert 40 <= len(parts["val"]) <= 80 and 40 <= len(parts["test"]) <= 80


def test_none_moves_when_others_come() -> None:
    before, after = Division(SHARES).divide(NAMES), Division(SHARES).divide([*NAMES, *"abcdefgh"])
    assert all(set(before[split]) <= set(after[split]) for split in before)


def test_the_seed_alone_decides_and_the_order_of_names_does_not() -> None:
    one, other = (Division(SHARES, seed).divide(NAMES) for seed in (0, 1))
    assert one != other
    again = Division(SHARES).divide(NAMES[::-1])
    assert {split: set(names) for split, names in again.items()} == {s: set(names) for s, names in one.items()}


def test_frames_of_a_film_stay_together() -> None:
    names = [f"film{film}_{frame:04}" for film in range(12) for frame in range(20)]
    division = Division(SHARES, group=r"^(.*)_\d+$")
    films = [{name.partition("_")[0] for name in part} for part in division.divide(names).values()]
    assert sum(map(len, films)) == len(set.union(*films)) == 12


@pytest.mark.parametrize("count", [3, 4, 5])
def test_no_split_is_empty(count: int) -> None:
    for seed in range(30):
        parts = Division(SHARES, seed).divide(NAMES[:count])
        assert all(parts.values()), seed


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 pairs cannot be divided into train, test, val"):
        Division(SHARES).divide(NAMES[:2])


def test_splits_that_are_made_have_the_folders_of_train_and_no_others() -> None:
    train = {"images": "i", "labels": "l"}
    source = Source.model_validate({"root": "r", "divide": {"val": 0.2, "test": 0.1}, "splits": {"train": train}})
    assert list(source.splits) == ["train", "val", "test"]
    assert Source.model_validate(source.model_dump()) == source
    with pytest.raises(ValueError, match=r"`divide` makes `val` of the pairs of `train`"):
        Source.model_validate({"root": "r", "divide": {}, "splits": {"train": train, "val": {**train, "images": "j"}}})
    with pytest.raises(ValueError, match=r"leaves nothing to train on"):
        Source.model_validate({"root": "r", "divide": {"val": 0.6, "test": 0.5}, "splits": {"train": train}})


def test_the_check_divides_and_writes_down_how(made: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {
        "data": {
            "root": str(made.root),
            "classes": list(made.classes),
            "divide": {"val": 0.2, "test": 0.2},
            "splits": {"train": {"images": "images/train", "labels": "labels/train"}},
        },
        "recipe": "pixel",
        "augment": {"base_scale": [32, 32], "crop": [32, 32]},
        "pixel": {"backbone": {"name": "test_resnet"}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    assert main(["check", "mine.yaml"]) == 0
    lists = {path.stem: path.read_text().split() for path in Path("results/mine/data/lists").iterdir()}
    assert sorted(lists) == ["test", "train", "val"] and all(lists.values())
    assert sorted(name for names in lists.values() for name in names) == [
        f"images/train/f{number}.png" for number in range(6)
    ]
    # the lists are what `list` of a split reads: the same splits, frozen
    folder = Path("results/mine/data/lists").absolute()
    train = content["data"]["splits"]["train"]
    content["data"]["splits"] = {split: {**train, "list": str(folder / f"{split}.txt")} for split in lists}
    del content["data"]["divide"]
    Path("frozen.yaml").write_text(yaml.safe_dump(content))
    assert main(["check", "frozen.yaml"]) == 0
    manifests = [yaml.safe_load(Path(f"results/{name}/data/manifest.json").read_text()) for name in ("mine", "frozen")]
    assert all(
        {row["image"] for row in manifests[0]["splits"][split]}
        == {row["image"] for row in manifests[1]["splits"][split]}
        for split in lists
    )


def test_colours_of_classes_may_stand_in_the_experiment(
    made: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for path in (made.root / "labels").rglob("*.png"):
        label = Image.open(path).convert("P")
        label.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        label.convert("RGB").save(path)
    native = {"bg": [0, 0, 0], "a": [[255, 0, 0], [1, 1, 1]], "b": [0, 255, 0]}
    folders = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
    data = {"root": str(made.root), "classes": ["bg", "a", "b"], "encoding": "colours", "splits": folders}
    content = {
        "data": {**data, "native_classes": native},
        "recipe": "pixel",
        "augment": {"base_scale": [32, 32], "crop": [32, 32]},
        "pixel": {"backbone": {"name": "test_resnet"}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    assert main(["check", "mine.yaml"]) == 0
    for wrong, word in (({**native, "b": [1, 1, 1]}, "is that of 'a' and of 'b'"), ({"bg": [0, 0]}, "native_classes")):
        content["data"]["native_classes"] = wrong
        Path("mine.yaml").write_text(yaml.safe_dump(content))
        assert main(["check", "mine.yaml"]) == 2, word
