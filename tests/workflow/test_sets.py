"""Test sets with classes of their own, made by the rules."""

import csv
import json
from typing import Any

import pytest
import yaml
from project import Project

PLAIN: dict[str, Any] = {
    "recipe": "pixel",
    "base": "toy",
    "pixel": {"backbone": {"name": "test_resnet"}, "channels": 16, "steps": 2, "training": {"warmup_steps": 1}},
    "evaluation": {"splits": ["test"], "pictures": 1},
}
SHAPES = {
    "root": "toy",
    "splits": {"val": {"images": "images/val", "labels": "labels/val"}},
    "classes": ["plain", "lines", "spots"],
    "native_classes": ["background", "rows", "columns", "diagonals", "checks", "dots"],
    "mapping": {"background": "plain", "checks": "spots", "dots": "spots"}
    | dict.fromkeys(("rows", "columns", "diagonals"), "lines"),
}
SHAPES["model_mapping"] = SHAPES["mapping"]
PAGE = "results/shapes/report.html"


def write(project: Project, sets: dict[str, Any]) -> None:
    content = {**PLAIN, "evaluation": {**PLAIN["evaluation"], "sets": sets}}
    project.experiment("shapes").write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.slow
def test_sets_are_checked_measured_and_summed_up(project: Project) -> None:
    write(project, {"one": SHAPES})
    done = project.snakemake("--cores", "2", PAGE)
    assert done.returncode == 0, done.stdout
    folder = project.folder / "results/shapes"
    summary = json.loads((folder / "evaluation/pixel/summary.json").read_text())
    one = json.loads((folder / "evaluation/pixel/one/metrics.json").read_text())
    assert summary["h_mean"] == pytest.approx(one["mIoU"]) and one["images"] == 16
    rows = list(csv.DictReader((folder / "evaluation/pixel/one/per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == SHAPES["classes"]
    assert "Test sets" in (folder / "report.html").read_text()
    assert project.planned(PAGE) == {}
    # Another set runs nothing but what is of it; another way of measuring does not check files again.
    write(project, {"one": SHAPES, "two": {**SHAPES, "prediction": "soft"}})
    assert project.planned(PAGE) == dict.fromkeys(("check_set", "evaluate", "summary", "report"), 1)
    write(project, {"one": {**SHAPES, "absent": "zero"}})
    assert project.planned(PAGE) == dict.fromkeys(("evaluate", "summary", "report"), 1)
    write(project, {})
    assert project.planned("results/shapes/evaluation/pixel/test/metrics.json") == {}
    done = project.snakemake("-n", "results/shapes/evaluation/pixel/one/metrics.json")
    assert done.returncode != 0
