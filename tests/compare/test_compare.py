"""What is compared, what is refused, and what is written."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made import NAMES, Made

from gss.cli import main
from gss.compare.compare import compare
from gss.compare.images import ONLY_BASELINE, ONLY_RUN, most_different, show
from gss.compare.runs import changed_settings, read_runs, warnings
from gss.errors import GssError
from gss.evaluate.inference import Inference


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two runs of experiment a, one of b that lists its classes in another order; tests leave them as they are."""
    made = Made(tmp_path_factory.mktemp("compare"))
    made.run("a/gss_ff", 0.3)
    made.run("a/gss_ft", 0.2, seed=2)
    made.run("b/gss_ft", 0.2, seed=2, order=[2, 0, 3, 1], overrides=["seed=7", "run.log_every=3"])
    return made


@pytest.fixture
def changed(finished: Made, tmp_path: Path) -> Made:
    """A copy that a test may spoil."""
    made = Made(tmp_path)
    shutil.copytree(finished.results, made.results)
    return made


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_tables_hold_the_figures_of_the_evaluations(finished: Made, tmp_path: Path) -> None:
    compare(["a/gss_ff", "a", "b"], split=None, output=tmp_path, results=finished.results)
    metrics = {
        name: json.loads((finished.results / name / "metrics.json").read_text())
        for name in ("a/evaluation/gss_ff/test", "a/evaluation/gss_ft/test")
    }
    baseline, run = metrics.values()
    first, second = rows(tmp_path / "summary.csv")[:3], rows(tmp_path / "summary.csv")[3:]
    assert [row["name"] for row in first] == ["mIoU", "mAcc", "aAcc"]
    for row in first:
        assert (row["baseline"], row["run"]) == ("a/gss_ff", "a/gss_ft")
        assert float(row["baseline_value"]) == pytest.approx(baseline[row["name"]], abs=1e-12)
        assert float(row["difference"]) == pytest.approx(run[row["name"]] - baseline[row["name"]], abs=1e-12)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    classes = rows(tmp_path / "per_class.csv")
    assert {row["class"] for row in classes[:4]} == set(NAMES)
    labels = np.stack(finished.labels)
    for row in classes[:4]:
        assert float(row["run_value"]) == pytest.approx(run["IoU"][row["class"]], abs=1e-12)
        of_class = labels == NAMES.index(row["class"])
        assert (int(row["pixels"]), int(row["images"])) == (of_class.sum(), of_class.any((1, 2)).sum())
    # b predicts what a/gss_ft does, under other ids: classes are matched by name.
    unnamed = [[{**row, "run": ""} for row in part] for part in (first, second)]
    assert unnamed[0] == unnamed[1]
    assert [{**row, "run": ""} for row in classes[:4]] == [{**row, "run": ""} for row in classes[4:]]


@pytest.mark.parametrize("names", [["a/gss_ff", "a"], ["a", "a/gss_ff"]])
def test_classes_are_sorted_by_the_size_of_gain_or_loss(finished: Made, tmp_path: Path, names: list[str]) -> None:
    compare(names, split=None, output=tmp_path, results=finished.results)
    sizes = [abs(float(row["difference"])) for row in rows(tmp_path / "per_class.csv")]
    assert sizes == sorted(sizes, reverse=True)


def test_pictures_tell_who_is_right(finished: Made) -> None:
    baseline, run = (each.first for each in read_runs(["a/gss_ff", "b"], None, finished.results))
    chosen = most_different(baseline, run)
    gains = [run.counts.intersection[i].sum() - baseline.counts.intersection[i].sum() for i in chosen]
    assert max(gains) > 0 > min(gains)
    assert gains == sorted([gain for gain in gains if gain > 0], reverse=True) + sorted(
        gain for gain in gains if gain < 0
    )
    shown = show(baseline, run, chosen[0], np.zeros((4, 3), np.uint8))
    pictures = dict(shown.pictures)
    label = finished.labels[chosen[0]]
    who = np.asarray(pictures["who is right"])
    scored = (label != 255).sum()
    for place, colour in ((1, ONLY_RUN), (2, ONLY_BASELINE)):
        assert (who == colour).all(2).sum() / scored == pytest.approx(shown.who[place])
    assert sum(shown.who) == pytest.approx(1)
    assert shown.who[0] + shown.who[1] == pytest.approx(shown.run)
    assert shown.who[0] + shown.who[2] == pytest.approx(shown.baseline)


