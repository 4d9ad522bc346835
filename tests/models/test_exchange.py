"""Published checkpoints: bit-equal there and back, a reason for every key, and nothing executed or half-written."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gss.checkpoints import read_checkpoint
from gss.cli import main
from gss.errors import CheckpointError
from gss.files import write_json
from gss.modelfile import load_model
from gss.recipes.gss.assemble import build_model
from gss.recipes.gss.build import build_latent_prior, build_posterior
from gss.recipes.gss.exchange import load_published, published_key, to_published
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.palette.palette import Palette, write_palette
from gss.recipes.gss.palette.strategies import published_palette
from gss.recipes.gss.posterior import Posterior
from gss.recipes.gss.stages.merge import merge
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.store import load_tokenizer, save_tokenizer
from gss.stages.run import Run

SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
HEAD = {"channels": 24, "seg_channels": 32, "cls_channels": 48, "num_heads": 4}
BACKBONES = {
    "swin_tiny_patch4_window7_224": SWIN,
    "resnet50c": {"layers": [1, 1, 1, 1]},
    "hrnet_w18_small": {},
    "tf_efficientnet_lite0": {},
}
Trio = tuple[LatentPrior, Posterior | None, DVAE | None]


def drawn(module: nn.Module) -> nn.Module:
    """The module with every tensor filled at random, counters too."""
    for value in module.state_dict().values():
        value.copy_(torch.randn(value.shape) if value.is_floating_point() else torch.randint(1, 99, value.shape))
    return module


def make(kind: str = "ff", backbone: str = "swin_tiny_patch4_window7_224", **sizes: Any) -> Trio:
    """A tiny model; kind `tokens` comes with X^-1, all with a tokenizer."""
    options = BACKBONES[backbone]
    prior = build_latent_prior(backbone, 3, 16, backbone_options=options, kind=kind, **{**HEAD, **sizes})  # type: ignore[arg-type]
    posterior = build_posterior(3, channels=16, depth=2) if kind == "tokens" else None
    dvae = DVAE(16, 8, 4, blocks_per_group=1)
    for module in (prior, posterior, dvae):
        if module is not None:
            drawn(module)
    return prior, posterior, dvae


@pytest.fixture(scope="module")
def ff() -> dict[str, Tensor]:
    """Published state dict of a GSS-FF model with its tokenizer."""
    return to_published(*make("ff"))


@pytest.fixture(scope="module")
def ftw() -> dict[str, Tensor]:
    """Published state dict of a GSS-FT-W model with its tokenizer."""
    return to_published(*make("tokens"))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["ff", "single_fusion", "tokens"])
def test_there_and_back_is_bit_equal_and_every_key_has_a_row(kind: str, backbone: str) -> None:
    state = {key: value.clone() for key, value in to_published(*make(kind, backbone)).items()}
    other = make(kind, backbone)
    report = load_published({f"module.{key}": value for key, value in state.items()}, *other)
    assert_equal(to_published(*other), state)
    assert [row.published for row in report.rows] == list(state)
    kinds = {row.published: row.what for row in report.rows}
    assert all(("downsample" in key and "swin" in backbone) == (what == "re-ordered") for key, what in kinds.items())
    assert all(key.endswith("relative_position_index") == (what == "dropped") for key, what in kinds.items())
    own = {row.ours for row in report.rows if row.ours}
    assert {published_key(name, backbone) for name in own} == {row.published for row in report.rows if row.ours}


@pytest.mark.parametrize("name", ["swin_ff", "swin_ftw"])
def test_recorded_state_dicts_of_the_published_code_load(name: str, parity: Path) -> None:
    recorded = load_file(parity / f"{name}.safetensors")
    state = {key.removeprefix("sd."): value for key, value in recorded.items() if key.startswith("sd.")}
    kind: Any = "ff" if name == "swin_ff" else "tokens"
    prior = build_latent_prior("swin_tiny_patch4_window7_224", 19, 64, backbone_options=SWIN, kind=kind, **HEAD)  # type: ignore[arg-type]
    posterior = build_posterior(19, channels=16, depth=2) if kind == "tokens" else None
    dvae = DVAE(64, 16, 8, blocks_per_group=1 if name == "swin_ff" else 2)
    load_published(state, prior, posterior, dvae)
    assert_equal(to_published(prior, posterior, dvae), state)


def reasons(state: dict[str, Tensor], *modules: Any) -> dict[str, int]:
    rows = [row for row in load_published(state, *modules).rows if row.what == "dropped"]
    found = {row.why for row in rows}
    return {why: sum(row.why == why for row in rows) for why in sorted(found)}


def test_what_is_not_asked_for_is_dropped_with_the_reason(ff: dict[str, Tensor], ftw: dict[str, Tensor]) -> None:
    dvae_keys = len(DVAE(16, 8, 4, blocks_per_group=1).state_dict())
    index, tokenizer = "derived from the window's size", "the tokenizer is not asked for"
    assert reasons(ff, make("ff")[0]) == {index: 7, tokenizer: dvae_keys}
    assert reasons(ftw, make("tokens")[0]) == {"X^-1 is not asked for": 38, index: 7, tokenizer: dvae_keys}
    of_prior = len(ftw) - dvae_keys - 38  # X^-1 has 36 tensors and 2 index buffers
    assert reasons(ftw, None, make("tokens")[1]) == {
        index: 2,
        "the latent prior is not asked for": of_prior,
        tokenizer: dvae_keys,
    }
    pixel = reasons(ff, make("tokens")[0])["the model has no pixel branch"]
    assert pixel == 4 * 6 + 6 + 2


def without(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if part not in key}


@pytest.mark.parametrize(
    ("spoil", "sizes", "named"),
    [
        (without("fusion_conv.bn.bias"), {}, ["1 missing", "decode_head.fusion_conv.bn.bias", "latent_prior.channels"]),
        (
            lambda state: {**state, "decode_head.extra.weight": torch.zeros(1)},
            {},
            ["1 unexpected", "decode_head.extra"],
        ),
        (
            lambda state: state,
            {"channels": 32},
            ["of another shape", "[24, 32, 1, 1], not [32, 32, 1, 1]", "latent_prior.channels"],
        ),
        (
            lambda state: state,
            {"swin_depth": 3},
            ["13 missing", "transformer_block.blocks.2", "latent_prior.swin_depth"],
        ),
        (lambda state: state, {"window": 5}, ["relative_position_bias_table [169, 4], not [81, 4]"]),
        (lambda state: state, {"kind": "single_fusion"}, ["unexpected", "convs_pixel.0", "latent_prior.head"]),
        (lambda state: state, {"backbone": "resnet50c"}, ["and", "more", "latent_prior.backbone"]),
        (without("pixel"), {}, ["32 missing", "convs_pixel", "latent_prior.head"]),
        (
            lambda state: {key: value + 1 if key.endswith("index") else value for key, value in state.items()},
            {},
            ["other positions"],
        ),
        (lambda state: {f"model.{key}": value for key, value in state.items()}, {}, ["missing", "unexpected"]),
    ],
)
def test_another_architecture_is_one_error_that_says_where_to_look(
    spoil: Any, sizes: dict[str, Any], named: list[str], ff: dict[str, Tensor]
) -> None:
    prior, _, _ = make(**sizes)
    before = {key: value.clone() for key, value in prior.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_published(spoil(ff), prior, where="some.pth")
    text = str(error.value)
    assert all(part in text for part in [*named, "some.pth"]), text
    assert len(text.splitlines()) <= 6 and len(text) < 1500
    assert_equal(prior.state_dict(), before)


def test_conv_inverse_has_no_published_form() -> None:
    with pytest.raises(CheckpointError, match="no published form"):
        to_published(make()[0], build_posterior(3, "conv", channels=8))


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_in_the_forms_of_mmcv_are_read(tmp_path: Path, legacy: bool) -> None:
    state = {"a.weight": torch.arange(3.0), "a.num_batches_tracked": torch.tensor(2)}
    meta = {
        "iter": 7,
        "seed": np.int64(3),
        "hook_msgs": {"best_score": np.float64(0.5), "flag": np.bool_(True)},
        "CLASSES": ("a", "b"),
        "PALETTE": [[1, 2, 3]],
        "lr": np.float32(1e-3),
    }
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict()
    contents = [{"meta": meta, "state_dict": state, "optimizer": optimizer}, state, {"model": state}]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert_equal(read_checkpoint(path), state)
    save_file(state, tmp_path / "s.safetensors")
    assert_equal(read_checkpoint(tmp_path / "s.safetensors"), state)


@pytest.mark.parametrize("legacy", [False, True])
def test_foreign_code_is_named_and_not_executed(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "trap.pth"
    content = {"meta": Trap(tmp_path / "owned"), "state_dict": {"a": torch.ones(1)}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"refers to (pathlib\.Path\.touch|builtins\.getattr|getattr)"):
        read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_numpy_objects_are_no_numbers(tmp_path: Path) -> None:
    torch.save({"meta": {"x": np.array([1, 2])}, "state_dict": {}}, tmp_path / "array.pth")
    with pytest.raises(CheckpointError, match=r"refers to numpy\S*_reconstruct"):
        read_checkpoint(tmp_path / "array.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not readable"),
        (b"PK\x03\x04broken", "not readable"),
        (b"text", "not readable"),
    ],
)
def test_damaged_files_are_one_error(tmp_path: Path, content: bytes, reason: str) -> None:
    for name in ("c.pth", "c.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=reason):
            read_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="not found"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [{"state_dict": {"a": 3}}, [1, 2], {"meta": {}}, torch.ones(2)])
def test_what_is_no_state_dict_is_said_so(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_checkpoint(tmp_path / "c.pth")


# The verbs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment `mine`, its palette and its tokenizer, which is that of `checkpoint`."""
    monkeypatch.setenv("GSS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    content = {
        "data": {
            "root": "set",
            "classes": ["sky", "road", "car"],
            "splits": {split: {"images": split, "labels": split} for split in ("train", "val")},
        },
        "augment": {"base_scale": [32, 32], "crop": [32, 32]},
        "latent_prior": {"backbone": {"name": "swin_tiny_patch4_window7_224", "options": SWIN}, **HEAD},
        "posterior": {"channels": 16, "depth": 2},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    colours = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]])
    write_palette(tmp_path / "results/mine/palette.csv", Palette(colours, ("sky", "road", "car")))
    return tmp_path


