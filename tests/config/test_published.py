"""The experiments that stand for the published runs: all their figures, and the learning rate at every iteration."""

import json
from pathlib import Path

import pytest

from gss.config import Experiment, load_experiment
from gss.train.schedule import learning_rate
from gss.train.settings import LoopSettings

SWIN, R101, HRNET = "swin_large_patch4_window12_384", "resnet101c", "hrnet_w48"
# backbone, head, classes' palette, Swin blocks of the head and of X^-1, crop, evaluation, then (rate, steps, images per
# step) of the latent prior and of X^-1, for 8 GPUs
PUBLISHED = {
    "ade20k": (SWIN, "ff", "ade20k", 2, 2, 512, "whole", (1.2e-4, 160000, 32), (1.5e-3, 40000, 16)),
    "cityscapes": (SWIN, "ff", "cityscapes", 2, 1, 768, "slide", (1.5e-3, 80000, 16), (7.5e-4, 40000, 8)),
    "cityscapes_r101": (R101, "ff", "cityscapes", 6, 1, 768, "slide", (1.5e-3, 80000, 16), (1.5e-3, 80000, 16)),
    "mseg": (SWIN, "single_fusion", "mseg", 2, 2, 512, "slide", (1.2e-4, 160000, 32), (1.5e-3, 40000, 32)),
    "mseg_hrnet": (HRNET, "single_fusion", "mseg", 6, 2, 512, "slide", (1.2e-4, 160000, 32), (1.2e-4, 160000, 32)),
}
RUNS = {  # experiment -> names of its two training configurations
    "ade20k": ("gss-ff_swin-l_512x512_160k_ade20k", "gss-ft-w_swin-l_512x512_160k_ade20k"),
    "cityscapes": ("gss-ff_swin-l_768x768_80k_cityscapes", "gss-ft-w_swin-l_768x768_80k_40k_cityscapes"),
    "cityscapes_r101": ("gss-ff_r101_768x768_80k_cityscapes", "gss-ft-w_r101_768x768_80k_40k_cityscapes"),
    "mseg": ("gss-ff_swin-l_512x512_160k_mseg", "gss-ft-w_swin-l_512x512_160k_40k_mseg"),
    "mseg_hrnet": ("gss-ff_hrnet-w48_512x512_160k_mseg", "gss-ft-w_hrnet-w48_512x512_160k_40k_mseg"),
}


