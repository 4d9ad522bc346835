"""The command line: exit codes, one clear message, nothing half-written, cheap start."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gss.cli import GROUPS, main, parser

EXAMPLES = {name: example for names in GROUPS.values() for name, example in names.items()}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment file with a data set of two pairs per split, 32 x 32, classes 0..2."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(2):
            image, label = (tmp_path / "set" / kind / split / f"{number}" for kind in ("images", "labels"))
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(image.with_suffix(".jpg"))
            Image.fromarray(rng.integers(0, 3, (32, 32), dtype=np.uint8)).save(label.with_suffix(".png"))
    content = {
        "data": {
            "root": str(tmp_path / "set"),
            "classes": ["sky", "road", "car"],
            "splits": {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")},
        },
        "augment": {"base_scale": [32, 32], "crop": [32, 32]},
        "latent_prior": {"backbone": {"name": "test_resnet"}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(tmp_path: Path, *arguments: str) -> int:
    return main([*arguments, "--results", str(tmp_path / "results")])


def test_check_and_palette_of_own_data(experiment: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "check", str(experiment)) == 0
    assert run(tmp_path, "palette", str(experiment)) == 0
    results = tmp_path / "results" / "mine"
    assert (results / "palette" / "start.csv").read_text().splitlines()[0] == "index,name,r,g,b"
    assert len((results / "palette" / "start.csv").read_text().splitlines()) == 1 + 3 + 1
    assert yaml.safe_load((results / "config.yaml").read_text())["latent_prior"]["dropout"] == 0.1


def spoil_ids(folder: Path) -> None:
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(folder / "labels" / "train" / "0.png")


def spoil_size(folder: Path) -> None:
    Image.fromarray(np.zeros((30, 32), np.uint8)).save(folder / "labels" / "train" / "0.png")


def spoil_missing(folder: Path) -> None:
    (folder / "labels" / "val" / "1.png").unlink()


def spoil_jpeg(folder: Path) -> None:
    path = folder / "images" / "train" / "1.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_depth(folder: Path) -> None:
    Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(folder / "labels" / "train" / "0.png")


def spoil_colour(folder: Path) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "labels" / "train" / "0.png")


@pytest.mark.parametrize(
    ("spoil", "named", "found"),
    [
        (spoil_ids, "labels/train/0.png", "9"),
        (spoil_size, "labels/train/0.png", "30"),
        (spoil_missing, "images/val/1.jpg", "label"),
        (spoil_jpeg, "images/train/1.jpg", ""),
        (spoil_depth, "labels/train/0.png", "1000"),
        (spoil_colour, "labels/train/0.png", "RGB"),
    ],
)
def test_faulty_data_stop_the_check_with_file_and_value(
    spoil, named: str, found: str, experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(tmp_path / "set")
    assert run(tmp_path, "check", str(experiment)) == 2
    error = capsys.readouterr().err
    assert named in error
    assert found in error
    assert "Traceback" not in error
    data = tmp_path / "results" / "mine" / "data"
    assert not (data / "manifest.json").exists()
    assert not list(data.glob(".*.tmp"))


def test_a_fault_after_a_good_check_keeps_the_old_manifest(experiment: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "check", str(experiment)) == 0
    manifest = tmp_path / "results" / "mine" / "data" / "manifest.json"
    before = manifest.read_bytes()
    spoil_ids(tmp_path / "set")
    assert run(tmp_path, "check", str(experiment)) == 2
    assert manifest.read_bytes() == before


def test_damaged_palette_is_named(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "check", str(experiment))
    run(tmp_path, "palette", str(experiment))
    path = tmp_path / "results" / "mine" / "palette" / "start.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(SystemExit) as leaving:
        run(tmp_path, "tokenizer", str(experiment))
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert str(path) in error and "ignore" in error


def test_missing_data_name_the_folders_and_the_source(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    assert run(tmp_path, "check", str(experiment), "data.obtain=from the archive") == 2
    error = capsys.readouterr().err
    assert "images/train" in error and "labels/val" in error and "from the archive" in error


def test_a_missing_input_is_named_with_the_command_that_makes_it(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "train", "latent-prior", str(experiment))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in said
    assert f"snakemake {tmp_path}/results/mine/data/manifest.json" in said


def test_the_default_split_is_the_last_there_is(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "evaluate", str(experiment))  # without a test split
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "no split" not in said and "model file not found" in said
    assert (tmp_path / "results/mine/work/evaluate_gss_ft_val").is_dir()


def test_unknown_key_on_the_command_line(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "palette", str(experiment), "palette.sed=3") == 2
    assert "did you mean 'seed'?" in capsys.readouterr().err


def test_overrides_stand_anywhere(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(experiment), "--model", "gss_ff", "palette.sed=3", "--results", str(tmp_path)]
    assert main(arguments) == 2
    assert "did you mean 'seed'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["check", "toy", "--nonsense=3"], ["report", "toy", "rubbish", "--x"]])
def test_unknown_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2


def test_home_is_known_where_the_shell_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parser().parse_args(["check", "toy", "--results=~/results"]).results == Path("/home/me/results")
    given = parser().parse_args(["predict", "m.pth", "~/photos/**/*.jpg", "--output=~/out"])
    assert (given.inputs, given.output) == (["/home/me/photos/**/*.jpg"], Path("/home/me/out"))


@pytest.mark.parametrize("verb", ["", *EXAMPLES])
def test_help_fits_a_screen(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as leaving:
        main([*verb.split(), "--help"])
    assert leaving.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) <= (24 if verb else 44)


def test_help_and_small_verbs_load_no_torch() -> None:
    code = (
        "import sys; from gss.cli import main, parser; parser(); main(['config-reference', '--check']); "
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_verb_stands_in_a_group_and_its_example_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for name, example in EXAMPLES.items():
        gss, verb, *rest = shlex.split(example.partition(" > ")[0])
        assert (gss, verb) == ("gss", name)
        parser().parse_args([verb, *rest])
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for title, names in GROUPS.items():
        section = said.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert {line.split()[0] for line in section.splitlines()} == set(names), title
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert f"example: {EXAMPLES['evaluate']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["chekc", "toy"], "check"),
        (["evaluate", "toy", "--model", "gss_fff"], "gss_ff"),
        (["train", "latent_prior", "toy"], "latent-prior"),
        (["palette", "tyo"], "toy"),
        (["watch", "camvid_pixle/seed_0"], "camvid_pixel"),
        (["compare", "toy/gss_tf", "toy/gss_ff"], "gss_ft"),
    ],
)
def test_what_is_almost_a_word_is_named(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as leaving:
        code = leaving.code  # type: ignore[assignment]
    assert code == 2 and f"did you mean '{meant}'?" in capsys.readouterr().err


def test_results_of_almost_the_name_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").touch()
    assert main(["report", "mien", "--results", str(tmp_path)]) == 2
    assert "did you mean 'mine'?" in capsys.readouterr().err


def test_a_shell_completes_verbs_options_values_and_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = (
        capsys.readouterr().out
        + """
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_gss; echo "${COMPREPLY[*]}"; }
    try gss wat; try gss watch toy; try gss evaluate toy --mo; try gss evaluate toy --model ''; try gss train pix
    """
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["watch", "toy", "--model", "gss_ff gss_ft pixel", "pixel"]
    assert main(["completion", "zsh"]) == 0
    assert "#compdef gss" in capsys.readouterr().out


def test_completion_costs_nothing_where_it_is_not_asked_for() -> None:
    code = "import sys; from gss.cli import parser; parser(); print('shtab' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
