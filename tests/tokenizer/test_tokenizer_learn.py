"""Training a tokenizer: the loss falls, the crops do not depend on processes, the export is a plain dVAE."""

import copy
import itertools

import numpy as np
import pytest
import torch

from gss.data.metrics import class_iou
from gss.errors import ConfigError, DataError
from gss.recipes.gss.palette.maskige import paint
from gss.recipes.gss.tokenizer.crops import MaskigeCrops
from gss.recipes.gss.tokenizer.dvae import DVAE, map_pixels
from gss.recipes.gss.tokenizer.learn import (
    DVAELearner,
    colour_temperature,
    export,
    mapped_maskige,
    negative_likelihood,
)
from gss.recipes.gss.tokenizer.reconstruct import reconstruct, require_usage

COLOURS = torch.tensor([[255, 255, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]])
NUM_CLASSES = 3


def stripes(count: int = 6, size: tuple[int, int] = (40, 48)) -> list[np.ndarray]:
    """Labels of a few blocks, with an ignored border pixel here and there."""
    rng = np.random.RandomState(0)
    labels = []
    for _ in range(count):
        label = np.kron(rng.randint(0, NUM_CLASSES, (3, 3)), np.ones((16, 16), int))[: size[0], : size[1]]
        label[0, rng.randint(size[1])] = 255
        labels.append(label.astype(np.uint8))
    return labels


def small_dvae() -> DVAE:
    torch.manual_seed(0)
    return DVAE(vocab_size=32, n_hid=8, n_init=16, blocks_per_group=1)


def train(learner: DVAELearner, steps: int, lr: float = 5e-3) -> list[float]:
    """The shared loop in five lines."""
    crops = MaskigeCrops(stripes(), NUM_CLASSES, seed=0, batch_size=8, crop=32)
    optimizer = torch.optim.AdamW(learner.saved.parameters(), lr=lr, betas=(0.9, 0.99))
    weights, losses = torch.tensor(list(learner.terms.values())), []
    for step, (batch,) in enumerate(itertools.islice(crops, steps)):
        sums, _ = learner(batch, step)
        loss = (weights * sums / learner.counts(batch)).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.saved.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def trained() -> DVAELearner:
    learner = DVAELearner(small_dvae(), COLOURS)
    losses = train(learner, 120)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    return learner


def test_trained_tokenizer_reconstructs_and_uses_its_tokens(trained):
    result = reconstruct(export(trained.saved), stripes(), COLOURS, doubled=True)
    assert class_iou(result.confusion.numpy()).mean() > 0.8
    assert require_usage(result.tokens, NUM_CLASSES).used >= 2 * NUM_CLASSES


def test_export_folds_the_norm_into_a_plain_dvae(trained):
    dvae, inner = export(trained.saved), copy.deepcopy(trained.saved).eval()
    mapped = map_pixels(paint(torch.from_numpy(np.stack(stripes(2))), COLOURS))
    expected = inner.norm(inner.dvae.encode_logits(mapped))
    assert (dvae.encode_logits(mapped) - expected).abs().max() < 1e-4
    assert dvae.state_dict().keys() == small_dvae().state_dict().keys()
    assert not any(parameter.requires_grad for parameter in dvae.parameters())


def test_training_goes_on_from_a_trained_dvae(trained):
    dvae = export(trained.saved)
    crops = next(iter(MaskigeCrops(stripes(), NUM_CLASSES, seed=1, batch_size=16, crop=32)))[0]
    again = DVAELearner(copy.deepcopy(dvae), COLOURS, trained_on=crops["label"])
    kept = export(again.saved)
    rgb = paint(torch.from_numpy(np.stack(stripes(2))), COLOURS)
    assert (kept.encode_logits(map_pixels(rgb)) - dvae.encode_logits(map_pixels(rgb))).abs().max() < 1e-3
    assert train(again, 1, lr=0.0)[0] < train(DVAELearner(small_dvae(), COLOURS), 1, lr=0.0)[0] - 1


