"""What a storm kills: trainings that are begun in a folder, and what must be the same at their end."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "train"), str(ROOT / "tests" / "workflow")]
os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path[:3]), "PYTHONUNBUFFERED": "1"}

SAVE_EVERY = 2
TIMED = ("train/img_per_s", "train/data_wait")


class StormError(Exception):
    """The training did not keep its promise, or the storm had to end before."""


class Toy:
    """The latent prior of the toy experiment."""

    name, steps, stage = "toy latent prior", 150, "latent_prior"

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        if not self.project.is_dir():
            self._prepare()
        os.environ.pop("GSS_DATA", None)

    def _prepare(self) -> None:
        from project import Project

        print("preparing: data, palette and tokenizer of the toy (some minutes)", flush=True)
        new = self.project.with_name("project.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        project = Project(new)
        done = project.snakemake("--cores", "2", "results/toy/tokenizer.safetensors")
        if done.returncode:
            raise StormError(done.stdout)
        project.configure(
            "toy",
            latent_prior__milestones=[self.steps],
            posterior__start_step=self.steps,
            latent_prior__training__batch_size=4,
            run__log_every=1,
            run__save_every=SAVE_EVERY,
        )
        new.rename(self.project)

    def fresh(self, folder: Path) -> None:
        """A results folder in which nothing has been trained."""
        shutil.copytree(self.project / "results", folder, ignore=shutil.ignore_patterns("work", "logs"))

    def work(self, folder: Path) -> Path:
        return folder / "toy" / "work" / self.stage

    def command(self, folder: Path) -> list[str]:
        return ["train", "latent-prior", "toy", "--results", str(folder)]

    def live(self, folder: Path) -> int:
        """Train in this process, without a process for the loader: that one would live for seconds after a kill."""
        from gss.cli import main

        os.chdir(self.project)
        return main([*self.command(folder), "run.workers=0"])

    def launch(self, folder: Path) -> list[str]:
        """The same with two processes; to be run in the project."""
        return [
            sys.executable,
            "-m",
            "gss",
            "launch",
            "--nproc",
            "2",
            "--gpus",
            "0",
            "--cpus",
            "2",
            "--work",
            str(self.work(folder)),
            "--",
            *self.command(folder),
        ]

    def model(self, folder: Path) -> Any:
        from gss.modelfile import load_model

        return load_model(folder / "toy" / "gss_ff.pth").tensors


class Tiny:
    """The little network of the training's tests."""

    name, steps = "tiny network", 60
    options = json.dumps(
        {
            "steps": steps,
            "save_every": SAVE_EVERY,
            "validate_every": 3 * SAVE_EVERY,
            "keep": "best",
            "delay": 0.02,
            "ema": 0.9,
            "learner": {"norm": True, "dropout": 0.2},
        }
    )

    def __init__(self, folder: Path) -> None:
        self.project = folder

    def fresh(self, folder: Path) -> None:
        folder.mkdir(parents=True)

    def work(self, folder: Path) -> Path:
        return folder

    def live(self, folder: Path) -> int:
        import tiny_learner

        sys.argv[1:] = [str(folder), self.options]
        tiny_learner.main()
        return 0

    def launch(self, folder: Path) -> list[str]:
        program = (
            "import sys; from pathlib import Path; from gss.cluster.launch import launch; "
            "sys.exit(launch(2, sys.argv[1:], work=Path(sys.argv[1]), module='tiny_learner'))"
        )
        return [sys.executable, "-c", program, str(folder), self.options]

    def model(self, folder: Path) -> Any:
        import torch

        return torch.load(folder / "final.pt", weights_only=True)


Subject = Toy | Tiny


def outcome(subject: Subject, folder: Path) -> dict[str, Any]:
    """What must be the same at the end of every training."""
    import torch

    from gss.results.journal import read_journal
    from gss.train.checkpoint import CheckpointFolder

    checkpoints = CheckpointFolder(subject.work(folder) / "checkpoints")
    last, reports = checkpoints.find_latest()
    if last is None or last.step != subject.steps or reports:
        raise StormError(f"the last checkpoint is {last}: {reports}")
    if rubbish := [*checkpoints.path.glob(".*"), *checkpoints.path.glob("*.damaged")]:
        raise StormError(f"left over: {rubbish}")
    lines = [event for event in read_journal(subject.work(folder) / "journal.jsonl") if "m" in event]
    steps = [line["step"] for line in lines if "train/loss" in line["m"]]
    if steps != list(range(1, subject.steps + 1)):
        raise StormError(f"steps in the journal: {steps}")
    return {
        "weights": subject.model(folder),
        "last checkpoint": checkpoints.load(last.step, map_location=torch.device("cpu")),
        "journal": [{name: value for name, value in line["m"].items() if name not in TIMED} for line in lines],
    }


def differences(one: Any, two: Any, place: str = "") -> Iterator[str]:
    """Where two outcomes are not equal to the last bit."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        for key in one:
            yield from differences(one[key], two[key], f"{place}/{key}")
    elif isinstance(one, list | tuple) and type(one) is type(two) and len(one) == len(two):
        for number, (mine, theirs) in enumerate(zip(one, two, strict=True)):
            yield from differences(mine, theirs, f"{place}/{number}")
    elif not (one.equal(two) if hasattr(one, "equal") else one == two):
        yield place
