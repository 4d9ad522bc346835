import json
import math
import os
import re
import signal
import threading
import time
from functools import partial

import pytest
import torch
from tiny_learner import ALONE, SETTINGS, TinyLearner, make_batches, run, sample

from gss.errors import CheckpointError, GssError, Interrupted
from gss.results.journal import Journal, read_journal
from gss.train.distributed import World
from gss.train.guard import FiniteGuard
from gss.train.loop import LoopSettings, train
from gss.train.stop import Clock, Wish


def weights(folder):
    return torch.load(folder / "final.pt", weights_only=True)


def assert_same(one, two, tolerance=0.0):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=0, atol=tolerance) if tolerance else tensor.equal(two[name]), name


def metrics(folder):
    """The journal's figures by step, without those that measure time."""
    timed = ("train/img_per_s", "train/data_wait")
    lines = [event for event in read_journal(folder / "journal.jsonl") if "m" in event]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: {k: v for k, v in line["m"].items() if k not in timed} for line in lines}


def test_loss_is_sum_over_count_with_eps(tmp_path):
    run(tmp_path, steps=1, precision="fp64")
    learner = TinyLearner().double()
    batch = next(make_batches()(0))[0]
    sums, _ = learner({"image": batch["image"].double(), "label": batch["label"]}, 0)
    loss, eps = sums.detach() / (learner.counts(batch) + 2**-23), 2**-23
    logged = metrics(tmp_path)[1]
    assert eps == torch.finfo(torch.float32).eps
    assert logged["train/loss"] == pytest.approx(float(loss[0] + 0.5 * loss[1]), rel=1e-12)
    assert logged["train/loss_class"] == pytest.approx(float(loss[0]), rel=1e-12)
    assert logged["train/loss_square"] == pytest.approx(float(0.5 * loss[1]), rel=1e-12)
    assert 0 <= logged["train/accuracy"] <= 1 and logged["train/grad_norm"] > 0
    assert logged["train/lr"] == pytest.approx(0.05 * 1e-6)


def test_a_term_without_elements_is_zero(tmp_path):
    def batches(start):
        while True:
            yield [{"image": torch.ones(4, 5), "label": torch.full((4,), -1)}]

    train(
        TinyLearner(),
        batches,
        LoopSettings(**{**SETTINGS, "steps": 2}),
        work=tmp_path,
        world=ALONE,
        journal=Journal(tmp_path / "journal.jsonl", {}),
    )
    for logged in metrics(tmp_path).values():
        assert logged["train/loss_class"] == 0 and logged["train/loss"] > 0 and "train/accuracy" not in logged


def test_accumulation_changes_nothing(tmp_path):
    for number in (1, 2, 4):
        run(tmp_path / str(number), precision="fp64", accumulation=number)
    for number in (2, 4):
        assert_same(weights(tmp_path / "1"), weights(tmp_path / str(number)), 1e-10)
        assert json.loads((tmp_path / f"{number}/seen_0.json").read_text()) == list(range(30 * 8))


def test_local_normalisation_is_the_mean_over_micro_batches(tmp_path):
    """The gradient, too: one step from the same weights moves them by the mean of the parts' gradients."""
    run(tmp_path, steps=1, precision="fp64", accumulation=4, normalisation="local")
    learner = TinyLearner().double()
    losses = []
    for batch in next(make_batches(accumulation=4)(0)):
        sums, _ = learner({"image": batch["image"].double(), "label": batch["label"]}, 0)
        losses.append(torch.tensor([1.0, 0.5], dtype=torch.float64) @ (sums / (learner.counts(batch) + 2**-23)))
    assert len({int(learner.counts(batch)[0]) for batch in next(make_batches(accumulation=4)(0))}) > 1
    loss = torch.stack(losses).mean()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in learner.parameters()])
    logged = metrics(tmp_path)[1]
    assert logged["train/loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert logged["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-12)
    run(tmp_path / "global", steps=1, precision="fp64", accumulation=4)
    assert metrics(tmp_path / "global")[1]["train/loss"] != pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.9, "clip_norm": 0.1, "learner": {"norm": True, "dropout": 0.3}},
        {"precision": "bf16"},
        {"optimizer": "sgd", "nesterov": True, "schedule": "cosine"},
    ],
)
def test_segments_equal_one_run(tmp_path, options):
    """Milestones that are neither save nor log steps."""
    for name, milestones in (("one", [None]), ("parts", [7, 18, None])):
        for until in milestones:
            result = run(tmp_path / name, until=until, **{"log_every": 4, **options})
            assert result.step == (until or 30) and result.finished == (until is None)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "parts"))
    assert metrics(tmp_path / "one") == metrics(tmp_path / "parts")
    assert list(metrics(tmp_path / "one")) == [4, 8, 12, 16, 20, 24, 28, 30]