def checkpoint(project: Path, kind: str, name: str = "published.pth", **sizes: Any) -> tuple[str, dict[str, Tensor]]:
    """A published checkpoint whose tokenizer becomes the experiment's."""
    modules = make(kind, **sizes)
    save_tokenizer(project / "results/mine/tokenizer.safetensors", modules[2], {"source": "test"})  # type: ignore[arg-type]
    state = {key: value.clone() for key, value in to_published(*modules).items()}
    torch.save({"meta": {"iter": 80000, "score": np.float32(1)}, "state_dict": state}, project / name)
    return name, state


def gss(*arguments: str) -> int:
    return main([arguments[0], "mine.yaml", *arguments[1:]])


def written(project: Path) -> set[str]:
    results = project / "results/mine"
    files = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    return {name for name in files if not name.startswith(("palette.csv", "tokenizer.safetensors"))}


def test_ff_checkpoint_becomes_gss_ff(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, state = checkpoint(project, "ff")
    assert gss("import", name) == 0
    file = load_model(project / "results/mine/gss_ff.pth", "gss_ff")
    tokenizer = load_tokenizer(project / "results/mine/tokenizer.safetensors")
    model = build_model(file, tokenizer, where="gss_ff.pth")
    assert_equal(to_published(model.prior, None, tokenizer), state)
    assert file.meta["classes"] == ["sky", "road", "car"] and file.meta["palette"][-1] == [255, 0, 0]
    assert file.meta["provenance"]["checkpoint"] == name
    assert len(file.meta["provenance"]["inputs"]["checkpoint"]) == 64
    with (project / "results/mine/import/gss_ff.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["published"] for row in rows] == list(state)
    assert {row["what"] for row in rows} == {"mapped", "re-ordered", "dropped"}
    said = capsys.readouterr().out
    assert f"{name}: {len(state)} keys" in said and "re-ordered: channels of the patch merging" in said


def test_ftw_checkpoint_becomes_the_whole_model(project: Path) -> None:
    name, state = checkpoint(project, "tokens")
    assert gss("import", "posterior.depth=2", "--as", "gss_ft", name) == 0
    file = load_model(project / "results/mine/gss_ft.pth", "gss_ft")
    assert file.meta["latent_prior"]["kind"] == "tokens"
    tokenizer = load_tokenizer(project / "results/mine/tokenizer.safetensors")
    model = build_model(file, tokenizer, where="gss_ft.pth")
    assert_equal(to_published(model.prior, model.posterior, tokenizer), state)
    assert model.scores(torch.zeros(1, 3, 30, 41)).shape == (1, 3, 30, 41)


def test_checkpoints_of_the_configuration_merge_like_trained_parts(project: Path) -> None:
    """X^-1 may come from behind another backbone; palette and tokenizer are the same."""
    stage_2, state_2 = checkpoint(project, "tokens", "ftw.pth", backbone="resnet50c")
    state_2 = {key: value for key, value in state_2.items() if "d_vae" not in key}
    torch.save(state_2, project / stage_2)
    stage_1, state_1 = checkpoint(project, "ff", "ff.pth")
    content = yaml.safe_load((project / "mine.yaml").read_text())
    content["latent_prior"]["checkpoint"] = stage_1
    content["posterior"] = {**content.get("posterior", {}), "checkpoint": stage_2}
    (project / "mine.yaml").write_text(yaml.safe_dump(content))
    assert gss("import", "--as", "posterior") == 0
    assert "gss_ff.pth" not in written(project)
    assert gss("import") == 0
    assert {"gss_ff.pth", "posterior.pth", "import/gss_ff.csv", "import/posterior.csv"} <= written(project)
    merge(Run.open("mine.yaml"))
    assert gss("export", "-o", "merged.pth", "--with-tokenizer") == 0
    x_inverse = ("projection", "post_transformer_block", "post_swin_ln", "cls_segmap")
    expected = state_1 | {key: value for key, value in state_2.items() if key.split(".")[1] in x_inverse}
    assert_equal(read_checkpoint(project / "merged.pth"), expected)
    assert gss("import", "merged.pth") == 0  # again, as one checkpoint with pixel branch and X^-1
    assert load_model(project / "results/mine/gss_ft.pth").meta["latent_prior"]["kind"] == "ff"


@pytest.mark.parametrize(("name", "kind"), [("swin_ff", "gss_ff"), ("swin_ftw", "gss_ft")])
def test_recorded_checkpoint_predicts_what_was_recorded(name: str, kind: str, project: Path, parity: Path) -> None:
    recorded = load_file(parity / f"{name}.safetensors")
    state = {key.removeprefix("sd."): value for key, value in recorded.items() if key.startswith("sd.")}
    torch.save({"meta": {}, "state_dict": state}, project / "published.pth")
    names = tuple(map(str, range(19)))
    write_palette(project / "results/mine/palette.csv", published_palette("cityscapes", names))
    dvae = DVAE(64, 16, 8, blocks_per_group=1 if kind == "gss_ff" else 2)
    dvae.load_state_dict({key.removeprefix("decode_head.d_vae."): v for key, v in state.items() if ".d_vae." in key})
    save_tokenizer(project / "results/mine/tokenizer.safetensors", dvae, {"source": "recorded"})
    assert gss("import", "published.pth") == 0
    path = project / f"results/mine/{kind}.pth"
    model = build_model(load_model(path, kind), load_tokenizer(path.with_name("tokenizer.safetensors")), where=path)
    for case in ("eval_even", "eval_odd"):
        with torch.inference_mode():
            found = model.scores(recorded[f"{case}.img"]).argmax(1)
            assert torch.equal(model.tokens(recorded[f"{case}.img"]), recorded[f"{case}.tokens"][:, 0].long())
        expected = recorded[f"{case}.pred"].reshape(found.shape)
        ambiguous = recorded.get(f"{case}.ambiguous", torch.zeros_like(expected)).reshape(found.shape)
        assert ((found == expected) | (ambiguous == 1)).all()


def test_exported_checkpoint_is_mmsegs(project: Path) -> None:
    name, state = checkpoint(project, "ff")
    gss("import", name)
    assert gss("export", "--model", "gss_ff", "--output", "out.pth") == 0
    content = torch.load(project / "out.pth", weights_only=True)
    assert content["meta"]["CLASSES"] == ("sky", "road", "car")
    assert content["meta"]["PALETTE"] == [[0, 0, 0], [0, 0, 255], [0, 255, 0]]
    assert_equal(content["state_dict"], without("d_vae")(state))
    assert all(value.is_contiguous() for value in content["state_dict"].values())
    assert gss("export", "--model", "gss_ff", "--without-pixel-branch", "-o", "small.pth") == 0
    assert_equal(read_checkpoint(project / "small.pth"), without("_pixel")(without("d_vae")(state)))


def spoil_tokenizer(project: Path) -> list[str]:
    name, _ = checkpoint(project, "ff")
    save_tokenizer(project / "results/mine/tokenizer.safetensors", drawn(DVAE(16, 8, 4, 1)), {"source": "test"})  # type: ignore[arg-type]
    return [name]


def spoil_palette(project: Path) -> list[str]:
    name, _ = checkpoint(project, "ff")
    (project / "results/mine/palette.csv").unlink()
    return [name]


def spoil_trap(project: Path) -> list[str]:
    checkpoint(project, "ff")
    torch.save({"state_dict": Trap(project / "owned")}, project / "trap.pth")
    return ["trap.pth"]


def spoil_second(project: Path) -> list[str]:
    """The first of two checkpoints is good."""
    name, _ = checkpoint(project, "ff")
    return [f"latent_prior.checkpoint={name}", f"posterior.checkpoint={name}"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_tokenizer, ["published.pth", "trained with the tokenizer", "tokenizer.source=openai"]),
        (spoil_trap, ["trap.pth", "which no state dict needs"]),
        (spoil_second, ["projection", "posterior.variant"]),
        (lambda project: [checkpoint(project, "ff", swin_depth=1)[0]], ["latent_prior.swin_depth"]),
        (lambda project: [checkpoint(project, "ff")[0], "posterior.depth=1", "--as", "posterior"], ["projection"]),
        (lambda project: [checkpoint(project, "tokens")[0], "posterior.depth=1"], ["posterior.depth", "unexpected"]),
        (lambda project: [checkpoint(project, "tokens")[0], "posterior.variant=conv"], ["posterior.variant=window"]),
        (lambda project: [checkpoint(project, "ff")[0] and "elsewhere.pth"], ["elsewhere.pth", "not found"]),
        (lambda project: [], ["latent_prior.checkpoint", "posterior.checkpoint"]),
        (lambda project: ["a.pth", "b.pth"], ["one checkpoint at a time"]),
        (lambda project: ["mine.yaml"], ["mine.yaml", "not readable"]),
        (spoil_palette, ["palette.csv"]),
    ],
)
def test_wrong_inputs_leave_nothing_behind(
    spoil: Any, named: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = spoil(project)
    assert gss("import", *arguments) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in named), error
    assert written(project) == set()
    assert not (project / "owned").exists()