def test_calibration_is_compared_where_all_have_it(changed: Made, tmp_path: Path) -> None:
    before = compare(["a/gss_ff", "a"], split=None, output=tmp_path, results=changed.results)
    assert "ECE" not in before and 'id="calibration"' not in (tmp_path / "index.html").read_text()
    for model, ece in (("gss_ff", 0.25), ("gss_ft", 0.125)):
        path = changed.results / f"a/evaluation/{model}/test/metrics.json"
        found = json.loads(path.read_text()) | {"ECE": ece, "errors_in_most_uncertain_tenth": None}
        path.write_text(json.dumps(found))
    said = compare(["a/gss_ff", "a"], split=None, output=tmp_path, results=changed.results)
    assert re.search(r"ECE +25\.00 +12\.50 +-12\.50", said) and "most uncertain" not in said
    page = (tmp_path / "index.html").read_text()
    assert page.count("<th>ECE</th>") == 1 and "<td>12.50</td><td>−12.50</td>" in page
    assert "ECE" not in compare(["a", "b"], split=None, output=tmp_path, results=changed.results)  # b has none


def test_settings_that_change_no_result_are_no_difference(finished: Made) -> None:
    assert changed_settings(read_runs(["a", "b"], None, finished.results)) == [("seed", ["0", "7"])]
    assert changed_settings(read_runs(["a", "a/gss_ff"], None, finished.results)) == []


def test_seeds_of_an_experiment_are_one_run_with_mean_and_spread(changed: Made, tmp_path: Path) -> None:
    for seed, errors in ((10, 0.1), (0, 0.3), (2, 0.2)):
        changed.run(f"m/seed_{seed}/gss_ft", errors, seed=seed, overrides=[f"seed={seed}"])
    first, run = read_runs(["a", "m"], None, changed.results)
    assert [each.name for each in run.seeds] == [f"m/seed_{seed}/gss_ft" for seed in (0, 2, 10)]
    assert ("seed", ["0", "0, 2, 10"]) in changed_settings([first, run])
    text = compare(["a", "m"], split=None, output=tmp_path, results=changed.results)
    assert "m/gss_ft against a/gss_ft" in text and "± standard deviation over seeds" in text
    values = [each.evaluation.metrics["mIoU"] for each in run.seeds]
    (row, *_) = rows(tmp_path / "summary.csv")
    assert float(row["run_value"]) == pytest.approx(np.mean(values))
    assert float(row["run_spread"]) == pytest.approx(np.std(values, ddof=1)) and row["baseline_spread"] == ""
    assert f"{100 * np.mean(values):.2f} ±{100 * np.std(values, ddof=1):.2f}" in text
    page = (tmp_path / "index.html").read_text()
    assert "3 seeds" in page and "of a/gss_ft and m/seed_0/gss_ft" in page
    one = read_runs(["a", "m/seed_2"], None, changed.results)[1]
    assert one.name == "m/seed_2/gss_ft" and len(one.seeds) == 1


def test_a_seed_that_was_measured_otherwise_is_a_warning(changed: Made) -> None:
    changed.run("m/seed_0/gss_ft", 0.2)
    changed.run("m/seed_1/gss_ft", 0.2, inference=Inference("slide", (32, 32), (16, 16), None, True))
    (found,) = warnings(read_runs(["a", "m"], None, changed.results))
    assert "m/seed_1/gss_ft was evaluated by another protocol than a/gss_ft: mode whole → slide" in found


def test_another_protocol_is_a_warning(changed: Made) -> None:
    changed.run("c/gss_ft", 0.2, inference=Inference("slide", (32, 32), (16, 16), None, True))
    changed.run("d/gss_ft", 0.2, seed=2)
    assert warnings(read_runs(["a/gss_ff", "a"], None, changed.results)) == []
    (found,) = warnings(read_runs(["a", "c"], None, changed.results))
    assert "c/gss_ft was evaluated by another protocol than a/gss_ft: mode whole → slide" in found
    text = compare(["a", "c"], split=None, output=None, results=changed.results)
    assert text.startswith(f"warning: {found}")
    page = (changed.results / "comparisons/a.gss_ft_vs_c.gss_ft/index.html").read_text()
    assert "mode whole → slide" in page


def test_other_images_of_the_same_data_set_are_refused_by_number(changed: Made) -> None:
    other = [{**row, "image_sha256": "0" * 64} if index < 5 else row for index, row in enumerate(changed.rows)]
    changed.run("c/gss_ft", 0.2, rows=other)
    with pytest.raises(GssError, match=r"different images: 12 and 12, of which 7 are the same"):
        read_runs(["a", "c"], None, changed.results)


def test_the_same_test_images_of_another_data_set_are_compared(changed: Made) -> None:
    """Another manifest (here another root and class order) is no hindrance: what counts are images and labels."""
    first, other = (each.first for each in read_runs(["a", "b"], None, changed.results))
    assert first.evaluation.metrics["data"] != other.evaluation.metrics["data"]
    assert (first.counts.labelled == other.counts.labelled).all()


def test_other_classes_are_refused_by_name(changed: Made) -> None:
    changed.names = ("sky", "road", "car", "lamp")
    changed.run("c/gss_ft", 0.2)
    with pytest.raises(GssError, match=r"only c/gss_ft has lamp; only a/gss_ft has pole"):
        read_runs(["a", "c"], None, changed.results)


