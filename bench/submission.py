"""What SLURM costs beside Snakemake alone, and where the time goes: the small toy pipeline both ways, in turn.

    python bench/submission.py              # ten minutes on two idle cores; starts a SLURM of its own
    python bench/submission.py --init 2 20  # with these seconds before the first status check

Needs the programs of tests/slurm. Prints the tables of bench/submission.md.
"""

import argparse
import re
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / room) for room in ("slurm", "workflow")]
from scene import Scene  # noqa: E402
from slurm_cluster import SlurmCluster, running_cluster  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--init", type=int, nargs="+", default=[2, 5, 20], help="values of slurm-init-seconds-before-status-checks"
    )
    given = parser.parse_args()
    if missing := SlurmCluster.missing():
        sys.exit(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder, running_cluster() as cluster:
        local = Scene(Path(folder) / "local", cluster)
        began = time.monotonic()
        done = local.snakemake("--profile", "local", "all")
        if done.returncode:
            sys.exit(done.stdout)
        alone = time.monotonic() - began
        print(f"\nlocal: {alone:.0f} s, of which commands {sum(commands(local).values()):.0f} s")
        for init in given.init:
            scene = Scene(Path(folder) / f"slurm{init}", cluster)
            began = time.monotonic()
            scene.start("--slurm-init-seconds-before-status-checks", str(init), "all")
            if scene.end():
                sys.exit(scene.report())
            wall = time.monotonic() - began
            print(f"\nSLURM, first check after {init} s: {wall:.0f} s, {wall - alone:+.0f} s\n")
            print("| SLURM job | in the queue | Snakemakes in the job | command | until noticed |")
            print("|---|---|---|---|---|")
            for row in shares(scene):
                print("| " + " | ".join(row) + " |")


def commands(scene: Scene) -> dict[str, float]:
    """Seconds of the rules' commands, by the names of their benchmark files."""
    files = (scene.folder / "results/toy/benchmarks").iterdir()
    return {file.stem: float(file.read_text().split("\n")[1].split("\t")[0]) for file in files}


def shares(scene: Scene) -> list[list[str]]:
    """For each SLURM job its rules and seconds: submitted to started, commands and what is beside, ended to seen."""
    took, noticed = commands(scene), finished(scene.output)
    rows = []
    for number in scene.jobs:
        job = scene.cluster.job(number)
        submitted, started, ended = (datetime.fromisoformat(job[f"{name}Time"]) for name in ("Submit", "Start", "End"))
        names = [name for name in took if name in job["Comment"].replace("wildcards_toy_", "")]
        names = [max(names, key=len)] if "wildcards" in job["Comment"] else names
        command = sum(took[name] for name in names)
        seconds = (
            (started - submitted).total_seconds(),
            (ended - started).total_seconds() - command,
            command,
            (max(noticed[name] for name in names) - ended).total_seconds(),
        )
        rows.append([", ".join(names), *(f"{value:.0f}" for value in seconds)])
    total = [sum(float(row[column]) for row in rows) for column in range(1, 5)]
    return [*rows, ["all", *(f"{value:.0f}" for value in total)]]


def finished(output: str) -> dict[str, datetime]:
    """When Snakemake saw the jobs end, by the names of their benchmark files."""
    blocks = re.findall(r"jobid: (\d+)\n\s+benchmark: \S+/(\w+)\.tsv", output)
    ends = re.findall(r"\[(.+)\]\nFinished jobid: (\d+)", output)
    when = {number: datetime.strptime(text, "%a %b %d %H:%M:%S %Y") for text, number in ends}
    return {name: when[number] for number, name in blocks}


if __name__ == "__main__":
    main()
