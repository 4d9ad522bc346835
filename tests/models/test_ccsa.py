"""The contrastive loss between data sets: worked values, and which pairs are drawn."""

from collections import Counter
from typing import Any

import pytest
import torch
import yaml
from several_sets import content
from torch import Tensor

from gss.config import load_experiment
from gss.errors import ConfigError
from gss.recipes.pixel.assemble import build_network
from gss.recipes.pixel.ccsa import CCSA, at_size, contrastive, draw_pairs
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import build_pixel_network
from gss.train.distributed import World, seed_step
from gss.train.objective import Objective
from gss.train.progress import Meter
from gss.train.settings import LoopSettings

SAME = torch.tensor([True, False, False, False, True])


@pytest.mark.parametrize(
    ("distances", "broadcast", "expected"),
    [
        ((0, 1.1, 1.1, 1.1, 0), False, 0),
        ((0, 0.2, 0.3, 0.1, 0), False, 0.388),
        ((2, 0.2, 0.3, 0.1, 4), False, 4.388),
        ((2, 0.2, 0.3, 0.1, 4), True, 1.844),
    ],
)
def test_worked_values(distances: tuple[float, ...], broadcast: bool, expected: float) -> None:
    distance = torch.tensor(distances, dtype=torch.float64)
    found = contrastive(distance, SAME, torch.ones(5, dtype=torch.bool), broadcast=broadcast)
    assert found.item() == pytest.approx(expected, abs=1e-12)
    padded = contrastive(  # pairs that were not found change nothing
        torch.cat([distance, distance + 7]),
        torch.cat([SAME, ~SAME]),
        torch.arange(10) < 5,
        broadcast=broadcast,
    )
    assert padded.item() == pytest.approx(expected, abs=1e-12)


