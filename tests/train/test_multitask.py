"""Steps that weigh the gradients of balanced sources, and resuming them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from several_sets import content
from test_balanced import SOURCE, batch, gradients, latent_prior, pixel, posterior, prepared
from tiny_learner import ALONE, TinyLearner, make_batches, run

from gss.config import load_experiment
from gss.errors import ConfigError
from gss.results.journal import read_journal
from gss.train.multitask import SOLVERS
from gss.train.objective import EPS, Objective
from gss.train.progress import Meter
from gss.train.scaling import LossScale
from gss.train.settings import LoopSettings

WEIGHTED = sorted(SOLVERS)
TINY: dict[str, Any] = {"sources": ["a", "b"], "learner": {"dropout": 0.2, "norm": True}, "clip_norm": 0.5}


def objective(
    learner: torch.nn.Module, multitask: Any, precision: Any = "fp64", sources: tuple[str, ...] = ("a", "b")
) -> Objective:
    settings = LoopSettings(steps=1, lr=1.0, precision=precision, sources=sources, multitask=multitask)
    return Objective(learner, settings, ALONE)


@pytest.mark.parametrize("multitask", WEIGHTED)
@pytest.mark.parametrize("kind", [pixel, latent_prior, posterior])
def test_a_step_follows_the_weighted_gradients_of_the_sources(kind: Any, multitask: str) -> None:
    learner = prepared(kind)
    tested, terms = objective(learner, multitask), torch.tensor(list(learner.terms.values()), dtype=torch.float64)  # type: ignore[arg-type]
    losses, vectors = [], []
    for source in (0, 1):
        part = tested.move({key: value[source == SOURCE] for key, value in batch().items()})
        del part["groups"]
        losses.append((terms * learner(part, 0)[0] / (learner.counts(part) + EPS)).sum())  # type: ignore[operator]
        losses[-1].backward()
        vectors.append(torch.cat([each.flatten() for each in gradients(learner)]))
    products = torch.stack(vectors) @ torch.stack(vectors).T
    weights = torch.from_numpy(SOLVERS[multitask](products.numpy())[0])
    assert multitask == "mgda" or weights.min() < 0.45, "of two sources the published solver makes a half each"
    for micro in (1, 3):
        chunks = [value.chunk(micro) for value in batch().values()]
        parts = [tested.move(dict(zip(batch(), values, strict=True))) for values in zip(*chunks, strict=True)]
        meter = Meter()
        loss = tested.backward(parts, 0, meter)
        assert loss.item() == pytest.approx((weights @ torch.stack(losses).double()).item(), rel=1e-9)
        found = torch.cat([each.flatten() for each in gradients(learner)])
        assert torch.allclose(found, weights @ torch.stack(vectors), rtol=1e-8, atol=1e-12)
        means = meter.read(ALONE)
        assert [means["train/weight_a"], means["train/weight_b"]] == pytest.approx(weights.tolist(), rel=1e-7)
        assert means["train/loss"] == pytest.approx(sum(means[f"train/loss_{name}"] for name in learner.terms))  # type: ignore[union-attr]


def test_the_scale_of_the_loss_changes_no_weight() -> None:
    """In half precision gradients are those of a scaled loss; the solvers have absolute thresholds."""
    found = []
    for scale in (None, LossScale(ALONE.device)):
        learner = TinyLearner()
        tested, meter = objective(learner, "mgda", "fp32", ("a", "b", "c")), Meter()
        given = next(make_batches(batch_size=9)(0))[0]
        micro = [tested.move({**given, "source": torch.arange(9) % 3})]
        tested.backward(micro, 0, meter, scale)
        factor = 1 if scale is None else scale.factor
        found.append((meter.read(ALONE), torch.cat([each.flatten() / factor for each in gradients(learner)])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)


def test_an_overflow_in_half_precision_skips_the_step_alone(tmp_path: Path) -> None:
    options = {**TINY, "learner": {"overflow": [2]}, "precision": "fp16", "multitask": "mgda_fw", "steps": 6}
    result = run(tmp_path, **options)
    skipped = [event["m"]["train/skipped"] for event in read_journal(tmp_path / "journal.jsonl") if "m" in event]
    assert skipped[1:] == [0, 1, 0, 0, 0]  # in the first step the scale is still too large for the larger gradients
    assert all(value.isfinite().all() for value in result.exported.state_dict().values())


@pytest.mark.parametrize("multitask", ["none", *WEIGHTED])
def test_a_stopped_training_goes_on_with_the_same_bits(tmp_path: Path, multitask: str) -> None:
    options = {**TINY, "multitask": multitask, "steps": 12, "accumulation": 2}
    run(tmp_path / "one", **options)
    run(tmp_path / "two", until=7, **options)
    run(tmp_path / "two", **options)
    one, two = (torch.load(tmp_path / name / "final.pt", weights_only=True) for name in ("one", "two"))
    assert all(tensor.equal(two[name]) for name, tensor in one.items())
    curves = [[e["m"] for e in read_journal(tmp_path / name / "journal.jsonl") if "m" in e] for name in ("one", "two")]
    for mine, theirs in zip(*curves, strict=True):
        assert all(mine[name] == theirs[name] for name in mine if "per_s" not in name and "wait" not in name)


def test_the_step_is_clipped_as_a_whole(tmp_path: Path) -> None:
    """The norm in the journal is that of the combined gradient; a bound far above it changes nothing, below it does."""
    options = {**TINY, "multitask": "mgda_fw", "steps": 1, "optimizer": "sgd", "learner": {}, "weight_decay": 0.0}
    moved, start = {}, TinyLearner().saved.state_dict()
    for clip in (1e9, 1e-3):
        result = run(tmp_path / str(clip), **{**options, "clip_norm": clip, "warmup_steps": 0, "lr": 1.0})
        after = result.exported.state_dict()
        moved[clip] = torch.cat([(after[name] - value).flatten() for name, value in start.items()]).norm().item()
    norm = next(e["m"]["train/grad_norm"] for e in read_journal(tmp_path / "1000000000.0/journal.jsonl") if "m" in e)
    assert moved[1e9] == pytest.approx(norm, rel=1e-4) and moved[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_weights_need_balanced_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content(multitask="mgda")))
    assert load_experiment(str(path)).at("pixel.training").multitask == "mgda"
    with pytest.raises(ConfigError, match=r"pixel.training.multitask: mgda.*needs `data.sampling: balanced`"):
        load_experiment(str(path), ["data.sampling=repeat"])
