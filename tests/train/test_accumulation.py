"""What a step's micro-batches change: nothing but for BatchNorm, dropout and stochastic depth; and it is said."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gss import CLASSES, GivenLatentPriorLearner, GivenPosteriorLearner, build, colours
from tiny_learner import ALONE, run
from torch import Tensor, nn

from gss.recipes.gss.learners import ImageLearner
from gss.results.journal import Journal
from gss.train.loop import LoopSettings, train

WARNING = "warning: accumulation"


class WithoutBatchNorm:
    """A learner whose BatchNorms use their stored statistics, as no BatchNorm would."""

    saved: nn.Module

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)  # type: ignore[misc]
        for module in self.saved.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self  # type: ignore[return-value]


class PriorLearner(WithoutBatchNorm, GivenLatentPriorLearner):
    pass


class InverseLearner(WithoutBatchNorm, GivenPosteriorLearner):
    pass


def learner(kind: type[ImageLearner], *, weighted: bool, drop_path: float = 0.0) -> ImageLearner:
    torch.manual_seed(0)
    model = build("ff" if issubclass(kind, GivenLatentPriorLearner) else "ftw", drop_path=drop_path)
    weights = torch.linspace(0.2, 3, CLASSES) if weighted else None
    last = colours() if issubclass(kind, GivenLatentPriorLearner) else model.posterior
    return kind(model.prior, model.tokenizer, last, class_weights=weights)  # type: ignore[call-arg]


def trained(kind: type[ImageLearner], folder: Path, accumulation: int, **options: Any) -> dict[str, Tensor]:
    """Weights after two steps of four images, whose labels are ignored in part, in part altogether."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 3, 36, 44, generator=generator)
    label = torch.randint(0, CLASSES, (4, 36, 44), generator=generator, dtype=torch.uint8)
    label[0], label[1, 9:], label[2, :, :5] = 255, 255, 255
    divided = zip(image.chunk(accumulation), label.chunk(accumulation), strict=True)
    parts = [{"image": images, "label": labels} for images, labels in divided]
    settings = LoopSettings(steps=2, lr=1e-2, warmup_steps=0, precision="fp64")
    with Journal(folder / "journal.jsonl", {}) as journal:
        result = train(
            learner(kind, **options), lambda _: iter([parts] * 2), settings, work=folder, journal=journal, world=ALONE
        )
    return copy.deepcopy(result.exported.state_dict())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [PriorLearner, InverseLearner])
def test_without_batch_norm_micro_batches_are_the_whole_batch(
    kind: type[ImageLearner], weighted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(kind, tmp_path / "1", 1, weighted=weighted)
    parts = trained(kind, tmp_path / "4", 4, weighted=weighted)
    for name, value in whole.items():
        assert (parts[name] - value).abs().max() <= 1e-7, name  # every step moves a weight by up to 1e-2
    assert WARNING not in capsys.readouterr().out


def test_batch_norm_sees_micro_batches_and_this_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for number in (1, 2):
        run(tmp_path / str(number), precision="fp64", steps=3, accumulation=number, learner={"norm": True})
        found[number] = torch.load(tmp_path / f"{number}/final.pt", weights_only=True)
        said = f"{WARNING} 2: 1 BatchNorm layers see 4 of a step's 8 images at a time, so the result is not that of"
        assert (said in capsys.readouterr().out) == (number == 2)
    assert max((found[1][name] - found[2][name]).abs().max() for name in found[1]) > 1e-3


def test_stochastic_depth_draws_in_every_micro_batch(tmp_path: Path) -> None:
    """With another seed a batch would have other draws, too: nothing to warn of."""
    whole, parts = (
        trained(PriorLearner, tmp_path / str(number), number, weighted=False, drop_path=0.5) for number in (1, 4)
    )
    assert max((parts[name] - value).abs().max() for name, value in whole.items()) > 1e-3
