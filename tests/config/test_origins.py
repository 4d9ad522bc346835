import json
from pathlib import Path

from gss.config import load_experiment, origins
from gss.stages.run import Run

TEXT = """\
data:
  root: pets
  splits:
    train: {images: a, labels: b}
    val: &val
      images: c
      labels: d
    test: {<<: *val, labels: e}
  classes: [cat, dog]
  label_map: {7: 0}
augment: {base_scale: [8, 8], crop: [8, 8]}
latent_prior:
  backbone: {name: resnet18}
  training:
    lr: 2.0e-3
reference:
  latent_prior: {training: {lr: 1.0e-3}}
"""


def found(path: Path, *overrides: str) -> dict[str, str]:
    return origins(path, overrides, load_experiment(path, overrides))


def test_every_value_says_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "pets.yaml"
    path.write_text(TEXT)
    plain = found(path)
    assert plain["data.root"] == f"{path}:2"
    assert plain["data.splits.val.images"] == f"{path}:6"
    assert plain["data.splits.test.images"] == f"{path}:6"  # merged
    assert plain["data.splits.test.labels"] == f"{path}:8"
    assert plain["data.label_map.7"] == f"{path}:10"
    assert plain["latent_prior.training.lr"] == f"{path}:15"
    assert plain["augment.flip"] == plain["posterior.steps"] == "default"

    changed = found(path, "numerics=reference", "augment={base_scale: [9, 9], crop: [4, 4]}", "posterior.steps=7")
    assert changed["latent_prior.training.lr"] == "reference"
    assert changed["augment.crop"] == changed["posterior.steps"] == changed["numerics"] == "command line"
    assert changed["data.root"] == f"{path}:2"


def test_they_are_kept_beside_the_results_and_change_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "pets.yaml"
    path.write_text(TEXT)
    run = Run.open(str(path), ["seed=3"], tmp_path / "results")
    run.write_config("check")
    kept = json.loads((run.folder / "config_origins.json").read_text())
    assert kept["seed"] == "command line" and kept["data.root"].endswith("pets.yaml:2")

    path.write_text(TEXT + "published: {gss_ff: {mIoU: 0.5}}\n")
    assert load_experiment(path, ["seed=3"]).sha256 == run.experiment.sha256
