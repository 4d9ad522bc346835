"""Configuration: unknown keys name the nearest valid one, slices hold just what matters, the pages are current."""

from pathlib import Path

import pytest

from gss.config import data_folder, find_recipe, list_experiments, load_experiment, load_project, runs_of
from gss.config.reference import write_reference
from gss.errors import ConfigError

STAGES = [stage.name for stage in find_recipe("gss").stages]


@pytest.mark.parametrize("name", list_experiments())
def test_every_shipped_experiment_is_valid(name: str) -> None:
    assert load_experiment(runs_of(name)[0]).trainings


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_can_be_trained_where_the_published_numerics_differ(precision: str) -> None:
    override = f"latent_prior.training.precision={precision}"
    assert load_experiment("ade20k", [override]).latent_prior.training.precision == precision
    with pytest.raises(ConfigError, match=f"trains in fp32; remove `latent_prior.training.precision: {precision}`"):
        load_experiment("ade20k", [override, "numerics=reference"])


def test_per_pixel_networks_were_published_in_fp16() -> None:
    override = "pixel.training.precision"
    assert load_experiment("camvid_pixel/seed_0", [f"{override}=fp16", "numerics=reference"]).numerics == "reference"
    with pytest.raises(ConfigError, match=r"trains in fp32; remove `pixel.training.precision: bf16`"):
        load_experiment("camvid_pixel/seed_0", [f"{override}=bf16", "numerics=reference"])


def test_results_that_call_the_source_of_the_posterior_by_its_earlier_name_are_read() -> None:
    experiment = load_experiment("toy", ["posterior.experiment=camvid"])
    content = experiment.model_dump(mode="json")
    content["posterior"]["from"] = content["posterior"].pop("experiment")
    assert type(experiment).model_validate(content) == experiment


def test_shipped_project_lists_shipped_experiments() -> None:
    assert set(load_project().experiments) <= set(list_experiments())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenizer.vocab=3", "unknown key 'tokenizer.vocab', did you mean 'vocab_size'?"),
        ("tokeniser.n_hid=3", "did you mean 'tokenizer'?"),
        ("run.resources.evaluate.process=3", "did you mean 'processes'?"),
        ("data.splits.train.image=x", "did you mean 'images'?"),
        ("tokenizer.n_hid=wide", "tokenizer.n_hid: Input should be a valid integer"),
        ("latent_prior.milestones=[400,200]", "ascending steps"),
        ("posterior.start_step=7", "posterior.start_step 7 is no milestone"),
        ("posterior.training.backbone_lr_factor=0.5", "`training.backbone_lr_factor` would have no effect"),
        ("posterior.training.layer_decay=0.5", "`training.layer_decay` would have no effect"),
        ("posterior.training.nesterov=true", "`momentum` and `nesterov` are of `optimizer: sgd`"),
        ("posterior.training={optimizer: sgd, momentum: 0, nesterov: true}", "`nesterov` needs a `momentum` above 0"),
        ("posterior.training={schedule: cosine, power: 0.9}", "`power` is of `schedule: poly`"),
        ("posterior.training={keep: best}", "`keep: best` needs `validate_every` above 0"),
        (
            "data.splits={train: {images: a, labels: b}, test: {images: a, labels: b}}",
            "`latent_prior.training.validate_every` measures on `val`, which data.splits lacks",
        ),
        ("palette.strategy=published", "names the list"),
        ("palette.strategy=file", "`file` names the list"),
        ("palette={strategy: grid, file: a.csv}", "`file` names the list"),
        ("palette.file=a.csv posterior.experiment=camvid", "would have no effect"),
        ("tokenizer.source=openai", "needs `encoder` and `decoder`"),
        ("seed", "write section.key=value"),
        ("data.root=[a", "is not valid YAML"),
        ("data.splits={train: {images: a, labels: b}}", "needs `train` and at least one"),
        ("data.root=~/data", "data.root: `~` and `$NAME` are not replaced in paths"),
        ("latent_prior.backbone.weights=$HOME/w.pth", "`~` and `$NAME` are not replaced in paths"),
        ("data.splits.val.images=images\\val", "data.splits.val.images: folders in paths are separated by `/`"),
        ("seed.x=1", "seed: Input should be a valid integer"),
    ],
)
def test_wrong_value_is_one_clear_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_experiment("toy", override.split() if "{" not in override else [override])
    assert message in str(error.value)


def test_the_data_folder_may_be_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GSS_DATA", "~/data")  # as a Dockerfile or a file of variables hands it over
    assert data_folder() == tmp_path / "data"


