"""A merge of MSeg's size on this machine: 178,750 training files in seven sources, drawn 849,268 times in a pass.

    python bench/merged_scale.py [--share 0.1]    # of the files; some minutes

Every file is a link to one of a few small ones: what is measured is the number of files and not their size.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from gss.data.images import write_png

# name: files of train and val, repeat, ids (MSeg's seven sets and GSS's factors)
SOURCES = {
    "ade20k": (20210, 2000, 6, 141),
    "bdd": (7000, 1000, 17, 21),
    "cityscapes": (2975, 500, 40, 21),
    "coco": (118287, 5000, 1, 155),
    "idd": (6993, 981, 17, 30),
    "mapillary": (18000, 2000, 7, 51),
    "sunrgbd": (5285, 475, 24, 48),
}
NUM_CLASSES = 194


def make(project: Path, share: float) -> int:
    """Sources and an experiment; returns the number of links."""
    rng, links = np.random.default_rng(0), 0
    sources = []
    for number, (name, (train, val, repeat, ids)) in enumerate(SOURCES.items()):
        root = project / "data" / name
        write_png(root / "image.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        write_png(root / "label.png", rng.integers(0, ids, (48, 64), dtype=np.uint8))
        for split, count in (("train", train), ("val", val)):
            for kind in ("image", "label"):
                folder = root / f"{kind}s" / split
                folder.mkdir(parents=True)
                for index in range(max(1, round(count * share))):
                    (folder / f"{name}_{split}_{index:012}.png").symlink_to(f"../../{kind}.png")
                    links += 1
        native = [f"class {(37 * number + index) % NUM_CLASSES}" for index in range(ids)]
        folders = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
        sources.append({"root": name, "native_classes": native, "splits": folders, "repeat": repeat})
    first, *others = sources
    experiment = {
        "recipe": "pixel",
        "data": {**first, "classes": [f"class {index}" for index in range(NUM_CLASSES)], "sources": others},
        "augment": {"base_scale": [64, 48], "crop": [32, 32]},
        "pixel": {"backbone": {"name": "test_resnet"}, "steps": 1, "training": {"batch_size": 14, "warmup_steps": 0}},
        "evaluation": {"splits": ["val"]},
        "run": {"workers": 2, "resources": {"check": {"threads": os.cpu_count()}}},
    }
    path = project / "config/experiments/merge.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return links


def command(project: Path, *words: str) -> tuple[float, float, int]:
    """Seconds and CPU seconds of a verb, and the MiB of its largest process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"GSS_DATA": str(project / "data")}
    subprocess.run([sys.executable, "-m", "gss", *words], cwd=project, env=environment, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu, after.ru_maxrss >> 10


_READ = """
import json, sys, time, resource
from pathlib import Path
import gss.data.loader
from gss.data.loader import SampleOrder
from gss.data.manifest import read_manifest
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
start, began = resident(), time.perf_counter()
manifest = read_manifest(Path(sys.argv[1]))
read, held = time.perf_counter() - began, resident()
pairs = manifest.pairs("train").repeated()
order = SampleOrder(len(pairs), 0)
began = time.perf_counter()
order[0]
permuted, began = time.perf_counter() - began, time.perf_counter()
for place in range(10000):
    pairs[order[place]]
found = (time.perf_counter() - began) / 10000 * 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(json.dumps([len(pairs), read, held - start, peak - start, permuted, found]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the files")
    share = parser.parse_args().share
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        links = make(project, share)
        print(f"{links // 2:,} pairs in {len(SOURCES)} sources")
        wall, cpu, memory = command(project, "check", "merge")
        print(f"gss check: {wall:.0f} s, {cpu:.0f} s of CPU ({cpu / links * 2000:.2f} ms a pair), {memory} MiB")
        path = project / "results/merge/data/manifest.json"
        words = [sys.executable, "-c", _READ, str(path)]
        found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
        samples, read, held, peak, permuted, lookup = found
        size = path.stat().st_size >> 20
        print(f"manifest: {size} MiB, read in {read:.1f} s; it holds {held} MiB, at most {peak}")
        order = f"order {permuted * 1e3:.0f} ms and {8 * samples >> 20} MiB"
        print(f"a pass of {samples:,} samples: {order}, a pair {lookup:.0f} us")
        wall, cpu, memory = command(project, "train", "pixel", "merge")
        print(f"gss train pixel, one step: {wall:.0f} s, {cpu:.0f} s of CPU, {memory} MiB in its largest process")


if __name__ == "__main__":
    main()
