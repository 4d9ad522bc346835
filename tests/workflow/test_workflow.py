"""What the rules ask of the package, without Snakemake."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gss import workflow

TOY = SimpleNamespace(experiment="toy")
Write = Callable[..., SimpleNamespace]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the toy experiment with changed sections under another name, in an empty project."""
    base = yaml.safe_load(Path("config/experiments/toy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config" / "experiments"
    folder.mkdir(parents=True)

    def written(name: str, **sections: dict) -> SimpleNamespace:
        content = {**base, **{key: {**base.get(key, {}), **value} for key, value in sections.items()}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return SimpleNamespace(experiment=name)

    workflow._experiment.cache_clear()
    yield written
    workflow._experiment.cache_clear()


def test_segments_of_the_latent_prior_form_a_chain(write: Write) -> None:
    mine = write("mine", latent_prior={"milestones": [10, 20, 30]}, posterior={"start_step": 20})
    first, second = (SimpleNamespace(experiment="mine", step=str(step)) for step in (10, 20))
    assert workflow.previous_segment(first) == []
    assert workflow.previous_segment(second) == ["results/mine/latent_prior/step_10.pth"]
    assert workflow.previous_segment(mine) == ["results/mine/latent_prior/step_20.pth"]
    assert [workflow.milestone(which) for which in (first, second, mine)] == [10, 20, 30]
    assert workflow.posterior_start(mine) == "results/mine/latent_prior/step_20.pth"


@pytest.mark.parametrize("start", [None, 30])
def test_posterior_starts_behind_the_last_milestone_by_default(write: Write, start: int | None) -> None:
    mine = write("mine", latent_prior={"milestones": [10, 30]}, posterior={"start_step": start})
    assert workflow.posterior_start(mine) == "results/mine/gss_ff.pth"


def test_a_borrowed_posterior_comes_with_its_palette_and_tokenizer(write: Write) -> None:
    mine = write("mine", posterior={"from": "other"})
    assert workflow.posterior_file(mine) == "results/other/posterior.pth"
    assert workflow.reconstruction_inputs(mine) == {"palette": "results/other/palette.csv",
                                                    "tokenizer": "results/other/tokenizer.safetensors"}


def test_splits_the_data_lack_are_no_targets(write: Write) -> None:
    splits = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
    write("mine", data={"splits": splits})
    assert workflow.experiment_targets("mine") == [
        "results/mine/gss_ft.pth", "results/mine/evaluation/gss_ff/val/metrics.json",
        "results/mine/evaluation/gss_ft/val/metrics.json"]


def test_resources_come_from_the_configuration(write: Write) -> None:
    asked = {"processes": 4, "gpus": 4, "memory_mb": 9000, "minutes": 33, "threads": 8}
    mine = write("mine", run={"resources": {"merge": asked}})
    found = {name: value(mine) for name, value in workflow.resources("merge").items()}
    assert found == {"processes": 4, "devices": 4, "accel": 1, "gres": "gpu:4", "tasks_per_gpu": 0, "runtime": 33,
                     "mem_mb": 9000 + workflow.NESTED_SNAKEMAKES_MB}
    assert workflow.threads("merge")(mine) == 8
    assert workflow.resources("check")["gres"](mine) == ""


def test_only_generated_data_are_inputs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSS_DATA", raising=False)
    assert workflow.data_inputs(write("mine")) == ["data/toy/classes.csv"]
    assert workflow.data_inputs(write("other", data={"generate": None})) == []
