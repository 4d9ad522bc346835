"""Training of the tiny models against the published implementation: values, losses, gradients, optimiser steps.

The models are built, loaded and trained by the functions a user calls; what happens inside is read by hooks. Random
parts are replaced by recorded masks. Tolerances are those of the recording; a different computation misses them by
orders of magnitude.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gss import VOCAB, Variant, build, colours, gradients, learner_of, load, published, watch
from torch import Tensor, nn

from gss.recipes.gss.model import GSS
from gss.recipes.gss.palette.maskige import nearest
from gss.results.journal import Journal, read_journal
from gss.train.distributed import World
from gss.train.loop import EPS, train
from gss.train.settings import LoopSettings

from .conftest import Recorded, read

INPUTS = {
    "train_s8": "train_odd",
    "train_drop": "train",
    "train_droppath": "train",
    "train_d1": "train",
    "train_2loss": "train",
}
CASES = [("ff", case) for case in ("train", "train_odd", "train_s8", "train_drop", "train_droppath")]
CASES += [("ftw", case) for case in ("train", "train_odd", "train_drop", "train_d1", "train_2loss")]
OPTIONS: dict[str, dict[str, Any]] = {
    "train_s8": {"token_stride": 8},
    "train_droppath": {"drop_path": 0.3},
    "train_d1": {"posterior_depth": 1},
}
ACCURACIES = {"acc_seg_aux": "pixel_acc", "acc_seg_indice": "token_acc", "acc_seg": "pixel_acc"}
SINGLE = {"conv_seg": 5e-4, "cls_segmap": 2e-3, "logits": 2e-3, "top1": 2e-3}  # absolute; others 1e-4
NO_GRADIENT = {*(f"backbone.norm{level}.bias" for level in range(4)), "decode_head.swin_ln.bias"}  # in theory
ELSEWHERE = (
    "img",
    "label",
    "token_target",
    "f32.",
    "f64.",
    "grad",
    "bn_after.",
    "mask.",
    "dropout_mask",
    "token_margin_min",
)
SECOND = ".post_transformer_block.blocks.1."
SCHEDULES = {"steps_pub": (3, 1500, {"ff": 80000, "ftw": 40000}), "steps_short": (4, 2, {"ff": 20, "ftw": 20})}
every_case = pytest.mark.parametrize(("variant", "case"), CASES)
both_precisions = pytest.mark.parametrize(
    ("precision", "threads"), [("double", 1), ("single", 1), ("single", 2)], ids=["double", "single", "two-threads"]
)

pytestmark = pytest.mark.usefixtures("parity")


@dataclass
class Run:
    """Forward and backward of one recorded case.

    seen: what the model computed, under the recorded names; terms: the weighted losses; accuracies in per cent.
    """

    expected: dict[str, Tensor]
    before: Tensor
    label: Tensor
    model: GSS
    seen: dict[str, Tensor]
    terms: Tensor
    accuracies: dict[str, float]


@cache
def run(precision: str, variant: Variant, case: str, threads: int = 1) -> Run:
    torch.set_num_threads(threads)
    recorded = recorded_of(variant)
    expected, inputs = recorded.below(case), recorded.below(INPUTS.get(case, case))
    dtype = torch.float64 if precision == "double" else torch.float32
    model = recorded_model(variant, **OPTIONS.get(case, {})).to(dtype)
    if case == "train_drop":
        model.prior.head.dropout = Factor(expected["dropout_mask"])
    learner = learner_of(variant, model)
    seen = watch(model, learner)
    label = inputs["label"][:, 0].clone()
    with drop_path_masks(recorded) if case == "train_droppath" else nullcontext():
        sums, stats = learner.losses(inputs["img"].to(dtype), label)
    weights = torch.tensor(list(learner.terms.values()), dtype=torch.float64)
    terms = weights * sums / (learner.counts({"label": label}) + EPS)
    terms.sum().backward()
    accuracies = {name: 100 * right.item() / count.item() for name, (right, count) in stats.items()}
    return Run(expected, inputs["label"][:, 0], label, model, seen, terms.detach(), accuracies)


def recorded_of(variant: Variant) -> Recorded:
    return read(Path(os.environ["GSS_PARITY"]) / f"swin_{variant}.safetensors")


def recorded_model(variant: Variant, **options: Any) -> GSS:
    """The model of a recorded file with its weights, in train mode."""
    model = build(variant, **options)
    state = recorded_of(variant).below("sd")
    if options.get("posterior_depth") == 1:
        state = {key: value for key, value in state.items() if SECOND not in key}
    load(model, state)
    return model


class Factor(nn.Module):
    """Stands for dropout, with a recorded mask."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x.dtype)


