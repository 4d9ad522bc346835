"""Confidence and uncertainty beside a prediction: against the probabilities themselves, by every way through."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gss.evaluate import certainty as module
from gss.evaluate.inference import Inference, MSegInference, predict
from gss.evaluate.measure import evaluate_pairs
from tests.normalised import Normalised

from .standins import ALONE, CPU, MEAN, STD, ColourVotes, Convolution, Position, class_image, read_case

WAYS = {
    "whole": Inference(),
    "flip": Inference(flip=True),
    "scaled": Inference(scale=(80, 60)),
    "slide": Inference("slide", (24, 24), (16, 16)),
    "slide, flip": Inference("slide", (24, 24), (16, 16), flip=True),
    "slide, flip, scaled": Inference("slide", (24, 24), (16, 16), scale=(80, 60), flip=True),
    "mseg": MSegInference(crop=(32, 32), stride=(22, 22), base_size=40),
    "mseg, scales": MSegInference(crop=(32, 32), stride=(22, 22), base_size=40, scales=(0.5, 1.0)),
}


class _Votes(Position):
    """Shares that sum to 1."""

    def scores(self, image):
        return (8 * super().scores(image)).softmax(dim=1)


@pytest.mark.parametrize("rows_at_once", [2**9, 2**18])
@pytest.mark.parametrize("are_votes", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_that_of_the_probabilities(way, are_votes, rows_at_once, monkeypatch):
    monkeypatch.setattr(module, "CACHED", rows_at_once)
    num_classes = 41
    model = Normalised((_Votes if are_votes else Position)(num_classes), MEAN, STD, are_votes)
    image = np.random.default_rng(3).integers(0, 256, (47, 61, 3)).astype(np.uint8)
    shares, found = torch.empty(num_classes, 47, 61), torch.full((2, 47, 61), torch.nan)
    ids = predict(model, image, WAYS[way], device=CPU, probabilities=shares, certainty=found)
    assert torch.equal(ids, predict(model, image, WAYS[way], device=CPU))  # nothing changes the prediction
    winner = shares.gather(0, ids.long()[None])[0]
    torch.testing.assert_close(found[0], winner, rtol=1e-5, atol=1e-6)
    entropy = torch.special.entr(shares.double()).sum(0) / math.log(num_classes)
    torch.testing.assert_close(found[1].double(), entropy, rtol=0, atol=1e-5)


def test_votes_of_both_views_and_the_winner_of_their_softmax():
    """As published, whose mean votes need not be the largest: confidence is the winner's all the same."""
    votes = [torch.tensor([0.45, 0.3, 0.22, 0.03]), torch.tensor([0.0, 0.0, 0.43, 0.57])]
    views = [vote.view(4, 1, 1) for vote in votes]
    found = torch.empty(2, 1, 1)
    ids = module.decide(views, (1, 1), True, found)
    winner = int(torch.stack([vote.softmax(0) for vote in votes]).mean(0).argmax())
    assert int(ids) == winner != int((votes[0] + votes[1]).argmax())
    assert float(found[0]) == pytest.approx(float((votes[0] + votes[1])[winner] / 2))


def test_certain_and_clueless():
    image = class_image(np.array([[0, 3, 1]]))
    found = torch.empty(2, 1, 3)
    predict(Normalised(ColourVotes(4), MEAN, STD, True), image, Inference(), device=CPU, certainty=found)
    assert found.tolist() == [[[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]]
    even = torch.empty(2, 2, 2)
    for are_votes, score in ((True, 1 / 7), (False, 500.0)):
        module.decide([torch.full((7, 2, 2), score)], (2, 2), are_votes, even)
        torch.testing.assert_close(even, torch.stack([torch.full((2, 2), 1 / 7), torch.ones(2, 2)]))
    module.decide([torch.randn(1, 2, 2)], (2, 2), False, even)  # a single class
    assert even.tolist() == [[[1.0, 1.0]] * 2, [[0.0, 0.0]] * 2]


def test_logits_of_any_size():
    logits = torch.tensor([-3e4, 0.0, 3e4, -3e38, 80.0]).view(5, 1, 1)
    found = torch.empty(2, 1, 1)
    for scores in (logits, logits.flip(0), logits.half().clamp(-6e4)):
        module.decide([scores], (1, 1), False, found)
        assert found.flatten().tolist() == [1.0, 0.0]


def test_no_second_map_of_all_classes(monkeypatch):
    """At most a chunk of classes at a time is looked at."""
    seen = []
    add = module._Logits.add
    monkeypatch.setattr(module._Logits, "add", lambda self, chunk: (seen.append(len(chunk)), add(self, chunk))[1])
    module.decide([torch.randn(300, 8, 9)], (8, 9), False, torch.empty(2, 8, 9))
    assert sum(seen) == 300
    assert max(seen) < 24


@pytest.mark.parametrize("flip", [False, True])
def test_reliability_of_an_evaluation_is_that_of_its_probabilities(flip):
    model, way = Normalised(Convolution(), MEAN, STD), Inference(flip=flip)
    found = evaluate_pairs(model, range(4), 5, ALONE, read=read_case, inference=way, with_reliability=True)
    plain = evaluate_pairs(model, range(4), 5, ALONE, read=read_case, inference=way)
    assert plain.reliability is None
    np.testing.assert_array_equal(plain.confusion, found.confusion)
    pixels, right, confidence = np.zeros((3, 15))
    for image, label in map(read_case, range(4)):
        shares = torch.empty(5, *label.shape)
        ids = predict(model, image, way, device=CPU, probabilities=shares).numpy()
        best, is_right = shares.amax(0).numpy()[label != 255], (ids == label)[label != 255]
        place = np.ceil(best * 15).astype(int) - 1
        pixels += np.bincount(place, minlength=15)
        right += np.bincount(place[is_right], minlength=15)
        confidence += np.bincount(place, best, minlength=15)
    expected = np.abs(right - confidence).sum() / pixels.sum()
    assert pytest.approx(expected, abs=1e-4) == found.reliability.ECE
    assert found.reliability.confidence[..., 0].sum() == found.confusion.sum()
    np.testing.assert_array_equal(found.reliability.confidence[..., 0].sum(1), found.confusion.sum(0))
    np.testing.assert_array_equal(found.reliability.confidence[..., 1].sum(1), np.diag(found.confusion))
    assert replace(found, reliability=None).scores == plain.scores
