"""Labels of MSeg's thirteen sets, made of those they are published with; all trees are tiny and generated."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gss import layout
from gss.cli import main
from gss.config import load_experiment
from gss.data.images import read_native_label, write_png
from gss.data.manifest import read_manifest
from gss.data.mseg.prepare import prepare
from gss.data.mseg.raw import relabelled_table, semseg_table
from gss.data.mseg.sets import RELABELLED, SETS, root_of
from gss.doctor.experiments import inputs as inputs_of
from gss.errors import ConfigError, DataError
from gss.stages.run import Run
from tests.data.mseg_tree import TESTED, TRAINED, Tree, names


def made(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("name", [*TRAINED, *TESTED])
def test_every_pixel_becomes_its_class_of_the_set(name: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path, (name,))
    assert main(["mseg-labels", name, "--root", str(tmp_path)]) == 0
    for path, ids in tree.expected.items():
        label = made(path)
        assert label.dtype == np.uint8 and np.array_equal(label, ids), path
    record = json.loads((tmp_path / f"prepared/{name}.json").read_text())
    pixels = sum(sum(split["pixels"].values()) + split["ignored_pixels"] for split in record["labels"].values())
    assert pixels == 40 * 56 * len(tree.expected)
    assert sum(split["files"] for split in record["labels"].values()) == len(tree.expected)


@pytest.mark.parametrize("name", TRAINED)
def test_every_segment_of_the_records_is_relabelled(name: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path, (name,))
    expected = tree.relabel(name)
    assert main(["mseg-labels", f"{name}-relabeled", "--root", str(tmp_path)]) == 0
    for path, ids in expected.items():
        assert np.array_equal(made(path), ids), path
    record = json.loads((tmp_path / f"prepared/{name}-relabeled.json").read_text())
    assert sum(split["segments"] for split in record["relabelled"].values()) == 2 * len(expected)
    assert (tmp_path / f"prepared/{name}.json").is_file()  # made on the way


@pytest.mark.parametrize("name", SETS)
def test_tables_are_those_published(name: str, gss_data: Path) -> None:
    file = gss_data / "mseg" / "raw_remap.json"
    if not file.is_file():
        pytest.skip(f"no tables of MSeg at {file}")
    tables = json.loads(file.read_text())["tables"]
    found = SETS[name]
    pairs = [(f"{found.raw_classes}->{name}", semseg_table(name))] if found.kind != "given" else []
    pairs += [(f"{name}->{name}{RELABELLED}", relabelled_table(name))] if found.segments else []
    for key, table in pairs:
        published = tables[key]
        assert table.ids[: len(published)].tolist() == published
        assert set(table.ids[len(published) :].tolist()) == {-1, 255}  # never class 0
        assert name == "pascal-context-60" or table.ids[255] == 255


def test_numbers_of_labels_and_of_what_a_pass_draws() -> None:
    counts = [[part.labels for part in SETS[name].parts.values()] for name in (*TRAINED, *TESTED)]
    assert sum(train for train, _ in counts[:7]) == 178750
    assert counts[7:] == [[12031], [10103], [701], [70], [200], [24902]]
    data = load_experiment("mseg").data
    roots = [f"mseg_dataset/{SETS[name].folder}" for name in TRAINED]
    assert [source.root for source in (data, *data.sources)] == roots
    repeats = [source.repeat for source in (data, *data.sources)]
    lengths = [repeat * train for repeat, (train, _) in zip(repeats, counts[:7], strict=True)]
    assert lengths == [121260, 119000, 119000, 118287, 118881, 126000, 126840] and sum(lengths) == 849268


# ---- what is wrong is named


def only(folder: Path, pattern: str = "*.png") -> Path:
    """The first such file in a folder."""
    return sorted(folder.rglob(pattern))[0]


def wrong_id(root: Path) -> None:
    label = np.zeros((40, 56), np.uint8)
    label[:2, :3] = 77
    write_png(only(root / "KITTI/training/semantic"), label)


def wrong_id_of_16_bits(root: Path) -> None:
    label = np.zeros((40, 56), np.uint16)
    label[0, 0] = 460
    write_png(only(root / "PASCAL_Context/Segmentation_GT_460cls"), label)


def wrong_colour(root: Path) -> None:
    path = only(root / "Camvid/Labels32-RGB")
    colours = np.asarray(Image.open(path)).copy()
    colours[3, :4] = 1, 2, 3
    write_png(path, colours)


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def no_segment(root: Path) -> None:
    path = root / "COCOPanoptic/annotations/panoptic_val2017.json"
    change_json(path, lambda content: content["annotations"][0]["segments_info"].pop())


def no_category(root: Path) -> None:
    path = root / "COCOPanoptic/annotations/panoptic_val2017.json"
    change_json(path, lambda content: content["annotations"][0]["segments_info"][-1].update(category_id=12))


def strange_polygon(root: Path) -> None:
    change_json(only(root / "IDD", "*.json"), lambda content: content["objects"][0].update(label="spaceship"))


def no_category_of_16_bits(root: Path) -> None:
    path = root / "COCOPanoptic/annotations/panoptic_val2017.json"
    change_json(path, lambda content: content["annotations"][0]["segments_info"][-1].update(category_id=99999))


def polygon_without_label(root: Path) -> None:
    change_json(only(root / "IDD", "*.json"), lambda content: content["objects"][0].pop("label"))


def polygon_without_corners(root: Path) -> None:
    change_json(only(root / "IDD", "*.json"), lambda content: content["objects"][0].update(polygon=[[1, 2], [3]]))


def polygons_of_no_size(root: Path) -> None:
    change_json(only(root / "IDD", "*.json"), lambda content: content.pop("imgWidth"))


def damaged(root: Path) -> None:
    path = only(root / "ScanNet/scannet_frames_25k", "label/*.png")
    path.write_bytes(path.read_bytes()[:90])


def wrong_ids_made(root: Path) -> None:
    name = only(root / "WildDash/wd_val_01", "*Ids.png").name
    write_png(root / "WildDash/wd_val_19class" / name, np.full((9, 9), 19, np.uint8))


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        (
            "kitti-19",
            wrong_id,
            "training/semantic/000026_10.png: ids found that are no class of kitti-34: 77 (6 pixels); "
            "allowed: 0..33, 255",
        ),
        ("pascal-context-60", wrong_id_of_16_bits, "no class of pascal-context-460: 460 (1 pixels); allowed: 0..459,"),
        ("camvid-11", wrong_colour, "_L.png: colours found that are no class: (1, 2, 3) (4 pixels)"),
        ("coco-panoptic-133", no_segment, "000000000009.png: segments that the JSON does not name:"),
        ("coco-panoptic-133", no_category, "000000000009.png: categories that are no class: 12"),
        ("coco-panoptic-133", no_category_of_16_bits, "000000000009.png: categories that are no class: 99999"),
        ("idd-39", polygon_without_label, "_polygons.json: the file cannot be read: 'label' is missing"),
        ("idd-39", polygon_without_corners, "_polygons.json: the file cannot be read: not enough values to unpack"),
        ("idd-39", polygons_of_no_size, "_polygons.json: the file cannot be read: 'imgWidth' is missing"),
        ("idd-39", strange_polygon, "000000_gtFine_polygons.json: a polygon of 'spaceship', which is no class"),
        ("scannet-20", damaged, "the label cannot be decoded"),
        ("wilddash-19", wrong_ids_made, "ids found that are no class: 19 (81 pixels); remove it to have it made again"),
    ],
)
def test_labels_that_mean_nothing_are_named(
    name: str, spoil: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path, (name,))
    spoil(tmp_path)
    assert main(["mseg-labels", name, "--root", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert said in printed and f"1 labels of {name} cannot be made or used" in printed
    assert not (tmp_path / "prepared").exists()
    assert sum(path.exists() for path in tree.expected) >= len(tree.expected) - 1  # the others are made


def test_what_is_missing_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 1 folders") as error:
        prepare("camvid-11", tmp_path, 1)
    assert f"{tmp_path}/Camvid/Labels32-RGB/**/*_L.png" in str(error.value) and "mi.eng.cam.ac.uk" in str(error.value)
    with pytest.raises(DataError, match=r"seg/labels/train/\*\*/\*_train_id.png"):
        prepare("bdd-relabeled", tmp_path, 1)
    Tree(tmp_path, ("coco-panoptic-133",))
    (tmp_path / "COCOPanoptic/annotations/panoptic_train2017.json").unlink()
    with pytest.raises(DataError, match=r"(?s)cannot be read: No such file.*panoptic_train2017.json"):
        prepare("coco-panoptic-133", tmp_path, 1)
    (tmp_path / "COCOPanoptic/annotations/panoptic_train2017.json").write_text("{}")
    with pytest.raises(DataError, match=r"(?s)cannot be read: 'annotations' is missing.*panoptic_train2017.json"):
        prepare("coco-panoptic-133", tmp_path, 1)
    with pytest.raises(ConfigError, match="no set 'camvid' of MSeg's; there are: ade20k-150, ade20k-150-relabeled"):
        prepare("camvid", tmp_path, 1)


def test_a_record_tells_the_folder_of_all_sets() -> None:
    assert root_of(Path("/sets/prepared/bdd-relabeled.json")) == Path("/sets")
    for other in ("/sets/bdd.json", "/sets/prepared/mine.json", "/sets/prepared/bdd.txt", "/bdd.json"):
        assert root_of(Path(other)) is None


def test_relabelling_needs_the_records(tmp_path: Path) -> None:
    Tree(tmp_path, ("bdd",))
    with pytest.raises(DataError, match="git clone"):
        prepare("bdd-relabeled", tmp_path, 1)
    assert (tmp_path / "prepared/bdd.json").is_file() and not (tmp_path / "prepared/bdd-relabeled.json").exists()


GROUP = ("train", "person", "bicyclist")


@pytest.mark.parametrize(
    ("group", "lines", "said"),
    [
        (GROUP, ["atrain-00000000_11", "atrain-00000000_11"], "'atrain-00000000_11.jpg' is there a second time"),
        (("test", "person", "person"), [], "of a split 'test'; there are train, val"),
        (GROUP, ["nothing"], "'nothing.jpg' names no segment of bdd"),
        (GROUP, ["atrain-00000000_99"], "no segment 99 (atrain-00000000_99.jpg)"),
        (("train", "person", "horseman"), ["atrain-00000000_11"], "'horseman' is no class of bdd-relabeled"),
        (
            ("train", "sky", "unlabeled"),
            ["atrain-00000000_11"],
            "segment 11 (atrain-00000000_11.jpg) has other classes",
        ),
    ],
)
def test_records_that_do_not_fit_are_named(
    group: tuple[str, str, str], lines: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path, ("bdd",))
    write_png(tmp_path / "BDD/bdd100k/seg/labels/train/atrain-00000000_train_id.png", np.full((40, 56), 11, np.uint8))
    tree.write_records("bdd", {group: lines})
    assert main(["mseg-labels", "bdd-relabeled", "--root", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "prepared/bdd-relabeled.json").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: only(root / "mseg-api", "0.txt").unlink(), "a list of segments cannot be read: No such file"),
        (lambda root: only(root / "mseg-api", "*.py").write_text("bdd_update_records = ["), "was never closed"),
        (lambda root: only(root / "mseg-api", "*.py").write_text("x = []"), "no list ade20k_update_records"),
        (lambda root: only(root / "mseg-api", "*.py").write_text("ade20k_update_records = 3"), "no list of calls with"),
        (
            lambda root: only(root / "mseg-api", "*.py").write_text("ade20k_update_records = [f('ade20k', 'train')]"),
            "no list of calls with five texts each: not enough values",
        ),
        (
            lambda root: only(root / "ADE20K/ADE20K_2016_07_26").unlink(),
            "images/**/ADE_train_00000001_seg.png: the file with segments of ADE_train_00000001.png is missing",
        ),
        (
            lambda root: write_png(only(root / "ADE20K/ADE20K_2016_07_26"), np.zeros((80, 112, 3), np.uint8)),
            "no segment 12 (ADE_train_00000001_12.jpg)",
        ),
    ],
)
def test_files_of_records_that_are_missing_or_damaged_are_named(
    spoil: Callable[[Path], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Tree(tmp_path, ("ade20k-150",)).relabel("ade20k-150")
    spoil(tmp_path)
    assert main(["mseg-labels", "ade20k-150-relabeled", "--root", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_polygon_without_pixels_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One corner, or all outside of the image: as published; a number that no polygon has is an error."""
    tree = Tree(tmp_path, ("cityscapes-19",))
    tree.relabel("cityscapes-19")
    for path in tmp_path.glob("Cityscapes/gtFine/val/**/*.json"):
        change_json(path, lambda content: [each.update(polygon=each["polygon"][:1]) for each in content["objects"]])
    outside = [[900, 900], [950, 900], [950, 950]]
    for path in tmp_path.glob("Cityscapes/gtFine/train/**/*.json"):
        change_json(path, lambda content: [each.update(polygon=outside) for each in content["objects"]])
    assert main(["mseg-labels", "cityscapes-19-relabeled", "--root", str(tmp_path)]) == 0
    plain = relabelled_table("cityscapes-19")
    for path in tmp_path.glob("Cityscapes/gtFine_19cls/**/*.png"):
        made = Path(str(path).replace("gtFine_19cls", "gtFine_19cls_relabeled"))
        assert np.array_equal(read_native_label(made), plain.of(read_native_label(path)))
        made.unlink()
    for path in tmp_path.glob("Cityscapes/gtFine/val/**/*.json"):
        change_json(path, lambda content: content["objects"].clear())
    assert main(["mseg-labels", "cityscapes-19-relabeled", "--root", str(tmp_path)]) == 2
    assert "no segment" in capsys.readouterr().err


