"""The evaluation of an image against the plainly written one: classes, ties included, and counts."""

import numpy as np
import oracle
import oracle_evaluation
import pytest
import torch
from torch import Tensor

from gss.data.device import normalise
from gss.data.metrics import confusion
from gss.evaluate.inference import Inference, lowest_best, predict, resize_image
from gss.nets.backbone import build_backbone
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import NearestPosterior, WindowPosterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from tests.normalised import Normalised

V = 48
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 60.0, 60.0)
CPU = torch.device("cpu")
CROP, STRIDE = (32, 40), (20, 27)
PROTOCOLS = {
    "whole": Inference(),
    "resized": Inference(scale=(70, 52)),
    "sliding": Inference("slide", CROP, STRIDE),
    "sliding, resized": Inference("slide", CROP, STRIDE, scale=(90, 65)),
}
SIZES = [(2, 48, 64), (19, 45, 67), (150, 52, 60), (194, 49, 49)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def make(inverse: str, num_classes: int) -> GSS:
    """Many tokens, strong colours, and a palette on a coarse grid, some twice, so that distances and votes tie."""
    backbone = build_backbone("resnet10t", norm_eval=True)
    head = LatentPriorHead(backbone.channels, num_classes, V, channels=8, seg_channels=16, cls_channels=12, num_heads=2)
    colours = torch.randint(0, 5, (num_classes + 1, 3)) * 60
    nearest = inverse == "nearest"
    posterior = NearestPosterior(colours) if nearest else WindowPosterior(num_classes, 16, num_heads=2)
    prior = LatentPrior(backbone, head).requires_grad_(False).eval()
    head.conv_seg.bias -= oracle.head_logits(head, backbone(torch.randn(1, 3, 64, 64)))[0].mean((0, 2, 3))
    dvae = DVAE(V, 8, 8, 1).requires_grad_(False)
    means = dvae.decode_logits(torch.arange(V).view(1, 6, -1))[:, :3]
    output = dvae.decoder.blocks[-1][-1]
    output.w[:3] *= 6 / means.std()
    output.b[:3] -= means.mean((0, 2, 3)) * 6 / means.std()
    return GSS(prior, dvae, posterior).eval()


def network_input(image: np.ndarray, inference: Inference) -> Tensor:
    pixels = torch.from_numpy(resize_image(image, inference.scale))
    return normalise(pixels.permute(2, 0, 1)[None], MEAN, STD)


def random_label(num_classes: int, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(0)
    label = random.integers(0, num_classes, (height, width), dtype=np.uint8)
    label[: height // 3, : width // 2] = 255
    label[random.random((height, width)) < 0.05] = 255
    return label


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_votes_for_colours(num_classes: int, height: int, width: int, protocol: str) -> None:
    """Equal to the bit: many pixels have as many votes for one class as for another."""
    model, inference = make("nearest", num_classes), PROTOCOLS[protocol]
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = predict(Normalised(model, MEAN, STD), image, inference, device=CPU)
    crop = CROP if inference.mode == "slide" else None
    scores = oracle_evaluation.scores_of_image(model, network_input(image, inference), (height, width), crop, STRIDE)
    first, second = scores[0].topk(2, 0).values
    assert (first == second).any() or height % 4 or width % 4 or inference.scale
    assert torch.equal(found.long(), scores[0].argmax(0))
    clear = first - second > 1e-6  # the softmax, which we leave out, rounds smaller differences away
    assert torch.equal(found.long()[clear], scores.softmax(1).argmax(1)[0][clear])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_scores_of_window_attention(num_classes: int, height: int, width: int, protocol: str) -> None:
    """Equal where the best score leads by more than its rounding."""
    model, inference = make("window", num_classes), PROTOCOLS[protocol]
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = predict(Normalised(model, MEAN, STD), image, inference, device=CPU).long()
    crop = CROP if inference.mode == "slide" else None
    scores = oracle_evaluation.scores_of_image(model, network_input(image, inference), (height, width), crop, STRIDE)
    first, second = scores[0].topk(2, 0).values
    clear = first - second > 1e-5 * scores.abs().max()
    assert clear.float().mean() > 0.99
    assert torch.equal(found[clear], scores.softmax(1).argmax(1)[0][clear])


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_first_of_equal_scores(num_classes: int, height: int, width: int) -> None:
    """Nearly all pixels tie; the maps stay as they are, are halved, or grow."""
    maps = torch.randint(0, 2, (num_classes, height, width)).float()
    for size in ((height, width), (height // 2, width // 2), (2 * height, 2 * width), (height + 3, width - 5)):
        for layout in (torch.contiguous_format, torch.channels_last):
            view = maps[None].contiguous(memory_format=layout)
            assert torch.equal(lowest_best([view[0]], size).long(), oracle.bilinear(view, size)[0].argmax(0))


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_counts(num_classes: int, height: int, width: int) -> None:
    label = random_label(num_classes, height, width)
    prediction = np.random.default_rng(2).integers(0, num_classes, (height, width), dtype=np.uint8)
    found = confusion(torch.from_numpy(prediction), torch.from_numpy(label), num_classes)
    assert np.array_equal(found.numpy(), oracle_evaluation.count(prediction, label, num_classes))


@pytest.mark.parametrize("protocol", ["whole", "sliding"])
def test_an_image_from_file_to_counts(protocol: str) -> None:
    """What the benchmark compares."""
    model, inference = make("nearest", 19), PROTOCOLS[protocol]
    image = np.random.default_rng(1).integers(0, 256, (52, 64, 3), dtype=np.uint8)
    label = random_label(19, 52, 64)
    found = predict(Normalised(model, MEAN, STD), image, inference, device=CPU)
    crop = CROP if inference.mode == "slide" else None
    ids, counts = oracle_evaluation.evaluate(model, network_input(image, inference), label, crop=crop, stride=STRIDE)
    assert torch.equal(found.long(), ids)
    assert np.array_equal(confusion(found, torch.from_numpy(label), 19).numpy(), counts)
