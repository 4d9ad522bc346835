"""fp16: gradients that overflow cost a step of the loss's scale, and leave nothing behind."""

import copy
import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tiny_gss import CLASSES, Variant, build, learner_of
from tiny_learner import ALONE, TinyLearner, run
from torch import Tensor, nn

from gss.cluster.launch import launch
from gss.errors import GssError
from gss.nets.losses import pixel_loss_sum
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import build_pixel_network
from gss.results.journal import Journal, read_journal
from gss.train.guard import FiniteGuard
from gss.train.loop import train
from gss.train.scaling import INTERVAL, START, LossScale
from gss.train.settings import LoopSettings
from gss.train.state import TrainState


class GivenPixelLearner(PixelLearner):
    """Of normalised float images."""

    def forward(self, batch: dict[str, Tensor], step: int) -> Any:
        logits = self.saved(batch["image"].contiguous(memory_format=torch.channels_last))
        loss, _ = pixel_loss_sum(logits, batch["label"], ignore_index=self.ignored)
        return loss.view(1), {}


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)


def figures(folder: Path) -> dict[int, dict[str, float]]:
    timed = ("train/img_per_s", "train/data_wait")
    lines = [event for event in read_journal(folder / "journal.jsonl") if "m" in event]
    return {line["step"]: {k: v for k, v in line["m"].items() if k not in timed} for line in lines}


def content(folder: Path, step: int) -> dict[str, Any]:
    (path,) = (folder / "checkpoints").glob(f"step_{step:08d}-*.pt")
    return torch.load(path, weights_only=True)


def assert_same(one: Any, two: Any, where: str = "") -> None:
    if isinstance(one, Tensor):
        assert one.equal(two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert_same(value, two[name], f"{where}.{name}")
    else:
        assert one == two, where


def test_the_scale_follows_the_policy_of_torch() -> None:
    scale, reference = LossScale(torch.device("cpu")), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD([parameter := nn.Parameter(torch.ones(2))], lr=0.0)
    generator = torch.Generator().manual_seed(0)
    bad = (torch.rand(3 * INTERVAL, generator=generator) < 2e-3).tolist() + [False] * (2 * INTERVAL + 1)
    seen = set()
    for number, is_bad in enumerate([True, True, *bad]):
        parameter.grad = reference.scale(torch.tensor([math.inf if is_bad else 1.0, 1.0]))
        reference.step(optimizer)
        reference.update()
        scale.follow(torch.tensor((math.inf, math.nan)[number % 2] if is_bad else 1.0))
        assert float(scale.factor) == reference.get_scale() and bool(scale.overflow) == is_bad
        seen.add(float(scale.factor))
    assert START == 65536 and max(seen) > min(seen)
    later = LossScale(torch.device("cpu"))
    later.load(copy.deepcopy(scale.state()))
    for _ in range(INTERVAL):
        scale.follow(torch.tensor(1.0))
        later.follow(torch.tensor(1.0))
        assert later.factor == scale.factor


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "sgd"}, {"ema": 0.9, "clip_norm": 1.0}, {"optimizer": "sgd", "nesterov": True}]
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_step_that_overflows_leaves_nothing_behind(options: dict[str, Any], at: int) -> None:
    """Also the first one, before which the optimizer has no state, and where the forward pass itself overflows."""
    settings = LoopSettings(steps=9, lr=0.1, warmup_steps=0, precision="fp16", weight_decay=0.1, **options)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    plain = copy.deepcopy(module)
    state, without = TrainState(module, settings, ALONE), TrainState(plain, settings, ALONE)

    def step(state: TrainState, number: int, image: Tensor) -> None:
        assert state.scale is not None
        guard = FiniteGuard(state.optimizer, torch.device("cpu"), lambda: "none", state.scale)
        guard._at_once = False  # as on CUDA
        state.begin(0.1 / (number + 1))
        loss = state.module(image).square().mean()
        (loss * state.scale.factor).backward()
        norm = state.gradient_norm()
        guard.watch(number, loss, norm)
        state.update(norm)
        guard.check()

    images = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
    for number, image in enumerate(images):
        if number == at:
            before = copy.deepcopy(state.content(number))
            step(state, number, image * math.inf)
            after = state.content(number)
            for name in ("model", "optimizer", *(["ema"] if "ema" in options else [])):
                found, expected = copy.deepcopy(after[name]), copy.deepcopy(before[name])
                if name == "optimizer":  # which has its state from the first step on; zeros are none
                    found, expected = found["state"], expected["state"]
                    for values in found.values() if not expected else ():
                        assert not any(value.any() for value in values.values() if value is not None)
                    expected = expected or found
                assert_same(expected, found, name)
            assert after["scale"]["factor"] == START / 2 and after["scale"]["good"] == 0
        step(state, number, image)
        step(without, number, image)
    found, expected = state.content(4), without.content(4)
    for name in ("model", "optimizer"):
        assert_same(found[name], expected[name], name)
    assert found["scale"]["factor"] == START / 2 and expected["scale"]["good"] == 4
    means = state.meter.read(ALONE)
    assert means["train/skipped"] == 1 / 5 and math.isfinite(means["train/grad_norm"])