def say(project: Path, name: str, **meta: Any) -> str:
    content = torch.load(project / name, weights_only=False)
    torch.save(content | {"meta": meta}, project / name)
    return name


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"CLASSES": ("sky", "car", "road")}, "class 1 is 'car' there, 'road' here"),
        ({"dataset_meta": {"classes": ["road", "sky", "car"]}}, "class 0 is 'road' there, 'sky' here"),
        ({"gss": {"palette": [[9, 9, 9]], "experiment": "other"}}, "made with another palette than the experiment's"),
        ({"gss": {"tokenizer": "f" * 64, "experiment": "other"}}, "made with another tokenizer than the experiment's"),
    ],
)
def test_ids_that_mean_something_else_are_refused(
    meta: dict, said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else would notice: the shapes are the same."""
    assert gss("import", say(project, checkpoint(project, "ff")[0], **meta)) == 2
    assert said in capsys.readouterr().err
    assert written(project) == set()


def test_classes_of_other_names_are_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gss("import", say(project, checkpoint(project, "ff")[0], CLASSES=["sky", "street", "car"])) == 0
    assert "names its classes otherwise: class 1 is 'street' there, 'road' here" in capsys.readouterr().out


def test_imported_models_have_the_colours_of_the_data_set(project: Path) -> None:
    name, _ = checkpoint(project, "ff")
    assert gss("import", name) == 0
    assert load_model(project / "results/mine/gss_ff.pth").meta["colours"] is None  # nothing was checked
    space = {
        "names": ["sky", "road", "car"],
        "colours": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "reduce_zero_label": False,
        "label_map": {},
    }
    write_json(project / "results/mine/data/manifest.json", {"root": "gone", "classes": space, "splits": {}})
    assert gss("import", name) == 0
    assert load_model(project / "results/mine/gss_ff.pth").meta["colours"] == space["colours"]


def test_export_refuses_what_was_not_published(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(project, "ff")
    assert gss("export", "-o", "out.pth") == 2
    assert "gss_ft.pth" in capsys.readouterr().err
    assert not (project / "out.pth").exists()


def test_a_plain_transformer_has_no_published_form() -> None:
    options = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 32}
    sizes = {"channels": 8, "seg_channels": 16, "cls_channels": 16, "num_heads": 2}
    prior = build_latent_prior("vit_tiny_patch16_224", 3, 32, backbone_options=options, **sizes)
    with pytest.raises(CheckpointError, match="vit_tiny_patch16_224 has no published form"):
        to_published(prior)
