"""A copy of the project's workflow in an empty folder, and Snakemake run in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Settings of `toy`: every stage runs, none of them for long.
SMALL: dict[str, Any] = {
    "tokenizer__train__steps": 30,
    "tokenizer__train__batch_size": 8,
    "tokenizer__n_hid": 8,
    "reconstruction__max_rounds": 1,
    "reconstruction__retrain_steps": 5,
    "reconstruction__refine_images": 4,
    "latent_prior__milestones": [4, 8],
    "latent_prior__training__batch_size": 4,
    "posterior__start_step": 4,
    "posterior__steps": 4,
    "posterior__training__batch_size": 4,
    "evaluation__pictures": 1,
    "run__log_every": 2,
    "run__save_every": 2,
}
WORKFLOW = ("Snakefile", "rules", "profiles", "slurm", "local", "envs", "config")


class Project:
    """A project folder without results; the package itself is the installed one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in WORKFLOW:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)

    def experiment(self, name: str) -> Path:
        return self.folder / "config" / "experiments" / f"{name}.yaml"

    def configure(self, name: str, **sections: Any) -> None:
        """Change values of an experiment: `section__key=value`."""
        content = yaml.safe_load(self.experiment(name).read_text())
        for path, value in sections.items():
            *parents, key = path.split("__")
            section = content
            for parent in parents:
                section = section.setdefault(parent, {})
            section[key] = value
        self.experiment(name).write_text(yaml.safe_dump(content))

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake as a user does; `output` holds everything it printed."""
        kept = {key: value for key, value in os.environ.items() if key not in ("GSS_DATA", "MLFLOW_TRACKING_URI")}
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.folder,
            text=True,
            env={**kept, "NO_COLOR": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def planned(self, *arguments: str, **environment: str) -> dict[str, int]:
        """Rules a dry run lists, with their numbers of jobs; empty when there is nothing to do."""
        done = self.snakemake("-n", *arguments, **environment)
        assert done.returncode == 0, done.stdout
        if "Nothing to be done" in done.stdout:
            return {}
        table = done.stdout.partition("Job stats:")[2].partition("total ")[0]
        return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}
