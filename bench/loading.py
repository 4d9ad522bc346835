"""What the training samples cost: images per second and core, where the time goes, and how long trainings waited.

    python bench/loading.py                   # writes its tables into bench/loading.md; three minutes
    python bench/loading.py results/* ...     # the trainings' waiting, too, from the journals of these experiments

Files are made by code in a temporary folder, of the sizes and kinds of the data sets; settings are the experiments'.
Time is that of the processor, with the allocator's settings of `gss launch`.
"""

import argparse
import cProfile
import functools
import json
import os
import platform
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gss.cluster.launch import _MALLOC
from gss.config import load_experiment
from gss.data.augment import Augment, fit_size
from gss.data.classes import ClassSpace
from gss.data.images import read_image, read_label
from gss.data.loader import Batch, Pair, TrainLoader

PAGE = Path(__file__).with_suffix(".md")
ROUNDS = 5
GOAL, LOADERS = 56, 8  # images/s of a GPU, loader processes that feed it


@dataclass(frozen=True)
class Subject:
    """Files as a data set has them, read as an experiment reads them.

    Args:
        distinct: pairs that are made; `pairs` are read, each of the distinct ones many times.
        noise: of the pixels, so that the files are about as large as the data set's.
        batch: samples of a micro-batch. images: samples measured in a round.
    """

    name: str
    experiment: str
    height: int
    width: int
    suffix: str
    noise: float
    distinct: int
    pairs: int
    batch: int
    images: int


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("toy", "toy", 96, 96, ".png", 20, 48, 96, 8, 160),
        Subject("camvid", "camvid", 360, 480, ".jpg", 3, 48, 367, 4, 80),
        Subject("ade20k", "ade20k", 512, 683, ".jpg", 3, 96, 20210, 4, 80),
        Subject("cityscapes", "cityscapes", 1024, 2048, ".png", 2, 8, 2975, 2, 16),
        Subject("12 megapixels", "ade20k", 3000, 4000, ".jpg", 3, 4, 20210, 4, 8),
    )
}
SPACE = ClassSpace(tuple(f"class {number}" for number in range(150)), reduce_zero_label=True)


