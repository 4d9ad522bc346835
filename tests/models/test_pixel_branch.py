"""The latent prior's pixel branch, weighed in: the formula, its absence, windows, model files, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gss
from gss.errors import ConfigError
from gss.evaluate.inference import Inference, predict
from gss.nets.tensors import resize
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior, Posterior
from gss.stages.run import Run
from tests.models.test_training import COLOURS, N, make
from tests.use.models import write_models

ALONE = torch.device("cpu")


def model(posterior: Posterior, weight: float, kind: str = "ff") -> GSS:
    prior, dvae = make(kind)
    return GSS(prior, dvae, posterior, pixel_weight=weight).eval()


def conv() -> ConvPosterior:
    torch.manual_seed(1)
    return ConvPosterior(N, 8)


def pixel_log_softmax(model: GSS, image: Tensor) -> Tensor:
    maps = model.prior.backbone(image)
    logits = model.prior.head.pixel_logits(maps, model.prior.head.fuse(maps))
    return resize(logits, (image.shape[2], image.shape[3])).log_softmax(1)


@pytest.mark.parametrize("kind", ["ff", "single_fusion"])
@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_scores_are_the_mean_of_the_log_probabilities_and_those_of_x_inverse(kind: str, weight: float) -> None:
    made, image = model(conv(), weight, kind), torch.randn(2, 3, 37, 50)
    with torch.no_grad():
        logits = made.posterior.scores(made.rgb(image), (37, 50))
        expected = (logits.log_softmax(1) + weight * pixel_log_softmax(made, image)) / (1 + weight)
        torch.testing.assert_close(made.scores(image), expected, rtol=1e-5, atol=1e-5)
    assert not made.are_votes


@pytest.mark.parametrize("temperature", [None, 500.0])
def test_votes_become_log_probabilities_with_a_vote_for_each_class(temperature: float | None) -> None:
    made, image = model(NearestPosterior(COLOURS, temperature), 0.5), torch.randn(2, 3, 36, 52)
    with torch.no_grad():
        votes = made.posterior.scores(made.rgb(image), (36, 52))
        own = torch.log((4 * votes + 1) / (4 + N))
        torch.testing.assert_close(own.exp().sum(1), torch.ones(2, 36, 52))  # probabilities
        expected = (own + 0.5 * pixel_log_softmax(made, image)) / 1.5
        torch.testing.assert_close(made.scores(image), expected, rtol=1e-5, atol=1e-5)
    assert not made.are_votes and model(NearestPosterior(COLOURS), 0).are_votes


@pytest.mark.parametrize("posterior", [conv, lambda: NearestPosterior(COLOURS)])
def test_without_weight_nothing_changes(posterior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, image = model(posterior(), 0.0), torch.randn(2, 3, 37, 50)
    monkeypatch.setattr(type(made.prior.head), "pixel_logits", None)  # not called
    with torch.no_grad():
        assert torch.equal(made.scores(image), made.posterior.scores(made.rgb(image), (37, 50)))
    assert "pixel_weight" not in made.protocol


def test_a_large_weight_leaves_the_branch_alone_in_windows_and_in_flips() -> None:
    """Of many classes, so that they are resized in several chunks."""
    torch.manual_seed(0)
    prior, dvae = make(num_classes=40)
    made = GSS(prior, dvae, ConvPosterior(40, 8), pixel_weight=1e6).eval()
    photograph = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)

    class Branch(torch.nn.Module):
        are_votes, extra_names, protocol = False, (), {}
        normalise = made.normalise

        def scores(self, image: Tensor) -> Tensor:
            return pixel_log_softmax(made, image)

    for inference in (Inference(), Inference("slide", (48, 48), (32, 32))):
        found = predict(made, photograph, inference, device=ALONE)
        expected = predict(Branch().eval(), photograph, inference, device=ALONE)
        assert (found == expected).float().mean() > 0.999 and len(found.unique()) > 1


def test_the_image_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = model(conv(), 1.0, "single_fusion"), []
    for owner, name in ((made.prior.backbone, "forward"), (made.prior.head, "fuse")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, o=original, n=name: (seen.append(n), o(*a))[1])
    with torch.no_grad():
        made.scores(torch.randn(1, 3, 40, 40))
    assert seen == ["forward", "fuse"]


def test_a_prior_without_the_branch_is_refused(tmp_path: Path) -> None:
    prior, dvae = make("tokens")
    with pytest.raises(ConfigError, match="no pixel branch") as error:
        GSS(prior, dvae, conv(), pixel_weight=0.5)
    assert error.value.where == "evaluation.pixel_weight" and error.value.todo
    folder = write_models(tmp_path, kind="tokens", pixel_weight=0.5)
    with pytest.raises(ConfigError, match="no pixel branch"):
        gss.load(folder / "gss_ft.pth")


@pytest.mark.parametrize("name", ["gss_ff", "gss_ft"])
def test_gss_predict_takes_it_from_the_model_file(name: str, tmp_path: Path) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    found = []
    for weight in (0.0, 0.7):
        folder = write_models(tmp_path / str(weight), kind="ff", pixel_weight=weight)
        predictor = gss.load(folder / f"{name}.pth")
        assert predictor.model.protocol.get("pixel_weight", 0) == weight
        found.append(predictor.scores(photograph))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    np.testing.assert_allclose(found[1].sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("value", ["-1", "much", "null"])
def test_what_is_no_weight_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.pixel_weight"):
        Run.open("toy", [f"evaluation.pixel_weight={value}"], tmp_path)
