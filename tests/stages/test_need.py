"""What does not fit or cannot be computed is said before anything trains, with numbers; and what helps is done."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gss.cli import main
from gss.data.classes import ClassSpace
from gss.data.toy import make_toy
from gss.doctor import experiments
from gss.modelfile import load_model
from gss.recipes.pixel.learner import PixelLearner
from gss.stages.memory import faults_of_trainings
from gss.stages.need import device_of, find_need
from gss.stages.run import Run
from tests.stages.village import ending, run, write

CPU = torch.device("cpu")
SPACE = ClassSpace(("road", "car", "person"))


@pytest.fixture(autouse=True)
def without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose trainings compute on its CPU."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def opened(*overrides: str) -> Run:
    return Run.open("mine", overrides)


def test_memory_grows_by_the_same_for_every_image(project: Path) -> None:
    write()
    two = find_need(opened(), SPACE, "pixel", CPU)
    assert two.each > 32 * 32 * 4 * 3
    parameters = two.gradients // 4
    assert 3 * 4 * parameters < two.kept < 3.1 * 4 * parameters  # weights, two moments; buffers
    average = find_need(opened("pixel.training.ema=0.99"), SPACE, "pixel", CPU)
    assert average.kept == two.kept + two.gradients
    large = find_need(opened("augment.crop=[64,64]"), SPACE, "pixel", CPU)
    assert large == find_need(opened("augment.crop=[64,64]", "pixel.training.batch_size=1"), SPACE, "pixel", CPU)
    assert large.each == 4 * two.each and large.kept == pytest.approx(two.kept, rel=0.01)
    assert two.of(0) == two.kept + two.gradients and two.of(100) == two.kept + 100 * two.each


def test_the_random_state_stays(project: Path) -> None:
    write()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    find_need(opened("pixel.training.precision=bf16"), SPACE, "pixel", CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pixel.training.batch_size=100000000"], "pixel does not fit into the memory: it needs at least "),
        (["augment.crop=[200000,200000]"], "memory ran out with the first crops of pixel: "),
    ],
)
def test_what_cannot_fit_is_said_with_numbers_and_keys(overrides: list[str], said: str, project: Path) -> None:
    write()
    (fault,) = faults_of_trainings(opened(*overrides), SPACE)
    assert fault.what.startswith(said) and "the CPU with " in str(fault.where)
    assert "pixel.training.accumulation (now 1)" in str(fault.todo)
    if "needs" in said:
        each = re.findall(r"(\d+\.\d\d) GiB for (\d+)", fault.what)
        assert [int(count) for _, count in each] == [100000000 >> half for half in range(27)]
        assert [float(size) for size, _ in each] == sorted((float(size) for size, _ in each), reverse=True)


def test_the_check_warns_and_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    run("check", "mine", "--only", "data", "pixel.training.batch_size=100000000")
    said = capsys.readouterr().out
    assert "warning: pixel does not fit into the memory: it needs at least " in said
    assert list(Path("results").glob("mine*/data/manifest.json"))


def test_the_tokenizer_is_not_trained_for_what_cannot_follow(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_toy(project / "sets/toy", sizes={"train": 2, "val": 1, "test": 1})
    toy = yaml.safe_load((Path(__file__).parents[2] / "config/experiments/toy.yaml").read_text())
    del toy["data"]["generate"]
    toy["posterior"]["training"]["batch_size"] = 10**9
    toy |= {"augment": {"base_scale": [96, 96], "crop": [32, 32]}, "palette": {"strategy": "grid"}}
    Path("config/experiments/mine.yaml").write_text(yaml.safe_dump(toy))
    run("check", "mine")
    run("palette", "mine")
    assert ending("tokenizer", "mine") == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: posterior does not fit into the memory: each of 2 processes needs at least ")
    assert "step 1/" not in said.out
    assert not Path("results/mine/work/tokenizer/checkpoints").exists()


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seed=0", CPU),
        ("run.resources.pixel.gpus=0", CPU),
        ("run.resources.pixel.gpus=8", None),
    ],
)
def test_only_what_would_compute_here_is_tried(
    override: str, found: torch.device | None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_of(opened(override).experiment, "pixel") == found
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    on_cluster = device_of(opened(override).experiment, "pixel")
    assert on_cluster == (CPU if override.endswith("gpus=0") else None)


# --- less at a time ---------------------------------------------------------------------------------------------------


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Memory for so many images at a time, and no more."""
    forward = PixelLearner.forward

    def bound(most: int) -> None:
        def tight(self: PixelLearner, batch: dict[str, torch.Tensor], step: int) -> Any:
            if len(batch["image"]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
            return forward(self, batch, step)

        monkeypatch.setattr(PixelLearner, "forward", tight)

    return bound


def test_memory_that_runs_out_is_told_with_what_is_needed(
    project: Path, room_for: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    run("check", "mine", "--only", "data")
    room_for(3)
    assert ending("train", "pixel", "mine") == 2
    said = capsys.readouterr().err
    assert "memory ran out in the stage pixel: CUDA out of memory. Tried to allocate 2.00 GiB" in said
    assert re.search(r"4 images of 32 x 32 at a time; it needs at least [\d.]+ GiB for 4, [\d.]+ GiB for 2, ", said)


def test_half_at_a_time_trains_as_accumulation_does(
    project: Path, room_for: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    run("check", "mine", "--only", "data")
    run("train", "pixel", "mine", "pixel.training.accumulation=2")
    (other,) = Path("results").glob("mine+*/pixel.pth")
    room_for(2)
    run("train", "pixel", "mine", "--retry-smaller")
    said = capsys.readouterr().out
    assert (
        "warning: memory ran out with 4 images at a time; again with 2, which is pixel.training.accumulation: 2" in said
    )
    found, expected = load_model(Path("results/mine/pixel.pth")), load_model(other)
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.tensors.items())
    machine = found.meta["provenance"]["machine"]
    assert (machine["accumulation"], machine["micro_batch"]) == (2, 2)


def test_two_images_that_do_not_fit_are_the_end(project: Path, room_for: Callable[[int], None]) -> None:
    write()
    run("check", "mine", "--only", "data")
    room_for(1)
    assert ending("train", "pixel", "mine", "--retry-smaller") == 2


def test_smoke_finds_what_fits(
    project: Path, room_for: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(lambda content: content["pixel"]["training"].update(batch_size=8))
    room_for(2)
    assert main(["smoke", "mine", "--retry-smaller"]) == 2
    said = capsys.readouterr()
    assert "mine fits into the memory with less at a time alone" in said.err
    assert said.err.endswith("write into its file\n    pixel.training.accumulation: 4\n")
    assert said.out.count("warning: memory ran out with") == 2 and "  report " in said.out


# --- the doctor -------------------------------------------------------------------------------------------------------


def test_the_doctor_tries_all_stages(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2])]))
    write()
    warned, found = experiments.trial("mine", Path("results"))
    assert warned.state == "warn" and "never predicted" in warned.found
    assert found.state == "ok" and found.found.startswith("all its stages can run")
    write(lambda content: content["pixel"]["training"].update(lr=1e30, warmup_steps=0))
    *_, found = experiments.trial("mine", Path("results"))
    assert found.state == "FAIL" and found.found.startswith("pixel: the loss or its gradient is not finite")
    assert "`lr`" in found.todo and not Path("results").exists()
    (project / "sets/city").rename(project / "away")
    assert not list(experiments.trial("mine", Path("results")))  # the missing folder is said by another check