def half(*overflow: int) -> dict[str, Any]:
    """Options of a training in fp16 some of whose steps overflow."""
    learner = {"norm": True, "dropout": 0.1, "overflow": overflow}
    return {"precision": "fp16", "ema": 0.9, "clip_norm": 1.0, "learner": learner}


def test_a_training_goes_on_after_an_overflow(tmp_path: Path) -> None:
    """The schedule, the data, checkpoints, and the log go on; the weights and running statistics are untouched."""
    run(tmp_path, save_every=1, keep_last=30, log_every=2, **half(5, 6))
    found = {step: content(tmp_path, step) for step in (5, 6, 7, 8)}
    for name in ("model", "optimizer", "ema"):
        for step in (6, 7):
            one, two = (found[k][name]["state"] if name == "optimizer" else found[k][name] for k in (5, step))
            assert_same(one, two, name)
    assert not found[7]["model"]["0.weight"].equal(found[8]["model"]["0.weight"])
    assert found[5]["model"]["1.num_batches_tracked"] == 5 and found[8]["model"]["1.num_batches_tracked"] == 6
    assert [float(found[step]["scale"]["factor"]) for step in (5, 6, 7, 8)] == [START, START / 2, START / 4, START / 4]
    lines = figures(tmp_path)
    assert [lines[step]["train/skipped"] for step in (4, 6, 8)] == [0, 0.5, 0.5]
    assert lines[4]["train/scale"] == START and lines[8]["train/scale"] == START / 4
    assert all(math.isfinite(value) for line in lines.values() for value in line.values())
    plain = tmp_path / "plain"
    run(plain, log_every=2, **half())
    assert {step: line["train/lr"] for step, line in figures(plain).items()} == {
        step: line["train/lr"] for step, line in lines.items()
    }
    assert lines[4] == figures(plain)[4]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_training_goes_on_with_the_same_bits(tmp_path: Path, accumulation: int) -> None:
    """Across a checkpoint right behind a skipped step, too; logged intervals span both."""
    options = {"log_every": 4, "accumulation": accumulation, **half(0, 6, 17)}
    run(tmp_path / "one", **options)
    for until in (7, 18, None):
        run(tmp_path / "two", until=until, **options)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    assert_same(content(tmp_path / "one", 30)["scale"], content(tmp_path / "two", 30)["scale"])


def test_an_interval_in_which_nothing_was_learned_has_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, steps=2, **half(0))
    assert "train/loss" not in figures(tmp_path)[1] and figures(tmp_path)[1]["train/skipped"] == 1
    assert "step 1/2  loss nan" in capsys.readouterr().out
    assert math.isfinite(figures(tmp_path)[2]["train/loss"])


