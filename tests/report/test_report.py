"""The report says what is there, what is missing and why, and lets no name of data become markup."""

import errno
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from synthetic_results import EVIL, SyntheticResults

from gss.cli import main
from gss.modelfile import save_model
from gss.report.page import write_report
from gss.report.summary import summary
from gss.results.reader import Results
from gss.results.records import model_metadata, write_record

SECTIONS = [
    "summary",
    "pictures",
    "classes",
    "confusion",
    "calibration",
    "curves",
    "data",
    "palette",
    "configuration",
    "cost",
    "provenance",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticResults:
    return SyntheticResults(tmp_path_factory.mktemp("project"), (*EVIL, "road"))


@pytest.fixture
def folder(made: SyntheticResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the results in a project folder of its own; the data set is where it was."""
    shutil.copytree(made.folder.parents[1] / "config", tmp_path / "config")
    shutil.copytree(made.folder, tmp_path / "results" / "made")
    monkeypatch.chdir(tmp_path)
    yield Path("results/made")


def sections(folder: Path) -> dict[str, str]:
    """Text of each section, by its name."""
    text = write_report(folder).read_text(encoding="utf-8")
    parts = re.split(r'<h2 id="(\w+)">', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_section_is_there_and_names_are_no_markup(folder: Path) -> None:
    found = sections(folder)
    assert list(found) == SECTIONS
    assert "Not here:" not in "".join(found.values())
    for name in EVIL[:2]:
        assert name not in write_report(folder).read_text(encoding="utf-8")
    assert "<b>here</b>" not in found["provenance"]


def test_curves_of_single_classes_stand_apart_in_their_order(folder: Path, made: SyntheticResults) -> None:
    before, _, after = sections(folder)["curves"].partition("<details>")
    assert before.count("<figure") == 7 and "<b>val/mIoU</b>" in before
    inside = after.partition("</details>")[0]
    names = [html.unescape(name) for name in re.findall(r"<figcaption><b>(.*?)</b>", inside)]
    assert f"IoU of {len(names)} classes" in inside and names == list(made.names)


def test_calibration_is_shown_of_each_evaluation(folder: Path) -> None:
    text = sections(folder)["calibration"]
    results = Results(folder)
    for number, found in enumerate(results.evaluations.values()):
        assert found.metrics["ECE"] > 0
        part = text.partition(f'<div id="calibration-{number}"')[2].partition('<div id="calibration-')[0]
        assert f"<b>{100 * found.metrics['ECE']:.2f}</b>" in part
        assert f"<b>{100 * found.metrics['errors_in_most_uncertain_tenth']:.2f}</b>" in part
        assert part.count('<rect class="accuracy"') == part.count('<rect class="share"') == 2  # bins with pixels
        assert 'height="300.0"' in part and "confidence 95.00, right 100.00" in part
        assert part.count("<tr><td>") == len(found.metrics["IoU"])


def test_results_made_before_calibration_was_counted_make_a_report(folder: Path) -> None:
    before = sections(folder)
    for metrics in folder.glob("evaluation/*/*/metrics.json"):
        found = json.loads(metrics.read_text(encoding="utf-8"))
        for key in ("ECE", "class_ECE", "errors_in_most_uncertain_tenth"):
            del found[key]
        metrics.write_text(json.dumps(found), encoding="utf-8")
        (metrics.parent / "reliability.csv").unlink()
        shutil.rmtree(metrics.parent / "uncertainties")
    after = sections(folder)
    assert "Not here:" in after["calibration"] and "snakemake -R evaluate -- results/made/eval" in after["calibration"]
    assert [name for name in SECTIONS if "Not here:" in after[name]] == ["calibration"]
    assert after["classes"] == before["classes"] and after["confusion"] == before["confusion"]
    assert '"uncertainties": {}' in after["pictures"]


def test_classes_that_nobody_met_are_counted_not_listed(folder: Path, made: SyntheticResults) -> None:
    name = made.names[-1]
    for split in made.splits:
        for metrics in folder.glob(f"evaluation/*/{split}/metrics.json"):
            counts = metrics.with_name("confusion.npz")
            with np.load(counts) as stored:
                kept = dict(stored)
            kept["confusion"][-1] = kept["confusion"][:, -1] = 0
            np.savez(counts, **kept)
            found = json.loads(metrics.read_text(encoding="utf-8"))
            found["IoU"][name] = None
            metrics.write_text(json.dumps(found), encoding="utf-8")
    said = summary(folder, folder / "report.html")
    assert "and 1 classes in no label and no prediction" in said and f"  {name} " not in said
    text = sections(folder)["classes"]
    assert f"{len(made.names) - 1} classes on test, 1 more in no label and no prediction" in text
    assert text.count(f'title="{len(made.names) - 1}: ') == 0


def test_achieved_stands_beside_published(folder: Path) -> None:
    results = Results(folder)
    achieved = results.evaluations["gss_ff", "val"].metrics["mIoU"]
    rows = re.findall(r"<tr>.*?</tr>", sections(folder)["summary"], flags=re.DOTALL)
    row = next(row for row in rows if "<td>val</td>" in row and "GSS-FF" in row)
    assert "50.00" in row and f"{100 * achieved:.2f}" in row and f"{100 * achieved - 50:+.2f}".replace("-", "−") in row
    printed = summary(folder, folder / "report.html")
    line = next(line.split() for line in printed.splitlines() if line.split()[:2] == ["GSS-FF", "val"])
    assert line[2] == f"{100 * achieved:.2f}" and line[-2:] == ["50.00", "60.00"]


def test_configuration_tells_origins_and_changes(folder: Path) -> None:
    text = sections(folder)["configuration"]
    rows = re.findall(r"<tr[^>]*>.*?</tr>", text, flags=re.DOTALL)
    row = {match[1]: row for row in rows if (match := re.search(r'title="[^"]*">([\w.]+)</td>', row))}
    assert "command line" in row["posterior.steps"] and 'class="changed"' in row["posterior.steps"]
    assert "made.yaml:11" in row["latent_prior.backbone.name"]
    for key in ("augment.flip", "data.archives", "tokenizer.source", "augment.ratio"):
        assert 'class="changed"' not in row[key] and ">default<" in row[key], key


def test_a_file_that_changed_after_it_was_read_is_told(folder: Path) -> None:
    assert "✗" not in sections(folder)["provenance"]
    path = folder / "palette.csv"
    path.write_text(path.read_text().replace("\n", "\r\n"))
    text = sections(folder)["provenance"]
    assert re.search(r"palette\.csv</td>.*?✗ latent_prior read", text, flags=re.DOTALL)
    assert "✗ another file today" in text


def test_gpu_hours_are_asked_gpus_times_wall_time(folder: Path) -> None:
    text = sections(folder)["cost"]
    assert re.search(r"<td>latent_prior</td>.*?4\.00", text, flags=re.DOTALL)  # 2 nodes x 2 GPUs x 1 hour
    assert re.search(r"<b>all</b>.*?3:00:00", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("machine", "shown"),
    [
        ({"device": "NVIDIA H200", "processes": 3}, "<td>latent_prior</td>.*?3\\.00"),
        ({"device": "cpu", "processes": 3}, "No stage used GPUs"),
        (None, "No stage used GPUs"),
    ],
)
def test_gpu_hours_are_those_of_the_gpus_that_were_found(folder: Path, machine: dict | None, shown: str) -> None:
    config = folder / "config.yaml"
    assert "gpus: 2" in config.read_text()
    config.write_text(config.read_text().replace("gpus: 2", "gpus: auto"))
    if machine:
        write_record(folder, "latent_prior", {"settings": {}, "machine": machine})
    assert re.search(shown, sections(folder)["cost"], flags=re.DOTALL)


def remove(*paths: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        for path in paths:
            found = list(folder.glob(path))
            assert found, path
            for one in found:
                shutil.rmtree(one) if one.is_dir() else one.unlink()

    return act


def data_away(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(re.sub("root: .*", "root: /nowhere", path.read_text(), count=1))


def unfinished(folder: Path) -> None:
    """A first stage is at work, and nothing else is there."""
    for one in folder.iterdir():
        if one.name != "config.yaml":
            shutil.rmtree(one) if one.is_dir() else one.unlink()


def imported(folder: Path) -> None:
    remove("work")(folder)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("checkpoint: null", "checkpoint: published.pth"))


def another_version(folder: Path) -> None:
    """Keys that this version does not know, and lacks of those it knows."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"] |= {"spectrum": "infrared", "splits": {"deep": config["data"]["splits"]}}
    config["published"] = {"elsewhere": 1}
    del config["posterior"], config["latent_prior"]["training"]["lr"]
    path.write_text(yaml.safe_dump(config | {"future": {"x": [1]}}))


def named_anew(folder: Path) -> None:
    """The data set was checked again, with the first two classes changed about."""
    path = folder / "data" / "manifest.json"
    content = json.loads(path.read_text())
    names = content["classes"]["names"]
    names[:2] = names[1::-1]
    path.write_text(json.dumps(content))


def model_exchanged(folder: Path) -> None:
    save_model(folder / "gss_ff.pth", "gss_ff", {"w": torch.ones(1)}, {"classes": ["a"]})


def edited(folder: Path) -> None:
    path = Path("config/experiments/made.yaml")
    path.write_text(path.read_text() + "seed: 77\n")


@pytest.mark.parametrize(
    ("act", "section", "said"),
    [
        (remove("work"), "curves", "journals are gone"),
        (remove("work"), "provenance", "journals in"),
        (data_away, "pictures", "The data set is not at /nowhere"),
        (remove("evaluation/*/test"), "summary", "snakemake results/made/evaluation/gss_ff/test/metrics.json"),
        (remove("evaluation/gss_ff"), "summary", "not evaluated"),
        (remove("evaluation/*/*/predictions"), "pictures", "snakemake -R evaluate"),
        (remove("evaluation/*/*/confusion.npz"), "confusion", "counts cannot be read"),
        (remove("evaluation"), "classes", "nothing evaluated yet"),
        (remove("benchmarks"), "cost", "no times are recorded"),
        (remove("config.yaml", "config_origins.json"), "configuration", "no stage has run yet"),
        (remove("config_origins.json"), "configuration", "older than the record"),
        (remove("data"), "data", "file not found"),
        (remove("palette.csv"), "palette", "palette.csv"),
        (remove("reconstruction"), "palette", "the reconstruction was not measured"),
        (imported, "curves", "imported from published.pth"),
        (unfinished, "provenance", "config"),
        (another_version, "summary", "GSS-FF"),
        (another_version, "configuration", "data.spectrum"),
        (named_anew, "pictures", "which picture is which is not known"),
        (named_anew, "summary", "was checked anew since GSS-FF was measured on val"),
        (model_exchanged, "summary", "are those of another gss_ff.pth"),
        (edited, "summary", "seed was 0, is 77"),
    ],
)
def test_what_is_missing_is_told_and_breaks_nothing(folder: Path, act: Callable, section: str, said: str) -> None:
    act(folder)
    found = sections(folder)
    assert list(found) == SECTIONS
    assert said in found[section]
    assert summary(folder, folder / "report.html")


def test_classes_have_the_colours_they_had(folder: Path) -> None:
    """By their names, whatever the order of the data set is now; those of the model, where it says them."""

    def shown() -> dict[str, list[int]]:
        return {name: colour.tolist() for name, colour in zip(*Results(folder).colours, strict=True)}

    before = shown()
    named_anew(folder)
    assert shown() == before
    colours = {name: [index, 1, 2] for index, name in enumerate(before)}
    save_model(
        folder / "gss_ff.pth",
        "gss_ff",
        {"w": torch.ones(1)},
        {"classes": list(colours), "colours": list(colours.values())},
    )
    assert shown() == colours


@pytest.mark.parametrize("name", ["mkdir", "rename"])
def test_a_folder_that_cannot_be_written_is_an_error_of_the_user(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, or another user's: root, who runs some tests, is refused nothing."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, {"mkdir": "mkdir", "rename": "replace"}[name], refuse)
    assert main(["report", "made"]) == 2
    assert "read-only" in capsys.readouterr().err.lower()


def test_model_files_are_read_without_torch(tmp_path: Path) -> None:
    meta = {"classes": ["a", "b"], "palette": [[1, 2, 3]], "provenance": {"stage": "merge", "lr": 0.5, "none": None}}
    save_model(tmp_path / "m.pth", "gss_ft", {"w": torch.zeros(3, 4), "n": torch.zeros(2, dtype=torch.int64)}, meta)
    assert model_metadata(tmp_path / "m.pth") == meta
    torch.save({"meta": Path("/")}, tmp_path / "strange.pth")
    assert model_metadata(tmp_path / "strange.pth") == {}


def test_a_report_is_cheap(folder: Path) -> None:
    code = (
        "import sys; from gss.cli import main; code = main(['report', 'made']);"
        "print(*sorted({'torch', 'timm', 'mlflow', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "results/made/report.html" in done.stdout and Path("results/made/report.html").is_file()
