"""`run.profile`: a trace of a few steps that every browser shows, and a training that does not notice."""

import json
from pathlib import Path

import pytest
import torch
from tiny_learner import run


def steps_of(folder: Path) -> list[str]:
    content = json.loads((folder / "trace.json").read_text())
    names = [event.get("name", "") for event in content["traceEvents"]]
    assert any(name.startswith("aten::") for name in names)
    return sorted({name for name in names if name.startswith("ProfilerStep#")})


def test_some_steps_are_traced_and_the_result_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run(tmp_path / "plain", steps=8)
    assert not (tmp_path / "plain/trace.json").exists()
    traced = run(tmp_path / "traced", steps=8, profile=3)
    assert steps_of(tmp_path / "traced") == ["ProfilerStep#2", "ProfilerStep#3", "ProfilerStep#4"]
    assert capsys.readouterr().out.count(f"trace: {tmp_path}/traced/trace.json") == 1
    assert not list((tmp_path / "traced").glob(".trace*"))
    pairs = zip(plain.exported.state_dict().values(), traced.exported.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_training_that_goes_on_may_be_traced_from_there(tmp_path: Path) -> None:
    run(tmp_path, until=10)
    run(tmp_path, until=20, profile=1)
    assert steps_of(tmp_path) == ["ProfilerStep#2"]


def test_a_training_that_ends_before_leaves_what_it_has(tmp_path: Path) -> None:
    run(tmp_path, steps=4, profile=50)
    assert steps_of(tmp_path)[:2] == ["ProfilerStep#2", "ProfilerStep#3"]
