"""What `gss watch` and Snakemake's terminal know of the jobs is what the workflow runs."""

import re

import pytest
from project import Project

from gss.config import load_experiment


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"latent_prior__milestones": [100, 200, 450], "posterior__start_step": 200},
        {"latent_prior__checkpoint": "there.pth", "posterior__checkpoint": "there.pth", "posterior__start_step": None},
        {"data__archives": [{"file": "toy.tar"}], "data__generate": None, "data__classes": ["a", "b"]},
        {
            "data__annotations": {"format": "labelme"},
            "data__generate": None,
            "data__classes": "annotations",
            "evaluation__sets": {
                "yard": {
                    "root": "toy",
                    "annotations": {"format": "labelme"},
                    "classes": "annotations",
                    "splits": {"val": {"images": "images/val", "labels": "labels/val"}},
                }
            },
        },
    ],
    ids=["toy", "segments", "imported", "archives", "annotations"],
)
def test_the_jobs_of_an_experiment_are_those_of_the_workflow(project: Project, changes: dict) -> None:
    project.configure("toy", **changes)
    (project.folder / "data" / "toy").mkdir(parents=True)
    (project.folder / "there.pth").touch()
    done = project.snakemake("-n", "results/toy/report.html", "results/toy/gss_ft.pth")
    assert done.returncode == 0, done.stdout
    planned = set(re.findall(r"log: results/toy/logs/(\S+)\.log", done.stdout))
    jobs = [job.name for job in load_experiment(project.experiment("toy")).jobs()]
    assert sorted([*jobs, "report"]) == sorted(planned)
