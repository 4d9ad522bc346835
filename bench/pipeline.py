"""Two runs of whole pipelines side by side: time and memory of every stage, as Snakemake measured them.

    python bench/pipeline.py toy camvid --before OLD --after NEW    # project folders with finished results

What is compared are `results/NAME/benchmarks/*.tsv`, which every run leaves. For a fair comparison run both on the same
machine with nothing beside them, e.g. each with `snakemake --cores 2 all`.
"""

import argparse
import subprocess
from pathlib import Path

import pandas as pd
from pairs import ROOT, head, line, write

PAGE = ROOT / "bench" / "pipeline.md"
STAGES = ("check", "palette", "tokenizer", "reconstruct", "latent_prior", "posterior", "merge", "evaluate")


def read_jobs(project: Path, experiment: str) -> pd.DataFrame:
    """Wall seconds `s`, CPU seconds `cpu_time` and MiB `max_rss` of each job, by its name."""
    files = sorted((project / "results" / experiment / "benchmarks").glob("*.tsv"))
    return pd.concat([pd.read_csv(file, sep="\t").assign(job=file.stem) for file in files]).set_index("job")


def stages(jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of a stage joined, and all of them."""
    names = jobs.index.map(lambda job: next(stage for stage in STAGES if job.startswith(stage)))
    joined = jobs.groupby(names).agg({"s": "sum", "cpu_time": "sum", "max_rss": "max"}).reindex(STAGES).dropna()
    joined.loc["all"] = [joined["s"].sum(), joined["cpu_time"].sum(), joined["max_rss"].max()]
    return joined


def commit(project: Path) -> str:
    """The commit of a project folder, abbreviated."""
    command = ["git", "-C", str(project), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT")
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--after", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args()
    lines = [f"Before: {commit(given.before)}, after: {commit(given.after)}.", ""]
    for experiment in given.experiments:
        jobs = [read_jobs(project, experiment) for project in (given.before, given.after)]
        both = jobs[0].index.intersection(jobs[1].index)
        before, after = (stages(of_one.loc[both]) for of_one in jobs)
        lines += [f"**{experiment}**", "", head("stage", "wall s", "after", "CPU s", "after", "peak MiB", "after")]
        for stage in after.index:
            old, new = before.loc[stage], after.loc[stage]
            pairs = [(old[key], new[key]) for key in ("s", "cpu_time", "max_rss")]
            lines.append(line(stage, *(f"{value:.0f}" for pair in pairs for value in pair)))
        if alone := sorted(set(jobs[0].index) ^ set(jobs[1].index)):
            lines += ["", f"Measured in one of the two alone, and left out: {', '.join(alone)}."]
        lines.append("")
    print("\n".join(lines))
    write(PAGE, lines[:-1])


if __name__ == "__main__":
    main()
