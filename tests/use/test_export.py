"""A folder for model hubs: predicts like the model it was made of, and no name from data breaks its card."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from huggingface_hub import ModelCard

import gss
from gss.cli import main
from gss.errors import GssError
from gss.recipes.gss.palette.palette import read_palette
from tests.use.experiment import write_experiment, write_metrics

NAMES = ("sky", "a|b\n---\n# x", "<script>alert(1)</script>", "[x](http://y) *z* `w`", "---\nlicense: mit")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`results/exp` in the current folder."""
    results = write_experiment(tmp_path, NAMES, mode="slide", crop=[64, 64], stride=[40, 40])
    monkeypatch.chdir(tmp_path)
    return results


def export(*arguments: str) -> int:
    return main(["export", "exp.yaml", *arguments])


@pytest.mark.parametrize("name", ["gss_ff", "gss_ft"])
def test_the_folder_predicts_like_the_model_to_the_bit(name: str, results: Path) -> None:
    assert export("--model", name, "-o", "hub") == 0
    shutil.move("hub", "elsewhere")  # it needs nothing beside it
    ours, theirs = gss.load(results / f"{name}.pth"), gss.load("elsewhere")
    image = cv2.imread("private/photos/test/0.png")
    assert len(np.unique(ours.predict(image))) > 1
    assert (ours.predict(image) == theirs.predict(image)).all()
    assert (ours.scores(image) == theirs.scores(image)).all()
    assert ours.classes == theirs.classes == NAMES
    assert (ours.colours == theirs.colours).all() and ours.colours[1].tolist() == [9, 200, 7]
    assert read_palette(Path("elsewhere/palette.csv")).names == NAMES


def test_the_card_stands_whatever_the_classes_are_called(results: Path) -> None:
    write_metrics(results, "gss_ft", {name: None if name == "sky" else 0.25 for name in NAMES})
    assert export("-o", "hub") == 0
    card = ModelCard.load("hub/README.md")
    assert card.data.license == "other" and card.data.pipeline_tag == "image-segmentation"
    figures = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert figures == {"mIoU": 0.5, "mAcc": 0.625, "aAcc": 0.75}
    assert {(result.dataset_name, result.dataset_split) for result in card.data.eval_results} == {("photos", "test")}
    table = re.findall(r"^\| \d+ \|.*$", card.text, re.MULTILINE)
    assert len(table) == len(NAMES)
    for line in table:  # five cells: unescaped bars are borders
        assert len(re.findall(r"(?<!\\)\|", line)) == 6
        assert not re.search(r"(?<!\\)[<*`\[]", line)
    assert table[0].endswith("| – |") and table[1].endswith("| 25.0 |")
    assert "a\\|b --- # x" in table[1]
    assert not re.search(r"^(# x|license: mit)", card.text, re.MULTILINE)


def test_nothing_private_leaves_with_the_folder(results: Path) -> None:
    assert export("-o", "hub") == 0
    for file in Path("hub").iterdir():
        content = file.read_bytes()
        assert not any(word in content for word in (b"secret-host", b"someone", b"private"))


def test_figures_of_another_model_are_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_metrics(results, "gss_ft", dict.fromkeys(NAMES, 0.25))
    shutil.copy(results / "gss_ff.pth", results / "gss_ft.pth")
    assert export("-o", "hub") == 0
    assert "those of another gss_ft.pth" in capsys.readouterr().out
    assert json.loads(Path("hub/metrics.json").read_text()) == {}
    assert not ModelCard.load("hub/README.md").data.eval_results


def test_a_folder_is_replaced_only_if_it_is_an_export(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("--model", "gss_ff", "-o", "hub") == export("-o", "hub") == 0
    assert gss.load("hub").model.posterior.state_dict()
    Path("mine").mkdir()
    Path("mine/README.md").write_text("by hand")
    assert export("-o", "mine") == 2
    assert "something else" in capsys.readouterr().err
    assert [file.read_text() for file in Path("mine").iterdir()] == ["by hand"]


def test_files_of_two_exports_are_told_apart(results: Path) -> None:
    assert export("--model", "gss_ff", "-o", "ff") == export("-o", "ft") == 0
    shutil.copy("ff/model.safetensors", "ft/model.safetensors")
    with pytest.raises(GssError, match="not the weights"):
        gss.load("ft")
    Path("ft/config.json").write_text("{}")
    with pytest.raises(GssError, match="not a folder that gss export wrote"):
        gss.load("ft")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "model.safetensors"), ".pth"),
        (("-o", "hub", "--size", "64x32"), "only an ONNX file"),
        (("-o", "model.onnx", "--with-tokenizer"), "published checkpoints only"),
        (("-o", "hub", "--without-pixel-branch"), "published checkpoints only"),
    ],
)
def test_options_of_other_formats_are_refused(
    arguments: tuple[str, ...], said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(*arguments) == 2
    assert said in capsys.readouterr().err
    assert not Path(arguments[1]).exists()


@pytest.mark.parametrize("size", ["480", "480x", "0x3", "axb", "480x360x3"])
def test_a_size_is_two_numbers(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export("-o", "model.onnx", "--size", size)
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