def test_what_differs_from_the_published_numbers_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree(tmp_path, ("bdd",))
    tree.write_records("bdd", {("val", "person", "bicyclist"): ["elsewhere_11"]})  # one is published, too
    prepare("bdd-relabeled", tmp_path, 1)
    said = capsys.readouterr().out
    assert "warning: bdd train has 3 labels, published are 7000" in said
    assert "train: 0 segments from person to bicyclist, published: 3" in said
    assert "val: 0 segments from person to bicyclist" not in said
    assert "bdd val: 1 segments are of images that are not there, e.g. elsewhere_11.jpg" in said
    record = json.loads((tmp_path / "prepared/bdd-relabeled.json").read_text())
    assert record["relabelled"] == {
        "train": {"segments": 0, "changed": 0, "without_label": 0},
        "val": {"segments": 1, "changed": 1, "without_label": 1},
    }


# ---- labels that are there


def test_labels_that_are_there_stay_and_damaged_ones_are_made_again(tmp_path: Path) -> None:
    tree = Tree(tmp_path, ("camvid-11",))
    prepare("camvid-11", tmp_path, 1)
    record = (tmp_path / "prepared/camvid-11.json").read_bytes()
    first, second, *_ = sorted(tree.expected)
    before = {path: path.stat().st_mtime_ns for path in tree.expected}
    first.write_bytes(first.read_bytes()[:80])
    second.unlink()
    prepare("camvid-11", tmp_path, 1)
    changed = {path for path in tree.expected if path.stat().st_mtime_ns != before[path]}
    assert changed == {first, second} and all(np.array_equal(made(path), ids) for path, ids in tree.expected.items())
    assert (tmp_path / "prepared/camvid-11.json").read_bytes() == record


