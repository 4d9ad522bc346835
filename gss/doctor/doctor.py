"""The list of all checks, and the verb."""

import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gss.config import load_project, runs_of
from gss.doctor import experiments, machine, slurm
from gss.doctor.findings import Check, Finding, examine, summary
from gss.errors import GssError


def doctor(names: Sequence[str], results: Path, *, cluster: bool = False) -> int:
    """Look at everything and print it; nothing that is written stays.

    Args:
        names: experiments whose data, weights and wishes are looked at, and whose stages are tried; none: those of
            config/config.yaml are looked at.
        results: where results go.
        cluster: try the locks between two nodes, too, with a job of a second.

    Returns:
        0; 2 when something is FAIL.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was written is removed then, too
    chosen = [run for name in list(names) or _of_project() for run in _runs(name)]
    probe = machine.Probe(chosen, results)
    groups = {
        "Python and packages": [
            Check("Python", machine.python),
            Check("packages", lambda: machine.packages(Path.cwd())),
            Check("torch", lambda: probe.about("torch"), 100),
        ],
        "GPUs and processes": [
            Check("driver", machine.driver),
            Check("GPU", lambda: probe.about("GPU"), 100),
            Check("host name", machine.host_name),
        ],
        "disk": [
            Check("results folder", lambda: machine.disk(results), 60),
            Check("space", lambda: probe.about("disk"), 100),
        ],
        "SLURM": [Check("SLURM", lambda: slurm.slurm(chosen))],
        "MLflow": [Check("MLflow", experiments.mlflow_store)],
        "experiments": [Check(name, functools.partial(experiments.inputs, name)) for name in chosen],
    }
    if names:
        groups["all stages in small"] = [
            Check(name, functools.partial(experiments.trial, name, results), experiments.TRIAL_SECONDS + 10)
            for name in (_runs(name)[0] for name in names)
        ]
    if cluster:
        groups["SLURM"].append(Check("locks of nodes", lambda: slurm.lock_across_nodes(results), 120))
    findings: list[Finding] = examine(groups)
    print(summary(findings))
    return 2 if any(finding.state == "FAIL" for finding in findings) else 0


def _runs(name: str) -> list[str]:
    """An experiment, of one with `seeds` each; what is wrong with its file is said where it is looked at."""
    try:
        return runs_of(name)
    except GssError:
        return [name]


def _of_project() -> list[str]:
    try:
        return list(load_project().experiments)
    except GssError as error:
        print(f"config/config.yaml: {error.what}; no experiment is looked at")
        return []
