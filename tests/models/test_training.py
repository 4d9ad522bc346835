"""Learners: counts from labels, exact losses, what is trained and what is not."""

import pytest
import torch
import torch.nn.functional as F

from gss.nets.backbone import build_backbone
from gss.nets.tensors import resize
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.learners import ImageLearner, LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import ConvPosterior, NearestPosterior, WindowPosterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.targets import token_targets

N, V = 4, 32


def make(kind: str = "ff", num_classes: int = N) -> tuple[LatentPrior, DVAE]:
    torch.manual_seed(0)
    backbone = build_backbone("resnet10t", norm_eval=True)
    sizes = {"channels": 8, "seg_channels": 8, "cls_channels": 8, "num_heads": 2}
    head = LatentPriorHead(backbone.channels, num_classes, V, kind=kind, **sizes)
    return LatentPrior(backbone, head), DVAE(V, 8, 8, 1)


def batch(height: int = 40, width: int = 52) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, N, (2, height // 4, width // 4), generator=generator).to(torch.uint8)
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2)
    label[:, :9, :11] = 255
    return {
        "image": torch.randint(0, 256, (2, 3, *label.shape[1:]), dtype=torch.uint8, generator=generator),
        "label": label,
        "valid": torch.tensor([[0, 0, height, width], [0, 0, height - 4, width]]),
        "photometric": torch.tensor([[5.0, 1.1, 0.9, 3.0, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0]]),
    }


COLOURS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 0, 0]])


def step(learner: ImageLearner, data: dict[str, torch.Tensor]) -> None:
    sums, _ = learner(data, 0)
    weights = torch.tensor(list(learner.terms.values()), dtype=torch.float64)
    (weights * sums / (learner.counts(data) + 2**-23)).sum().backward()
    trained = [p for p in learner.saved.parameters() if p.requires_grad]
    torch.optim.AdamW(trained, 1e-2).step()


