"""Test sets with classes of their own, through the commands: what is checked, measured, summed up and shown."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gss
from gss import workflow
from gss.cli import main
from gss.config import find_recipe, load_experiment
from gss.data.images import read_native_label, write_png
from gss.data.metrics import h_mean
from gss.errors import ConfigError
from gss.results.reader import Results
from gss.tracking import overview
from tests.stages.village import (
    FOLDERS,
    MODEL,
    VILLAGE,
    ending,
    in_set,
    metrics,
    run,
    trained,
    write,
)


def recounted(project: Path, table: np.ndarray, name: str) -> np.ndarray:
    """[label, prediction] of the set, 255 in the last column, by the model as a user has it, and a table."""
    model = gss.load("results/mine/pixel.pth")
    counts = np.zeros((3, 4), np.int64)
    for path in sorted((project / "sets/village/photos").iterdir()):
        label = read_native_label(project / "sets/village/labels" / path.name)
        found = table[model.predict(path)]
        kept = read_native_label(next((MODEL / name / "predictions").glob(f"*{path.stem}.png")))
        assert np.array_equal(found, kept)
        scored = label < 3
        np.add.at(counts, (label[scored], np.minimum(found[scored], 3)), 1)
    return counts


def test_predictions_become_classes_of_the_set(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(lambda content: content["evaluation"]["sets"].update(hard={**VILLAGE, "prediction": "hard"}))
    trained()
    assert "warning: no class of the model becomes animal: never predicted" in capsys.readouterr().out
    run("evaluate", "mine")
    for name, table in {"village": [0, 1, 255], "hard": [0, 1, 0]}.items():
        counts = recounted(project, np.array(table, np.uint8), name)
        with np.load(MODEL / name / "confusion.npz") as arrays:
            width = 4 if name == "village" else 3
            assert np.array_equal(arrays["confusion"], counts[:, :width]) and not counts[:, width:].any()
            assert np.array_equal(arrays["labelled"].sum(0), counts.sum(1))
            assert np.array_equal(arrays["predicted"].sum(0), counts[:, :3].sum(0))
        right, either = np.diag(counts), counts.sum(1) + counts[:, :3].sum(0) - np.diag(counts)
        found = metrics(name)
        assert list(found["IoU"]) == VILLAGE["classes"]
        assert list(found["IoU"].values()) == pytest.approx(right / either)
        assert found["mIoU"] == pytest.approx((right / either).mean())
        assert found["aAcc"] == pytest.approx(right.sum() / counts.sum())
        assert found["protocol"]["mapping"] == {"road": "ground", "car": "vehicle", "person": None}
    assert metrics("village")["protocol"]["prediction"] == "hard_ignore"
    assert (MODEL / "village/pictures/00001_v1.png").is_file()


def test_figures_on_splits_know_nothing_of_sets(project: Path) -> None:
    trained()
    run("evaluate", "mine", "--split", "val")
    alone = (MODEL / "val/metrics.json").read_bytes()
    write(lambda content: content["evaluation"].pop("sets"))
    trained()
    run("evaluate", "mine")
    assert not (MODEL / "summary.json").exists() and not (MODEL / "village").exists()
    assert {**json.loads((MODEL / "val/metrics.json").read_text()), "model": 0} == {**json.loads(alone), "model": 0}
    assert not {"sets", "prediction", "absent", "mapping"} & metrics("val")["protocol"].keys()


def test_the_summary_is_over_all_sets(project: Path) -> None:
    write(lambda content: content["evaluation"]["sets"].update({"other-2": {**VILLAGE, "prediction": "soft"}}))
    trained()
    run("evaluate", "mine")
    summary = json.loads((MODEL / "summary.json").read_text())
    figures = {name: metrics(name)["mIoU"] for name in ("village", "other-2")}
    assert {name: found["mIoU"] for name, found in summary["sets"].items()} == figures
    assert (
        summary["h_mean"] == pytest.approx(h_mean(list(figures.values()))) and summary["model"]["file"] == "pixel.pth"
    )
    rows = list(csv.DictReader((MODEL / "summary.csv").read_text().splitlines()))
    assert [row["set"] for row in rows] == ["village", "other-2", "h_mean"]
    assert float(rows[2]["mIoU"]) == summary["h_mean"]


@pytest.mark.parametrize("miou", [None, 0.0])
def test_a_set_without_figures_has_no_harmonic_mean(
    miou: float | None, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(lambda content: content["evaluation"]["sets"].update(other=VILLAGE))
    trained()
    run("evaluate", "mine")
    content = metrics("village")
    (MODEL / "village/metrics.json").write_text(json.dumps({**content, "mIoU": miou}))
    run("summary", "mine")
    summary = json.loads((MODEL / "summary.json").read_text())
    assert summary["h_mean"] is None and summary["without_h_mean"] == ["village"]
    assert f"no harmonic mean: the mIoU of village is {miou}" in capsys.readouterr().out
    run("report", "mine")
    assert "none: the mIoU of village is" in Path("results/mine/report.html").read_text()


def test_figures_on_test_sets_alone_are_reported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    run("evaluate", "mine", "--split", "village")
    run("report", "mine")
    said = capsys.readouterr().out
    assert f"{100 * metrics('village')['mIoU']:.2f}" in said and "nothing evaluated" not in said
    assert "results/mine/evaluation/pixel/village/per_class.csv" in said and (MODEL / "village/per_class.csv").is_file()


def test_photographs_that_the_model_was_trained_on_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = project / "sets/village/photos/v1.png"
    shutil.copy(project / "sets/city/images/train/2.png", same)
    shutil.copy(project / "sets/city/images/val/2.png", project / "sets/village/photos/v2.png")  # not trained on
    run("check", "mine")
    told = "1 images of village are in the training data, which makes its figures too high: photos/v1.png"
    assert f"warning: {told}" in capsys.readouterr().out
    run("train", "pixel", "mine")
    run("evaluate", "mine")
    assert f"warning: {told}" in capsys.readouterr().out
    assert metrics("village")["trained_on"] == ["photos/v1.png"] and "trained_on" not in metrics("val")
    run("report", "mine")
    assert "photos/v1.png" in Path("results/mine/report.html").read_text().split('id="sets"')[1].split("</section>")[0]


def test_a_set_is_measured_where_the_training_data_are_not(project: Path) -> None:
    shutil.copy(project / "sets/city/images/train/2.png", project / "sets/village/photos/v1.png")
    trained()
    shutil.rmtree(project / "sets/city")
    run("check", "mine", "--only", "village")
    run("evaluate", "mine", "--split", "village")
    assert metrics("village")["trained_on"] == ["photos/v1.png"]  # its hashes say it


def test_a_shipped_list_of_classes_needs_no_training_data(project: Path) -> None:
    (project / "sets/few.csv").write_text("native,common\nRoad,ground\n")

    def change(content: dict) -> None:
        content["data"].update(root="elsewhere", classes="mseg/camvid-11")
        in_set(model_mapping={}, model_taxonomy={"file": "few.csv"})(content)

    write(change)
    run("check", "mine", "--only", "village")


def test_sets_measured_with_different_models_are_not_summed_up(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(lambda content: content["evaluation"]["sets"].update(other=VILLAGE))
    trained()
    run("evaluate", "mine")
    content = metrics("other")
    content["model"]["sha256"] = "0" * 64
    (MODEL / "other/metrics.json").write_text(json.dumps(content))
    before = (MODEL / "summary.json").read_bytes()
    assert main(["summary", "mine"]) == 2
    assert "other was measured with another pixel.pth than village" in capsys.readouterr().err
    assert (MODEL / "summary.json").read_bytes() == before


def test_labels_become_ids_as_those_of_a_source(project: Path) -> None:
    """Painted labels with classes of their own lead to the same figures as ids."""
    trained()
    run("evaluate", "mine")
    counts = np.load(MODEL / "village/confusion.npz")["confusion"]
    paint = np.array([(9, 9, 9), (200, 0, 0), (0, 200, 0), (0, 0, 0)], np.uint8)
    for path in (project / "sets/village/labels").iterdir():
        write_png(path, paint[np.minimum(read_native_label(path), 3)])
    table = "name,r,g,b\nlawn,9,9,9\nvehicle,200,0,0\nanimal,0,200,0\nvoid,0,0,0\n"
    (project / "sets/village/colours.csv").write_text(table)
    mapping = {"lawn": "ground", "void": "ignore"}
    write(in_set(encoding="colours", native_classes="colours.csv", mapping=mapping))
    run("check", "mine", "--only", "village")
    run("evaluate", "mine", "--split", "village")
    assert np.array_equal(np.load(MODEL / "village/confusion.npz")["confusion"], counts)
    becomes = json.loads(Path("results/mine/data/sets/village/statistics.json").read_text())["becomes"]["village"]
    assert [(row["name"], row["becomes"]) for row in becomes][:2] == [("lawn", "ground"), ("vehicle", "vehicle")]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_mapping": {"road": "ground", "car": "vehicle"}}, "nothing says what becomes of 1 of 3 classes of the"),
        ({"model_mapping": {"raod": "ground"}}, "`model_mapping` names 'raod', which is no class of the model"),
        ({"model_mapping": {"road": "grund", "car": "vehicle", "person": "animal"}}, "did you mean 'ground'?"),
        ({"model_taxonomy": {"file": "none.csv"}}, "the taxonomy cannot be read"),
        ({"root": "nowhere"}, "folder of the evaluation set 'nowhere'"),
        ({"classes": ["ground", "vehicle"]}, "ids found that are no class: 2"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    keys: dict, said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(in_set(**keys))
    assert main(["check", "mine", "--only", "village"]) == 2
    assert said in capsys.readouterr().err
    listed = Path("results/mine/data/sets/village/faults.txt")
    assert listed.is_file() == ("no class: 2" in said)
    assert not list(Path("results").rglob("manifest.json")) and not list(Path("results").rglob("taxonomy.csv"))


def test_a_table_names_the_classes_that_have_a_target(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of many classes is tested on a few: those that the table leaves out have no target, and are told."""
    (project / "sets/few.csv").write_text("native,common\nroad,ground\nlorry,vehicle\n")
    write(in_set(model_mapping={}, model_taxonomy={"file": "few.csv"}))
    run("check", "mine", "--only", "village")
    said = capsys.readouterr().out
    assert "2 of 3 classes of the model have no target: car, person" in said
    assert "no class of the model becomes vehicle, animal: never predicted" in said
    with (project / "results/mine/data/sets/village/taxonomy.csv").open(newline="") as file:
        assert next(csv.DictReader(file)) == {"model": "road", "set": "ground"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["evaluation"]["sets"].update(test=VILLAGE), "'test' cannot be the name of a set"),
        (lambda c: c["evaluation"]["sets"].update(a_b=VILLAGE), "'a_b' cannot be the name of a set"),
        (in_set(splits=FOLDERS), "a set has one split"),
        (in_set(repeat=2), "`repeat` is of trainings"),
        (in_set(prediction="softly"), "prediction"),
        (in_set(mapping={"a": "b"}), "`mapping` and `taxonomy` are of `native_classes`"),
    ],
)
def test_keys_that_mean_nothing_are_refused(project: Path, change: Callable[[dict], object], said: str) -> None:
    write(change)
    with pytest.raises(ConfigError, match=said):
        load_experiment("mine")


