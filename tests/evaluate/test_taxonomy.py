"""Universal classes become those of a test set: the table, both mappings, and prediction with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_gss import all_scores

from gss.errors import DataError
from gss.evaluate.inference import Inference, predict
from gss.evaluate.taxonomy import TestTaxonomy, read_taxonomy
from gss.files import read_json
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
    if not (gss_data / "mseg" / "taxonomy.tsv").is_file():
        pytest.skip(f"no taxonomy in {gss_data / 'mseg'}")
    return gss_data / "mseg"


def taxonomy_of(mseg: Path, test_set: str) -> TestTaxonomy:
    return read_taxonomy(mseg / "taxonomy.tsv", test_set, read_json(mseg / "class_names.json")[test_set])


def small(tmp_path: Path, column: str = "zoo-3") -> TestTaxonomy:
    """Five universal classes, three of the test set; the fourth belongs to none."""
    path = tmp_path / "table.tsv"
    cells = [("cat", "animal"), ("oak", "plant"), ("dog", "animal"), ("car", ""), ("fern", "plant"), ("unlabeled", "")]
    path.write_text("universal\tzoo-3\n" + "".join(f"{name}\t{cell}\n" for name, cell in cells), newline="\r\n")
    return read_taxonomy(path, column, ("plant", "stone", "animal"))


@pytest.mark.parametrize("test_set", FACTS)
def test_the_published_tables(test_set: str, mseg: Path) -> None:
    taxonomy, expected = taxonomy_of(mseg, test_set), read_json(mseg / "universal_to_test.json")
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


def test_hard_equals_one_hot_times_matrix(mseg: Path) -> None:
    ids = torch.from_numpy(np.random.RandomState(0).randint(0, 194, (20, 30), dtype=np.uint8))
    for test_set in FACTS:
        taxonomy = taxonomy_of(mseg, test_set)
        one_hot = F.one_hot(ids.long(), 194).permute(2, 0, 1)[None].float()
        published = F.conv2d(one_hot, taxonomy.matrix.float()[:, :, None, None]).argmax(dim=1)[0]
        mapped = taxonomy.hard(ids)
        assert mapped.dtype == torch.uint8
        assert torch.equal(mapped.long(), published)


def test_soft_adds_up_what_hard_would_split(tmp_path: Path) -> None:
    taxonomy = small(tmp_path)
    scores = torch.tensor([0.0, 0.3, 0.1, 0.35, 0.25])  # the winner belongs to no test class
    assert taxonomy.hard(torch.tensor([3], dtype=torch.uint8)).tolist() == [0]
    assert torch.allclose(taxonomy.soft(scores), torch.tensor([0.55, 0.0, 0.1]))
    maps = scores[:, None, None].expand(5, 4, 6)
    assert taxonomy.soft(maps).shape == (3, 4, 6)


def test_line_ends_of_the_published_file(tmp_path: Path, mseg: Path) -> None:
    """The file as published has CR LF and no last line end."""
    published = tmp_path / "MSeg_master.tsv"
    published.write_bytes((mseg / "taxonomy.tsv").read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    names = read_json(mseg / "class_names.json")["pascal-context-60"]  # the last column
    found = read_taxonomy(published, "pascal-context-60", names)
    assert torch.equal(found.matrix, taxonomy_of(mseg, "pascal-context-60").matrix)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text, "no column 'missing'"),
        (lambda text: "", "columns found: none"),
        (lambda text: text.replace("universal", "name").replace("zoo-3", "missing"), "no column 'universal'"),
        (lambda text: text.replace("zoo-3", "missing").replace("animal", "beast"), "maps 'cat' to 'beast'"),
    ],
)
def test_another_file_is_refused(change, reason: str, tmp_path: Path) -> None:
    small(tmp_path)
    path = tmp_path / "table.tsv"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=reason):
        read_taxonomy(path, "missing", ("plant", "stone", "animal"))
    with pytest.raises(DataError, match="cannot be read"):
        read_taxonomy(tmp_path / "no.tsv", "missing", ("plant",))


# ---- prediction


def predicted(model, image: np.ndarray, protocol: Inference = WHOLE, **options) -> torch.Tensor:
    return predict(Normalised(model, MEAN, STD), image, protocol, device=CPU, **options)


def test_hard_prediction_maps_the_winner(tmp_path: Path) -> None:
    ids = np.random.RandomState(0).randint(0, 5, (12, 16))
    found = predicted(ColourVotes(5), class_image(ids), taxonomy=small(tmp_path))
    assert (found.numpy() == np.array([2, 0, 2, 0, 0])[ids]).all()


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
@pytest.mark.parametrize("mapping", ["votes", "logits"])
def test_soft_prediction_equals_the_textbook_way(mapping: str, protocol: Inference, tmp_path: Path) -> None:
    taxonomy = small(tmp_path)
    image = np.random.RandomState(3).randint(0, 256, (33, 47, 3)).astype(np.uint8)
    model = Position(5) if mapping == "votes" else Convolution(5)
    views = full_scores(model, image, protocol)
    shares = [view.softmax(dim=0) if mapping == "logits" else view for view in views]
    expected = torch.einsum("tu,uhw->thw", taxonomy.matrix.float(), torch.stack(shares).mean(dim=0))
    found = predicted(model, image, protocol, taxonomy=taxonomy, mapping=mapping)
    assert found.dtype == torch.uint8
    best, second = expected.topk(2, dim=0).values
    clear = best - second > 1e-5
    assert clear.float().mean() > 0.95
    assert torch.equal(found.long()[clear], expected.argmax(dim=0)[clear])


def test_ties_go_to_the_lower_test_id(tmp_path: Path) -> None:
    """Half the votes for a plant, half for an animal: plant comes first. An unmapped winner alone: class 0."""

    class Halves(ColourVotes):
        def scores(self, image: torch.Tensor) -> torch.Tensor:
            shares = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0]) if self.num_classes == 5 else torch.eye(5)[3]
            return shares.view(1, 5, 1, 1).expand(1, 5, *image.shape[2:]).clone()

    image = np.zeros((4, 5, 3), np.uint8)
    for kind in (5, 0):
        assert not predicted(Halves(kind), image, taxonomy=small(tmp_path), mapping="votes").any()
