"""Several data sets with classes and encodings of their own as one, through the commands."""

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gss import workflow
from gss.cli import main
from gss.config import load_experiment
from gss.data.augment import Augment
from gss.data.images import write_png
from gss.data.loader import SampleOrder, TrainLoader
from gss.errors import ConfigError
from gss.stages.run import Run
from gss.stages.training import class_pixels

TRAIN_VAL = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/merge.md").read_text(encoding="utf-8")
ONE = yaml.safe_load(PAGE.split("```yaml\n")[1].split("```")[0])["data"]
REST = {
    "recipe": "pixel",
    "augment": {"base_scale": [32, 32], "crop": [32, 32]},
    "pixel": {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 4, "warmup_steps": 1}},
}
COLOURS = "name,r,g,b\nstreet,1,1,1\nvehicle,9,0,0\nvehicle,8,0,0\nperson,0,5,0\ndog,0,0,7\n"
PAINT = np.array([(1, 1, 1), (9, 0, 0), (8, 0, 0), (0, 5, 0), (0, 0, 7)], np.uint8)
WEIGHTS = np.array((1 << 16, 1 << 8, 1))  # of R, G, B
MEANS = np.array([0, 1, 1, 2, 255])  # of the paints


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`city` with ids, `country` painted in five colours that are four classes; photographs show classes as greys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    rng = np.random.default_rng(0)
    sets = tmp_path / "sets"
    for index in range(4):
        for split in ("train", "val"):
            pair(sets / "city" / "images" / split / f"{index}.png", rng, np.array([0, 1, 2], np.uint8), np.arange(3))
    for index in range(3):
        pair(sets / "country" / "photos" / f"7_camera_{index}.png", rng, PAINT, MEANS)
    (sets / "country" / "colours.csv").write_text(COLOURS)
    write(ONE)
    return tmp_path


def pair(image: Path, rng: np.random.Generator, table: np.ndarray, means: np.ndarray) -> None:
    which = np.kron(rng.permutation(np.resize(np.arange(len(table)), 16)).reshape(4, 4), np.ones((8, 8), int))
    grey = np.where(means < 255, means * 60, 255)[which]
    write_png(image, np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))
    label = image.as_posix().replace("/images/", "/labels/").replace("/photos/7_camera_", "/painted/7_label_")
    write_png(Path(label), table[which])