def test_an_unknown_set_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine", "--only", "vilage"]) == 2
    assert "no set 'vilage'; there are: data, village" in capsys.readouterr().err
    assert ending("evaluate", "mine", "--split", "vilage") == 2
    assert "has no split 'vilage'" in capsys.readouterr().err


def test_a_model_of_other_classes_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    write(lambda content: content["data"].update(classes=["road", "person", "car"]))
    run("check", "mine")
    capsys.readouterr()
    assert ending("evaluate", "mine", "--split", "village") == 2
    assert "class 1 is 'car' there, 'person' here" in capsys.readouterr().err


# ---- what depends on what


def test_a_set_is_a_matter_of_its_own_evaluation(project: Path) -> None:
    plain = load_experiment("mine", ["evaluation.sets={}"])
    one = load_experiment("mine")
    two = load_experiment("mine", ["evaluation.sets.village.absent=zero"])
    stages = [row.name for row in one.kind.stages if row.name != "summary"]
    assert [one.slice(name) for name in stages] == [plain.slice(name) for name in stages]
    assert one.protocol() == plain.protocol()
    assert plain.slice("summary") == {"version": 1}
    assert one.slice("evaluate", "val") == one.slice("evaluate")
    assert one.slice("evaluate", "village") != two.slice("evaluate", "village")
    assert one.slice("check", "village") == two.slice("check", "village")
    assert one.slice("check", "village") != load_experiment("mine", ["data.classes=[a, b, c]"]).slice(
        "check", "village"
    )
    assert len({plain.sha256, one.sha256, two.sha256}) == 3


