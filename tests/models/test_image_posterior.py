"""An X^-1 that sees the image encoder's finest map: what it computes, learns and refuses, and its model files."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gss
from gss.errors import CheckpointError, ConfigError
from gss.modelfile import load_model, save_model
from gss.recipes.gss.build import build_posterior
from gss.recipes.gss.exchange import to_published
from gss.recipes.gss.learners import PosteriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import ConvPosterior, Posterior, WindowPosterior
from gss.recipes.gss.stages.merge import merge
from gss.stages.run import Run
from tests.models.test_training import N, batch, make, step
from tests.stages.test_merge import META
from tests.use.models import write_models

D = 5
VARIANTS: dict[str, dict[str, Any]] = {
    "window": {"variant": "window", "channels": 8, "num_heads": 2},
    "conv": {"variant": "conv", "channels": 8},
}


def build(variant: str, image_channels: int) -> Posterior:
    torch.manual_seed(0)
    return build_posterior(N, **VARIANTS[variant], image_channels=image_channels).double()


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_begins_as_the_one_that_sees_the_maskige_alone(variant: str) -> None:
    seeing, blind = build(variant, D), build(variant, 0)
    assert set(seeing.state_dict()) - set(blind.state_dict()) == {"image_weight"}
    assert all(torch.equal(value, seeing.state_dict()[name]) for name, value in blind.state_dict().items())
    rgb, features = torch.rand(2, 3, 24, 40).double(), torch.randn(2, D, 6, 10).double()
    assert torch.equal(seeing.scores(rgb, (12, 20), features), blind.scores(rgb, (12, 20)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_first_layer_is_that_of_maskige_and_features_together(variant: str) -> None:
    seeing = build(variant, D).eval()
    assert isinstance(seeing, WindowPosterior | ConvPosterior) and seeing.image_weight is not None
    torch.nn.init.normal_(seeing.image_weight)
    layer = seeing.projection if isinstance(seeing, WindowPosterior) else seeing.convs[0]
    rgb, features = torch.rand(2, 3, 24, 40).double(), torch.randn(2, D, 6, 10).double()
    kernel = layer.conv.kernel_size[0]
    weight = torch.cat([layer.conv.weight, F.pad(seeing.image_weight, [kernel // 2] * 4)], 1)
    full = F.interpolate(features, (24, 40), mode="bilinear", align_corners=False)
    expected = layer.finish(F.conv2d(torch.cat([rgb, full], 1), weight, padding=kernel // 2))
    torch.testing.assert_close(seeing._first(layer, rgb, features), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_teaches_it_to_look(variant: str) -> None:
    prior, dvae = make()
    torch.manual_seed(0)
    posterior = build_posterior(N, **VARIANTS[variant], image_channels=prior.backbone.channels[0])
    learner = PosteriorLearner(prior, dvae, posterior).train()
    data = batch()
    first = learner(data, 0)[0].item()
    for _ in range(16):
        learner.zero_grad()
        step(learner, data)
    assert learner(data, 0)[0].item() < 0.9 * first
    assert posterior.image_weight is not None and posterior.image_weight.abs().max() > 1e-2
    assert all(p.grad is None for p in prior.parameters())
    image = learner.eval().finished_image(data)
    model = GSS(prior, dvae, posterior).eval()
    with torch.no_grad():
        rgb, features = model.rgb(image), prior.backbone(image)[0]
        expected = posterior.scores(rgb, (40, 52), features)
        torch.testing.assert_close(model.scores(image), expected)
        assert (expected - posterior.scores(rgb, (40, 52), torch.zeros_like(features))).abs().max() > 1e-3
        loss, _ = posterior.loss_sum(rgb, data["label"], features)
        reference = F.cross_entropy(expected, data["label"].long().where(data["label"] < N, -100), reduction="sum")
        torch.testing.assert_close(loss, reference, rtol=1e-4, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_file_holds_it(variant: str, tmp_path: Path) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    folder = write_models(tmp_path, variant=variant, sees_image=True)
    path = folder / "gss_ft.pth"
    file = load_model(path)
    assert file.meta["posterior"]["image_channels"] == file.tensors["posterior.image_weight"].shape[1]
    scores = gss.load(path).scores(photograph)
    file.tensors["posterior.image_weight"] = torch.zeros_like(file.tensors["posterior.image_weight"])
    save_model(path, "gss_ft", file.tensors, file.meta)
    assert np.abs(gss.load(path).scores(photograph) - scores).max() > 1e-3


def test_published_checkpoints_have_none() -> None:
    prior, _ = make("tokens")
    with pytest.raises(CheckpointError, match="sees the photograph"):
        to_published(prior, WindowPosterior(N, 8, num_heads=2, image_channels=prior.backbone.channels[0]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["posterior.checkpoint=x.pth", "posterior.start_step=null"], "no published one"),
        (["posterior.experiment=other", "posterior.start_step=null"], "another encoder"),
        (["posterior.start_step=225"], "posterior.start_step 225"),
    ],
)
def test_what_would_show_it_another_encoder_is_refused(settings: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        Run.open("toy", ["posterior.image=true", *settings], tmp_path)
    Run.open("toy", ["posterior.image=true", "posterior.start_step=450"], tmp_path)


def test_it_is_merged_with_the_latent_prior_that_it_was_trained_behind(tmp_path: Path) -> None:
    run = Run.open("toy", results=tmp_path)
    described = {"variant": "conv", "channels": 4, "image_channels": D}
    tensors = {f"posterior.{name}": value for name, value in build_posterior(2, **described).state_dict().items()}
    save_model(run.folder / "gss_ff.pth", "gss_ff", {"prior.w": torch.arange(3.0)}, {**META, "latent_prior": {}})
    for sha256 in ("0" * 64, load_model(run.folder / "gss_ff.pth").sha256):
        meta = {**copy.deepcopy(META), "posterior": described}
        meta["provenance"] |= {"inputs": {"gss_ff.pth": sha256}}
        save_model(run.folder / "posterior.pth", "posterior", tensors, meta)
        if sha256 == "0" * 64:
            with pytest.raises(CheckpointError, match="another latent prior"):
                merge(run)
            assert not (run.folder / "gss_ft.pth").exists()
    merge(run)
    assert load_model(run.folder / "gss_ft.pth").meta["posterior"] == described


def test_slices_know_it_only_where_it_counts(tmp_path: Path) -> None:
    plain = ["posterior.start_step=null"]

    def changed(*settings: str) -> set[str]:
        before, after = (Run.open("toy", [*plain, *each], tmp_path).experiment for each in (settings[1:], settings))
        return {row.name for row in before.kind.stages if before.slice(row.name) != after.slice(row.name)}

    assert changed("posterior.image=true") == {"posterior"}
    assert not changed("posterior.image=true", "posterior.variant=nearest")
