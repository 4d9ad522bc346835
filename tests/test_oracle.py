"""Every rewritten part of the computation against the oracle: exact for integers, to rounding for floats."""

from collections.abc import Iterator

import oracle
import pytest
import torch
from torch import Tensor

from gss.evaluate.inference import Inference, predict
from gss.nets import losses, window
from gss.nets.backbone import build_backbone
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.learners import LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.palette.maskige import nearest, paint
from gss.recipes.gss.posterior import NearestPosterior, WindowPosterior
from gss.recipes.gss.tokenizer import dvae as tokenizer
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.targets import double_label, fill_ignored, token_targets, token_valid
from tests.normalised import Normalised

V = 48


@pytest.fixture(autouse=True, params=["whole", "pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The limits from which maps are computed in pieces: as they are, and so low that these small maps are."""
    torch.manual_seed(0)
    if request.param == "pieces":
        for module, name, value in (
            (losses, "_SCORES", 4000),
            (window, "_LARGE", 1),
            (window, "_PIECE", 1),
            (tokenizer, "_LARGE", 1),
            (tokenizer, "_STRIP", 16),
            (tokenizer, "_LOGITS_AT_ONCE", 500),
        ):
            monkeypatch.setattr(module, name, value)
    yield


def random_label(num_classes: int, height: int, width: int) -> Tensor:
    """Blocks of classes with ignored parts, among them a whole corner; uint8 [2, height, width]."""
    label = torch.randint(0, num_classes, (2, -(-height // 3), -(-width // 3)), dtype=torch.uint8)
    label = label.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :height, :width].clone()
    label[:, : height // 3, : width // 2] = 255
    label[torch.rand(label.shape) < 0.05] = 255
    return label


def palette(num_classes: int) -> Tensor:
    """Colours on a coarse grid, some of them twice: distances tie."""
    return torch.randint(0, 5, (num_classes + 1, 3)) * 60


def make(num_classes: int) -> tuple[LatentPrior, DVAE, Tensor]:
    backbone = build_backbone("resnet10t", norm_eval=True)
    head = LatentPriorHead(backbone.channels, num_classes, V, channels=8, seg_channels=16, cls_channels=12, num_heads=2)
    return LatentPrior(backbone, head), DVAE(V, 8, 8, 1), palette(num_classes)


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Equal to rounding; some are 0 but for rounding, as a bias before BatchNorm, and have no scale of their own."""
    assert ours.keys() == theirs.keys()
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        scale = max(float(gradient.abs().max()), 1e-3 * largest)
        torch.testing.assert_close(ours[name] / scale, gradient / scale, rtol=0, atol=1e-3, msg=name)


SIZES = [(2, 32, 40), (19, 33, 47), (150, 40, 29), (194, 30, 30)]


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_labels_and_targets(num_classes: int, height: int, width: int) -> None:
    _, dvae, colours = make(num_classes)
    label, grid = random_label(num_classes, height, width), (-(-height // 4), -(-width // 4))
    doubled = double_label(label, grid)
    plain = oracle.double_label(label, grid, num_classes)
    assert torch.equal(torch.where(doubled == 255, num_classes, doubled.long()), plain)
    scores = torch.randn(2, num_classes, *grid)
    scores[:, : num_classes // 2] = scores[:, :1]  # ties
    choice = oracle.bilinear(scores, (doubled.shape[1], doubled.shape[2])).argmax(1)
    filled = torch.where(plain == num_classes, choice, plain)
    assert torch.equal(fill_ignored(doubled, scores).long(), filled)
    picture = oracle.paint(filled, colours)
    torch.testing.assert_close(paint(filled, colours), picture, rtol=0, atol=1e-7)
    logits = oracle.encode_logits(dvae, picture)
    expected = logits.argmax(1).masked_fill(~token_valid(doubled, 255), V)
    found, _ = token_targets(dvae, label, scores, colours)
    clear = logits.topk(2, 1).values.diff(dim=1).abs()[:, 0] > 1e-5  # of two equal logits rounding chooses
    assert torch.equal(found[clear], expected[clear]) and clear.float().mean() > 0.9


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_decoding_and_nearest_colours(num_classes: int, height: int, width: int) -> None:
    _, dvae, colours = make(num_classes)
    tokens = torch.randint(0, V, (2, height // 4, width // 4))
    with torch.no_grad():
        torch.testing.assert_close(dvae.decode(tokens), oracle.decode(dvae, tokens), rtol=1e-5, atol=1e-6)
    rgb = torch.randint(0, 9, (2, 3, height, width)) * 30.0  # between the colours: many ties
    assert torch.equal(nearest(rgb, colours), oracle.nearest(rgb, colours))


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_a_step_of_the_latent_prior(num_classes: int, height: int, width: int) -> None:
    prior, dvae, colours = make(num_classes)
    learner = LatentPriorLearner(prior, dvae, colours).train()
    image, label = torch.randn(2, 3, height, width), random_label(num_classes, height, width)
    weights = torch.tensor([0.8, 0.2])
    found = []
    for losses_of in (
        lambda: learner.losses(image, label)[0],
        lambda: oracle.latent_prior_losses(prior, dvae, colours, image, label),
    ):
        torch.manual_seed(1)  # of dropout
        sums = losses_of()
        prior.zero_grad()
        (weights * sums).sum().backward()
        found.append((sums.detach(), gradients(prior)))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    assert_gradients(our_gradients, their_gradients)


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
def test_a_step_of_the_posterior(num_classes: int, height: int, width: int) -> None:
    prior, dvae, _ = make(num_classes)
    posterior = WindowPosterior(num_classes, 16, depth=2, num_heads=2)
    learner = PosteriorLearner(prior, dvae, posterior).train()
    posterior.projection.bn.eval()  # its statistics would move between the two
    image, label = torch.randn(2, 3, height, width), random_label(num_classes, height, width)
    found = []
    for loss_of in (
        lambda: learner.losses(image, label)[0][0],
        lambda: oracle.posterior_loss(prior, dvae, posterior, image, label),
    ):
        posterior.zero_grad()
        loss = loss_of()
        loss.backward()
        found.append((loss.detach(), gradients(posterior)))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    assert_gradients(our_gradients, their_gradients)


@pytest.mark.parametrize(("num_classes", "height", "width"), SIZES)
@pytest.mark.parametrize("inverse", ["nearest", "window"])
def test_prediction(num_classes: int, height: int, width: int, inverse: str) -> None:
    prior, dvae, colours = make(num_classes)
    posterior = NearestPosterior(colours) if inverse == "nearest" else WindowPosterior(num_classes, 16, num_heads=2)
    model = GSS(prior, dvae, posterior).eval()
    photograph = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    mean, std = (0.0, 0.0, 0.0), (64.0, 64.0, 64.0)
    found = predict(Normalised(model, mean, std), photograph.numpy(), Inference(), device=torch.device("cpu")).long()
    expected = oracle.predict(model, photograph.permute(2, 0, 1)[None].float() / 64)[0]
    assert (found == expected).float().mean() > 0.999  # softmax, left out here, makes ties of its own