def schedules(experiment: Experiment) -> list[LoopSettings]:
    prior, posterior = experiment.latent_prior, experiment.posterior
    return [
        LoopSettings(steps=steps, lr=training.lr, warmup_steps=training.warmup_steps)
        for steps, training in ((prior.milestones[-1], prior.training), (posterior.steps, posterior.training))
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_reference_numerics_give_the_published_figures(name: str) -> None:
    experiment = load_experiment(name, ["numerics=reference"])
    prior, posterior = experiment.latent_prior, experiment.posterior
    found = (
        prior.backbone.name,
        prior.head,
        experiment.palette.published,
        prior.swin_depth,
        posterior.depth,
        experiment.augment.crop[0],
        experiment.evaluation.mode,
        (prior.training.lr, prior.milestones[-1], prior.training.batch_size),
        (posterior.training.lr, posterior.steps, posterior.training.batch_size),
    )
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_published_runs_share(name: str) -> None:
    experiment = load_experiment(name)
    prior, posterior, backbone = experiment.latent_prior, experiment.posterior, experiment.latent_prior.backbone
    assert (prior.channels, prior.seg_channels, prior.cls_channels, prior.num_heads, prior.dropout) == (
        384,
        512,
        2048,
        16,
        0.1,
    )
    assert (posterior.variant, posterior.channels, posterior.num_heads) == ("window", 128, 4)
    assert backbone.drop_path == (0.3 if backbone.name == SWIN else 0)
    assert backbone.output_stride == (8 if backbone.name == R101 else 32)
    assert experiment.tokenizer.source == "openai"
    assert experiment.reconstruction.max_rounds == 0
    for training in (prior.training, posterior.training):
        assert (training.decay_rule, training.weight_decay, training.warmup_steps) == ("published", 0.01, 1500)
        assert (training.clip_norm, training.ema, training.accumulation) == (None, None, 1)
        assert (training.precision, training.class_balance, training.backbone_lr_factor) == ("fp32", 0, 1)
    if experiment.evaluation.mode == "slide":
        assert (experiment.evaluation.crop, experiment.evaluation.stride) == ((768, 768), (512, 512))
    augment = experiment.augment
    assert (augment.ratio, augment.cat_max_ratio, augment.flip, augment.photometric) == ((0.5, 2.0), 0.75, 0.5, True)
    assert augment.base_scale == ((2049, 1025) if "cityscapes" in name else (2048, 512))


def test_learning_rates_are_the_recorded_ones(parity: Path) -> None:
    recorded = json.loads((parity / "lr.json").read_text())["schedules"]
    names = dict.fromkeys(run for runs in RUNS.values() for run in runs)
    assert set(names) == set(recorded)
    for name, runs in RUNS.items():
        for run, settings in zip(runs, schedules(load_experiment(name, ["numerics=reference"])), strict=True):
            for step, rate in recorded[run]["table"]:
                assert learning_rate(step, settings) == pytest.approx(rate, rel=1e-12, abs=0)


def test_default_numerics_shorten_the_copied_lengths() -> None:
    for name in PUBLISHED:
        assert load_experiment(name).posterior.steps == 40000


CAE = {  # experiment -> backbone, its width and blocks that give maps, LayerScale, drop path, rate, its decay, mIoU
    "ade20k_cae_base_300": ("beit_base_patch16_224", 768, [3, 5, 7, 11], 0.1, 0.1, 3e-4, 0.65, 0.481),
    "ade20k_cae_base_800": ("beit_base_patch16_224", 768, [3, 5, 7, 11], 0.1, 0.1, 2e-4, 0.65, 0.497),
    "ade20k_cae_base_1600": ("beit_base_patch16_224", 768, [3, 5, 7, 11], 0.1, 0.1, 1e-4, 0.65, 0.503),
    "ade20k_cae_large_1600": ("beit_large_patch16_512", 1024, [7, 11, 15, 23], 1e-5, 0.15, 4e-5, 0.95, 0.549),
}


@pytest.mark.parametrize("name", CAE)
def test_experiments_of_cae_have_the_published_figures(name: str) -> None:
    experiment = load_experiment(name)
    network, training, backbone = experiment.pixel, experiment.pixel.training, experiment.pixel.backbone
    options = backbone.options
    assert CAE[name] == (
        backbone.name,
        network.channels,
        options["out_indices"],
        options["init_values"],
        backbone.drop_path,
        training.lr,
        training.layer_decay,
        experiment.published.pixel["mIoU"],
    )
    assert (options["img_size"], options["use_abs_pos_emb"], backbone.normalisation) == (512, True, "imagenet")
    assert (network.head, network.dropout, network.steps) == ("upernet", 0.1, 160000)
    assert network.auxiliary.model_dump() == {"weight": 0.4, "channels": 256, "dropout": 0.1}
    assert (training.batch_size, training.weight_decay, training.decay_rule) == (16, 0.05, "vectors")
    assert (training.warmup_steps, training.power, training.clip_norm) == (1500, 1, None)
    assert training.precision == "bf16"
    assert load_experiment(name, ["numerics=reference"]).pixel.training.precision == "fp16"
    protocol = experiment.evaluation
    assert (protocol.mode, protocol.crop, protocol.stride) == ("slide", (512, 512), (341, 341))
    assert (protocol.scale, protocol.splits, protocol.flip) == ((2048, 512), ("val",), False)
    gss = load_experiment("ade20k")
    assert (experiment.data, experiment.augment) == (gss.data, gss.augment)


MSEG = {  # experiment -> short side, crop, images of a step, millions of crops of each of seven sets, steps, h_mean
    "mseg_pixel_1080": (1080, 713, 35, 3, 600_000, 0.598),
    "mseg_pixel_1080_1m": (1080, 713, 14, 1, 500_000, 0.592),
    "mseg_pixel_720": (720, 593, 49, 3, 428_571, 0.598),
    "mseg_pixel_480": (480, 473, 84, 3, 250_000, 0.612),
    "mseg_pixel_mgda": (1080, 713, 35, 1, 200_000, 0.580),
}


@pytest.mark.parametrize("name", MSEG)
@pytest.mark.parametrize("numerics", ["default", "reference"])
def test_experiments_of_mseg_have_the_published_figures(name: str, numerics: str) -> None:
    experiment = load_experiment(name, [f"numerics={numerics}"])
    network, training, augment = experiment.pixel, experiment.pixel.training, experiment.augment
    side, crop, batch, millions, steps, h_mean = MSEG[name]
    assert (augment.base_scale, augment.crop, training.batch_size, network.steps) == (side, (crop, crop), batch, steps)
    assert experiment.made_for("pixel") == 7 and batch % 7 == 0
    assert network.steps == millions * 10**6 // (batch // 7)
    assert (crop - 1) % 8 == 0  # what the published network takes
    assert experiment.published.pixel == {"h_mean": h_mean}
    assert (augment.ratio, augment.rotate, augment.blur, augment.flip) == ((0.5, 2.0), 10, True, 0.5)
    assert (augment.padding, augment.cat_max_ratio, augment.photometric) == ("centre", None, False)
    assert (network.backbone.name, network.head, network.channels) == (HRNET, "hrnet", 48 + 96 + 192 + 384)
    assert (network.auxiliary, network.dropout, network.backbone.norm_eval) == (None, 0, False)
    assert (training.optimizer, training.lr, training.momentum, training.nesterov) == ("sgd", 0.01, 0.9, False)
    assert (training.schedule, training.power, training.warmup_steps) == ("poly", 0.9, 0)
    assert (training.weight_decay, training.decay_rule, training.precision) == (1e-4, "all", "fp32")
    assert (training.clip_norm, training.ema, training.accumulation) == (None, None, 1)
    assert experiment.data == load_experiment("mseg").data.model_copy(update={"sampling": "balanced"})
    evaluation = experiment.evaluation
    assert (evaluation.protocol, evaluation.crop, evaluation.base_sizes) == ("mseg", (713, 713), (360, 720, 1080))
    assert {(each.prediction, each.absent) for each in evaluation.sets.values()} == {("soft", "zero")}
    assert training.multitask == ("mgda" if name == "mseg_pixel_mgda" else "none")
