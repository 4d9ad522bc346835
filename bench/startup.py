"""What starting costs: imports, the workflow, and each stage of the toy pipeline before and after its work.

    python bench/startup.py    # five minutes on two idle cores; writes the table of bench/startup.md

The pipeline is made small (30 steps and fewer), so that little but start and end is left.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "workflow")]
from project import Project  # noqa: E402

PAGE = ROOT / "bench" / "startup.md"
BEGIN, END = "<!-- startup -->\n", "<!-- end of startup -->"
SMALL = {
    "tokenizer__train__steps": 30,
    "tokenizer__train__batch_size": 8,
    "tokenizer__n_hid": 8,
    "reconstruction__max_rounds": 1,
    "reconstruction__retrain_steps": 2,
    "reconstruction__refine_images": 4,
    "latent_prior__milestones": [2],
    "latent_prior__training__batch_size": 4,
    "posterior__start_step": None,
    "posterior__steps": 2,
    "posterior__training__batch_size": 4,
    "evaluation__pictures": 1,
    "run__log_every": 1,
}
PLAIN = {
    "python -c pass": "Python alone",
    "python -m gss --help": "`gss --help`",
    "python -c 'import gss.workflow'": "what the Snakefile imports of ours",
    "python -m snakemake --version": "Snakemake's own start",
    "python -m snakemake -n all --quiet all": "`snakemake -n all` of the default project",
    "python -c 'import torch'": "torch, for comparison",
}
STAGES = (
    "toy-data data/toy",
    "check toy",
    "palette toy",
    "tokenizer toy",
    "reconstruct toy",
    "train latent-prior toy",
    "train posterior toy",
    "merge toy",
    "evaluate toy --model gss_ft --split val",
    "report toy",
)
MANY = ("tokenizer", "reconstruct", "train", "evaluate")  # verbs that the rules start in two processes
WORK = re.compile(r"(first step|round|gss_ft|check|palette start) .*\d")  # the first line that tells of work done


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        project.configure("toy", **SMALL)
        lines = [
            f"{os.cpu_count()} cores, {date.today()}, load {os.getloadavg()[0]:.0f} at the start.",
            "",
            "| command, the cheaper of two runs | CPU s | wall s |",
            "|---|---:|---:|",
        ]
        for command, name in PLAIN.items():
            cpu, wall, _, _ = min(timed(shlex.split(command), project.folder) for _ in range(2))
            lines.append(f"| {name} | {cpu:.2f} | {wall:.2f} |")
        lines += [
            "",
            "| stage | CPU s | wall s | start to first step s | last line to end s | start and end s |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for stage in STAGES:
            verb, *words = stage.split()
            command = ["python", "-m", "gss", verb, *words]
            if verb in MANY:
                work = f"results/toy/work/{words[0].replace('-', '_') if verb == 'train' else verb}"
                command[3:3] = ["launch", "--nproc", "2", "--gpus", "0", "--work", work, "--"]
            cpu, wall, first, last = timed(command, project.folder)
            name = words[0] if verb == "train" else verb
            lines.append(
                f"| {name} | {cpu:.1f} | {wall:.1f} | {first:.1f} | {wall - last:.1f} | {first + wall - last:.1f} |"
            )
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(table)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2])


def timed(command: list[str], folder: Path) -> tuple[float, float, float, float]:
    """CPU and wall seconds of a command, and when its first line about work and its last line came."""
    began, spent = time.monotonic(), sum(os.times()[2:4])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users' second start finds our modules compiled
    first = last = 0.0
    with subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = []
        for line in process.stdout:
            last = time.monotonic() - began
            first = first or (last if WORK.match(line) else 0.0)
            output.append(line)
    if process.returncode:
        sys.exit("".join(output))
    return sum(os.times()[2:4]) - spent, time.monotonic() - began, first or last, last


if __name__ == "__main__":
    main()