def test_stop_signal_saves_and_the_next_call_goes_on(tmp_path):
    run(tmp_path / "one")
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM after step .* the same command goes on") as stop:
        run(tmp_path / "two", delay=0.02)
    assert 0 < stop.value.step < 30
    assert read_journal(tmp_path / "two/journal.jsonl")[-1]["end"] == "interrupted"
    run(tmp_path / "two")
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")
    assert read_journal(tmp_path / "two/journal.jsonl")[-1]["end"] == "finished"


def test_checkpoints_by_the_clock(tmp_path):
    run(tmp_path / "one")
    with pytest.raises(GssError, match="not finite at step 20") as error:
        run(tmp_path / "two", save_every=1000, save_minutes=0.1 / 60, delay=0.02, learner={"poison": 20})
    last = re.search(r"step_0*(\d+)", str(error.value))
    assert last and 1 <= int(last[1]) <= 20  # some step a tenth of a second or more before the end
    run(tmp_path / "two", save_every=1000)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")


def test_the_deadline_saves_and_the_next_call_goes_on(tmp_path, monkeypatch):
    run(tmp_path / "one")
    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 2.2))
    with pytest.raises(Interrupted, match=r"stopped before the end of the job's time after step .* goes on") as stop:
        run(tmp_path / "two", delay=0.03, deadline_margin=2)
    assert 0 < stop.value.step < 30 and stop.value.deadline
    with pytest.raises(Interrupted, match="at step") as stop:  # steps were gained in this process
        run(tmp_path / "two", deadline_margin=2)
    assert stop.value.deadline
    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 1000))
    run(tmp_path / "two")
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")


def test_the_margin_grows_with_what_takes_long(monkeypatch):
    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 100))
    clock = Clock(LoopSettings(steps=1, lr=1))
    assert clock.step_done(longest_save=30) is Wish.GO_ON
    assert clock.step_done(longest_save=34) is Wish.STOP_FOR_DEADLINE
    quick = Clock(LoopSettings(steps=1, lr=1, deadline_margin=99.9))
    assert quick.step_done(0) is Wish.GO_ON
    time.sleep(0.1)  # the first step counts from here
    assert quick.step_done(0) is Wish.STOP_FOR_DEADLINE


def test_calling_a_finished_training_again_changes_nothing(tmp_path, capsys):
    run(tmp_path)
    before = weights(tmp_path)
    run(tmp_path)
    assert_same(before, weights(tmp_path))
    assert "resumed from step 30" in capsys.readouterr().out


def test_not_finite_stops_before_the_update(tmp_path):
    with pytest.raises(GssError, match="not finite at step 12") as error:
        run(tmp_path, learner={"poison": 12})
    assert "step_00000010" in str(error.value) and "lower `lr`" in str(error.value)
    assert list(metrics(tmp_path)) == list(range(1, 13))
    run(tmp_path)
    run(tmp_path / "undisturbed")
    assert_same(weights(tmp_path), weights(tmp_path / "undisturbed"))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9)])
