"""A million pairs and two hundred experiments: what the check, the loader's start and Snakemake's graph take.

    python bench/scale.py                  # half an hour on two idle cores; writes the table of bench/scale.md
    python bench/scale.py --pairs 20000    # the same in a minute

The pairs are hard links to 96 small images: they take no inodes but those of their folders, and 100 MB for names.
What a check of real photographs takes is their decoding, some 5 ms a pair; this measures all that is beside.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "workflow")]
from project import Project  # noqa: E402

PAGE = ROOT / "bench" / "scale.md"
BEGIN, END = "<!-- scale -->\n", "<!-- end of scale -->"
PER_FOLDER = 1000
READ = """
import json, resource, sys, time
from pathlib import Path
from gss.data.augment import Augment
from gss.data.loader import TrainLoader
from gss.data.manifest import read_manifest
from dataclasses import replace

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

found, before, began = {}, memory(), time.process_time()
manifest = replace(read_manifest(Path(sys.argv[1])), root=Path(sys.argv[2]))
found["read the manifest"] = time.process_time() - began, memory() - before
for step in (0, 10**6):
    began = time.process_time()
    loader = TrainLoader(manifest.pairs("train"), manifest.space, Augment((96, 96), (1, 1), (96, 96)), seed=0,
                         batch_size=2, start_step=step)
    next(iter(loader))
    found[f"first batch, from step {step:,}"] = time.process_time() - began, memory() - before
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--experiments", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            f"{os.cpu_count()} cores, {date.today()}, load {os.getloadavg()[0]:.0f} at the start.",
            "",
            "| | CPU s | wall s | peak memory MB |",
            "|---|---:|---:|---:|",
        ]
        lines += [
            f"| {name} | {cpu:.1f} | {wall} | {memory} |"
            for name, cpu, wall, memory in [
                *pairs(Path(folder) / "pairs", given.pairs),
                *graph(Path(folder) / "graph", given.experiments),
            ]
        ]
    table = "\n".join(lines) + "\n"
    print(table)
    if given.pairs == parser.get_default("pairs"):
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2])


def pairs(folder: Path, count: int) -> list[tuple[str, float, str, str]]:
    """Check, check killed at half and continued, manifest, loader."""
    folder.mkdir()
    project = Project(folder)
    subprocess.run([sys.executable, "-m", "gss", "toy-data", "data/toy"], cwd=folder, check=True)
    link(folder / "data", count)
    project.experiment("many").write_text(project.experiment("toy").read_text())
    project.configure(
        "many",
        data={
            "root": "many",
            "classes": ["background", "rows", "columns", "diagonals", "checks", "dots"],
            "splits": {
                "train": {"images": "images/train", "labels": "labels/train"},
                "val": {"images": "../toy/images/val", "labels": "../toy/labels/val"},
            },
        },
    )
    record, manifest = (folder / "results/many" / name for name in ("work/check_pairs.jsonl", "data/manifest.json"))
    rows = []
    command = [sys.executable, "-m", "gss", "check", "many"]

    rows.append((f"`gss check` of {count:,} pairs", *run(command, folder)))
    whole = manifest.read_bytes()
    half = len(whole) * 2 // 5  # lines of the record are a little shorter than rows of the manifest
    rows.append(("... killed at about half (main process)", *run(command, folder, until=lambda: size(record) > half)))
    rows.append(("... continued", *run(command, folder)))
    if manifest.read_bytes() != whole:
        sys.exit("the continued check found something else")
    rows.append((f"its manifest, {len(whole) / 1e6:.0f} MB", 0.0, "", ""))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(manifest), str(folder / "data/many")],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    if done.returncode:
        sys.exit(done.stderr)
    rows += [(name, cpu, "", f"+{memory:.0f}") for name, (cpu, memory) in json.loads(done.stdout).items()]
    return rows


def link(data: Path, count: int) -> None:
    for kind in ("images", "labels"):
        files = sorted((data / "toy" / kind / "train").iterdir())
        for number in range(count):
            folder = data / "many" / kind / "train" / f"{number // PER_FOLDER:05}"
            if number % PER_FOLDER == 0:
                folder.mkdir(parents=True)
            file = files[number % len(files)]
            os.link(file, f"{folder}/{number:07}{file.suffix}")


def graph(folder: Path, count: int) -> list[tuple[str, float, str, str]]:
    """A dry run of all files of many experiments."""
    folder.mkdir()
    project = Project(folder)
    names = [f"e{number:03}" for number in range(count)]
    for number, name in enumerate(names):
        project.experiment(name).write_text(f"{project.experiment('toy').read_text()}\nseed: {number}\n")
    (folder / "config/config.yaml").write_text(yaml.safe_dump({"experiments": names}))
    command = [sys.executable, "-m", "snakemake", "-n", "all", "--quiet", "all"]
    return [(f"`snakemake -n all`, {count} experiments", *run(command, folder))]


def run(command, folder, until=lambda: False) -> tuple[float, str, str]:  # type: ignore[no-untyped-def]
    """CPU s, wall s and peak memory of the largest process; killed when `until` says so."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    ended, status, usage = 0, 0, None
    while not ended:
        time.sleep(0.2)
        if until():
            os.kill(process.pid, signal.SIGKILL)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    if status not in (0, signal.SIGKILL):
        sys.exit(f"failed: {' '.join(command)}")
    assert usage is not None
    return usage.ru_utime + usage.ru_stime, f"{time.monotonic() - began:.0f}", f"{usage.ru_maxrss / 1024:.0f}"


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    main()
