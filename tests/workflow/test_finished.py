"""Results that were made by an earlier version stay finished: nothing is planned where their records are laid out."""

import json
import os
from pathlib import Path

import pytest
from project import Project

FINISHED = json.loads(Path(__file__).with_name("finished.json").read_text())


@pytest.fixture
def results(project: Project) -> Path:
    """The toy's results as they were left, files without content."""
    for name in FINISHED["files"]:
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    folder = project.folder / "results" / "toy"
    for name, record in FINISHED["records"].items():
        path = folder / "records" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record))
    for path in project.folder.glob("[dr]*/toy/**/*"):  # data and results, none newer than another
        os.utime(path, (0, 0))
    return folder


def test_results_made_before_stay_finished(project: Project, results: Path) -> None:
    assert project.planned("all") == {}


def test_what_was_made_otherwise_is_made_anew(project: Project, results: Path) -> None:
    path = results / "records" / "posterior.json"
    record = json.loads(path.read_text())
    record["settings"]["seed"] = 7
    path.write_text(json.dumps(record))
    assert project.planned("all") == {"posterior": 1, "merge": 1, "evaluate": 2, "report": 1, "all": 1}
