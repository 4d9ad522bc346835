"""The classes' shares in the tokens, weighed in: by hand, against the plain formula, in windows, and model files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gss
from gss.errors import ConfigError
from gss.evaluate.inference import Inference, predict
from gss.nets.tensors import resize
from gss.recipes.gss.latent_prior import Seen
from gss.recipes.gss.model import GSS, RAREST, class_shares
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior
from gss.stages.run import Run
from tests.models.test_training import COLOURS, N, V, make
from tests.use.models import write_models

RED, BLUE, PURPLE = [255, 0, 0], [0, 0, 255], [128, 0, 128]


class Tokenizer(nn.Module):
    """Three tokens, each a block of its colour; of a mixture the mixture of the colours."""

    vocab_size, weight, precision = 3, torch.zeros(1), "fp32"

    def __init__(self) -> None:
        super().__init__()
        self.decoder = SimpleNamespace(embeddings=torch.tensor([RED, BLUE, PURPLE]) / 255)

    def decode(self, code: Tensor) -> Tensor:
        rows = code if code.is_floating_point() else self.decoder.embeddings[code]
        return rows.permute(0, 3, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)

    def mixture(self, temperature: float | None) -> tuple[Tensor, float] | None:
        return None if temperature is None else (self.decoder.embeddings, temperature)


class Prior(nn.Module):
    """Undecided between red and blue, wherever it looks."""

    head = SimpleNamespace(kind="tokens")

    def see(self, image: Tensor, *, mixture: tuple[Tensor, float], **wanted: bool) -> Seen:
        mean = torch.tensor([0.52, 0.48, 0.0]) @ mixture[0]
        return Seen(mean.expand(1, image.shape[2] // 4, image.shape[3] // 4, -1))


@pytest.mark.parametrize("vote_temperature", [None, 500.0])
def test_a_mixture_of_two_colours_is_no_third_class(vote_temperature: float | None) -> None:
    found, colours = {}, torch.tensor([RED, BLUE, PURPLE, [0, 0, 0]])
    for weight in (0.0, 1.0):
        votes = NearestPosterior(colours, vote_temperature)
        model = GSS(Prior(), Tokenizer(), votes, token_temperature=1.0, token_weight=weight, colours=colours)  # type: ignore[arg-type]
        found[weight] = model.scores(torch.zeros(1, 3, 8, 8)).argmax(1).unique().tolist()
        assert model.are_votes == (weight == 0)
    assert found == {0.0: [2], 1.0: [0]}


def model(weight: float, temperature: float | None, *, x_inverse: bool = False) -> GSS:
    prior, dvae = make()
    with torch.no_grad():  # the start's scores are nearly equal, and so are its colours
        prior.head.conv_seg.weight.mul_(20)
        for parameter in dvae.decoder.parameters():
            parameter.mul_(1.5)
    torch.manual_seed(1)
    posterior = ConvPosterior(N, 8) if x_inverse else NearestPosterior(COLOURS)
    return GSS(prior, dvae, posterior, token_temperature=temperature, token_weight=weight, colours=COLOURS).eval()


@pytest.mark.parametrize("x_inverse", [False, True])
@pytest.mark.parametrize("temperature", [None, 0.05])
@pytest.mark.parametrize("size", [(36, 52), (37, 50)])
def test_scores_are_those_of_the_formula(temperature: float | None, size: tuple[int, int], x_inverse: bool) -> None:
    weight = 0.7
    made, image = model(weight, temperature, x_inverse=x_inverse), torch.randn(2, 3, *size)
    with torch.no_grad():
        alone = made.tokenizer.decode(torch.arange(V).view(V, 1, 1))  # [V, 3, 8, 8]
        shares = F.one_hot(NearestPosterior(COLOURS).ids(alone), N).float().mean((1, 2))
        torch.testing.assert_close(class_shares(made.tokenizer, COLOURS), shares)
        assert len(shares.argmax(1).unique()) > 1
        head = made.prior.head
        scores = head.conv_seg(head.hidden(head.fuse(made.prior.backbone(image)))).movedim(1, -1)
        p = F.one_hot(scores.argmax(-1), V).float() if temperature is None else (scores / temperature).softmax(-1)
        there = resize((p @ shares).movedim(-1, 1), size)
        own = made.posterior.log_probabilities(made.rgb(image), size)
        mean = (own + weight * (there + RAREST).log()) / (1 + weight)
        torch.testing.assert_close(made.scores(image), mean, rtol=1e-4, atol=1e-4)


def test_without_weight_nothing_is_decoded_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gss.recipes.gss.model.class_shares", None)  # not called
    made, image = model(0.0, 0.05), torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        assert torch.equal(made.scores(image), made.posterior.scores(made.rgb(image), (37, 50)))
    assert made.shares is None and "token_weight" not in made.protocol and not made.state_dict().keys() & {"shares"}


def test_it_counts_in_windows() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    inference = Inference("slide", (48, 48), (32, 32))
    plain, weighed = torch.empty(2, N, 70, 90)
    for weight, found in ((0.0, plain), (1.0, weighed)):
        made = model(weight, 0.05, x_inverse=True)
        predict(made, photograph, inference, device=torch.device("cpu"), probabilities=found)
    assert (plain - weighed).abs().max() > 0.1


@pytest.mark.parametrize("name", ["gss_ff", "gss_ft"])
def test_gss_predict_takes_it_from_the_model_file(name: str, tmp_path: Path) -> None:
    folder = write_models(tmp_path, token_temperature=0.5, token_weight=0.5)
    predictor = gss.load(folder / f"{name}.pth")
    assert predictor.model.protocol["token_weight"] == 0.5
    assert predictor.predict(np.zeros((40, 52, 3), np.uint8)).shape == (40, 52)


@pytest.mark.parametrize("value", ["-1", "much", "null"])
def test_what_is_no_weight_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.token_weight"):
        Run.open("toy", [f"evaluation.token_weight={value}"], tmp_path)