@pytest.mark.parametrize("kind", ["ff", "single_fusion"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_and_counts_equal_the_plain_computation(kind: str, weighted: bool) -> None:
    prior, dvae = make(kind)
    class_weights = torch.tensor([0.5, 1.0, 2.0, 4.0]) if weighted else None
    learner = LatentPriorLearner(prior, dvae, COLOURS, class_weights=class_weights).eval()
    data = batch()
    sums, stats = learner(data, 0)
    head = prior.head
    maps = prior.backbone(learner.finished_image(data))
    fused = head.fuse(maps)
    pixel = head.pixel_logits(maps, fused)
    tokens, doubled = token_targets(dvae, data["label"], pixel, COLOURS)
    assert (tokens == V).any()
    valid = doubled != 255
    per_pixel = (class_weights if weighted else torch.ones(N))[doubled.long().clamp(max=N - 1)] * valid
    blocks = per_pixel.unfold(1, 8, 8).unfold(2, 8, 8).sum((-1, -2))
    blocks = blocks / valid.unfold(1, 8, 8).unfold(2, 8, 8).sum((-1, -2)).clamp_min(1)
    token_ce = F.cross_entropy(head.conv_seg(head.hidden(fused)), tokens, ignore_index=V, reduction="none")
    full = resize(pixel, (doubled.shape[1], doubled.shape[2]))
    pixel_ce = F.cross_entropy(full, doubled.long(), ignore_index=255, reduction="none")
    expected = torch.stack([(token_ce * blocks).sum(), (pixel_ce * per_pixel).sum()])
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(learner.counts(data), torch.stack([blocks.sum(), per_pixel.sum()]).double())
    assert stats["pixel_acc"] == ((full.argmax(1) == doubled).sum(), valid.sum())
    assert stats["token_acc"][1] == (tokens != V).sum()


def test_prior_training_lowers_its_loss_and_leaves_the_tokenizer_alone() -> None:
    prior, dvae = make()
    learner = LatentPriorLearner(prior, dvae, COLOURS).train()
    tokenizer = {key: value.clone() for key, value in dvae.state_dict().items()}
    data = batch()
    losses = []
    for _ in range(8):
        learner.zero_grad()
        losses.append((learner(data, 0)[0] / learner.counts(data)).sum().item())
        step(learner, data)
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(value, tokenizer[key]) for key, value in dvae.state_dict().items())
    assert all(p.grad is not None for p in prior.parameters())


def test_everything_ignored_gives_zero_gradients() -> None:
    prior, dvae = make()
    learner = LatentPriorLearner(prior, dvae, COLOURS).train()
    data = batch()
    data["label"].fill_(255)
    assert learner.counts(data).tolist() == [0, 0]
    learner(data, 0)[0].sum().backward()
    assert not any(p.grad.any() for p in prior.parameters())


@pytest.mark.parametrize("posterior", [WindowPosterior(N, 8, num_heads=2), ConvPosterior(N, 8)])
def test_posterior_training_changes_only_the_posterior(posterior) -> None:  # type: ignore[no-untyped-def]
    prior, dvae = make()
    learner = PosteriorLearner(prior, dvae, posterior).train()
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    data = batch()
    step(learner, data)
    changed = {key for key, value in learner.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith(("posterior.", "saved.")) for key in changed)
    assert {key for key, _ in posterior.named_parameters()} <= {key.partition(".")[2] for key in changed}
    assert not prior.training
    assert learner.counts(data).item() == (data["label"] != 255).sum()


def test_reference_posterior_training_lets_only_the_heads_statistics_drift() -> None:
    prior, dvae = make()
    posterior = WindowPosterior(N, 8, num_heads=2)
    learner = PosteriorLearner(prior, dvae, posterior, reference=True).train()
    assert prior.head.dropout.training
    assert not any(module.training for module in prior.backbone.modules())
    before = {key: value.clone() for key, value in prior.state_dict().items()}
    step(learner, batch())
    assert all(p.grad is None for p in prior.parameters())
    changed = {key for key, value in prior.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.rpartition(".")[2] for key in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert {key.split(".")[1] for key in changed} == {"convs", "fusion_conv", "conv_before_seg"}
    assert not learner.eval().prior.head.training


def test_losses_of_a_given_image_are_those_of_the_batch() -> None:
    prior, dvae = make()
    data = batch()
    for learner in (LatentPriorLearner(prior, dvae, COLOURS), PosteriorLearner(prior, dvae, ConvPosterior(N, 8))):
        learner.eval()
        assert torch.equal(learner.losses(learner.finished_image(data), data["label"])[0], learner(data, 0)[0])


def test_tokens_of_stride_eight_fit_their_targets() -> None:
    prior, dvae = make()
    prior.head.token_stride = 8
    learner = LatentPriorLearner(prior, dvae, COLOURS)
    data = batch(45, 52)
    image = learner.finished_image(data)
    assert prior.tokens(image).shape == (2, 6, 7)
    _, stats = learner.losses(image, data["label"])
    assert learner.counts(data).tolist() == [stats["token_acc"][1], stats["pixel_acc"][1]]
    assert GSS(prior, dvae, ConvPosterior(N, 8)).scores(image).shape == (2, N, *image.shape[2:])


def test_gss_scores_compose_the_parts() -> None:
    prior, dvae = make()
    image = torch.randn(1, 3, 37, 50)
    for posterior in (NearestPosterior(COLOURS), WindowPosterior(N, 8, num_heads=2)):
        model = GSS(prior, dvae, posterior).eval()
        with torch.no_grad():
            assert model.tokens(image).shape == (1, 10, 13)
            assert model.rgb(image).shape == (1, 3, 80, 104)
            scores = model.scores(image)
            assert scores.dtype == torch.float32
            torch.testing.assert_close(scores, resize(posterior(model.rgb(image)), (37, 50)))


def test_double_precision_throughout() -> None:
    prior, dvae = make()
    learner = LatentPriorLearner(prior, dvae, COLOURS, class_weights=torch.ones(N)).double()
    assert learner(batch(), 0)[0].dtype == torch.float64
    assert PosteriorLearner(prior, dvae, ConvPosterior(N, 8)).double()(batch(), 0)[0].dtype == torch.float64
