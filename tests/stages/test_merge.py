"""Merging keeps both parents' tensors bit by bit and refuses strangers with the reason."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gss.errors import CheckpointError
from gss.modelfile import load_model, save_model
from gss.recipes.gss.build import build_posterior
from gss.recipes.gss.layout import PALETTE, TOKENIZER
from gss.recipes.gss.stages.merge import merge
from gss.recipes.gss.stages.reconstruct import start_files
from gss.stages.run import Run

META: dict[str, Any] = {
    "classes": ["sky", "road"],
    "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
    "tokenizer": "a" * 64,
    "vocab_size": 4,
    "provenance": {"stage": "test"},
}
DESCRIBED: dict[str, Any] = {"variant": "conv", "channels": 4}
POSTERIOR = {f"posterior.{name}": value for name, value in build_posterior(2, **DESCRIBED).state_dict().items()}


def write_parents(run: Run, **changed: Any) -> None:
    save_model(run.folder / "gss_ff.pth", "gss_ff", {"prior.w": torch.arange(3.0)}, {**META, "latent_prior": {}})
    save_model(run.folder / "posterior.pth", "posterior", POSTERIOR, {**META, "posterior": DESCRIBED, **changed})


@pytest.fixture(params=["toy", "camvid_gss/seed_1"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return Run.open(request.param, results=tmp_path)


def test_merged_file_holds_both_parents_and_where_they_come_from(run: Run) -> None:
    write_parents(run)
    merge(run)
    merged = load_model(run.folder / "gss_ft.pth", "gss_ft")
    assert torch.equal(merged.tensors["prior.w"], torch.arange(3.0))
    assert all(torch.equal(merged.tensors[name], value) for name, value in POSTERIOR.items())
    assert merged.meta["parents"]["gss_ff"]["sha256"] == load_model(run.folder / "gss_ff.pth").sha256
    assert merged.meta["posterior"] == DESCRIBED
    assert merged.meta["palette"] == META["palette"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"palette": [[0, 0, 0], [255, 0, 9], [0, 255, 0]]},
            "different palette: row 1 is [255, 0, 0] against [255, 0, 9]",
        ),
        ({"palette": [[0, 0, 0], [255, 0, 0]]}, "different palette: 3 against 2 rows"),
        ({"classes": ["sky", "car"]}, "different classes: row 1 is road against car"),
        ({"tokenizer": "b" * 64}, "different tokenizer"),
    ],
)
def test_strangers_are_refused_with_the_reason(run: Run, changed: dict[str, Any], reason: str) -> None:
    write_parents(run, **changed)
    with pytest.raises(CheckpointError) as error:
        merge(run)
    assert reason in str(error.value)
    assert not (run.folder / "gss_ft.pth").exists()


@pytest.mark.parametrize("name", ["toy", "camvid_gss/seed_1"])
def test_x_inverse_of_another_experiment_is_taken_from_its_results(name: str, tmp_path: Path) -> None:
    run = Run.open(name, ["posterior.experiment=camvid"], tmp_path)
    assert start_files(run) == (tmp_path / "camvid" / PALETTE, tmp_path / "camvid" / TOKENIZER)
    write_parents(run)
    (tmp_path / "camvid").mkdir()
    (run.folder / "posterior.pth").rename(tmp_path / "camvid" / "posterior.pth")
    merge(run)
    assert load_model(run.folder / "gss_ft.pth", "gss_ft").meta["posterior"] == DESCRIBED


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04broken"])
def test_damaged_parent_is_one_clear_error(run: Run, content: bytes) -> None:
    write_parents(run)
    (run.folder / "posterior.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="not readable as a model file"):
        merge(run)


def test_model_file_with_foreign_code_is_not_executed(run: Run, tmp_path: Path) -> None:
    write_parents(run)
    torch.save({"format": 1, "kind": "posterior", "tensors": Trap(tmp_path / "owned")}, run.folder / "posterior.pth")
    with pytest.raises(CheckpointError, match="not readable"):
        merge(run)
    assert not (tmp_path / "owned").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)