def make(subject: Subject, folder: Path) -> None:
    """The distinct files: smooth colours with noise, and twelve ids in regions with frayed edges."""
    folder.mkdir()
    size = (subject.width, subject.height)
    small = tuple(min(side, 1024) for side in size)
    for number in range(subject.distinct):
        rng = np.random.default_rng(number)
        coarse = rng.integers(-60, 316, (12, 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        image += subject.noise * rng.standard_normal(image.shape, np.float32)
        cv2.imwrite(
            str(folder / f"{number}{subject.suffix}"),
            np.clip(image, 0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 90] if subject.suffix == ".jpg" else [],
        )
        fields = cv2.resize(rng.standard_normal((9, 12, 12), np.float32), small, interpolation=cv2.INTER_CUBIC)
        fields += 0.02 * rng.standard_normal(fields.shape, np.float32)
        ids = rng.permutation(SPACE.num_classes + 1)[:12].astype(np.uint8)
        label = cv2.resize(ids[fields.argmax(2)], size, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{number}_label.png"), label)


def loader(subject: Subject, folder: Path, numerics: str, workers: int) -> TrainLoader:
    """The loader of a training of the experiment, on the files made for it."""
    config = load_experiment(subject.experiment).augment
    augment = Augment(
        config.base_scale,
        config.ratio,
        config.crop,
        config.cat_max_ratio,
        config.flip,
        config.photometric,
        uint8=numerics == "reference",
    )
    distinct = [
        Pair(folder / f"{number}{subject.suffix}", folder / f"{number}_label.png", subject.height, subject.width)
        for number in range(subject.distinct)
    ]
    pairs = [distinct[number % subject.distinct] for number in range(subject.pairs)]
    return TrainLoader(pairs, SPACE, augment, seed=0, batch_size=subject.batch, workers=workers)


def run(subject: Subject, steps: Iterator[list[Batch]]) -> tuple[float, float]:
    """Images/s by the clock, and milliseconds of this process's processor per image, of the next images."""
    began, began_core = time.perf_counter(), time.process_time()
    for _ in islice(steps, subject.images // subject.batch):
        pass
    seconds, core = time.perf_counter() - began, time.process_time() - began_core
    return subject.images / seconds, 1e3 * core / subject.images


def shares(stats: Any) -> dict[str, float]:
    """Seconds of each step, from a profile."""
    inside: dict[str, float] = {}
    under: dict[tuple[str, str], float] = {}
    for (_, _, name), (_, _, _, seconds, callers) in stats.stats.items():
        name = name.strip("<>")  # of functions written in C
        inside[name] = inside.get(name, 0.0) + seconds
        for (_, _, caller), counted in callers.items():
            under[caller, name] = under.get((caller, name), 0.0) + counted[3]

    def of(*names: str) -> float:
        return sum(inside.get(name, 0.0) for name in names)

    assert inside["imdecode"] > 0 and inside["resize"] > 0, "the profile has other names"
    cut = under["apply", "crop_label"]
    return {
        "read the image file": of("_read_bytes"),
        "decode the image": of("imdecode"),
        "read and decode the label": of("read_native_label"),
        "ids to classes": of("to_classes"),
        "choose the crop (`cat_max_ratio`)": of("_draw_crop"),
        "resize the image": of("resize"),
        "cut the label": cut,
        "colours (on the device unless `reference`)": of("distort"),
        "cut, flip, pad the image": of("apply") - of("resize", "distort") - cut,
        "into the batch, and all else": of("__getitem__") - of("read_pair", "_draw_crop", "apply"),
    }


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown; all columns but the first are numbers."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def spread(values: list[float], digits: int) -> str:
    """The median, and the smallest and largest value."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def speeds(root: Path) -> list[str]:
    """The table of images per second, all subjects in turns."""
    running, found = {}, {}
    for subject in SUBJECTS.values():
        for numerics in ("default", "reference"):
            running[subject.name, numerics] = iter(loader(subject, root / subject.name, numerics, 0))
            next(running[subject.name, numerics])
            found[subject.name, numerics] = [0.0] * ROUNDS
    for turn in range(ROUNDS):
        for key, steps in running.items():
            _, found[key][turn] = run(SUBJECTS[key[0]], steps)
    rows = []
    for (name, numerics), times in found.items():
        subject, rate = SUBJECTS[name], 1e3 / statistics.median(times)
        size = sum(file.stat().st_size for file in (root / name).iterdir()) / subject.distinct / 1e3
        rows.append(
            [
                f"{name}{', `reference`' if numerics == 'reference' else ''}",
                f"{subject.width} x {subject.height} {subject.suffix[1:]}",
                f"{size:,.0f}",
                spread(times, 1),
                f"**{rate:.0f}**",
                f"{LOADERS * rate:.0f}",
                f"{LOADERS * rate / GOAL:.1f}",
            ]
        )
    return table(
        [
            "files",
            "size",
            "kB a pair",
            "ms a core (spread)",
            "images/s a core",
            f"x {LOADERS}",
            f"times {GOAL} images/s",
        ],
        rows,
    )


def profiles(root: Path) -> list[str]:
    """The table of shares."""
    columns, parts = [(name, "default") for name in SUBJECTS] + [("ade20k", "reference")], []
    for name, numerics in columns:
        steps = iter(loader(SUBJECTS[name], root / name, numerics, 0))
        next(steps)
        profile = cProfile.Profile(time.process_time)
        profile.runcall(run, SUBJECTS[name], steps)
        parts.append(shares(pstats.Stats(profile)))
    rows = [[step, *(f"{part[step] / sum(part.values()):.0%}" for part in parts)] for step in parts[0]]
    return table(
        ["step", *(name if numerics == "default" else f"{name}, `{numerics}`" for name, numerics in columns)], rows
    )


def processes(root: Path) -> list[str]:
    """The table of whole loaders, by the clock: on more cores than loader processes it says something."""
    rows = []
    for name in ("ade20k", "cityscapes"):
        for workers in (0, 1, 2):
            steps = iter(loader(SUBJECTS[name], root / name, "default", workers))
            for _ in range(1 + 2 * workers):  # what the loader processes have read ahead
                next(steps)
            speed, core = zip(*(run(SUBJECTS[name], steps) for _ in range(ROUNDS)), strict=True)
            steps.close()
            rows.append(
                [
                    f"{name}, {workers or 'no'} loader process{'es' if workers > 1 else ''}",
                    spread(list(speed), 0),
                    spread(list(core), 2),
                ]
            )
    return table(["loader", "images/s by the clock (spread)", "ms an image, training process (spread)"], rows)


# ---- what was tried: each with the same bits as what stands in gss/data


def resize_what_the_crop_needs(image: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int, int]) -> np.ndarray:
    """Rows below and columns right of the crop left out; those above and left decide the phase and must stay."""
    bottom, right = crop[1], crop[3]
    scales = size[0] / image.shape[0], size[1] / image.shape[1]
    ends = [int((end + 0.5) / scale + 0.5) + 2 for end, scale in zip((bottom, right), scales, strict=True)]
    resized = cv2.resize(image[: ends[0], : ends[1]], None, fx=scales[1], fy=scales[0], interpolation=cv2.INTER_LINEAR)
    return resized[crop[0] : bottom, crop[2] : right]


def resize_all(image: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int, int]) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)[crop[0] : crop[1], crop[2] : crop[3]]


def core_ms(*functions: Callable[[], Any]) -> list[float]:
    """Milliseconds of the processor, medians of 31 calls in turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(31):
        for function, found in zip(functions, times, strict=True):
            began = time.process_time()
            function()
            found.append(time.process_time() - began)
    return [1e3 * statistics.median(found) for found in times]


def tried(folder: Path) -> list[str]:
    """The table of what was not done, for ADE20K's files."""
    steps = iter(loader(SUBJECTS["ade20k"], folder, "default", 0))
    total = statistics.median(run(SUBJECTS["ade20k"], steps)[1] for _ in range(ROUNDS))
    image = read_image(folder / "0.jpg")
    label = read_label(folder / "0_label.png", SPACE)
    label_bytes = np.fromfile(folder / "0_label.png", np.uint8)
    config = load_experiment("ade20k").augment
    crops = []
    for ratio in np.linspace(*config.ratio, 25):
        long, short = (int(side * ratio) for side in config.base_scale)
        size = fit_size(label.shape[0], label.shape[1], (long, short))
        top, left = (max(side - wanted, 0) // 2 for side, wanted in zip(size, config.crop, strict=True))
        crops.append((size, (top, min(top + config.crop[0], size[0]), left, min(left + config.crop[1], size[1]))))
    view = resize_all(image, *crops[-1])
    ids = np.ascontiguousarray(label[:, : config.crop[1]])

    def resize_with(resize: Callable[..., np.ndarray]) -> list[np.ndarray]:
        return [resize(image, size, crop) for size, crop in crops]

    cases: list[tuple[str, Callable[[], Any], Callable[[], Any], float]] = [
        (
            "mirror with OpenCV, not as a view that is copied",
            lambda: np.ascontiguousarray(view[:, ::-1]),
            lambda: cv2.flip(view, 1),
            config.flip,
        ),
        (
            "resize no further than the crop reaches",
            functools.partial(resize_with, resize_all),
            functools.partial(resize_with, resize_what_the_crop_needs),
            1 / len(crops),
        ),
        (
            "count a crop's classes with OpenCV",
            lambda: np.bincount(ids.ravel(), minlength=256),
            lambda: cv2.calcHist([ids], [0], None, [256], [0, 256]).ravel(),
            1.05,
        ),
        (
            "decode the label with OpenCV, not Pillow",
            lambda: read_label(folder / "0_label.png", SPACE),
            lambda: SPACE.to_classes(np.asarray(cv2.imdecode(label_bytes, cv2.IMREAD_UNCHANGED))),
            1,
        ),
    ]
    rows = []
    for name, ours, other, times in cases:
        before, after = ours(), other()
        pairs = zip(before, after, strict=True) if isinstance(before, list) else [(before, after)]
        assert all(np.array_equal(a, b) for a, b in pairs), name
        a, b = core_ms(ours, other)
        rows.append([name, f"{a * times:.2f}", f"{b * times:.2f}", f"{(a - b) * times / total:.0%}"])
    return table(["tried, same bits, ADE20K's files", "ms now", "ms then", "of a sample"], rows)


# ---- trainings that ran


def waits(folders: list[Path]) -> list[str]:
    """The table of shares of time in which the main process of a training waited for its batch."""
    rows = []
    for folder in folders:
        for path in sorted(folder.glob("work/*/journal.jsonl")):
            lines = list(training_lines(path))
            if not lines:
                continue
            seconds = [1 / speed for _, speed in lines]  # of an image; every line is of as many
            mean = sum(wait * weight for (wait, _), weight in zip(lines, seconds, strict=True)) / sum(seconds)
            rows.append(
                [
                    f"{folder.name}, {path.parent.name}",
                    f"{mean:.1%}",
                    f"{lines[0][0]:.1%}",
                    f"{max(wait for wait, _ in lines):.1%}",
                    f"{len(lines) / sum(seconds):.1f}",
                ]
            )
    return table(["training", "waited", "in the first interval", "in the worst", "images/s"], rows)


def training_lines(path: Path) -> Iterator[tuple[float, float]]:
    """Share waited and images/s of each log interval of a journal."""
    for line in path.read_text(encoding="utf-8").splitlines():
        metrics = json.loads(line).get("m", {})
        if "train/data_wait" in metrics:
            yield metrics["train/data_wait"], metrics["train/img_per_s"]


def write(block: str, lines: list[str]) -> None:
    """Replace a block of the page."""
    begin, end = f"<!-- {block} -->\n", f"<!-- end of {block} -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2], encoding="utf-8")
    print(*lines, sep="\n", flush=True)


def main() -> None:
    grammar = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    grammar.add_argument("results", nargs="*", type=Path, help="results folders of experiments")
    arguments = grammar.parse_args()
    if not _MALLOC.items() <= os.environ.items():  # the allocator reads them at the start only
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_MALLOC, "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if arguments.results:
        write("waits", waits(arguments.results))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for subject in SUBJECTS.values():
            make(subject, root / subject.name)
        load = os.getloadavg()[0]
        write(
            "machine",
            [
                f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} "
                f"before the start, {ROUNDS} rounds; OpenCV {cv2.__version__}, torch {torch.__version__}."
            ],
        )
        write("speeds", speeds(root))
        write("shares", profiles(root))
        write("processes", processes(root))
        write("tried", tried(root / "ade20k"))


if __name__ == "__main__":
    main()