def test_the_rules_ask_for_every_set(project: Path) -> None:
    workflow.find_experiment.cache_clear()
    wildcards = SimpleNamespace(experiment="mine", model="pixel", split="village")
    assert workflow.report_inputs(wildcards) == [
        f"results/mine/evaluation/pixel/{file}" for file in ("val/metrics.json", "village/metrics.json", "summary.json")
    ]
    assert workflow.evaluation_inputs(wildcards) == [
        f"results/mine/{file}"
        for file in ("pixel.pth", "data/sets/village/manifest.json", "data/sets/village/taxonomy.csv")
    ]
    assert "village" in workflow.split_names().split("|")
    workflow.find_experiment.cache_clear()


def test_results_say_what_their_sets_were(project: Path) -> None:
    """A setting that is changed later is not taken for that of the figures."""
    trained()
    run("evaluate", "mine")
    write(in_set(absent="zero"))
    results = Results(Path("results/mine"))
    assert results.setting("evaluation.sets.village.absent") == "nan"
    assert any("evaluation.sets.village.absent" in note for note in results.notes())
    run("evaluate", "mine")
    assert Results(Path("results/mine")).setting("evaluation.sets.village.absent") == "zero"


def test_a_set_that_is_added_is_in_the_configuration_of_the_results(project: Path) -> None:
    """Also where a split was measured before, whose record knows nothing of it, and nothing is summed up yet."""
    write(lambda content: content["evaluation"].pop("sets"))
    trained()
    run("evaluate", "mine")
    write(lambda content: content["evaluation"].update(sets={"alps": VILLAGE}))
    run("check", "mine", "--only", "alps")
    run("evaluate", "mine", "--split", "alps")  # its record comes before that of `val`
    assert Results(Path("results/mine")).setting("evaluation.sets.alps.root") == "village"
    assert not Results(Path("results/mine")).notes()