def test_raw_labels_that_come_later_are_made_and_relabelled(tmp_path: Path) -> None:
    tree = Tree(tmp_path, ("ade20k-150",))
    relabelled = tree.relabel("ade20k-150")
    late = only(tmp_path / "ADE20K/ADEChallengeData2016/annotations/training")
    late.rename(tmp_path / "late.png")
    prepare("ade20k-150", tmp_path, 1)
    (tmp_path / "late.png").rename(late)
    prepare("ade20k-150-relabeled", tmp_path, 1)
    assert all(path.is_file() for path in (*tree.expected, *relabelled))


def test_labels_that_other_tools_made_need_no_raw_ones(tmp_path: Path) -> None:
    tree = Tree(tmp_path, ("sunrgbd-37",))
    tree.relabel("sunrgbd-37")
    prepare("sunrgbd-37-relabeled", tmp_path, 1)
    record = (tmp_path / "prepared/sunrgbd-37-relabeled.json").read_bytes()
    for folder in ("SUNRGBD/label38", "SUNRGBD/semseg-label37", "mseg-api", "prepared"):
        (tmp_path / folder).rename(tmp_path / f"away_{Path(folder).name}")
    prepare("sunrgbd-37-relabeled", tmp_path, 1)
    again = json.loads((tmp_path / "prepared/sunrgbd-37-relabeled.json").read_text())
    assert again["labels"] == json.loads(record)["labels"]


