"""The loss of a step on several balanced sources: the mean of their own means."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_gss import CLASSES, GivenLatentPriorLearner, GivenPosteriorLearner, build, colours
from tiny_learner import ALONE
from torch import Tensor, nn

from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import build_pixel_network
from gss.train.objective import EPS, Objective
from gss.train.progress import Meter
from gss.train.settings import LoopSettings

SOURCE = torch.tensor([0, 1, 0, 1, 0, 1])


class GivenPixelLearner(PixelLearner):
    """Of images that are normalised already."""

    def forward(self, batch: dict[str, Tensor], step: int) -> Any:
        neutral = torch.tensor([[0.0, 1, 1, 0, 1]]).expand(len(batch["image"]), -1)
        valid = torch.tensor([0, 0, *batch["image"].shape[2:]]).expand(len(batch["image"]), -1)
        return super().forward({**batch, "photometric": neutral, "valid": valid}, step)


def pixel(weights: Tensor | None) -> nn.Module:
    network = build_pixel_network(CLASSES, {"name": "test_resnet"}, channels=8, auxiliary={"channels": 8, "dropout": 0})
    return GivenPixelLearner(network, auxiliary_weight=0.4, class_weights=weights)


def latent_prior(weights: Tensor | None) -> nn.Module:
    model = build("ff")
    return GivenLatentPriorLearner(model.prior, model.tokenizer, colours(), class_weights=weights)


def posterior(weights: Tensor | None) -> nn.Module:
    model = build("ftw")
    return GivenPosteriorLearner(model.prior, model.tokenizer, model.posterior, class_weights=weights)


def batch() -> dict[str, Tensor]:
    """Six images of two sources; the second one has few valid pixels."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, CLASSES, (6, 32, 32), generator=generator, dtype=torch.uint8)
    label[1, 5:], label[3], label[5, :, 20:] = 255, 255, 255
    image = torch.randint(0, 255, (6, 3, 32, 32), generator=generator).float()
    return {"image": image, "label": label, "source": SOURCE}


def prepared(kind: Callable[[Tensor | None], nn.Module], *, weighted: bool = False) -> nn.Module:
    torch.manual_seed(0)
    learner = kind(torch.linspace(0.2, 3, CLASSES) if weighted else None)
    return learner.double().eval()  # no BatchNorm: a part of a batch is what it is in the whole


def objective(learner: nn.Module, sources: tuple[str, ...] = ("a", "b")) -> Objective:
    return Objective(learner, LoopSettings(steps=1, lr=1.0, precision="fp64", sources=sources), ALONE)


def gradients(learner: nn.Module) -> list[Tensor]:
    found = [p.grad for p in learner.saved.parameters() if p.grad is not None]  # type: ignore[union-attr]
    learner.zero_grad()
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [pixel, latent_prior, posterior])
def test_the_loss_is_the_mean_of_the_means_of_the_sources(kind: Any, weighted: bool) -> None:
    learner = prepared(kind, weighted=weighted)
    tested, terms = objective(learner), torch.tensor(list(learner.terms.values()), dtype=torch.float64)  # type: ignore[arg-type]
    means, counts = [], []
    for source in (0, 1):
        part = tested.move({key: value[source == SOURCE] for key, value in batch().items()})
        del part["groups"]
        sums, _ = learner(part, 0)
        counts.append(learner.counts(part))  # type: ignore[operator]
        means.append((terms * sums / (counts[-1] + EPS)).sum())
    assert (counts[0] > 2 * counts[1]).all(), "a mean over all pixels would be another one"
    expected = (means[0] + means[1]) / 2
    expected.backward()
    apart = gradients(learner)
    for micro in (1, 2, 3):
        parts = [
            tested.move(dict(zip(batch(), values, strict=True)))
            for values in zip(*(v.chunk(micro) for v in batch().values()), strict=True)
        ]
        loss = tested.backward(parts, 0, Meter())
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        for mine, theirs in zip(gradients(learner), apart, strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", [pixel, latent_prior, posterior])
def test_a_source_without_a_valid_pixel_adds_nothing_to_the_mean(kind: Any) -> None:
    learner, given = prepared(kind), batch()
    given["label"][SOURCE == 1] = 255
    tested = objective(learner)
    loss = tested.backward([tested.move(given)], 0, Meter())
    alone = objective(prepared(kind), ())
    first = alone.backward([alone.move({key: value[SOURCE == 0] for key, value in given.items()})], 0, Meter())
    assert loss.item() == pytest.approx(first.item() / 2, rel=1e-12)


def test_a_worked_loss() -> None:
    """Sums 6 and 1 over 3 pixels and 1 pixel: (2 + 1) / 2, and not 7 / 4."""

    class Given(nn.Module):
        terms, saved = {"ce": 1.0}, nn.Linear(1, 1)

        def counts(self, batch: dict[str, Tensor]) -> Tensor:
            return torch.tensor([[3.0, 1.0]], dtype=torch.float64)

        def forward(self, batch: dict[str, Tensor], step: int) -> Any:
            assert batch["groups"].tolist() == [[1, 0], [0, 1], [1, 0]]
            return torch.tensor([[6.0, 1.0]], dtype=torch.float64) + 0 * self.saved.weight, {}

    tested, meter = objective(Given()), Meter()
    loss = tested.backward([tested.move({"source": torch.tensor([0, 1, 0])})], 0, meter)
    assert loss.item() == pytest.approx(1.5, rel=1e-6)
    assert meter.read(ALONE) == pytest.approx({"train/loss": 1.5, "train/loss_ce": 1.5}, rel=1e-6)