# ---- pages


def test_the_report_shows_sets_and_the_harmonic_mean(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    run("evaluate", "mine")
    capsys.readouterr()
    run("report", "mine")
    said = capsys.readouterr().out
    assert "test sets" in said and "h_mean" in said
    page = Path("results/mine/report.html").read_text()
    assert '<h2 id="sets">Test sets</h2>' in page and "without target: person" in page and "<b>h_mean</b>" in page
    assert "Not here" not in page.split('id="sets"')[1].split("</section>")[0]
    assert Path("results/mine/report_pictures/pixel/village/00001_v1.png").is_file()
    record = json.loads(Path("results/mine/records/report.json").read_text())
    assert {f"evaluation/pixel/{file}" for file in ("village/metrics.json", "summary.json")} <= record["inputs"].keys()


def test_a_report_of_sets_that_were_not_measured_says_how(project: Path) -> None:
    trained()
    run("evaluate", "mine", "--split", "val")
    run("report", "mine")
    assert "snakemake results/mine/evaluation/pixel/summary.json" in Path("results/mine/report.html").read_text()


def test_seeds_have_a_mean_on_every_set(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(lambda content: content.update(seeds=[1, 2]))
    for name in ("mine/seed_1", "mine/seed_2"):
        for words in (("check", name), ("train", "pixel", name), ("evaluate", name)):
            run(*words)
    capsys.readouterr()
    run("report", "mine")
    assert "village" in (said := capsys.readouterr().out) and "h_mean" in said
    with Path("results/mine/seeds.csv").open() as file:
        rows = {(row["split"], row["figure"]): row for row in csv.DictReader(file)}
    each = [
        json.loads(Path(f"results/mine/seed_{n}/evaluation/pixel/summary.json").read_text())["h_mean"] for n in (1, 2)
    ]
    assert float(rows["all sets", "h_mean"]["mean"]) == pytest.approx(sum(each) / 2)
    assert float(rows["village", "mIoU"]["mean"]) == pytest.approx(sum(each) / 2)  # there is one set
    page = Path("results/mine/report.html").read_text()
    assert "IoU of classes on village" in page and "h_mean of test sets" in page


def test_mlflow_is_told_of_sets(project: Path) -> None:
    trained()
    run("evaluate", "mine")
    journals = sorted(Path("results/mine/work").glob("*/journal.jsonl"))
    told = overview.tell(journals, find_recipe("pixel"))
    config = told[0].config
    points = overview.figures(overview.behind(told, config), {}, config, find_recipe("pixel"))
    values = {point.name: point.value for point in overview.of_parent(points, find_recipe("pixel"))}
    assert values["village/mIoU"] == metrics("village")["mIoU"]
    assert values["h_mean"] == json.loads((MODEL / "summary.json").read_text())["h_mean"]
    assert not [name for name in values if name.startswith("village/iou")] and "val/iou/road" in values
    said = overview.description(points, find_recipe("pixel"), report=False, model=None)
    assert "| Pixel | village | " in said and "| Pixel | all sets | h_mean " in said


def test_a_set_that_is_added_stands_beside_what_was_measured_before(project: Path) -> None:
    trained()
    run("evaluate", "mine")
    write(lambda content: content["evaluation"]["sets"].update(late={**VILLAGE, "prediction": "soft"}))
    run("check", "mine", "--only", "late")
    run("evaluate", "mine", "--split", "late")
    run("summary", "mine")
    told = overview.tell(sorted(Path("results/mine/work").glob("*/journal.jsonl")), find_recipe("pixel"))
    stages = overview.behind(told, load_experiment("mine").sha256)
    assert {f"evaluate_pixel_{name}" for name in ("val", "village", "late")} <= stages.keys()


@pytest.mark.parametrize("absent", ["nan", "zero"])
def test_runs_are_compared_on_a_set(absent: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: dict) -> None:
        classes = [*VILLAGE["classes"], "unicorn"]
        content["evaluation"]["sets"]["village"].update(absent=absent, classes=classes)

    write(change)
    write(lambda content: (change(content), content.update(seed=5)), name="other")
    for name in ("mine", "other"):
        for words in (("check", name), ("train", "pixel", name), ("evaluate", name)):
            run(*words)
    run("compare", "mine", "other", "--split", "village", "-o", "compared")
    other = json.loads(Path("results/other/evaluation/pixel/village/metrics.json").read_text())
    text = Path("compared/summary.csv").read_text()
    assert str(round(other["mIoU"], 6))[:6] in text
    assert "village, 3 images" in capsys.readouterr().out
    assert "is not the one the figures are of" not in Path("compared/index.html").read_text()


# ---- real photographs

STREET = {
    "root": "wild/bdd100k",
    "splits": {"val": {"images": "images/val", "labels": "labels/val"}},
    "classes": ["road", "sidewalk", "building", "barrier", "pole_sign", "vegetation", "sky", "human", "vehicle"],
    "native_classes": "classes.csv",
    "taxonomy": {"file": "wild/street_classes.csv", "native": "source_name", "common": "coarse10"},
    "mapping": {"motorcycle": "ignore", "bicycle": "ignore"},
    "model_taxonomy": {"file": "wild/street_classes.csv", "native": "source_name", "common": "coarse10"},
    "prediction": "soft",
}
STREET["taxonomy"]["rows"], STREET["model_taxonomy"]["rows"] = {"dataset": "bdd100k"}, {"dataset": "camvid"}


@pytest.mark.slow
def test_a_camvid_model_is_measured_on_bdd100k(gss_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (gss_data / "wild" / "bdd100k").is_dir() or not (gss_data / "camvid").is_dir():
        pytest.skip(f"no camvid and wild/bdd100k in {gss_data}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(gss_data))

    def change(content: dict) -> None:
        content["data"] = {"root": "camvid", "classes": "classes.csv", "label_map": {11: "ignore"}, "splits": FOLDERS}
        hard = {**STREET, "prediction": "hard"}
        content["evaluation"] = {"splits": ["val"], "scale": [240, 180], "sets": {"soft": STREET, "hard": hard}}

    write(change)
    trained()
    for name in ("soft", "hard"):
        run("evaluate", "mine", "--split", name)
    run("summary", "mine")
    assert metrics("soft")["protocol"]["mapping"]["SignSymbol"] == "pole_sign" and metrics("soft")["images"] == 8
    assert json.loads((MODEL / "summary.json").read_text())["sets"].keys() == {"soft", "hard"}
