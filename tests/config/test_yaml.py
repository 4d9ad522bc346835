"""What people write in YAML means what it looks like, or is refused: nothing is lost or changed without a word."""

from pathlib import Path

import pytest

from gss.config import Experiment, load_experiment
from gss.errors import ConfigError

TEXT = """\
data:
  root: x
  classes: [a, b]
  label_map: {}
  splits:
    train: &train {images: a, labels: b}
    val: {<<: *train, labels: c}
augment: {base_scale: [64, 48], crop: [48, 48]}
latent_prior: {backbone: {name: test_resnet, options: {}}}
"""


def load(tmp_path: Path, old: str = "", new: str = "", more: str = "") -> Experiment:
    path = tmp_path / "mine.yaml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1) + more, encoding="utf-8")
    return load_experiment(path)


@pytest.mark.parametrize(
    ("old", "new", "more", "said"),
    [
        ("", "", "seed: 1\nseed: 2\n", "'seed' is given twice, in lines 10 and 11"),
        ("root: x", "root: x\n  root: y", "", "'data.root' is given twice, in lines 2 and 3"),
        ("options: {}", "options: {x: 1, y: 2, x: 1}", "", "'latent_prior.backbone.options.x' is given twice"),
        ("label_map: {}", "label_map: {7: 0, '7': 1}", "", "'data.label_map.7' is given twice"),
        ("label_map: {}", "label_map: {16: 0, 0x10: 1}", "", "'data.label_map.16' is given twice"),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(old: str, new: str, more: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, old, new, more)
    assert said in str(caught.value) and str(tmp_path / "mine.yaml") in str(caught.value)


def test_a_key_given_twice_is_refused_in_overrides_and_in_the_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_experiment("toy", ["augment={flip: 0, flip: 1}"])


def test_merged_keys_may_be_given_again_however_deep_they_stand(tmp_path: Path) -> None:
    more = "run: {resources: {check: &c {threads: 3, nodes: 2}, palette: &p {<<: *c, threads: 4}, merge: {<<: *p}}}\n"
    resources = load(tmp_path, more=more).run.resources
    assert [(resources[stage].threads, resources[stage].nodes) for stage in ("check", "palette", "merge")] == [
        (3, 2),
        (4, 2),
        (4, 2),
    ]


def test_words_and_numbers_are_read_as_editors_show_them(tmp_path: Path) -> None:
    assert load(tmp_path, "[a, b]", "[no, Off, 2024-01-01, 1:30]").data.classes == ("no", "Off", "2024-01-01", "1:30")
    assert load(tmp_path, "label_map: {}", "label_map: {012: 1, 0x10: 0}").data.label_map == {12: 1, 16: 0}
    found = load(tmp_path, "options: {}", "options: {x: 1e-3, y: -5, z: 1_000, n: null, s: 1e, t: true}")
    assert found.latent_prior.backbone.options == {"x": 1e-3, "y": -5, "z": 1000, "n": None, "s": "1e", "t": True}
    assert load(tmp_path, more="posterior: {steps: 1e3}\nevaluation: {flip: yes}\n").evaluation.flip is True


@pytest.mark.parametrize(
    ("old", "new", "more", "said"),
    [
        ("[a, b]", "[1, 2]", "", "data.classes: the class name 1 is no text; in quotes it is"),
        ("[a, b]", "[true, b]", "", "the class name True is no text"),
        ("[a, b]", "[~, b]", "", "the class name None is no text"),
        ("[a, b]", "{0: a, 1: b}", "", "data.classes: a list of names"),
        ("root: x", "root: 2024", "", "data.root: text is expected, found 2024; in quotes it is text"),
        ("", "", "run: {resources: {check: {minutes: 1:30}}}\n", "run.resources.check.minutes"),
        ("crop: [48, 48]", "crop: [48, 48], flip: true", "", "augment.flip: true and false are no values here"),
        ("", "", "posterior: {steps: true}\n", "posterior.steps: true and false are no values here"),
        ("", "", "posterior: {training: {lr: .nan}}\n", "posterior.training.lr: Input should be a finite number"),
        ("", "", "tokenizer: {train: {lr: .inf}}\n", "tokenizer.train.lr: Input should be a finite number"),
        ("", "", "posterior: {training: {lr: -1e-3}}\n", "posterior.training.lr: Input should be greater than 0"),
        ("", "", "seed: -1\n", "seed: Input should be greater than or equal to 0"),
        ("crop: [48, 48]", "crop: [48, 48], ratio: [2, 0.5]", "", "`ratio` is a smallest and a largest ratio"),
        ("", "", "evaluation: {splits: [test]}\n", "nothing would be evaluated"),
        ("", "", "posterior:\n\tsteps: 1\n", "line 11, column 1\n"),
        ("", "", "posterior:\n\tsteps: 1\n", "indent with blanks, not with tabs"),
        ("", "", "posterior:\n", "posterior: a section with keys is expected, found None"),
        ("", "", "seed:1\n", "in line 10"),
        ("", "", "---\nseed: 1\n", "another document in line 10"),
        ("", "", "reference: &all {posterior: *all}\n", "'reference.posterior' is an alias of what it stands in"),
        ("", "", "seed: !!bool maybe\n", "not readable as YAML"),
        ("", "", f"seed: {'9' * 5000}\n", "not readable as YAML"),
        ("options: {}", "options: {pretrained: true}", "", "write `weights: timm:TAG`"),
    ],
)
def test_what_means_something_else_is_refused(old: str, new: str, more: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, old, new, more)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "old", "new", "todo"),
    [
        ("utf-16", "", "", "save it as UTF-8"),
        ("latin-1", "data:", "# größe\ndata:", "save it as UTF-8"),
        ("utf-8", "  root: x", "\u00a0 root: x", r"U\+00A0"),
    ],
)
def test_text_of_other_programs_is_refused_with_the_cure(
    encoding: str, old: str, new: str, todo: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(TEXT.replace(old, new, 1).encode(encoding))
    with pytest.raises(ConfigError, match=f"(?s)not readable as YAML.*{todo}"):
        load_experiment(path)
