"""Data sets that users have, from the outside: what `gss check` makes of each."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from gss.cli import main
from gss.data.manifest import read_manifest


class Outcome(NamedTuple):
    """What is right.

    Args:
        pairs: that are in the manifest, of train and val; None: it is refused.
        said: what the command says.
    """

    pairs: tuple[int, int] | None
    said: tuple[str, ...]


RIGHT = {
    "one_class_255": Outcome(None, ("classes: [background, obj]", "label_map: {255: 1}")),
    "mixed_255": Outcome(None, ("4 files", "5 files", "labels/train/f01.png", "label_map: {255: 1}")),
    "palettes_differ": Outcome(None, ("the palettes of indexed labels disagree", "encoding: colours")),
    "checkpoints_folder": Outcome((6, 3), ("hidden folders are no data: 4 passed over (.ipynb_checkpoints)",)),
    "linked_folder": Outcome((6, 3), ()),
    "exif_turned": Outcome(None, ("9 of 9 photographs carry an EXIF orientation", "data.exif_orientation: apply")),
    "exif_quarter": Outcome(None, ("By size 0 labels follow the turned picture, 9 the stored one", "stored where")),
    "name_twice": Outcome(None, ("`classes` names 'a' more than once",)),
    "key_twice": Outcome(None, ("the key 'latent_prior.milestones' is given twice, in lines 38 and 40",)),
    "all_ignored": Outcome(None, ("all 6 labels of train are ignored as a whole",)),
    "one_folder": Outcome((6, 3), ()),
    "unicode_forms": Outcome((6, 3), ("in different Unicode forms, paired all the same: 1 file",)),
    "not_utf8": Outcome(None, (r"images/train/stra\xdfe.png, labels/train/stra\xdfe.png): the name is not UTF-8",)),
    "suffix_pair": Outcome(None, ("set image_suffix: _image, label_suffix: _annotation in the section data",)),
    "rgb_labels": Outcome(None, ("set encoding: colours, native_classes: classes.csv in the section data",)),
    "gif_labels": Outcome(None, ("labels/train holds 6 files *.gif, a format that is not read: save labels as PNG",)),
    "draft_beside": Outcome((6, 3), ()),
}
# What is proposed, and does it.
CURES = {
    "one_class_255": {"classes": "[background, obj]", "label_map": "{255: 1}"},
    "mixed_255": {"label_map": "{255: 1}"},
    "exif_quarter": {"exif_orientation": "stored"},
    "suffix_pair": {"image_suffix": "_image", "label_suffix": "_annotation"},
    "rgb_labels": {"encoding": "colours", "native_classes": "classes.csv"},
}


def make(cases: Path, case: str, folder: Path) -> None:
    """The case in `folder/case`, and its experiment in a project, the working directory."""
    subprocess.run([sys.executable, cases / "make.py", folder / "case", case], check=True, capture_output=True)
    experiments = folder / "config" / "experiments"
    experiments.mkdir(parents=True)
    shutil.copy(folder / "case" / case / "experiment.yaml", experiments / "mine.yaml")
    if case == "draft_beside":
        shutil.copy(folder / "case" / case / "draft.yaml", experiments)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GSS_DATA", raising=False)
    return tmp_path


def pairs() -> tuple[int, ...]:
    manifest = read_manifest(Path("results/mine/data/manifest.json"))
    return tuple(len(manifest.rows[split]) for split in ("train", "val"))


@pytest.mark.parametrize("case", RIGHT)
def test_every_case_ends_as_is_right(case: str, cases: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(cases, case, project)
    expected = RIGHT[case]
    assert main(["check", "mine"]) == (0 if expected.pairs else 2)
    out, err = capsys.readouterr()
    assert all(part in out + err for part in expected.said), out + err
    assert "Traceback" not in err and len(err.splitlines()) < 12  # equal faults are one line
    if expected.pairs:
        assert pairs() == expected.pairs
    else:
        assert not Path("results/mine/data/manifest.json").exists()


@pytest.mark.parametrize("case", CURES)
def test_what_is_proposed_does_it(case: str, cases: Path, project: Path) -> None:
    make(cases, case, project)
    assert main(["check", "mine", *(f"data.{key}={value}" for key, value in CURES[case].items())]) == 0


def test_the_cases_are_all_here(cases: Path) -> None:
    rows = [line.split("`")[1] for line in (cases / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == list(RIGHT)