@contextmanager
def drop_path_masks(recorded: Recorded) -> Iterator[None]:
    """Let the model's own stochastic depth draw the recorded masks."""
    rates = recorded.meta["train_droppath"]["rates"]
    masks = iter([(rate, recorded.tensors[f"train_droppath.mask.{name}"]) for name, rate in rates.items() if rate])

    def draw(self: Tensor, probability: float) -> Tensor:
        rate, mask = next(masks)
        assert probability == 1 - rate
        return self.copy_(mask.view_as(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "bernoulli_", draw)
        yield
    assert not list(masks), "a branch was not dropped"


def assert_close(name: str, ours: Tensor, theirs: Tensor, precision: str) -> None:
    assert ours.shape == theirs.shape, name
    largest, error = theirs.abs().max().item(), (ours - theirs).abs().max().item()
    if precision == "single":
        allowed = SINGLE.get(name, 1e-4)
    else:
        allowed = 1e-9 + 1e-9 * largest if theirs.dtype == torch.float64 else 1e-6 * largest
    assert error <= allowed, f"{name}: {error:.3g} instead of at most {allowed:.3g}"


@both_precisions
@every_case
def test_values_inside_the_network(precision: str, threads: int, variant: Variant, case: str) -> None:
    done = run(precision, variant, case, threads)
    names = [name for name in done.expected if not name.startswith(ELSEWHERE)]
    for name in names:
        ours, theirs = done.seen[name], done.expected[name]
        if theirs.is_floating_point():
            assert_close(name, ours, theirs, precision)
        else:
            assert torch.equal(ours, theirs.long()), name
    assert names or case == "train_2loss"  # this one differs from `train` in its losses only


@both_precisions
@pytest.mark.parametrize("case", ["train", "train_odd", "train_s8"])
def test_labels_and_token_targets(precision: str, threads: int, case: str) -> None:
    done = run(precision, "ff", case, threads)
    tokens, doubled = done.seen["token_target"], done.seen["label_resized"]
    assert torch.equal(doubled, done.expected["label_resized"][:, 0])
    filled = nearest(255 * done.seen["painted"], colours())  # what the tokenizer was given
    sure = done.expected.get("label_filled_ambiguous", torch.zeros_like(filled)) == 0
    assert torch.equal(filled[sure], done.expected["label_filled"][:, 0][sure].long())
    for name in ("token_target", "token_target_masked"):
        assert torch.equal(tokens, done.expected[name].long())
    assert 0 < (tokens == VOCAB).sum() < tokens.numel()


@both_precisions
@every_case
def test_losses_and_accuracies(precision: str, threads: int, variant: Variant, case: str) -> None:
    done = run(precision, variant, case, threads)
    ours = {"total": done.terms.sum().item(), "decode.loss_ce": done.terms[0].item()}
    if variant == "ff":
        ours["decode.loss_ce_pixel"] = done.terms[1].item()
    if case == "train_2loss":  # one loss here, of which the published run makes two parts
        ours |= {"decode.loss_ce": 0.8 * ours["total"], "decode.loss_ce_pixel": 0.2 * ours["total"]}
    theirs = {
        name.partition(".")[2]: value.item()
        for name, value in done.expected.items()
        if name.startswith("f64." if precision == "double" else "f32.")
    }
    ours |= {name: done.accuracies[ACCURACIES[name.partition(".")[2]]] for name in theirs if "acc" in name}
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if "acc" in name:
            assert ours[name] == pytest.approx(value, rel=0, abs=1e-4 if precision == "double" else 0.2), name
        elif precision == "double":
            assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
        else:
            assert ours[name] == pytest.approx(value, rel=1e-4), name


@both_precisions
@every_case
def test_selected_gradients(precision: str, threads: int, variant: Variant, case: str) -> None:
    done = run(precision, variant, case, threads)
    ours = gradients(done.model)
    for key, theirs in done.expected.items():
        name = key.removeprefix("grad.")
        if key == name or (precision == "single" and variant == "ff" and name in NO_GRADIENT):
            continue
        error, largest = (ours[name] - theirs).abs().max().item(), theirs.abs().max().item()
        assert error <= (1e-7 * largest + 1e-10 if precision == "double" else 1e-4 * largest), name


@every_case
def test_all_gradients_by_their_sums(variant: Variant, case: str) -> None:
    done = run("double", variant, case)
    ours, stats = gradients(done.model), done.expected["grad_stats"]
    names = sorted(ours)  # code points
    theirs = recorded_of(variant).meta["train"]["grad_names"]
    assert names == sorted(name for name in theirs if case != "train_d1" or SECOND not in name)
    for name, theirs in zip(names, stats, strict=True):
        found = torch.stack([ours[name].sum(), ours[name].abs().sum(), ours[name].norm()])
        assert (found - theirs).abs().max().item() <= 1e-7 * theirs[1].item() + 1e-9, name


@pytest.mark.parametrize("variant", ["ff", "ftw"])
def test_statistics_of_batch_norm_after_one_forward(variant: Variant) -> None:
    done = run("double", variant, "train")
    ours = published(done.model)
    checked = 0
    for key, theirs in done.expected.items():
        if key.startswith("bn_after."):
            assert_close(key, ours[key.removeprefix("bn_after.")], theirs, "double")
            checked += 1
    assert checked >= 20


@every_case
def test_the_callers_label_is_not_changed(variant: Variant, case: str) -> None:
    """The published FF head overwrites 255 by the number of classes; nothing later depends on it."""
    done = run("double", variant, case)
    assert torch.equal(done.label, done.before)
    theirs = done.expected["label_after"][:, 0]
    assert torch.equal(theirs, done.before.masked_fill(done.before == 255, 19) if variant == "ff" else done.before)


@dataclass
class Steps:
    """Some optimiser steps: tensors by published name before and after, and the journal's figures."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    logged: list[dict[str, float]]


@pytest.fixture(
    scope="module", params=[(variant, name) for variant in ("ff", "ftw") for name in SCHEDULES], ids="-".join
)
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Variant, str, Steps]:
    """The real loop over the recorded batches: the first one, moved to the right by a pixel at every step."""
    variant, name = request.param
    number, warmup, length = SCHEDULES[name]
    image, label = (recorded_of(variant).tensors[f"train.{part}"] for part in ("img", "label"))
    model = recorded_model(variant).double()
    before, folder = published(model), tmp_path_factory.mktemp(name)

    def batches(start: int) -> Iterator[list[dict[str, Tensor]]]:
        for step in range(start, number):
            yield [{"image": image.double().roll(step, -1), "label": label[:, 0].roll(step, -1)}]

    settings = LoopSettings(
        steps=length[variant], lr=0.0015, warmup_steps=warmup, decay_rule="published", precision="fp64", log_every=1
    )
    with Journal(folder / "journal.jsonl", {}) as journal:
        world = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
        train(learner_of(variant, model), batches, settings, work=folder, journal=journal, world=world, until=number)
    logged = [event["m"] for event in read_journal(folder / "journal.jsonl") if "m" in event]
    return variant, name, Steps(before, published(model), logged)


def test_steps_lead_to_the_recorded_weights(steps: tuple[Variant, str, Steps]) -> None:
    variant, name, done = steps
    after = recorded_of(variant).below(f"{name}.after")
    for key, theirs in after.items():
        change = (theirs - done.before[key]).abs().max().item()
        error = (done.after[key] - theirs).abs().max().item()
        assert error <= 1e-5 * change + (1e-9 if name == "steps_short" else 1e-11), key
    assert len(after) > 40


def test_steps_change_every_parameter_by_the_recorded_amount(steps: tuple[Variant, str, Steps]) -> None:
    variant, name, done = steps
    recorded = recorded_of(variant)
    for key, theirs in zip(recorded.meta["steps"]["delta_names"], recorded.tensors[f"{name}.delta_stats"], strict=True):
        change = done.after[key] - done.before[key]
        found = torch.stack([change.sum(), change.abs().sum(), change.abs().max()])
        error = (found - theirs).abs().max().item()
        assert error <= 1e-5 * theirs[1].item() + (1e-7 if name == "steps_short" else 1e-9), key
    for key in recorded.meta["steps"]["unchanged"]:
        assert torch.equal(done.after[key], done.before[key]), key


def test_steps_report_the_recorded_losses_and_rates(steps: tuple[Variant, str, Steps]) -> None:
    variant, name, done = steps
    recorded = recorded_of(variant)
    rates = recorded.tensors[f"{name}.lr"].tolist()
    assert [row["train/lr"] for row in done.logged] == pytest.approx(rates, rel=1e-12)
    first = "token" if variant == "ff" else "ce"
    columns = {"loss": "train/loss", "loss_ce": f"train/loss_{first}", "loss_ce_pixel": "train/loss_pixel"}
    for row, theirs in zip(done.logged, recorded.tensors[f"{name}.logs"].tolist(), strict=True):
        for column, value in zip(recorded.meta["steps"]["log_keys"], theirs, strict=True):
            short = column.removeprefix("decode.")
            if short in columns:
                assert row[columns[short]] == pytest.approx(value, rel=1e-9, abs=1e-9), column
            else:
                found = 100 * row[f"train/{ACCURACIES[short]}"]
                assert found == pytest.approx(value, rel=0, abs=1e-4), column
