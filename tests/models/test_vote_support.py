"""Votes of classes that the tokens support: by hand, against the plain formula, and where nothing changes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gss
from gss.evaluate.inference import Inference, predict
from gss.nets.tensors import resize
from gss.recipes.gss.latent_prior import Seen
from gss.recipes.gss.model import GSS, class_shares
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior
from tests.models.test_training import COLOURS, N, V, make
from tests.use.models import write_models

RED, BLUE, PURPLE = [255, 0, 0], [0, 0, 255], [128, 0, 128]


class Tokenizer(nn.Module):
    """Three tokens, each a block of its colour; of a mixture the mixture of the colours."""

    vocab_size = n_init = 3
    weight, precision = torch.zeros(1), "fp32"

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
    found = {}
    for support in (None, 0.2):
        posterior = NearestPosterior(torch.tensor([RED, BLUE, PURPLE, [0, 0, 0]]), vote_temperature)
        model = GSS(Prior(), Tokenizer(), posterior, token_temperature=1.0, vote_support=support)  # type: ignore[arg-type]
        found[support] = model.scores(torch.zeros(1, 3, 8, 8)).argmax(1).unique().tolist()
    assert found == {None: [2], 0.2: [0]}


def model(support: float | None, temperature: float | None, votes: float | None = None) -> GSS:
    prior, dvae = make()
    with torch.no_grad():  # the start's scores are nearly equal, and so are its colours
        prior.head.conv_seg.weight.mul_(20)
        for parameter in dvae.decoder.parameters():
            parameter.mul_(1.5)
    posterior = NearestPosterior(COLOURS, votes)
    return GSS(prior, dvae, posterior, token_temperature=temperature, vote_support=support).eval()


@pytest.mark.parametrize("votes", [None, 3000.0])
@pytest.mark.parametrize("temperature", [None, 0.05])
@pytest.mark.parametrize("size", [(36, 52), (37, 50)])
def test_votes_are_those_of_the_formula(temperature: float | None, votes: float | None, size: tuple[int, int]) -> None:
    support = 0.5
    made, image = model(support, temperature, votes), torch.randn(2, 3, *size)
    with torch.no_grad():
        alone = made.tokenizer.decode(torch.arange(V).view(V, 1, 1))  # [V, 3, 8, 8]
        shares = F.one_hot(made.posterior.ids(alone), N).float().mean((1, 2))
        torch.testing.assert_close(class_shares(made.tokenizer, COLOURS), shares)
        head = made.prior.head
        scores = head.conv_seg(head.hidden(head.fuse(made.prior.backbone(image)))).movedim(1, -1)
        p = F.one_hot(scores.argmax(-1), V).float() if temperature is None else (scores / temperature).softmax(-1)
        near = F.max_pool2d((p @ shares).movedim(-1, 1), 3, 1, 1)
        allowed = near >= support * near.amax(1, keepdim=True)
        allowed = allowed.repeat_interleave(8, 2).repeat_interleave(8, 3)
        assert 0 < allowed.float().mean() < 1
        d2 = (255 * made.rgb(image).unsqueeze(1) - COLOURS[:-1].view(1, N, 3, 1, 1)).square().sum(2)
        d2 = d2.masked_fill(~allowed, torch.inf)
        plain = (-d2 / votes).softmax(1) if votes else F.one_hot(d2.argmin(1), N).movedim(-1, 1).float()
        torch.testing.assert_close(made.scores(image), resize(plain, size), rtol=1e-4, atol=1e-5)


def test_it_changes_predictions_in_windows_and_nothing_of_x_inverse() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    inference = Inference("slide", (48, 48), (32, 32))
    plain, supported = (predict(model(s, 0.05), photograph, inference, device=torch.device("cpu")) for s in (None, 1.0))
    assert not torch.equal(plain, supported)
    made = model(0.2, None)
    trained = GSS(made.prior, made.tokenizer, ConvPosterior(N, 8), vote_support=0.2).eval()
    assert trained.shares is None and "vote_support" not in trained.protocol and "vote_support" in made.protocol


def test_gss_predict_takes_it_from_the_model_file(tmp_path: Path) -> None:
    folder = write_models(tmp_path, token_temperature=0.5, vote_support=0.5)
    predictor = gss.load(folder / "gss_ff.pth")
    assert predictor.model.protocol["vote_support"] == 0.5
    assert predictor.predict(np.zeros((40, 52, 3), np.uint8)).shape == (40, 52)
