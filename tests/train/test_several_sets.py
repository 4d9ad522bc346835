"""Trainings on several sets, from files to weights: the same for one, two and three processes."""

import json
from pathlib import Path

import pytest
import torch
from several_learner import WAYS, run
from several_sets import write_sets
from tiny_learner import ALONE

from gss.cli import main
from gss.cluster.launch import launch
from gss.results.journal import read_journal

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, and in `1/` what one process trains."""
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GSS_DATA", str(folder / "sets"))
        write_sets(folder)
        assert main(["check", "mine"]) == 0
        for way in WAYS:
            work = folder / "1" / way
            work.mkdir(parents=True)
            run(work, way, ALONE)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)


def seen(folder: Path, processes: int) -> list[dict[str, torch.Tensor]]:
    """The whole steps."""
    ranks = [torch.load(folder / f"seen_{rank}.pt", weights_only=True) for rank in range(processes)]
    steps = [[micro for step in both for micro in step] for both in zip(*ranks, strict=True)]
    return [{key: torch.cat([micro[key] for micro in step]) for key in step[0]} for step in steps]


def curves(folder: Path) -> list[dict[str, float]]:
    events = [event["m"] for event in read_journal(folder / "journal.jsonl") if "m" in event]
    return [{name: value for name, value in each.items() if "loss" in name or "weight" in name} for each in events]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_train_as_one(alone: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(alone)
    monkeypatch.setenv("GSS_DATA", str(alone / "sets"))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{HERE.parents[1]}")
    together = alone / str(processes)
    assert launch(processes, [str(together), json.dumps(list(WAYS))], work=together, module="several_learner") == 0
    for way in WAYS:
        one, other = alone / "1" / way, together / way
        for mine, theirs in zip(seen(one, 1), seen(other, processes), strict=True):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine), way
        mine, theirs = weights(one), weights(other)
        for name, tensor in mine.items():
            scale = max(float(tensor.abs().max()), 1e-3)
            assert float((tensor - theirs[name]).abs().max()) <= 1e-11 * scale, (way, name)
        assert curves(one) and curves(one)[-1] == pytest.approx(curves(other)[-1], rel=1e-11)


def test_ways_differ(alone: Path) -> None:
    """Else the same weights would say little."""
    of_one_network = [way for way in WAYS if way != "psp"]
    found = [torch.cat([each.flatten() for each in weights(alone / "1" / way).values()]) for way in of_one_network]
    assert all((one - other).abs().max() > 1e-4 for n, one in enumerate(found) for other in found[:n])


def test_weights_of_sources_are_curves(alone: Path) -> None:
    for way in ("mgda", "mgda_fw"):
        last = curves(alone / "1" / way)[-1]
        shares = [last[f"train/weight_{root}"] for root in ("one", "two", "three")]
        assert sum(shares) == pytest.approx(1) and max(shares) > 0.35
    assert not any("weight" in name for name in curves(alone / "1/balanced")[-1])
