"""`gss smoke`: what would stop a stage after hours stops it in a minute, with the stage's name, and nothing stays."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gss.cli import main
from gss.config import load_experiment
from gss.recipes.pixel import stage as pixel_stage
from gss.smoke import _share
from tests.stages.village import write

LINE = re.compile(r"^  (\S+) +\d+\.\d s +\d+\.\d [MG]B(?:  loss (\S+))?$", re.MULTILINE)


def files() -> list[Path]:
    return [path for path in Path().rglob("*") if "sets" not in path.parts]


def test_every_stage_is_tried_in_its_order_and_nothing_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    before = files()
    assert main(["smoke", "mine"]) == 0
    said = capsys.readouterr().out
    found = dict(LINE.findall(said))
    jobs = ["check", "set_village", "pixel", "evaluate_pixel_val", "evaluate_pixel_village", "summary_pixel", "report"]
    assert list(found) == jobs
    assert float(found["pixel"]) > 0 and not any(loss for job, loss in found.items() if job != "pixel")
    assert said.splitlines()[-1].startswith("mine: all its stages can run")
    assert files() == before


def test_results_that_are_there_stay_as_they_are(project: Path) -> None:
    write()
    assert main(["check", "mine"]) == 0
    before = {path: path.stat().st_mtime_ns for path in files() if path.is_file()}
    assert main(["smoke", "mine"]) == 0
    assert {path: path.stat().st_mtime_ns for path in files() if path.is_file()} == before


def lacks_label(project: Path, content: dict) -> None:
    (project / "sets/city/labels/train/3.png").unlink()


def lacks_class(project: Path, content: dict) -> None:
    content["evaluation"]["sets"]["village"]["model_mapping"] = {"boat": "animal"}


def too_fast(project: Path, content: dict) -> None:
    content["pixel"]["training"].update(lr=1e30, warmup_steps=0)


def not_divided(project: Path, content: dict) -> None:
    content["run"] = {"resources": {"pixel": {"processes": 3}}}


def too_small(project: Path, content: dict) -> None:
    content["evaluation"].update(mode="slide", crop=[16, 16], stride=[17, 17])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lacks_label, "error: check: the data set has 1 fault:(.|\n)*images/train/3.png"),
        (lacks_class, r"error: set_village: (.|\n)*where: evaluation\.sets\.village"),
        (too_fast, "error: pixel: the loss or its gradient is not finite at step 1"),
        (not_divided, "error: 4 images per update cannot be divided into 3 parts"),
        (too_small, r"error: check: (.|\n)*where: evaluation\.stride"),
    ],
)
def test_a_late_fault_comes_early(
    spoil: Callable[[Path, dict], None], said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(lambda content: spoil(project, content))
    assert main(["smoke", "mine"]) == 2
    error = capsys.readouterr().err
    assert re.match(said, error) and "Traceback" not in error
    assert not Path("results").exists()


def test_memory_that_runs_out_is_told_as_in_the_stage(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setattr(pixel_stage, "_train", lambda *_: torch.empty(2**50))
    assert main(["smoke", "mine"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: pixel: memory ran out in the stage pixel: ")
    assert "4 images of 32 x 32 at a time" in said.err and "pixel.training.batch_size (now 4)" in said.err
    assert "pixel  " in said.out and "failed" in said.out and not Path("results").exists()


def test_one_process_does_its_share_of_a_batch(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    for overrides, share in {
        ("pixel.training.batch_size=16",): (16, 1),
        ("pixel.training.batch_size=16", "run.resources.pixel.processes=2"): (8, 1),
        ("pixel.training.batch_size=16", "run.resources.pixel.gpus=8"): (2, 1),
        ("pixel.training={batch_size: 16, accumulation: 2}", "run.resources.pixel={nodes: 2, gpus: 8}"): (4, 2),
    }.items():
        batch_size, accumulation = share
        found = _share(load_experiment("mine", overrides), "pixel")
        assert found == {"batch_size": batch_size, "accumulation": accumulation}, overrides


def test_a_file_elsewhere_is_tried_under_its_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    Path("drafts").mkdir()
    Path("config/experiments/mine.yaml").rename("drafts/other.yaml")
    assert main(["smoke", "drafts/other.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("other: all its stages can run")


def test_what_others_have_to_lend_is_missed_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = Path(__file__).parents[2] / "config/experiments/toy.yaml"
    write()
    for name in ("toy", "lender"):
        Path(f"config/experiments/{name}.yaml").write_text(toy.read_text())
    assert main(["smoke", "toy", "posterior.experiment=lender"]) == 2
    said = capsys.readouterr().err
    assert "it takes results of 'lender', which has none yet" in said and "gss smoke lender" in said


@pytest.mark.slow
def test_all_of_gss_is_tried_without_data(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped toy, whose data set is made for it, in the project's place."""
    toy = Path(__file__).parents[2] / "config/experiments/toy.yaml"
    Path("config/experiments/toy.yaml").write_text(toy.read_text())
    assert main(["smoke", "toy"]) == 0
    names = [name for name, _ in LINE.findall(capsys.readouterr().out)]
    assert names[:7] == ["check", "palette", "tokenizer", "reconstruct", "latent_prior_1", "latent_prior", "posterior"]
    assert names[7] == "merge" and len(names) == 13 and not Path("results").exists() and not Path("data").exists()
