"""The reconstruction check against the published rules, and the refinement's promises."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from procedural import CASE_B, procedural_dvae

from gss.data.augment import fit_size
from gss.errors import TokenizerError
from gss.recipes.gss.palette.maskige import nearest, paint
from gss.recipes.gss.tokenizer.reconstruct import reconstruct, require_usage
from gss.recipes.gss.tokenizer.refine import rank_candidates, refine

COLOURS = torch.tensor([[230, 230, 230], [20, 20, 20], [100, 100, 100], [110, 90, 110], [0, 0, 0]])
NUM_CLASSES = 4


def labels(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.RandomState(1)
    made = [rng.randint(0, NUM_CLASSES, size).astype(np.uint8) for size in sizes]
    for label in made:
        label[0, :3] = 255
    return made


def by_the_book(dvae, label: np.ndarray, *, doubled: bool, shown: np.ndarray | None = None) -> torch.Tensor:
    """Confusion of one label with full one-hot maps; `shown`: the label as it is encoded, of another size."""
    truth = torch.from_numpy(label)[None].long()
    truth[truth == 255] = NUM_CLASSES
    ids = truth if shown is None else torch.from_numpy(shown)[None].long()
    ids[ids == 255] = NUM_CLASSES
    height, width = ids.shape[1:]
    if doubled:
        size = (8 * -(-height // 4), 8 * -(-width // 4))
        planes = F.one_hot(ids, NUM_CLASSES + 1).permute(0, 3, 1, 2).float()
        source = F.interpolate(planes, size, mode="bilinear", align_corners=False).argmax(1)
    else:
        source = ids
    decoded = nearest(255 * dvae.decode(dvae.encode(paint(source, COLOURS))), COLOURS)
    planes = F.one_hot(decoded, NUM_CLASSES).permute(0, 3, 1, 2).float()
    planes = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    result = F.interpolate(planes, tuple(truth.shape[1:]), mode="bilinear", align_corners=False).argmax(1)
    valid = truth < NUM_CLASSES
    pairs = truth[valid] * NUM_CLASSES + result[valid]
    return pairs.bincount(minlength=NUM_CLASSES**2).view(NUM_CLASSES, NUM_CLASSES)


@pytest.mark.parametrize("size", [(16, 24), (13, 22), (32, 17)])
@pytest.mark.parametrize("doubled", [True, False])
def test_confusion_follows_the_published_rules(size, doubled):
    dvae = procedural_dvae(CASE_B)
    (label,) = labels(size)
    found = reconstruct(dvae, [label], COLOURS, doubled=doubled)
    assert torch.equal(found.confusion, by_the_book(dvae, label, doubled=doubled))
    grid = (-(-size[0] // 4), -(-size[1] // 4)) if doubled else (size[0] // 8, size[1] // 8)
    assert found.tokens.sum() == grid[0] * grid[1]
    assert found.confusion.sum() == (label != 255).sum()


@pytest.mark.parametrize("doubled", [True, False])
@pytest.mark.parametrize("scale", [(48, 30), (26, 40), (15, 20)])
def test_a_fitted_label_is_compared_at_its_own_size(scale, doubled):
    dvae = procedural_dvae(CASE_B)
    (label,) = labels((17, 26))
    height, width = fit_size(17, 26, scale)
    shown = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
    found = reconstruct(dvae, [label], COLOURS, doubled=doubled, scale=scale)
    assert torch.equal(found.confusion, by_the_book(dvae, label, doubled=doubled, shown=shown))


def test_shards_add_up():
    dvae, some = procedural_dvae(CASE_B), labels((16, 16), (24, 16), (8, 40))
    whole = reconstruct(dvae, some, COLOURS, doubled=True)
    parts = [reconstruct(dvae, some[rank::2], COLOURS, doubled=True) for rank in (0, 1)]
    assert torch.equal(whole.confusion, sum(part.confusion for part in parts))
    assert torch.equal(whole.tokens, sum(part.tokens for part in parts))


def test_label_smaller_than_a_token_is_a_clear_error():
    with pytest.raises(TokenizerError, match="smaller than a token"):
        reconstruct(procedural_dvae(CASE_B), [np.zeros((6, 40), np.uint8)], COLOURS, doubled=False)


def test_collapse_is_a_clear_error():
    tokens = torch.zeros(512, dtype=torch.int64)
    tokens[:6] = 100
    with pytest.raises(
        TokenizerError, match=r"collapsed: 6 of 512 tokens are in use \(perplexity 6.0\) for 11 classes"
    ):
        require_usage(tokens, 11)
    assert require_usage(tokens, 3).perplexity == pytest.approx(6)


def measured(iou_of):
    """A measure made up of per-class hits out of 1; misses are given to the next class, whose IoU falls a little."""

    def measure(dvae, colours):
        confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
        for label, iou in enumerate(iou_of(dvae, colours)):
            confusion[label, label] = round(1000 * iou)
            confusion[label, (label + 1) % NUM_CLASSES] = 1000 - round(1000 * iou)
        return confusion

    return measure


def test_refinement_keeps_what_helps_and_retrains_for_it():
    start = COLOURS.numpy()
    retrained = []

    def retrain(colours, dvae):
        retrained.append(colours.clone())
        return dvae + 1

    def iou_of(dvae, colours):
        moved = (colours[3] - COLOURS[3]).abs().sum() > 0
        return [0.99, 0.99, 0.99, 0.95 if moved else 0.5]

    result = refine(0, start, measured(iou_of), [], min_iou=0.6, max_rounds=5, retrain=retrain)
    assert [r.kept for r in result.rounds] == [True, True] and result.dvae == len(retrained) == 1
    assert [change.label for change in result.rounds[1].changes] == [3]
    assert result.rounds[1].changes[0].old == (110, 90, 110)
    assert np.array_equal(result.colours, result.rounds[1].colours) and np.array_equal(result.colours[:3], start[:3])
    assert np.array_equal(start, COLOURS.numpy())


def test_refinement_is_never_worse_than_the_start_and_does_not_repeat_itself():
    start = COLOURS.numpy()
    result = refine(
        0,
        start,
        measured(lambda dvae, colours: [0.99, 0.99, 0.99, 0.5 - 0.1 * dvae]),
        [],
        min_iou=0.6,
        max_rounds=3,
        retrain=lambda colours, dvae: dvae + 1,
    )
    assert [r.kept for r in result.rounds] == [True, False, False, False]
    assert np.array_equal(result.colours, start) and result.dvae == 0
    assert len({r.changes[0].new for r in result.rounds[1:]}) == 3


def test_without_retraining_the_dvae_judges_the_candidates():
    dvae, some = procedural_dvae(CASE_B), labels((8, 8), (8, 16))

    def measure(tokenizer, colours):
        return reconstruct(tokenizer, some, colours, doubled=True).confusion

    result = refine(dvae, COLOURS.numpy(), measure, some, min_iou=0.9, max_rounds=2)
    best = [r.miou for r in result.rounds if r.kept]
    assert len(best) > 1 and best == sorted(best)
    assert np.array_equal(result.colours[-1], COLOURS[-1].numpy())


def test_candidates_flee_the_colours_a_class_is_confused_with():
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    confusion[3, 2] = 50
    first = rank_candidates(COLOURS.numpy(), 3, confusion)[0]
    assert np.linalg.norm(first - COLOURS[2].numpy()) > 150
    distances = np.linalg.norm(first - COLOURS.numpy(), axis=1)
    assert distances.min() > 80