def labels(batch: int = 6, side: int = 12) -> Tensor:
    return torch.randint(0, 4, (batch, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_pairs_are_of_different_sources_and_of_classes() -> None:
    label, source = labels(), torch.tensor([0, 0, 0, 0, 1, 2])
    label[5, :, 3:] = 255
    torch.manual_seed(0)
    first, second, is_same, is_drawn = draw_pairs(label, source, 500, 255)
    assert len(first) == 2000 and is_drawn.all() and is_same.sum() == 500
    one, other = (label.flatten()[place] for place in (first, second))
    assert torch.equal(one == other, is_same) and one.max() < 4 and other.max() < 4
    assert (source[first // 144] != source[second // 144]).all()
    first, *_ = draw_pairs(labels(), source, 500, 255)
    drawn = Counter(source[first // 144].tolist())
    assert drawn[0] / 2000 == pytest.approx(1 / 3, abs=0.04), (
        "a source of four samples has no more pairs than one of one"
    )
    within = Counter((first // 144)[source[first // 144] == 0].tolist())
    assert min(within.values()) > 0.8 * max(within.values())


@pytest.mark.parametrize(
    ("source", "found"),
    [([0, 0, 0, 0, 0, 0], "none"), ([0, 0, 0, 1, 1, 1], "no negatives"), ([1, 0, 0, 0, 0, 0], "few")],
)
def test_too_few_pairs_are_fewer_pairs(source: list[int], found: str) -> None:
    label = torch.ones_like(labels()) if found == "no negatives" else labels()
    if found == "few":
        label = torch.full_like(label, 255)
        label[0, 0, 0] = label[1, 0, 0] = 2
    torch.manual_seed(0)
    _, _, is_same, is_drawn = draw_pairs(label, torch.tensor(source), 400, 255)
    counts = {"none": (0, 0), "no negatives": (400, 0), "few": (int((is_same & is_drawn).sum()), 0)}[found]
    assert (int((is_same & is_drawn).sum()), int((~is_same & is_drawn).sum())) == counts
    assert found != "few" or counts[0] < 20
    loss = CCSA(400)(torch.randn(6, 5, 12, 12, requires_grad=True), label, torch.tensor(source), 255)
    assert loss.isfinite() and (found != "none" or loss.item() == 0)


def test_the_loss_of_an_embedding_that_knows_the_class_is_zero() -> None:
    label, source = labels(), torch.tensor([0, 1] * 3)
    known = torch.nn.functional.one_hot(label.long(), 4).permute(0, 3, 1, 2).float() * 2
    knows_the_source = source.view(-1, 1, 1, 1).expand(-1, 4, 12, 12).float()
    torch.manual_seed(0)
    assert CCSA(200)(known, label, source, 255).item() < 1e-6
    assert CCSA(200)(knows_the_source, label, source, 255).item() == pytest.approx(0.25 * 4, rel=1e-3)  # all 2 apart
    assert CCSA(200, broadcast=True)(known, label, source, 255).item() > 0.5


def test_labels_are_taken_at_the_size_of_the_map() -> None:
    label = labels(2, 89)
    assert at_size(label, torch.empty(2, 1, 12, 11)).shape == (2, 12, 11)
    expected = torch.nn.functional.interpolate(label[:, None].float(), (12, 11), mode="nearest")[:, 0]
    assert torch.equal(at_size(label, torch.empty(2, 1, 12, 11)).float(), expected)


def learner(ccsa: Any, **options: Any) -> PixelLearner:
    torch.manual_seed(0)
    backbone = {"name": "resnet10t", "output_stride": 8}
    network = build_pixel_network(4, backbone, channels=8, auxiliary={"channels": 8, "dropout": 0})
    return PixelLearner(network, auxiliary_weight=0.4, ccsa=ccsa, **options).eval()


def batch() -> dict[str, Tensor]:
    label = labels(6, 32)
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8),
        "label": label,
        "valid": torch.tensor([[0, 0, 32, 32]] * 6),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]] * 6),
        "source": torch.tensor([0, 1] * 3),
    }


@pytest.mark.parametrize("sources", [(), ("a", "b")])
def test_the_losses_share_the_step(sources: tuple[str, ...]) -> None:
    """L = 0.25 L_csa + 0.75 CE + 0.75 * 0.4 CE of the auxiliary head, whether the sources are balanced or not."""
    world = World(0, 1, 0, torch.device("cpu"))
    settings = LoopSettings(steps=1, lr=1.0, precision="fp64", sources=sources)
    means = []
    for ccsa in (None, (CCSA(50), 0.25)):
        tested, meter = Objective(learner(ccsa), settings, world), Meter()
        seed_step(0, 0, 0)
        loss = tested.backward([tested.move(batch())], 0, meter)
        means.append({**meter.read(world), "loss": loss.item()})
    plain, shared = means
    assert shared["train/loss_ce"] == pytest.approx(0.75 * plain["train/loss_ce"])
    assert shared["train/loss_auxiliary"] == pytest.approx(0.75 * plain["train/loss_auxiliary"])
    assert shared["loss"] == pytest.approx(0.75 * plain["loss"] + shared["train/loss_csa"])
    given = learner(None).double()
    moved = Objective(given, settings, world).move(batch())
    maps: list[Tensor] = []
    given.saved.backbone.register_forward_hook(lambda *found: maps.append(found[2][-1]))  # type: ignore[operator, union-attr]
    given(moved, 0)
    assert maps[0].shape[2:] == (4, 4), "stride 8"
    seed_step(0, 0, 0)
    expected = CCSA(50)(maps[0], moved["label"], moved["source"], 255).item()
    assert shared["train/loss_csa"] == pytest.approx(0.25 * expected, rel=1e-6)


def test_a_batch_of_one_source_has_no_such_loss() -> None:
    given = {**batch(), "source": torch.zeros(6, dtype=torch.int64)}
    found = learner((CCSA(50), 0.25))
    assert found.counts(given)[-1] == 0 and found(given, 0)[0][-1] == 0


def test_it_is_no_part_of_a_model_and_needs_sources(tmp_path: Any) -> None:
    path, made = tmp_path / "mine.yaml", content()
    made["pixel"]["ccsa"] = {}
    path.write_text(yaml.safe_dump(made))
    experiment = load_experiment(str(path))
    assert (experiment.pixel.ccsa.weight, experiment.pixel.ccsa.pairs) == (0.25, 1000)
    build_network({"classes": range(3), "pixel": experiment.pixel.architecture()})
    made["data"] |= {"sources": [], "sampling": "repeat"}
    path.write_text(yaml.safe_dump(made))
    with pytest.raises(ConfigError, match=r"pixel.ccsa.*draws pairs of different sources"):
        load_experiment(str(path))