def test_a_loss_that_is_no_number_at_any_scale_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(GssError, match="not finite at step 26; training stopped before this update"):
        run(tmp_path, steps=60, **half(*range(10, 60)))
    assert content(tmp_path, 25)["scale"]["factor"] == 2
    assert_same(content(tmp_path, 20)["model"], content(tmp_path, 25)["model"])


def test_gradients_are_those_of_fp32_to_rounding(tmp_path: Path) -> None:
    """What is clipped and logged is the norm of the unscaled gradient; weights that hardly move can be compared,
    but for the steps left out."""
    for precision in ("fp32", "fp16"):
        run(tmp_path / precision, precision=precision, lr=1e-5, optimizer="sgd", clip_norm=0.5, learner={"norm": True})
    one, two = weights(tmp_path / "fp32"), weights(tmp_path / "fp16")
    for name, start in TinyLearner(norm=True).saved.named_parameters():
        assert (one[name] - two[name]).norm() <= 0.2 * (one[name] - start).norm(), name
    assert_agree(tmp_path / "fp32", tmp_path / "fp16", 5e-3, least=25)


def assert_agree(single: Path, half: Path, tolerance: float, *, least: int) -> None:
    """Figures of the steps that were not skipped; a few ties among scores are decided otherwise."""
    lines = [(line, figures(half)[step]) for step, line in figures(single).items()]
    kept = [(line, other) for line, other in lines if not other["train/skipped"]]
    for line, other in kept:
        assert {name: other[name] for name in line} == pytest.approx(line, rel=tolerance, abs=2e-3)
    assert len(kept) >= least


@pytest.mark.parametrize("kind", ["ff", "ftw", "pixel"])
def test_every_network_trains_in_fp16(kind: Variant | Literal["pixel"], tmp_path: Path) -> None:
    """With the tokens of the label, the losses and the running statistics of fp32."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, CLASSES, (2, 36, 44), dtype=torch.uint8, generator=generator)
    label[0, 9:] = 255
    batch = {"image": torch.randn(2, 3, 36, 44, generator=generator), "label": label}
    statistics = {}
    for precision in ("fp32", "fp16"):
        torch.manual_seed(0)
        if kind == "pixel":
            learner: nn.Module = GivenPixelLearner(build_pixel_network(CLASSES, {"name": "test_resnet"}, channels=16))
        else:
            learner = learner_of(kind, build(kind))
        for norm in learner.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0  # a skipped step then changes no statistics of the last one
        settings = LoopSettings(steps=6, lr=1e-9, warmup_steps=0, log_every=1, precision=precision)
        with Journal((folder := tmp_path / precision) / "journal.jsonl", {}) as journal:
            result = train(learner, lambda _: iter([[batch]] * 6), settings, work=folder, journal=journal, world=ALONE)
        assert {parameter.dtype for parameter in result.exported.parameters()} == {torch.float32}
        buffers = result.exported.named_buffers()
        statistics[precision] = {name: buffer for name, buffer in buffers if name.endswith("running_mean")}
    assert_agree(tmp_path / "fp32", tmp_path / "fp16", 0.1, least=3)
    for name, value in statistics["fp32"].items():
        assert (statistics["fp16"][name] - value).abs().max() <= 0.02 * value.abs().max() + 1e-3, name


def test_it_learns_as_fp32_does(tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "fp16"):
        run(tmp_path / precision, precision=precision, steps=60, log_every=20)
        losses.append(figures(tmp_path / precision)[60]["train/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.slow
def test_two_processes_skip_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient overflows in one of them."""
    here = Path(__file__).resolve().parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parents[1]}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"steps": 20, **half(4, 9)}
    assert launch(2, [str(tmp_path), json.dumps(options)], work=tmp_path, module="tiny_learner") == 0
    skipped = [step for step, line in figures(tmp_path).items() if line["train/skipped"]]
    assert {5, 10} <= set(skipped) and content(tmp_path, 20)["scale"]["factor"] == START / 2 ** len(skipped)
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    assert_same(weights(tmp_path), torch.load(tmp_path / "final_1.pt", weights_only=True))
