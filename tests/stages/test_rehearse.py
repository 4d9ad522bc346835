"""What would stop a later stage is said by the check, with its key, before anything is read or trained."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from gss.cli import main
from gss.data.classes import ClassSpace
from gss.errors import GssError
from gss.recipes.gss.build import build_latent_prior, build_posterior
from gss.recipes.gss.exchange import to_published
from gss.stages.rehearse import rehearse
from gss.stages.run import Run

CLASSES = ("sky", "road", "car")
EXPERIMENT = {
    "data": {
        "root": "set",
        "classes": list(CLASSES),
        "splits": {split: {"images": f"i/{split}", "labels": f"l/{split}"} for split in ("train", "val")},
    },
    "augment": {"base_scale": [64, 64], "crop": [64, 64]},
    "tokenizer": {"vocab_size": 32, "n_hid": 8, "n_init": 8, "blocks_per_group": 1},
    "latent_prior": {
        "backbone": {"name": "test_resnet"},
        "channels": 8,
        "seg_channels": 16,
        "cls_channels": 16,
        "num_heads": 2,
    },
    "posterior": {"channels": 8, "num_heads": 2},
}


@pytest.fixture(autouse=True)
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the experiment `mine` and without any data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GSS_DATA", raising=False)
    path = tmp_path / "config/experiments/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(EXPERIMENT))
    (tmp_path / "data/set").mkdir(parents=True)
    return path


def tried(*overrides: str) -> None:
    rehearse(Run.open("mine", overrides), ClassSpace(CLASSES))


@pytest.mark.parametrize(
    "override",
    [
        "seed=0",
        "posterior.variant=conv",
        "posterior.variant=nearest",
        "latent_prior.token_stride=8",
        "latent_prior.head=single_fusion",
        "latent_prior.backbone.name=swin_tiny_patch4_window7_224",
        "evaluation={mode: slide, crop: [64, 64], stride: [32, 32]}",
        "evaluation.scale=[70, 50]",
        "latent_prior.backbone.weights=timm:r160_in1k",
        "augment.crop=[50, 70]",
        "latent_prior.training.layer_decay=0.7",
    ],
)
def test_what_can_be_trained_passes(override: str) -> None:
    tried(override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["latent_prior.backbone.name=resnet19"], "no model 'resnet19'\n  where: latent_prior.backbone"),
        (["latent_prior.backbone.name=levit_128s"], "no feature maps at strides 4, 8, 16 and 32"),
        (
            ["latent_prior.backbone.options={nix: 3}"],
            "unexpected keyword argument 'nix'\n  where: latent_prior.backbone",
        ),
        (["latent_prior.backbone.weights=nix.pth"], "nix.pth\n  where: latent_prior.backbone.weights"),
        (["latent_prior.backbone.weights=timm:nix"], "it has r160_in1k\n  where: latent_prior.backbone"),
        (["latent_prior.checkpoint=nix.pth"], "where: latent_prior.checkpoint"),
        (["posterior.checkpoint=nix.pth"], "where: posterior.checkpoint"),
        (["tokenizer={source: openai, encoder: a.pkl, decoder: b.pkl}"], "where: tokenizer.encoder"),
        (["latent_prior.num_heads=5"], "`seg_channels` 16 is no multiple of `num_heads` 5"),
        (["posterior.num_heads=3"], "`channels` 8 is no multiple of `num_heads` 3"),
        (["tokenizer.n_hid=6"], "tokenizer.n_hid: Input should be a multiple of 4"),
        (["tokenizer.train.crop=36"], "tokenizer.train.crop: Input should be a multiple of 8"),
        (["run.resources.tokenizer.processes=5"], "32 images per update cannot be divided into 5 parts"),
        (["run.resources.reconstruct.processes=5"], "run.resources.reconstruct"),
        (["run.resources.latent_prior.nodes=3"], "where: latent_prior.training.batch_size"),
        (["posterior.training.accumulation=3"], "where: posterior.training.batch_size"),
        (["augment.crop=[32, 32]", "latent_prior.training.batch_size=1"], "more than 1 value per channel"),
        (["latent_prior.backbone.name=maxvit_tiny_tf_224"], "must be divisible by window (7)\n  where: augment.crop"),
        (["evaluation={mode: slide, crop: [8, 8], stride: [9, 9]}"], "where: evaluation.stride"),
        (["palette.strategy=dataset"], "where: palette.strategy"),
        (["palette.file=mine.csv"], "mine.csv\n  where: palette.file"),
        (["palette={strategy: published, published: ade20k}"], "has 150 classes, the data set has 3"),
        (["posterior.experiment=nix"], "posterior.experiment: no experiment 'nix'"),
        (["posterior.experiment=mine"], "'mine' names itself"),
        (["posterior={from: mine, checkpoint: x}"], "not both"),
        (
            ["latent_prior.backbone.name=hrnet_w18_small", "latent_prior.training.layer_decay=0.7"],
            "the levels of hrnet_w18_small cannot be told apart\n  where: latent_prior.training",
        ),
    ],
)
def test_what_cannot_is_named_with_its_key(overrides: list[str], said: str) -> None:
    with pytest.raises(GssError) as caught:
        tried(*overrides)
    assert said in str(caught.value)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    prior = build_latent_prior("test_resnet", 3, 32, channels=8, seg_channels=16, cls_channels=16, num_heads=2)
    weights = {name: value.contiguous() for name, value in prior.backbone.features.state_dict().items()}
    save_file(weights, tmp_path / "data/own.safetensors")
    tried("latent_prior.backbone.weights=own.safetensors")
    with pytest.raises(GssError, match=r"tensors of resnet18 are missing(.|\n)*where: latent_prior\.backbone"):
        tried("latent_prior.backbone.weights=own.safetensors", "latent_prior.backbone.name=resnet18")


def test_checkpoints_are_compared_before_anything_is_trained(tmp_path: Path) -> None:
    small = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    sizes = {"channels": 8, "seg_channels": 16, "cls_channels": 16, "num_heads": 2, "swin_depth": 2}
    prior = build_latent_prior("swin_tiny_patch4_window7_224", 3, 32, backbone_options=small, **sizes)
    state = to_published(prior, build_posterior(3, channels=8, num_heads=2))
    torch.save({"state_dict": state}, tmp_path / "data/own.pth")
    swin = f"latent_prior.backbone={{name: swin_tiny_patch4_window7_224, options: {small}}}"
    both = ["latent_prior.checkpoint=own.pth", "posterior.checkpoint=own.pth"]
    tried(swin, *both)
    with pytest.raises(GssError, match="of another architecture"):
        tried(swin, *both, "latent_prior.swin_depth=1")
    with pytest.raises(GssError, match="of another architecture"):
        tried(swin, *both, "posterior.depth=3")
    with pytest.raises(GssError, match=r"variant=window, not conv\n  where: posterior\.checkpoint"):
        tried(swin, *both, "posterior.variant=conv")


def test_x_inverse_is_borrowed_where_it_is_and_fits(experiment: Path) -> None:
    other = experiment.with_name("other.yaml")
    other.write_text(yaml.safe_dump(EXPERIMENT))
    tried("posterior.experiment=other")
    data = {**EXPERIMENT["data"], "classes": ["sky", "car", "road"]}
    other.write_text(yaml.safe_dump({**EXPERIMENT, "data": data}))
    with pytest.raises(GssError, match=r"other classes: class 1 is 'car', not 'road'\n  where: posterior\.experiment"):
        tried("posterior.experiment=other")
    other.write_text(yaml.safe_dump({**EXPERIMENT, "posterior": {"experiment": "third"}}))
    with pytest.raises(GssError, match="'other' has its X\\^-1 from 'third' itself"):
        tried("posterior.experiment=other")


@pytest.mark.parametrize(("name", "classes"), [("camvid", 11), ("cityscapes_r101", 19), ("mseg", 194)])
def test_shipped_experiments_pass(name: str, classes: int, tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "config/experiments" / f"{name}.yaml"
    (tmp_path / "config/experiments" / source.name).write_text(source.read_text())
    for part in ("encoder", "decoder"):
        (tmp_path / f"data/dall-e/{part}.pkl").parent.mkdir(exist_ok=True)
        (tmp_path / f"data/dall-e/{part}.pkl").write_bytes(b"")
    run = Run.open(name, ["latent_prior.backbone.weights=null"])
    rehearse(run, ClassSpace(tuple(f"class {i}" for i in range(classes))))


def test_a_palette_of_other_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("index,name,r,g,b\n0,sky,1,2,3\n1,ignore,0,0,0\n")
    with pytest.raises(GssError, match=r"no row for 'road', 'car'\n  where: mine\.csv"):
        tried("palette.file=mine.csv")


def test_check_and_tokenizer_stop_before_their_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine", "latent_prior.backbone.name=resnet19"]) == 2
    said = capsys.readouterr().err
    assert "timm has no model 'resnet19'" in said and "Traceback" not in said
    assert not (tmp_path / "results").exists()


def test_what_has_no_effect_and_what_accumulation_changes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tried("posterior.variant=conv", "latent_prior.training.accumulation=2")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "warning: with `posterior.variant: conv` there is no effect of posterior.num_heads",
        "warning: latent_prior.training.accumulation: BatchNorm sees the images of one micro-batch at a time, so the "
        "result is not that of the whole batch",
    ]


def test_the_random_state_stays(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    tried()
    assert torch.equal(torch.get_rng_state(), before)