def test_who_was_killed_goes_on(tmp_path: Path) -> None:
    """In two processes; nothing that is there is half a label, and the record is that of one who was not."""
    straight, broken = (Tree(tmp_path / name, ("kitti-19",), {"train": 0, "val": 50}) for name in ("a", "b"))
    prepare("kitti-19", straight.root, 1)
    first = min(broken.expected, key=lambda path: path.name)
    for path in sorted((broken.root / "KITTI/training/semantic").iterdir()):
        picture = np.asarray(Image.open(path)).repeat(40, 0).repeat(40, 1)
        write_png(path, picture)  # large enough to be met at work
    command = [sys.executable, "-m", "gss", "mseg-labels", "kitti-19", "--root", str(broken.root), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while not first.exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    there = [path for path in broken.expected if path.exists()]
    assert 0 < len(there) < len(broken.expected) and not (broken.root / "prepared").exists()
    assert all(np.array_equal(made(path)[::40, ::40], broken.expected[path]) for path in there)
    before = {path: path.stat().st_mtime_ns for path in there}
    prepare("kitti-19", broken.root, 1)
    assert all(np.array_equal(made(path)[::40, ::40], ids) for path, ids in broken.expected.items())
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found, expected = (json.loads((tree.root / "prepared/kitti-19.json").read_text()) for tree in (broken, straight))
    pixels = {name: count * 1600 for name, count in expected["labels"]["all"]["pixels"].items()}
    assert found["labels"]["all"]["pixels"] == pixels and found["tables"] == expected["tables"]


# ---- all of them in one experiment

SMALL = {"backbone": {"name": "test_resnet"}, "steps": 2, "training": {"batch_size": 7, "warmup_steps": 1}}
EXPERIMENTS = Path(__file__).resolve().parents[2] / "config/experiments"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A project with MSeg's experiments, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    shutil.copytree(EXPERIMENTS, "config/experiments", ignore=lambda _, names: [n for n in names if "mseg" not in n])
    tree = Tree(tmp_path / "sets/mseg_dataset")
    tree.lists()
    return tree


def write_tiny(tree: Tree, base: str) -> None:
    """Write an experiment of this name on another one."""
    content = {**tree.experiment(base), "pixel": SMALL, "augment": {"base_scale": [56, 40], "crop": [32, 32]}}
    Path("config/experiments/tiny.yaml").write_text(yaml.safe_dump(content))


def test_all_sets_are_one_in_universal_classes(project: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(project, "mseg")
    expected = {}
    for name in TRAINED:
        expected |= {path: (names(f"{name}-relabeled"), ids) for path, ids in project.relabel(name).items()}
    assert main(["check", "tiny"]) == 2
    said = capsys.readouterr().err
    record = project.root / "prepared/ade20k-150-relabeled.json"
    assert (
        f"gss mseg-labels ade20k-150-relabeled --root {project.root}" in said and f"snakemake -c all {record}" in said
    )
    assert [each.found for each in inputs_of("tiny") if each.state == "FAIL"] == []  # the doctor's view
    made_for_training = [f"{name}-relabeled" for name in TRAINED]
    made_for_tests = [name for name in TESTED if name != "voc2012"]
    assert main(["mseg-labels", *made_for_training, *made_for_tests]) == 0
    assert main(["check", "tiny"]) == 0
    run = Run.open("tiny")
    universal = run.space.names
    pairs = [*run.manifest.pairs("train"), *run.manifest.pairs("val")]
    assert len(pairs) == 7 * (3 + 2)
    repeats = {source.root.name: source.repeat for source in run.manifest.sources}
    assert list(repeats.values()) == [6, 17, 40, 1, 17, 7, 24]
    for pair in pairs:
        classes, ids = expected[pair.label]
        table = np.array([*(universal.index(each) for each in classes), *[255] * (256 - len(classes))])
        assert np.array_equal(pair.read_label(), table[ids]), pair.label
        assert pair.read_image().shape == (40, 56, 3)
    for name in TESTED:
        (found,) = [read_manifest(run.folder / layout.of_set(name)[0]).at(project.root.parent / root(name), Path())]
        pairs = [*found.pairs("val")]
        assert len(pairs) == 2
        for pair in pairs:
            assert np.array_equal(pair.read_label(), project.expected[pair.label])
    inputs = json.loads((run.folder / "records/check.json").read_text())["inputs"]
    assert any(key.endswith("prepared/sunrgbd-37-relabeled.json") for key in inputs)
    inputs = json.loads((run.folder / "records/set_kitti-19.json").read_text())["inputs"]
    assert any(key.endswith("prepared/kitti-19.json") for key in inputs)
    assert any(key.endswith("lists/kitti-19.txt") for key in inputs)


def root(name: str) -> str:
    return f"mseg_dataset/{SETS[name].folder}"


KINDS = ("unrelabelled", "naive", "single_*", "oracle_*")
OTHERS = [path.stem for kind in KINDS for path in sorted(EXPERIMENTS.glob(f"mseg_{kind}.yaml"))]


@pytest.mark.parametrize("base", OTHERS)
def test_other_experiments_find_their_labels(base: str, project: Tree) -> None:
    write_tiny(project, base)
    data = load_experiment("tiny").data
    for name in TRAINED:
        project.relabel(name)
    records = [Path(source.prepared) for source in (data, *data.sources) if source.prepared]
    assert main(["mseg-labels", *(record.stem for record in records), "bdd"]) == 0
    assert main(["check", "tiny", "--only", "data"]) == 0
    run = Run.open("tiny")
    assert all(source.counts["val"] == 2 and source.counts["train"] in (1, 3) for source in run.manifest.sources)
    for pair in run.manifest.pairs("train"):
        ids = pair.read_label()
        if base == "mseg_naive":
            (name,) = [each for each in TRAINED if project.root / SETS[each].folder in pair.label.parents]
            classes = [*map(str.lower, names(name)), *[""] * 256]
            table = np.array([run.space.names.index(each) if each else 65535 for each in classes])
            assert np.array_equal(ids, table[project.expected[pair.label]])
        elif base.startswith("mseg_oracle"):
            assert np.array_equal(ids, project.expected[pair.label])
        assert ids.max() < run.space.num_classes or ids.max() == run.space.ignore_index