def test_labels_read_differently_are_refused(changed: Made) -> None:
    changed.labels[3] = np.where(changed.labels[3] == 1, 2, changed.labels[3])
    changed.run("c/gss_ft", 0.2)
    with pytest.raises(GssError, match="read the same label files differently: image 3 has 0 against"):
        read_runs(["a", "c"], None, changed.results)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "two or more different runs"),
        (["a", "a/gss_ft"], "two or more different runs are compared, not: a/gss_ft, a/gss_ft"),
        (["a", "b/gss_ff"], "b/gss_ff was not evaluated on test; of b there is: gss_ft on test"),
        (["a", "z"], "z/gss_ft was not evaluated on test; of z there is: nothing"),
        (["a", "results/b"], "'results/b' is no run"),
        (["a", "b/"], "'b/' is no run"),
    ],
)
def test_a_wrong_name_is_one_clear_message(
    finished: Made, capsys: pytest.CaptureFixture[str], names: list[str], message: str
) -> None:
    assert main(["compare", *names, "--results", str(finished.results)]) == 2
    assert message in capsys.readouterr().err


def test_val_is_compared_where_there_is_no_test(changed: Made) -> None:
    for name, errors in (("v/gss_ff", 0.3), ("v/gss_ft", 0.2)):
        changed.run(name, errors, split="val")
    assert {run.first.split for run in read_runs(["v/gss_ff", "v"], None, changed.results)} == {"val"}


def spoil_nothing_kept(made: Made) -> None:
    shutil.rmtree(made.results / "a/evaluation/gss_ft/test/predictions")


def spoil_one_prediction(made: Made) -> None:
    path = next((made.results / "a/evaluation/gss_ft/test/predictions").iterdir())
    for other in path.parent.iterdir():
        if other != path:
            shutil.copy(path, other)


def spoil_data_set(made: Made) -> None:
    shutil.rmtree(made.data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_nothing_kept, "was evaluated before predictions were kept"),
        (spoil_one_prediction, "is not the one the figures are of"),
        (spoil_data_set, "cannot be read: No such file"),
    ],
)
def test_without_pictures_the_figures_stay_and_the_page_says_why(changed: Made, spoil, said: str) -> None:
    for config in changed.results.glob("*/config.yaml"):
        text = config.read_text().splitlines()
        config.write_text("\n".join(f"  root: {changed.data}" if line.startswith("  root:") else line for line in text))
    compare(["a/gss_ff", "a"], split=None, output=changed.results / "before", results=changed.results)
    spoil(changed)
    compare(["a/gss_ff", "a"], split=None, output=changed.results / "after", results=changed.results)
    pages = [(changed.results / name / "index.html").read_text() for name in ("before", "after")]
    assert [page.count("<img") > 0 for page in pages] == [True, False]
    assert [said in page for page in pages] == [False, True]
    tables = [(changed.results / name / "per_class.csv").read_bytes() for name in ("before", "after")]
    assert tables[0] == tables[1]


def test_a_class_without_pixels_has_no_difference(tmp_path: Path) -> None:
    made = Made(tmp_path, (*NAMES, "absent"))
    made.labels = [np.where(label == 4, 0, label).astype(np.uint8) for label in made.labels]
    made.run("a/gss_ff", 0)
    made.run("a/gss_ft", 0)
    text = compare(["a/gss_ff", "a"], split=None, output=tmp_path / "out", results=made.results)
    assert [line.split()[:5] for line in text.splitlines() if "absent" in line] == [["absent", "-", "-", "-", "-"]]
    assert rows(tmp_path / "out/per_class.csv")[-1]["difference"] == ""
    assert "absent</td>" in (tmp_path / "out/index.html").read_text()


def test_names_of_classes_are_text_in_page_and_tables(tmp_path: Path) -> None:
    evil = ("<script>alert(1)</script>", 'a "quoted", name', "line\nbreak", "=1+1")
    made = Made(tmp_path, evil)
    made.run("a/gss_ff", 0.3)
    made.run("a/gss_ft", 0.2)
    text = compare(["a/gss_ff", "a"], split=None, output=tmp_path / "out", results=made.results)
    assert "line break" in text
    assert "<script>alert" not in (tmp_path / "out/index.html").read_text()
    with (tmp_path / "out/per_class.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(evil)


def test_comparing_loads_no_heavy_package(finished: Made, tmp_path: Path) -> None:
    code = (
        "import sys, gss.cli; gss.cli.main(sys.argv[1:]);"
        "print(*sorted({'torch', 'timm', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    arguments = ["compare", "a/gss_ff", "a", "--results", str(finished.results), "-o", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
    assert "a/gss_ft against a/gss_ff, test, 12 images" in done.stdout
