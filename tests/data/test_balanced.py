"""`data.sampling: balanced`: what a step holds, in which order, for whom; and what is refused."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from several_sets import ROOTS, SIZES, content, write_sets

from gss.cli import main
from gss.config import load_experiment
from gss.data.loader import BalancedOrder, SampleOrder
from gss.errors import ConfigError
from gss.stages.run import Run
from gss.stages.training import class_pixels, class_weights, loop_settings, make_loader
from gss.train.distributed import World

CPU = torch.device("cpu")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment `mine` of three sources with 7, 3 and 4 training pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSS_DATA", str(tmp_path / "sets"))
    write_sets(tmp_path)
    assert main(["check", "mine"]) == 0
    return tmp_path


def batches(steps: range, world_size: int = 1, accumulation: int = 1, **training: Any) -> list[dict]:
    """Whole steps, put together again from the micro-batches of all processes."""
    run = Run.open("mine")
    config = run.experiment.pixel.training.model_copy(update={"accumulation": accumulation, **training})
    found: list[list[dict]] = [[] for _ in steps]
    for rank in range(world_size):
        make = make_loader(run, run.manifest.pairs("train"), config, World(rank, world_size, rank, CPU))
        for step, micro in zip(found, make(steps.start), strict=False):
            assert len(micro) == accumulation
            step += micro
    whole = [{key: torch.cat([micro[key] for micro in step]) for key in step[0]} for step in found]
    return [{key: value[batch["position"].argsort()] for key, value in batch.items()} for batch in whole]


def test_every_step_holds_as_many_of_each_source(project: Path) -> None:
    for step, batch in enumerate(batches(range(4))):
        assert batch["source"].tolist() == [0, 1, 2] * 4 and batch["position"].tolist() == list(
            range(12 * step, 12 * step + 12)
        )
        for root, image in zip(batch["source"], batch["image"], strict=True):
            assert image[2].max() == 40 * root, "each source has its own blue"


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (3, 1), (2, 2), (1, 4), (12, 1)])
def test_steps_do_not_depend_on_processes_and_accumulation(project: Path, world_size: int, accumulation: int) -> None:
    for one, other in zip(batches(range(3)), batches(range(3), world_size, accumulation), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_restart_sees_what_an_unbroken_training_does(project: Path) -> None:
    one, other = batches(range(5))[3:], batches(range(3, 5))
    assert all(torch.equal(mine[key], theirs[key]) for mine, theirs in zip(one, other, strict=True) for key in mine)


def test_each_source_goes_through_its_own_pairs_again_and_again() -> None:
    ends = [7, 10, 14]
    order, alone = BalancedOrder(ends, 5), BalancedOrder(ends[:1], 5)
    stream = [order[position] for position in range(3 * 84)]
    for source, (first, end) in enumerate(zip([0, *ends], ends, strict=False)):
        mine = stream[source::3]
        passes = [mine[start : start + end - first] for start in range(0, 84, end - first)]
        assert all(sorted(each) == list(range(first, end)) for each in passes)
        assert len({tuple(each) for each in passes}) > 1, "shuffled anew in each pass"
    assert stream[::3] == [alone[position] for position in range(84)], "the others change nothing"
    twins = BalancedOrder([50, 100], 5)
    assert [twins[2 * k] for k in range(50)] != [twins[2 * k + 1] - 50 for k in range(50)]
    assert [twins[2 * k] for k in range(50)] != [SampleOrder(50, 5)[k] for k in range(50)]


def test_indivisible_batches_are_refused_with_a_size_that_works(project: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"(?s)batch_size 8 .* 1 processes .*and among 3 sources.*multiple of 3.* 9"):
        batches(range(1), batch_size=8)
    with pytest.raises(ConfigError, match=r"(?s)batch_size 6 .* 2 processes with accumulation 2.*multiple of 12.* 12"):
        batches(range(1), 2, 2, batch_size=6)
    assert main(["check", "mine", "pixel.training.batch_size=8"]) == 2
    said = capsys.readouterr().err
    assert "among the 3 sources of `data.sampling: balanced`" in said and "a multiple of 3, for example 9" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": []}, "nothing to balance"),
        ({"sampling": "even"}, "balanced"),
    ],
)
def test_what_cannot_be_balanced_is_refused(project: Path, change: dict, said: str) -> None:
    experiment = content()
    Path("config/experiments/mine.yaml").write_text(
        yaml.safe_dump({**experiment, "data": {**experiment["data"], **change}})
    )
    with pytest.raises(ConfigError, match=said):
        load_experiment("mine")


def test_a_change_of_the_sampling_trains_again_and_looks_at_no_file(project: Path) -> None:
    before, after = load_experiment("mine", ["data.sampling=repeat"]), load_experiment("mine")
    changed = [row.name for row in after.kind.stages if before.slice(row.name) != after.slice(row.name)]
    assert changed == ["pixel"]
    run = Run.open("mine")
    assert loop_settings(run, run.experiment.pixel.training, 1).sources == ROOTS


def test_repeat_counts_for_its_own_sampling_alone(project: Path) -> None:
    """An experiment may take the sources of one that repeats them."""
    path = Path("config/experiments/mine.yaml")
    before = batches(range(3))
    weights = class_pixels(Run.open("mine"))
    experiment = content()
    experiment["data"]["repeat"] = experiment["data"]["sources"][0]["repeat"] = 7
    path.write_text(yaml.safe_dump(experiment))
    assert main(["check", "mine"]) == 0
    for one, other in zip(before, batches(range(3)), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert class_pixels(Run.open("mine")) == weights


def test_published_trainings_have_the_same_mean_of_means(project: Path) -> None:
    """One source in each process: what the published code divides by in a process is what a source is divided by."""
    run = Run.open("mine", ["numerics=reference"])
    settings = loop_settings(run, run.experiment.pixel.training, 1)
    assert (settings.sources, settings.normalisation) == (ROOTS, "global")
    run = Run.open("mine", ["numerics=reference", "data.sampling=repeat"])
    settings = loop_settings(run, run.experiment.pixel.training, 1)
    assert (settings.sources, settings.normalisation) == ((), "local")


def test_class_balance_counts_the_classes_of_each_source_alike(project: Path) -> None:
    run, shares = Run.open("mine"), np.zeros(3)
    pairs = run.manifest.pairs("train")
    assert Counter(pair.source for pair in pairs) == dict(enumerate(SIZES))
    for source in range(3):
        labels = [pair.read_label() for pair in pairs if pair.source == source]
        counts = np.bincount(np.concatenate(labels).ravel(), minlength=256)[:3]
        shares += counts / counts.sum()
    assert class_pixels(run) == pytest.approx(shares.tolist(), rel=1e-12)
    expected = np.median(shares) / shares
    expected *= shares.sum() / (expected * shares).sum()
    assert class_weights(run, 1.0).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_without_pairs_in_a_split_a_source_is_not_counted(project: Path) -> None:
    assert [pair.source for pair in islice(Run.open("mine").manifest.pairs("val"), 4)] == [0, 0, 0, 0]