def test_flagged_steps_update_nothing(kind):
    """The way of CUDA, with the CPU's fused kernel: the flag alone holds updates back until the host looks."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([parameter], lr=0.1, fused=True)
    guard = FiniteGuard(optimizer, torch.device("cpu"), lambda: "none")
    guard._at_once, optimizer.found_inf = False, guard._flag
    kept = []
    for step, loss in enumerate([1.0, 1.0, math.nan, 1.0]):
        parameter.grad = torch.full((3,), loss)
        guard.watch(step, torch.tensor(loss), torch.tensor(loss))
        optimizer.step()
        kept.append(parameter.detach().clone())
    assert not kept[0].equal(kept[1]) and kept[1].equal(kept[2]) and kept[1].equal(kept[3])
    with pytest.raises(GssError, match=r"not finite at step 2; .*before this update"):
        guard.check()


def test_ema_is_exported(tmp_path):
    plain, averaged = run(tmp_path / "plain"), run(tmp_path / "ema", ema=0.5)
    assert not weights(tmp_path / "plain")["0.weight"].equal(weights(tmp_path / "ema")["0.weight"])
    assert plain.exported is not averaged.exported


def test_lines_on_screen(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GSS_LAUNCHED", str(time.time() - 7))
    run(tmp_path, steps=4, log_every=1)
    out = capsys.readouterr().out
    assert re.search(r"^first step [7-9]\.\d s after the start of the job$", out, re.MULTILINE)
    assert out.index("first step ") < out.index("step 1/4  loss ")
    assert "fresh start, up to step 4 of 4" in out and "1 process(es) on cpu, fp32" in out
    assert re.fullmatch(r"done: step 4 of 4; checkpoints took \d+\.\d% of 0:01", out.splitlines()[-1])
    for part in ("step 2/4  loss ", "  lr ", " img/s  wait ", "%  mem ", " GB  ETA 0:0"):
        assert part in out


def test_a_checkpoint_says_where_it_was_made_and_goes_on_elsewhere(tmp_path):
    run(tmp_path, steps=20, until=10, machine={"device": "NVIDIA H200", "processes": 2, "accumulation": 4})
    (checkpoint,) = (tmp_path / "checkpoints").glob("step_00000010-*.pt")
    assert torch.load(checkpoint, weights_only=True)["settings"]["machine"]["device"] == "NVIDIA H200"
    run(tmp_path, steps=20, machine={"device": "cpu", "processes": 1, "accumulation": 1})
    run(tmp_path / "undisturbed", steps=20)
    assert_same(weights(tmp_path), weights(tmp_path / "undisturbed"))


def test_other_settings_are_refused(tmp_path):
    run(tmp_path, until=5)
    with pytest.raises(CheckpointError, match=r"other settings: lr 0\.05, now 0\.1"):
        run(tmp_path, lr=0.1)
    run(tmp_path, log_every=7, save_every=3)


def test_a_milestone_already_passed_is_refused(tmp_path):
    run(tmp_path, until=10)
    with pytest.raises(CheckpointError, match="of step 10, past the wanted step 5"):
        run(tmp_path, until=5)


def test_a_frozen_part_in_lower_precision_stays_so(tmp_path):
    learner = TinyLearner()
    learner.frozen = torch.nn.Linear(2, 2, dtype=torch.bfloat16).requires_grad_(False)
    train(learner, make_batches(), LoopSettings(**{**SETTINGS, "steps": 1}), work=tmp_path, journal=None, world=ALONE)
    assert learner.frozen.weight.dtype == torch.bfloat16


def test_samples_differ():
    assert len({tuple(sample(1, position)[0].tolist()) for position in range(50)}) == 50


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_on_cuda_never_wait_for_the_device(tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    world = World(0, 1, 0, torch.device("cuda", 0))

    def batches(start):
        for step, micro in enumerate(make_batches()(start), start=start):
            torch.cuda.set_sync_debug_mode("error" if step in range(2, 9) else "default")
            yield [{name: value.pin_memory() for name, value in batch.items()} for batch in micro]

    try:
        train(
            TinyLearner(dropout=0.1, norm=True),
            batches,
            LoopSettings(
                **{
                    **SETTINGS,
                    "steps": 10,
                    "log_every": 10,
                    "save_every": 10,
                    "clip_norm": 1.0,
                    "ema": 0.9,
                    "precision": precision,
                }
            ),
            work=tmp_path,
            journal=None,
            world=world,
        )
        with pytest.raises(GssError, match="not finite at step 3"):
            train(
                TinyLearner(poison=3),
                make_batches(),
                LoopSettings(**{**SETTINGS, "log_every": 10}),
                work=tmp_path / "poison",
                journal=None,
                world=world,
            )
    finally:
        torch.cuda.set_sync_debug_mode("default")