def write(data: dict) -> None:
    path = Path("config/experiments/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**REST, "data": data}))


def changed(**changes: object) -> dict:
    return {**ONE, "sources": [{**ONE["sources"][0], **changes}]}


def test_every_pixel_becomes_what_the_configuration_says(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine"]) == 0
    said = capsys.readouterr().out
    shown = PAGE.split("what becomes of every class")[1].split("```")[1].strip()
    assert shown in said
    pairs = Run.open("mine").manifest.pairs("train")
    assert len(pairs) == 7 and pairs[4].label.name == "7_label_0.png"
    for each in pairs:
        image, label = each.read_image()[..., 0], each.read_label()
        assert np.array_equal(label, np.where(image < 255, image // 60, 255))
    statistics = json.loads(Path("results/mine/data/statistics.json").read_text())
    rows = statistics["becomes"]["country"]
    assert [(row["id"], row["name"], row["becomes"]) for row in rows] == [
        (0, "street", "road"),
        (1, "vehicle", "car"),
        (2, "person", "person"),
        (3, "dog", None),
    ]
    assert rows[1]["colours"] == [[9, 0, 0], [8, 0, 0]]
    assert sum(row["pixels"] for row in rows) == 3 * 32 * 32
    counted = Counter(np.concatenate([pairs[index].read_label().ravel() for index in (4, 5, 6)]).tolist())
    assert [row["pixels"] for row in rows] == [counted[0], counted[1], counted[2], counted[255]]


def test_the_report_shows_what_became_of_each(project: Path) -> None:
    assert main(["check", "mine"]) == 0
    assert main(["report", "mine"]) == 0
    page = Path("results/mine/report.html").read_text()
    assert "What became of the classes of country: 4 classes, 18.75 % of the pixels ignored" in page
    assert "What became of the classes of city: 3 classes, 0.00 % of the pixels ignored" in page


def test_an_unknown_colour_is_a_fault_of_its_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = project / "sets/country/colours.csv"
    table.write_text(COLOURS.replace("vehicle,8,0,0\n", ""))
    assert main(["check", "mine"]) == 2
    said = capsys.readouterr().err
    assert "country: 3 files (painted/7_label_0.png, painted/7_label_1.png, painted/7_label_2.png): " in said
    assert ": colours found that are no class: (8, 0, 0) (192 pixels)" in said
    assert not Path("results/mine/data/manifest.json").exists()


def test_a_changed_table_of_colours_is_not_mistaken_for_the_old_one(project: Path) -> None:
    """After faults elsewhere the check goes on where it was; labels are read again when their colours mean another."""
    fault = project / "sets/country/painted/7_label_1.png"
    sound = fault.read_bytes()
    fault.write_bytes(b"")
    assert main(["check", "mine"]) == 2
    fault.write_bytes(sound)
    table = project / "sets/country/colours.csv"
    table.write_text("name,r,g,b\ndog,0,0,7\nstreet,1,1,1\nvehicle,9,0,0\nvehicle,8,0,0\nperson,0,5,0\n")
    assert main(["check", "mine"]) == 0
    rows = json.loads(Path("results/mine/data/statistics.json").read_text())["becomes"]["country"]
    labels = [Run.open("mine").manifest.pairs("train")[k].read_label() for k in (4, 5, 6)]
    assert {row["name"]: row["pixels"] for row in rows}["dog"] == sum(int((label == 255).sum()) for label in labels)


def test_tables_are_inputs_of_the_rule_and_stand_in_the_record(project: Path) -> None:
    (project / "sets/to.csv").write_text("native,common\nperson,person\n")
    write(changed(taxonomy={"file": "to.csv"}))
    assert workflow.data_inputs(SimpleNamespace(experiment="mine")) == [
        str(project / "sets" / name) for name in ("country/colours.csv", "to.csv")
    ]
    assert main(["check", "mine"]) == 0
    inputs = json.loads(Path("results/mine/records/check.json").read_text())["inputs"]
    assert all(any(name.endswith(table) for name in inputs) for table in ("country/colours.csv", "sets/to.csv"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mapping": {"street": "road", "vehicle": "car"}}, "nothing says what becomes of 1 of 4 native classes: dog"),
        ({"mapping": {"street": "raod"}}, "'street' becomes 'raod', which is no class"),
        ({"mapping": {"steet": "road"}}, "`mapping` names 'steet', which is no native class"),
        ({"native_classes": "none.csv"}, "the table of native classes cannot be read: file not found"),
        ({"native_classes": None, "mapping": {}}, "`encoding: colours` needs a table of colours"),
        ({"taxonomy": {"file": "none.csv"}}, "the taxonomy cannot be read: file not found"),
    ],
)
def test_mistakes_are_said_before_any_file_is_looked_at(
    project: Path, change: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(changed(**change))
    assert main(["check", "mine"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "pairs/s" not in printed.out
    assert not Path("results/mine/data").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"native_classes": None}, "`mapping` and `taxonomy` are of `native_classes`"),
        ({"label_map": {1: 2}}, "`label_map` and `reduce_zero_label` are of ids of `data.classes`"),
        ({"native_classes": ["a"]}, "needs a table with colours"),
        ({"native_classes": [], "encoding": "ids"}, "needs a name for every id"),
        ({"label_name": ["(", ""]}, "no regular expression"),
        ({"encoding": "rgb"}, "encoding"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(project: Path, change: dict, said: str) -> None:
    write(changed(**change))
    with pytest.raises(ConfigError, match=said):
        load_experiment("mine")


def test_two_images_of_one_label_are_a_fault(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = project / "sets/country/photos/7_camera_1.png"
    (photo.parent / "7_label_1.png").write_bytes(photo.read_bytes())
    assert main(["check", "mine"]) == 2
    assert "photos/7_label_1.png: 7_camera_1.png has the same label by label_name" in capsys.readouterr().err


def test_a_single_painted_set_takes_the_colours_of_its_class_table(project: Path) -> None:
    (project / "sets/country/classes.csv").write_text("index,name,r,g,b\n0,road,1,1,1\n1,car,9,0,0\n2,sky,0,0,7\n")
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        for index in range(3):
            pair(project / f"sets/country/images/{split}/{index}.png", rng, PAINT[[0, 1, 4]], np.arange(3))
    write({"root": "country", "classes": "classes.csv", "encoding": "colours", "splits": TRAIN_VAL})
    assert main(["check", "mine"]) == 0
    for each in Run.open("mine").manifest.pairs("val"):
        assert np.array_equal(each.read_label(), each.read_image()[..., 0] // 60)


def test_classes_are_judged_together(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source of one class is sound beside another one; of a class that no source has is said once."""
    write({**changed(mapping={"street": "road", "vehicle": "ignore", "person": "ignore", "dog": "ignore"})})
    assert main(["check", "mine"]) == 0
    write({**ONE, "classes": ["road", "car", "person", "cat"]})
    assert main(["check", "mine"]) == 0
    assert capsys.readouterr().out.count("1 of 4 classes never occur in train: cat") == 1


# ---- repeated


def test_a_pass_takes_pairs_of_a_source_as_often_as_it_says(project: Path) -> None:
    write(changed(repeat=3))
    assert main(["check", "mine"]) == 0
    run = Run.open("mine")
    pairs = run.manifest.pairs("train")
    assert len(pairs) == 7 and [source.repeat for source in run.manifest.sources] == [1, 3]
    stream = pairs.repeated()
    assert Counter(each.image for each in stream) == {
        pair.image: 1 if place < 4 else 3 for place, pair in enumerate(pairs)
    }
    assert len(stream) == 13 and stream[-1] == pairs[6] and stream[4] == pairs[4] and stream[7] == pairs[4]
    assert len(run.manifest.pairs("val").repeated()) == 4  # nothing of the source is in it
    alone = [pixels.sum() for pixels in (np.bincount(p.read_label().ravel(), minlength=3)[:3] for p in pairs)]
    assert sum(class_pixels(run)) == sum(alone[:4]) + 3 * sum(alone[4:])


def test_repeated_pairs_come_in_one_order_for_any_number_of_processes(project: Path) -> None:
    write(changed(repeat=3))
    assert main(["check", "mine"]) == 0
    run = Run.open("mine")
    stream, augment = run.manifest.pairs("train").repeated(), Augment((32, 32), (0.5, 2.0), (32, 32))

    def batches(rank: int, world_size: int, start_step: int, count: int) -> list:
        loader = TrainLoader(
            stream,
            run.space,
            augment,
            seed=5,
            batch_size=6,
            rank=rank,
            world_size=world_size,
            start_step=start_step,
        )
        steps = iter(loader)
        found = [batch for _ in range(count) for batch in next(steps)]
        steps.close()
        return found

    alone = batches(0, 1, 0, 4)
    for world_size in (2, 3):
        parts = [batches(rank, world_size, 0, 4) for rank in range(world_size)]
        for step, batch in enumerate(alone):
            for key in ("image", "label", "position"):
                assert torch.equal(batch[key], torch.cat([part[step][key] for part in parts])), (world_size, key)
    assert torch.equal(alone[3]["image"], batches(0, 1, 3, 1)[0]["image"])
    order = SampleOrder(len(stream), 5)
    drawn = Counter(stream[order[position]].image.parent.name for position in range(2 * len(stream)))
    assert drawn == {"train": 8, "photos": 18}  # two passes


def test_repeat_needs_other_sources(project: Path) -> None:
    write({**ONE, "sources": [], "repeat": 2})
    with pytest.raises(ConfigError, match="there are no `sources`"):
        load_experiment("mine")


# ---- real ones


def street(root: str, dataset: str, images: str, labels: str, **keys: object) -> dict:
    return {
        "root": root,
        "splits": {"train": {"images": images, "labels": labels}},
        "native_classes": "classes.csv",
        "taxonomy": {
            "file": "wild/street_classes.csv",
            "native": "source_name",
            "common": "mseg_name",
            "rows": {"dataset": dataset},
        },
        **keys,
    }


def test_four_street_sets_are_read_as_they_lie_there(
    gss_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, RGBA, RGB of 55 colours, ids of their own, into MSeg's universal classes; every pixel by another way."""
    if not (gss_data / "wild").is_dir() or not (gss_data / "camvid").is_dir():
        pytest.skip(f"no street sets in {gss_data}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    camvid = tmp_path / "sets" / "camvid"
    for kind in ("images", "labels"):
        for split, count in (("train", 9), ("val", 3)):
            (camvid / kind / split).mkdir(parents=True)
            for path in sorted((gss_data / "camvid" / kind / split).iterdir())[:: 30 if count == 9 else 40]:
                (camvid / kind / split / path.name).symlink_to(path)
    (camvid / "classes.csv").symlink_to(gss_data / "camvid" / "classes.csv")
    (tmp_path / "sets" / "wild").symlink_to(gss_data / "wild")
    first = street("camvid", "camvid", "", "")
    sources = [
        street("wild/comma10k", "comma10k", "images", "labels", encoding="colours"),
        street("wild/a2d2", "a2d2", "images", "labels", encoding="colours", label_name=["_camera_", "_label_"]),
        street("wild/kitti", "kitti", "semantics/image_2", "semantics/semantic"),
    ]
    write({**first, "classes": "mseg", "splits": TRAIN_VAL, "sources": sources})
    assert main(["check", "mine"]) == 0
    with (gss_data / "wild" / "street_classes.csv").open(newline="") as file:
        said = list(csv.DictReader(file))
    manifest = Run.open("mine").manifest
    statistics = json.loads(Path("results/mine/data/statistics.json").read_text())
    counts: Counter[int] = Counter()
    seen: Counter[str] = Counter()
    for each in manifest.pairs("train"):
        dataset = each.label.relative_to(tmp_path / "sets").as_posix().removeprefix("wild/").split("/")[0]
        rows = [row for row in said if row["dataset"] == dataset]
        pixels = np.asarray(Image.open(each.label))
        painted = pixels.ndim == 3
        table = np.full(2**24, -1, np.int16)
        for row in rows:
            value = [int(row[channel]) for channel in "rgb"] if painted else [0, 0, int(row["source_id"])]
            table[np.dot(value, WEIGHTS)] = int(row["mseg_id"])
        expected = table[pixels[..., :3] @ WEIGHTS if painted else pixels]
        assert np.array_equal(each.read_label(), expected), each.label
        counts.update(dict(enumerate(np.bincount(expected.ravel()).tolist())))
        seen[dataset] += 1
    assert (seen["comma10k"], seen["a2d2"], seen["kitti"]) == (11, 7, 5) and seen["camvid"] > 3
    train = statistics["splits"]["train"]
    assert [row["pixels"] for row in train["classes"]] == [counts[index] for index in range(194)]
    assert train["ignored_pixels"] == counts[255]
    for root, rows in statistics["becomes"].items():
        splits = statistics["sources"][root].values()
        assert sum(row["pixels"] for row in rows) == sum(split["pixels"] for split in splits), root