def test_counts_are_those_of_the_sums():
    learner = DVAELearner(small_dvae(), COLOURS)
    batch = {"label": torch.zeros(2, 16, 16, dtype=torch.uint8)}
    assert learner.counts(batch).tolist() == [2 * 3 * 32 * 32, 2 * 32 * 32, 2 * 4 * 4]
    sums, statistics = learner(batch, 0)
    assert sums.shape == (3,) and list(learner.terms) == ["likelihood", "colour", "usage"]
    assert 0 <= statistics["pixel_accuracy"][0] <= statistics["pixel_accuracy"][1] == 2 * 32 * 32


def test_likelihood_is_a_density():
    mean, log_scale = torch.full((1, 3, 1, 1), 0.3), torch.full((1, 3, 1, 1), -0.5)
    x = torch.linspace(1e-4, 1 - 1e-4, 200_001, dtype=torch.float64)
    output = torch.cat([mean, log_scale], 1).double().expand(1, 6, 1, len(x))
    mapped = x.expand(1, 3, 1, -1)
    density = torch.exp(-negative_likelihood(mapped, output)[0, 0, 0]) / (2 * x * (1 - x))
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-3)


def test_colour_scores_prefer_the_own_colour():
    learner = DVAELearner(small_dvae(), COLOURS)
    mapped = map_pixels(COLOURS.float() / 255).t()[None, :, None]  # [1,3,1,4]
    assert learner.colour_scores(mapped, learner.palettes(1))[0, :, 0].argmax(0).tolist() == [0, 1, 2, 3]
    assert colour_temperature(COLOURS) == pytest.approx(0.1)  # closest pair: black and red


def test_crops_are_the_same_for_any_number_of_processes_and_any_start():
    def batches(**where):
        crops = MaskigeCrops(stripes(), NUM_CLASSES, seed=5, batch_size=4, crop=16, **where)
        return [step[0]["label"] for step in itertools.islice(crops, 3)]

    whole = batches()
    halves = [batches(rank=rank, world_size=2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([half[step] for half in halves]), batch)
    assert torch.equal(batches(start_step=2)[0], whole[2])
    assert not torch.equal(whole[0], whole[1])


def test_rare_classes_are_seen_often():
    label = np.zeros((64, 64), np.uint8)
    label[10, 20] = 2
    crops = MaskigeCrops([label] * 3, NUM_CLASSES, seed=0, batch_size=64, crop=16)
    seen = (next(iter(crops))[0]["label"] == 2).flatten(1).any(1).float().mean()
    assert 0.1 < seen < 0.5  # a quarter: half of the crops are balanced, between two classes


def test_small_labels_are_padded_with_ignored_pixels():
    batch = next(iter(MaskigeCrops([np.zeros((4, 40), np.uint8)], 1, seed=0, batch_size=2, crop=16)))[0]["label"]
    assert batch.shape == (2, 8, 8) and (batch[:, 4:] == 255).all() and (batch[:, :4] == 0).all()


def test_padding_is_not_drawn_as_a_class():
    label = np.zeros((4, 40), np.uint8)
    label[1, 2] = 255
    crops = MaskigeCrops([label], 1, seed=0, batch_size=2, crop=16)
    assert {value: pixels[-1] for value, pixels in crops.present} == {0: 159, 255: 1}


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ({"world_size": 3}, ConfigError, "cannot be divided among 3 processes"),
        ({"crop": 20}, ConfigError, "no multiple of 8"),
        ({"labels": []}, DataError, "no labels"),
    ],
)
def test_impossible_settings_are_clear_errors(wrong, error, message):
    given = {"labels": stripes(), "num_classes": NUM_CLASSES, "seed": 0, "batch_size": 4, "crop": 16} | wrong
    with pytest.raises(error, match=message):
        MaskigeCrops(**given)


def test_random_palettes_differ_between_crops_and_follow_the_generator():
    learner = DVAELearner(small_dvae(), COLOURS, random_palettes=True)
    torch.manual_seed(1)
    palettes = learner.palettes(2)
    torch.manual_seed(1)
    assert torch.equal(palettes, learner.palettes(2)) and not torch.equal(palettes[0], palettes[1])
    label = torch.tensor([[[0, 255]], [[0, 255]]], dtype=torch.uint8)
    expected = map_pixels(palettes[:, [0, -1]].permute(0, 2, 1)[:, :, None].float())
    assert (mapped_maskige(label, palettes) - expected).abs().max() < 1e-6
    assert np.isfinite(train(learner, 2)).all()
