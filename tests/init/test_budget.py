"""Steps fit the time, by what a step takes; sizes and encoder fit the machine."""

from pathlib import Path

import pytest

from gss.benchmark.benchmark import NoRoom
from gss.config import Experiment, load_experiment
from gss.data.classes import ClassSpace
from gss.errors import ConfigError
from gss.init.budget import decide_steps, fit_memory, told
from gss.init.data import Found
from gss.init.network import Machine
from gss.init.plan import Plan
from gss.init.write import text
from tests.init.made import decided, pairs, planned

GPU = Machine("cuda", 16, 80.0)
LAPS = {
    "start": 4.0,
    "pixel": 1.5,
    "tokenizer": 0.2,
    "reconstruction": 0.3,
    "latent_prior": 4.0,
    "posterior": 2.0,
    "evaluate pixel": 0.2,
    "evaluate gss_ff": 0.3,
    "evaluate gss_ft": 0.4,
}
COUNTS = {"train": 367, "val": 101, "test": 233}


def drafted(base: Path, recipe: str) -> tuple[Plan, Experiment]:
    plan, _ = planned(pairs(base / "set"), recipe=recipe)
    path = base / "draft.yaml"
    path.write_text(text(plan.content, {}, []))
    return plan, load_experiment(path)


def found(base: Path) -> Found:
    return Found(base / "set", ClassSpace(("a", "b")), COUNTS, [], 0.02)


@pytest.mark.parametrize("recipe", ["pixel", "gss"])
@pytest.mark.parametrize("hours", [0.5, 1.0, 3.0])
def test_a_run_takes_the_time_that_is_given(base: Path, recipe: str, hours: float) -> None:
    plan, experiment = drafted(base, recipe)
    if recipe == "gss" and hours == 0.5:
        hours = 0.75
    times = decide_steps(plan, experiment, LAPS, found(base), hours)
    taken = sum(seconds for _, seconds in times)
    assert 0.6 * 3600 * hours < taken < 0.9 * 3600 * hours
    path = base / "final.yaml"
    path.write_text(text(plan.content, plan.reasons, []))
    final = load_experiment(path)
    if recipe == "pixel":
        assert dict(times)["pixel"] >= 1.5 * final.at("pixel.steps")
    assert [line.split()[0] for line in told(times)] == [name for name, _ in times] + ["all"]
    for key in final.trainings.values():
        assert final.at(key).validate_every and final.at(key).warmup_steps <= 40


def test_too_short_a_time_is_refused_with_the_least_that_does(base: Path) -> None:
    plan, experiment = drafted(base, "pixel")
    with pytest.raises(ConfigError, match=r"(?s)0.05 h are too short.*is the least; but others compute") as told:
        decide_steps(plan, experiment, LAPS, found(base), 0.05, "others compute")
    least = float(str(told.value).partition("--hours ")[2].split()[0])
    assert least < 0.4
    decide_steps(plan, experiment, LAPS, found(base), least)


def test_few_photographs_need_no_more_than_some_passes(base: Path) -> None:
    plan, experiment = drafted(base, "pixel")
    few = found(base)._replace(counts={"train": 16, "val": 4, "test": 4})
    decide_steps(plan, experiment, LAPS, few, 10.0)
    assert plan.content["pixel"]["steps"] == 200 * 16 // 8
    assert "would allow" in plan.reasons["pixel.steps"]


def test_a_batch_that_does_not_fit_is_halved_down_to_two(base: Path) -> None:
    plan, experiment = drafted(base, "pixel")
    error = NoRoom("it does not fit")
    fit_memory(plan, experiment, error)
    assert plan.content["pixel"]["training"]["batch_size"] == 4
    path = base / "draft.yaml"
    plan.put("pixel.training.batch_size", 2)
    path.write_text(text(plan.content, {}, []))
    with pytest.raises(NoRoom):
        fit_memory(plan, load_experiment(path), error)


def test_sizes_follow_photographs_and_machine(base: Path) -> None:
    root = pairs(base / "set", count=4, size=(768, 1024))
    from tests.init.made import photograph

    for number in range(4):
        photograph(root / f"images/{number:03}.jpg", number, (768, 1024))
    small = decided(root)[0]
    assert small["augment"]["base_scale"] == [480, 360] and small["augment"]["crop"] == [256, 320]
    assert small["evaluation"]["scale"] == [480, 360]
    plan, _ = planned(root, on=GPU)
    assert plan.content["augment"]["base_scale"] == [1024, 768] and "evaluation" not in plan.content
    assert plan.content["pixel"]["training"]["batch_size"] == 16


def test_weights_that_lie_there_are_taken_and_others_are_named(base: Path) -> None:
    root = pairs(base / "set")
    content, reasons, notes = decided(root)
    assert content["pixel"]["backbone"]["weights"] == "weights/test_resnet.safetensors" and not notes
    (base / "weights/test_resnet.safetensors").unlink()
    content, reasons, notes = decided(root)
    assert content["pixel"]["backbone"]["weights"].startswith("timm:")
    assert "--download" in notes[0] and "downloaded when the training begins" in reasons["pixel.backbone"]


def test_gpus_are_left_alone_where_the_cpu_is_asked_for(base: Path) -> None:
    plan, _ = planned(pairs(base / "set"), on=Machine("cpu", 8, 16.0, hides_gpus=True))
    resources = plan.content["run"]["resources"]
    assert resources["pixel"] == {"threads": 8, "gpus": 0} and resources["check"] == {"threads": 8}