def test_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'camvid'"):
        load_experiment("camvit")


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: [1, 2")
    with pytest.raises(ConfigError, match="not readable as YAML") as error:
        load_experiment(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("palette.seed=1", {"palette"}),
        ("palette.file=a.csv", {"palette"}),
        ("tokenizer.train.steps=7", {"tokenizer", "reconstruct"}),
        ("reconstruction.min_iou=0.5", {"reconstruct"}),
        ("latent_prior.training.lr=0.5", {"latent_prior"}),
        ("latent_prior.milestones=[225,500]", {"latent_prior"}),
        ("posterior.steps=7", {"posterior"}),
        ("augment.flip=0", {"latent_prior", "posterior"}),
        ("evaluation.mode=slide", {"evaluate"}),
        ("seed=1", {"tokenizer", "reconstruct", "latent_prior", "posterior"}),
        ("run.save_every=7", set()),
        ("run.resources.posterior.gpus=4", set()),
        ("data.obtain=elsewhere", set()),
        ("posterior.experiment=camvid", {"tokenizer", "reconstruct", "posterior"}),  # their keys have no effect then
        ("evaluation.splits=[test]", set()),
        ("latent_prior.milestones=[100,225,450]", set()),
        ("latent_prior.training.validate_every=0", set()),
        ("latent_prior.training.validate_images=3", set()),
        ("latent_prior.training.keep=best", {"latent_prior"}),
        ("posterior.training.keep=best", {"posterior"}),
        ("latent_prior.backbone.norm_eval=false", set()),
    ],
)
def test_a_change_shows_in_the_slices_it_influences(override: str, changed: set[str]) -> None:
    before, after = load_experiment("toy"), load_experiment("toy", [override])
    assert {stage for stage in STAGES if before.slice(stage) != after.slice(stage)} == changed


@pytest.mark.parametrize(
    "override",
    [
        "latent_prior.training.validate_every=50",
        "latent_prior.training.validate_images=3",
        "evaluation.flip=true",
        "evaluation.mode=slide",
    ],
)
def test_what_decides_about_the_best_step_is_in_the_slice_of_what_keeps_it(override: str) -> None:
    best = "latent_prior.training.keep=best"
    before, after = load_experiment("toy", [best]), load_experiment("toy", [best, override])
    assert before.slice("latent_prior") != after.slice("latent_prior")
    assert before.slice("posterior") == after.slice("posterior")


def test_validation_alone_leaves_no_empty_section_in_a_slice() -> None:
    bare = ["posterior.training={}", "latent_prior.training={}"]
    one = load_experiment("toy", bare)
    two = load_experiment(
        "toy", ["posterior.training={validate_every: 5}", "latent_prior.training={validate_every: 5}"]
    )
    assert [one.slice(stage) for stage in STAGES] == [two.slice(stage) for stage in STAGES]
    assert one.settings() == two.settings()


@pytest.mark.parametrize(
    ("choice", "key", "value"),
    [
        ("palette={strategy: published, published: cityscapes}", "palette.seed", "3"),
        ("tokenizer.source=train", "tokenizer.encoder_sha256", "ab"),
        ("tokenizer={source: openai, encoder: a, decoder: b}", "tokenizer.vocab_size", "64"),
        ("tokenizer={source: openai, encoder: a, decoder: b}", "tokenizer.train.steps", "5"),
        ("tokenizer={source: openai, encoder: a, decoder: b}", "reconstruction.retrain_steps", "7"),
        ("tokenizer.train.palettes=random", "reconstruction.retrain_steps", "7"),
        ("reconstruction.max_rounds=0", "reconstruction.min_iou", "0.5"),
        ("latent_prior.checkpoint=a.pth", "latent_prior.training.lr", "0.5"),
        ("latent_prior.checkpoint=a.pth", "latent_prior.backbone.weights", "b.pth"),
        ("posterior.checkpoint=a.pth", "posterior.training.ema", "0.5"),
        ("posterior.variant=conv", "posterior.num_heads", "2"),
        ("posterior.variant=nearest", "posterior.training.lr", "0.5"),
        ("posterior.experiment=camvid", "reconstruction.max_rounds", "1"),
        ("evaluation.mode=whole", "evaluation.crop", "[9, 9]"),
    ],
)
def test_a_key_that_another_one_takes_the_effect_from_runs_nothing_again(choice: str, key: str, value: str) -> None:
    base = ["posterior.start_step=null", "posterior.channels=128", "posterior.num_heads=4", choice]
    without, given = load_experiment("toy", base), load_experiment("toy", [*base, f"{key}={value}"])
    named = [name for names in given.idle.values() for name in names]
    assert any(key == name or key.startswith(f"{name}.") for name in named)
    assert [without.slice(stage) for stage in STAGES] == [given.slice(stage) for stage in STAGES]


@pytest.mark.parametrize("name", list_experiments())
def test_shipped_experiments_set_nothing_without_effect(name: str) -> None:
    assert load_experiment(runs_of(name)[0]).idle == {}


def test_reference_page_and_schema_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_reference(check=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize(("value", "said"), [("0", "greater than 0"), ("[40]", "'augment.base_scale.1' is missing")])
def test_a_value_that_may_be_of_two_types_is_named_by_its_key(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        load_experiment("toy", [f"augment.base_scale={value}"])
    assert "constrained" not in str(error.value) and "augment.base_scale: " in str(error.value)
