"""The page about the Python interface: its pieces run one after the other, and its calls are the published models."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gss.recipes.gss.build import build_latent_prior, build_posterior

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/python.md").read_text(encoding="utf-8")


def test_pieces_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    pieces = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(pieces) == 5
    for piece in pieces:
        exec(piece, names)
        if "backward()" in piece:
            assert all(value.grad is not None for part in ("prior", "posterior") for value in names[part].parameters())
    assert names["tokens"].shape == (2, 15, 19)
    assert names["maskige"].shape == (2, 3, 120, 152)
    assert names["scores"].shape == (2, 19, 60, 76)
    assert names["classes"].shape == (50, 70)
    assert torch.allclose(names["shares"].sum(0), torch.ones(50, 70))
    assert torch.equal(names["shares"].argmax(0), names["classes"].long())
    assert names["result"].finished and (tmp_path / "training/checkpoints").is_dir()
    assert "mapped" in capsys.readouterr().out
    assert "PosteriorLearner(prior, tokenizer, posterior, reference=True)" in PAGE, "the published loss"


@pytest.mark.slow
def test_calls_of_the_table_build() -> None:
    calls = re.findall(r"`(build_\w+\([^`]*\))`", PAGE)
    known = {
        "build_latent_prior": build_latent_prior,
        "build_posterior": build_posterior,
        "N": 19,
        "colours": torch.zeros(20, 3),
    }
    assert len(calls) == 7
    with torch.device("meta"):
        sizes = [sum(value.numel() for value in eval(call, known).parameters()) for call in calls]
    assert sizes[:2] == [195_201_204 + 25_653_427, 42_519_392 + 34_812_659]
