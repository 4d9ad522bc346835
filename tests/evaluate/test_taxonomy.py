"""Classes of a model become those of a test set: MSeg's table, the mappings, and prediction with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_gss import all_scores

from gss.evaluate.inference import Inference, predict
from gss.evaluate.taxonomy import Target
from gss.files import read_json
from tests.mseg_tables import TABLE, UNIVERSAL, names, targets_in
from tests.normalised import Normalised

from .standins import CPU, MEAN, STD, WHOLE, ColourVotes, Convolution, Position, class_image, network_input

# test set: rows of the table that are filled, classes reached, classes, universal classes without a target
FACTS = {
    "voc2012": (194, 21, 21, 0),
    "pascal-context-60": (194, 58, 60, 0),
    "camvid-11": (12, 11, 11, 182),
    "wilddash-19": (23, 19, 19, 171),
    "kitti-19": (22, 19, 19, 172),
    "scannet-20": (37, 20, 20, 157),
}
FALLBACKS = {"camvid-11": "Building", "kitti-19": "road", "wilddash-19": "road", "scannet-20": "bathtub"}


@pytest.fixture
def mseg(gss_data: Path) -> Path:
    if not (gss_data / "mseg" / "universal_to_test.json").is_file():
        pytest.skip(f"no published tables in {gss_data / 'mseg'}")
    return gss_data / "mseg"


def taxonomy_of(test_set: str, table: Path = TABLE) -> Target:
    return Target.of(names(test_set), targets_in(test_set, table))


def small(prediction: str = "hard") -> Target:
    """Five classes of a model: cat, oak, dog, car, fern; the fourth has no target."""
    return Target.of(("plant", "stone", "animal"), (2, 0, 2, None, 0), prediction)


@pytest.mark.parametrize("test_set", FACTS)
def test_the_published_tables(test_set: str, mseg: Path) -> None:
    taxonomy, expected = taxonomy_of(test_set), read_json(mseg / "universal_to_test.json")
    filled, reached, classes, unmapped = FACTS[test_set]
    matrix = taxonomy.matrix
    assert matrix.shape == (classes, 194)
    assert matrix.sum() == filled
    assert set(matrix.sum(dim=0).tolist()) <= {0, 1}
    assert int((matrix.sum(dim=0) == 0).sum()) == unmapped
    assert int((matrix.sum(dim=1) > 0).sum()) == reached
    universal = torch.arange(194, dtype=torch.uint8)
    assert taxonomy.hard(universal).tolist() == expected["hard"][test_set]
    soft = taxonomy.soft(torch.eye(194))  # [T, 194]: where each universal class alone goes
    found = [255 if not column.any() else int(column.argmax()) for column in soft.T]
    assert found == expected["soft_255"][test_set]
    if unmapped:
        assert taxonomy.names[0] == FALLBACKS[test_set]
    unreached = [name for name, row in zip(taxonomy.names, matrix, strict=True) if not row.any()]
    assert unreached == expected["test_classes_never_predicted"][test_set]


def test_hard_equals_one_hot_times_matrix() -> None:
    ids = torch.from_numpy(np.random.RandomState(0).randint(0, 194, (20, 30), dtype=np.uint8))
    for test_set in FACTS:
        taxonomy = taxonomy_of(test_set)
        one_hot = F.one_hot(ids.long(), 194).permute(2, 0, 1)[None].float()
        published = F.conv2d(one_hot, taxonomy.matrix.float()[:, :, None, None]).argmax(dim=1)[0]
        mapped = taxonomy.hard(ids)
        assert mapped.dtype == torch.uint8
        assert torch.equal(mapped.long(), published)


def test_soft_adds_up_what_hard_would_split() -> None:
    taxonomy = small()
    scores = torch.tensor([0.0, 0.3, 0.1, 0.35, 0.25])  # the winner belongs to no test class
    assert taxonomy.hard(torch.tensor([3], dtype=torch.uint8)).tolist() == [0]
    assert small("hard_ignore").hard(torch.tensor([3, 2], dtype=torch.uint8)).tolist() == [255, 2]
    assert torch.allclose(taxonomy.soft(scores), torch.tensor([0.55, 0.0, 0.1]))
    maps = scores[:, None, None].expand(5, 4, 6)
    assert taxonomy.soft(maps).shape == (3, 4, 6)


def test_line_ends_of_the_published_file(tmp_path: Path) -> None:
    """The file as published has CR LF and no last line end."""
    published = tmp_path / "MSeg_master.tsv"
    published.write_bytes(TABLE.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    found = taxonomy_of("pascal-context-60", published)  # the last column
    assert torch.equal(found.matrix, taxonomy_of("pascal-context-60").matrix)


# one pixel, probabilities of universal classes: what each set predicts, soft and hard; no target is no class
RIDER = {"motorcyclist": 0.40, "bicyclist": 0.35, "building": 0.25}
SOFA = {"wall": 0.30, "couch": 0.28, "chair_other": 0.22, "armchair": 0.20}
HALVES = {"person": 0.5, "bicycle": 0.5}
EXAMPLES = [
    (RIDER, "camvid-11", "Bicyclist", "Building", None),
    (RIDER, "voc2012", "person", "person", "person"),
    (RIDER, "kitti-19", "rider", "rider", "rider"),
    (RIDER, "wilddash-19", "rider", "rider", "rider"),
    (RIDER, "scannet-20", "bathtub", "bathtub", None),
    (SOFA, "voc2012", "chair", "background", "background"),
    (SOFA, "scannet-20", "chair", "wall", "wall"),
]


@pytest.mark.parametrize(("shares", "test_set", "soft", "hard", "hard_ignore"), EXAMPLES)
@pytest.mark.parametrize("are_votes", [True, False])
def test_worked_examples(
    shares: dict[str, float], test_set: str, soft: str, hard: str, hard_ignore: str | None, are_votes: bool
) -> None:
    votes = torch.zeros(194)
    votes[[UNIVERSAL.index(name) for name in shares]] = torch.tensor(list(shares.values()))

    class Pixel(ColourVotes):
        def scores(self, image: torch.Tensor) -> torch.Tensor:
            scores = votes if are_votes else votes.log()
            return scores.view(1, -1, 1, 1).expand(-1, -1, *image.shape[2:]).clone()

    target = taxonomy_of(test_set)
    image = np.zeros((1, 1, 3), np.uint8)
    for prediction, expected in {"soft": soft, "hard": hard, "hard_ignore": hard_ignore}.items():
        asked = replace(target, prediction=prediction)
        model = Normalised(Pixel(194), MEAN, STD, are_votes=are_votes)
        found = int(predict(model, image, WHOLE, device=CPU, target=asked))
        assert found == (255 if expected is None else target.names.index(expected))


def test_equal_shares_of_one_target_beat_the_first_maximum() -> None:
    """Logits all 0 but one or two: `soft` of softmax, and `hard` of the winner (invariant 18 of MSeg's tables)."""
    target = taxonomy_of("camvid-11")
    for shares, soft, hard in (({"sky": 1.0}, "Sky", "Sky"), (HALVES, "Bicyclist", "Pedestrian")):
        logits = torch.zeros(194)
        logits[[UNIVERSAL.index(name) for name in shares]] = torch.tensor(list(shares.values()))
        assert target.names[int(target.soft(logits.softmax(dim=0)).argmax())] == soft
        assert target.names[int(target.hard(logits.argmax()[None]))] == hard


# ---- prediction


def predicted(model, image: np.ndarray, protocol: Inference = WHOLE, **options) -> torch.Tensor:
    return predict(Normalised(model, MEAN, STD), image, protocol, device=CPU, **options)


def test_hard_prediction_maps_the_winner() -> None:
    ids = np.random.RandomState(0).randint(0, 5, (12, 16))
    found = predicted(ColourVotes(5), class_image(ids), target=small())
    assert (found.numpy() == np.array([2, 0, 2, 0, 0])[ids]).all()
    found = predicted(ColourVotes(5), class_image(ids), target=small("hard_ignore"))
    assert (found.numpy() == np.array([2, 0, 2, 255, 0])[ids]).all()


PROTOCOLS = [
    WHOLE,
    Inference(scale=(20, 16)),
    Inference("slide", (16, 20), (9, 11), (40, 30)),
    Inference(scale=(20, 16), flip=True),
    Inference("slide", (16, 20), (9, 11), flip=True),
]


def full_scores(model, image: np.ndarray, protocol: Inference) -> list[torch.Tensor]:
    """[N, H, W] at the size of the image, from the image and its mirror image."""
    prepared = network_input(image, protocol)
    views = [all_scores(model, prepared, protocol)]
    if protocol.flip:
        views.append(all_scores(model, prepared.flip(-1), protocol).flip(-1))
    return [F.interpolate(view[None], image.shape[:2], mode="bilinear", align_corners=False)[0] for view in views]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("are_votes", [True, False])
def test_soft_prediction_equals_the_textbook_way(are_votes: bool, protocol: Inference) -> None:
    taxonomy = small("soft")
    image = np.random.RandomState(3).randint(0, 256, (33, 47, 3)).astype(np.uint8)
    model = Position(5) if are_votes else Convolution(5)
    views = full_scores(model, image, protocol)
    shares = [view if are_votes else view.softmax(dim=0) for view in views]
    expected = torch.einsum("tu,uhw->thw", taxonomy.matrix.float(), torch.stack(shares).mean(dim=0))
    found = predict(Normalised(model, MEAN, STD, are_votes=are_votes), image, protocol, device=CPU, target=taxonomy)
    assert found.dtype == torch.uint8
    best, second = expected.topk(2, dim=0).values
    clear = best - second > 1e-5
    assert clear.float().mean() > 0.95
    assert torch.equal(found.long()[clear], expected.argmax(dim=0)[clear])


def test_ties_go_to_the_lower_test_id() -> None:
    """Half the votes for a plant, half for an animal: plant comes first. An unmapped winner alone: class 0."""

    class Halves(ColourVotes):
        def scores(self, image: torch.Tensor) -> torch.Tensor:
            shares = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0]) if self.num_classes == 5 else torch.eye(5)[3]
            return shares.view(1, 5, 1, 1).expand(1, 5, *image.shape[2:]).clone()

    image = np.zeros((4, 5, 3), np.uint8)
    for kind in (5, 0):
        model = Normalised(Halves(kind), MEAN, STD, are_votes=True)
        assert not predict(model, image, WHOLE, device=CPU, target=small("soft")).any()
