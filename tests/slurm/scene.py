"""A prepared copy of the toy project, and Snakemake with `--profile slurm` in it, for a test to disturb."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import yaml
from project import SMALL, Project
from slurm_cluster import SlurmCluster

from gss.cluster.exit import TORCHRUN_PID
from gss.modelfile import load_model
from gss.results.journal import read_journal

STEPS, SAVE_EVERY = 40, 5
DISTURBED: dict[str, Any] = {
    **SMALL,
    "latent_prior__milestones": [STEPS],
    "latent_prior__training__batch_size": 2,
    "latent_prior__training__validate_every": 0,
    "posterior__start_step": None,
    "run__log_every": 1,
    "run__save_every": SAVE_EVERY,
}
MODEL = "results/toy/gss_ff.pth"
PATIENCE = 1800  # seconds until a test says that what it waits for does not come; other scenes share the machine


class Scene(Project):
    """A project folder on the cluster. Its experiment is `toy`; what is disturbed is the latent prior's training."""

    def __init__(
        self, folder: Path, cluster: SlurmCluster, *, prepared: Project | None = None, processes: int = 2
    ) -> None:
        if prepared is None:
            folder.mkdir()
            super().__init__(folder)
            self.configure("toy", **DISTURBED)
        else:
            shutil.copytree(prepared.folder, folder)
            snakefile = folder / "Snakefile"  # four CPU seconds a start; the whole pipeline feeds MLflow
            before, start, after = snakefile.read_text().partition("    follower.start()\n")
            assert start
            snakefile.write_text(f"{before}    pass\n{after}")
        self.folder, self.cluster, self._processes = folder, cluster, processes
        self._output = folder / "snakemake.out"
        self._started: subprocess.Popen[bytes] | None = None
        self.profile(gpus_per_node=4)
        if processes == 1:
            self.configure("toy", run__resources__latent_prior={"processes": 1})

    @property
    def work(self) -> Path:
        return self.folder / "results/toy/work/latent_prior"

    @property
    def log(self) -> str:
        """What all starts of the training said."""
        path = self.folder / "results/toy/logs/latent_prior.log"
        return path.read_text() if path.exists() else ""

    @property
    def output(self) -> str:
        """What the last Snakemake said."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def jobs(self) -> dict[str, str]:
        """States of the SLURM jobs, oldest first."""
        return self.cluster.jobs(self.folder)

    def profile(self, *, extra: str = "", **block: Any) -> None:
        """Edit the profile as a user does: the cluster block, and options of sbatch that name the nodes."""
        path = self.folder / "slurm/config.yaml"
        content = yaml.safe_load(path.read_text())
        content["config"]["cluster"].update(block)
        if extra:
            content.setdefault("default-resources", {})["slurm_extra"] = extra
        path.write_text(yaml.safe_dump(content))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake on the cluster, as a terminal would: a process group of its own that heeds Ctrl-C."""
        command = [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "snakemake",
            "--profile",
            "slurm",
            "--slurm-init-seconds-before-status-checks",
            "2",
            *(arguments or (MODEL,)),
        ]
        environment = {
            name: value
            for name, value in self.cluster.environment.items()
            if name not in ("GSS_DATA", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")
        }
        with self._output.open("wb") as output:
            self._started = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**environment, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._started

    def end(self) -> int:
        """Wait for Snakemake's end; its exit code."""
        started = self._started
        assert started is not None
        self.wait(lambda: started.poll() is not None, "Snakemake's end")
        return started.returncode

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds; otherwise fail with all there is to know."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: waited in vain\njobs {self.jobs}\n{self.report()}")
            time.sleep(0.2)

    def report(self) -> str:
        """The ends of what Snakemake and the training said."""
        return f"--- Snakemake:\n{self.output[-3000:]}\n--- training:\n{self.log[-1000:]}"

    def losses(self) -> list[tuple[int, float]]:
        """The journal's steps and losses, in the order of its lines."""
        path = self.work / "journal.jsonl"
        events = read_journal(path) if path.exists() else []
        return [(event["step"], event["m"]["train/loss"]) for event in events if "train/loss" in event.get("m", {})]

    def step(self) -> int:
        """The last step in the journal."""
        return self.losses()[-1][0] if self.losses() else 0

    def saved(self) -> int:
        """The step of the last complete checkpoint."""
        files = (self.work / "checkpoints").glob("step_*.pt")
        return max((int(file.name.split("_")[1].split("-")[0]) for file in files), default=0)

    @contextlib.contextmanager
    def held(self, after: int = 8) -> Iterator[dict[int, int]]:
        """Inside, the trainers stand still, somewhere after this step: no test hangs on the speed of a machine.

        Yields:
            Their process ids, by rank.
        """
        self.wait(lambda: self.step() >= after, f"step {after}")
        trainers = self.trainers()
        assert sorted(trainers) == [*range(self._processes)], self.report()
        for pid in trainers.values():
            os.kill(pid, signal.SIGSTOP)
        assert self.step() < STEPS, "the training was over before it could be disturbed"
        try:
            yield trainers
        finally:
            for pid in trainers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def trainers(self) -> dict[int, int]:
        """Process ids of the running trainers, by rank."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink() == self.folder:
                    pairs = (pair.partition("=") for pair in (process / "environ").read_text().split("\0"))
                    environment = {name: value for name, _, value in pairs}
                    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                    if "RANK" in environment and environment.get(TORCHRUN_PID) == parent:  # not its data workers
                        found[int(environment["RANK"])] = int(process.name)
        return found

    def starts(self) -> list[int]:
        """The steps at which the training started and went on, by its log."""
        lines = [line for line in self.log.splitlines() if line.startswith("training in ")]
        return [int(line.partition("resumed from step ")[2].partition(",")[0] or 0) for line in lines]

    def assert_undisturbed(self, reference: "Future[Scene]", *, killed: int = 0) -> None:
        """All is as if nothing had happened: every step once, the same losses, the same bits, one writer at a time.

        Args:
            killed: how many owners of the work folder could not say that they left.
        """
        other = reference.result()
        assert [step for step, _ in self.losses()] == list(range(1, STEPS + 1)), self.report()
        assert self.losses() == other.losses()
        ours, theirs = (load_model(scene.folder / MODEL).tensors for scene in (self, other))
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        owners = [json.loads(line) for line in (self.work / "owners.jsonl").read_text().splitlines()]
        unreleased, owner = 0, None
        for event in owners:
            if event["event"] == "taken":
                unreleased += owner is not None
                owner = (event["host"], event["pid"])
            else:
                assert (event["host"], event["pid"]) == owner, owners
                owner = None
        assert (unreleased, owner) == (killed, None), owners
