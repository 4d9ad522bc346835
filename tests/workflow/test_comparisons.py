"""Comparisons that config/config.yaml lists, built by Snakemake."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from project import Project

from gss import workflow
from gss.config import load_project
from gss.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[1] / "compare"))
from made import Made

PAGE = "results/comparisons/both/index.html"


def list_comparisons(project: Project, **comparisons: list[str]) -> None:
    path = project.folder / "config/config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "comparisons": comparisons}))


def test_all_builds_what_the_project_lists(project: Project) -> None:
    list_comparisons(project, both=["toy/gss_ff", "toy"])
    assert project.planned("all")["compare"] == 1
    planned = project.planned(PAGE)
    assert (planned["compare"], planned["evaluate"], planned["merge"]) == (1, 2, 1)


def test_the_rule_makes_the_page_and_a_listed_change_makes_it_again(project: Project, tmp_path: Path) -> None:
    made = Made(tmp_path / "made")
    for name, errors in (("toy/gss_ff", 0.3), ("toy/gss_ft", 0.2), ("camvid/gss_ft", 0.25)):
        made.run(name, errors)
    shutil.copytree(made.results, project.folder / "results")
    list_comparisons(project, both=["toy/gss_ff", "toy"])
    only = ("--allowed-rules", "compare", "--", PAGE)
    done = project.snakemake("--cores", "1", *only)
    assert done.returncode == 0, done.stdout
    page = project.folder / PAGE
    assert "toy/gss_ft against toy/gss_ff" in page.read_text()
    assert "toy/gss_ft against toy/gss_ff, test, 12 images" in page.with_name("compare.log").read_text()
    assert project.planned(*only) == {}
    list_comparisons(project, both=["toy/gss_ff", "toy", "camvid"])
    assert project.planned(*only) == {"compare": 1}


def test_an_unlisted_comparison_is_one_clear_message(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    list_comparisons(project, both=["toy/gss_ff", "toy"])
    monkeypatch.chdir(project.folder)
    with pytest.raises(ConfigError, match="no comparison 'bth'; there are: both"):
        workflow.comparison_inputs(SimpleNamespace(comparison="bth"))


@pytest.mark.parametrize(
    ("name", "runs", "message"),
    [
        ("both", ["toy"], "needs two or more different runs"),
        ("both", ["toy", "toy/gss_ft"], "needs two or more different runs"),
        ("both", ["toy", "toy/gss_xx"], "'toy/gss_xx' is no run"),
        ("a/b", ["toy", "toy/gss_ff"], "comparisons.a/b"),
    ],
)
def test_a_wrong_list_is_named(project: Project, name: str, runs: list[str], message: str) -> None:
    list_comparisons(project, **{name: runs})
    with pytest.raises(ConfigError, match=message):
        load_project(project.folder / "config/config.yaml")


def test_data_without_a_test_split_are_compared_on_val(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    list_comparisons(project, swin=["ade20k/gss_ff", "ade20k"])
    monkeypatch.chdir(project.folder)
    found = workflow.comparison_inputs(SimpleNamespace(comparison="swin"))
    assert found[0] == "results/ade20k/evaluation/gss_ff/val/metrics.json"


def test_the_split_is_one_that_every_experiment_has(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    list_comparisons(project, mixed=["toy", "ade20k"], none=["other", "ade20k"])
    project.experiment("other").write_text(project.experiment("toy").read_text())
    project.configure("other", evaluation__splits=["test"])
    monkeypatch.chdir(project.folder)
    assert workflow.comparison_split(SimpleNamespace(comparison="mixed")) == "val"
    with pytest.raises(ConfigError, match="no split in common: other test, ade20k val"):
        workflow.comparison_split(SimpleNamespace(comparison="none"))
