"""What a GPU does with GSS at full size: Swin-L, crops of 512, 150 classes, as config/experiments/ade20k.yaml has it.

    python bench/gpu.py training prediction              # the parts by name; at most nine minutes a call
    python bench/gpu.py switches                         # training, one switch at a time
    python bench/gpu.py prediction-switches tokens loading --tokenizer results/toy
    python bench/gpu.py page                             # bench/gpu.md from the JSON files of the parts
    python bench/gpu.py all --small --out /tmp/gpu       # toy-size networks on any machine: does it run?

Every row is measured by a process of its own with random weights, by the code of the stages (gss.benchmark). A part
writes PART.json into --out after every row, so that a call cut short loses one row.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [str(ROOT), str(ROOT / "bench"), str(ROOT / "tests")]  # of the package, of this file, of the oracle
sys.path[:0] = FOLDERS

import numpy as np  # noqa: E402
import token_flips  # noqa: E402
import torch  # noqa: E402
from gpu_switches import OF_PREDICTION, OF_TRAINING, Switch  # noqa: E402
from gpu_tables import cells, tables, write_page  # noqa: E402
from page import line  # noqa: E402
from torch import Tensor  # noqa: E402

from gss.benchmark import measure  # noqa: E402
from gss.benchmark.benchmark import made_up  # noqa: E402
from gss.benchmark.measure import NoMemory  # noqa: E402
from gss.benchmark.stopwatch import Section, Stopwatch  # noqa: E402
from gss.evaluate.inference import lowest_best  # noqa: E402
from gss.recipes.gss import benchmark as networks  # noqa: E402
from gss.recipes.gss.learners import LatentPriorLearner  # noqa: E402
from gss.recipes.gss.model import GSS  # noqa: E402
from gss.recipes.gss.tokenizer.dvae import DVAE  # noqa: E402
from gss.stages.run import Run  # noqa: E402
from gss.stages.training import loop_settings, make_loader  # noqa: E402
from gss.train.loop import train  # noqa: E402

PUBLISHED = 4  # images per GPU; X^-1 is trained with half of them
# Autocast for what is trained, the published half precision for the frozen tokenizer.
MIXED = ("latent_prior.training.precision=bf16", "posterior.training.precision=bf16", "tokenizer.precision=fp16")
SMALL = (
    "augment.base_scale=[48,32]",
    "augment.crop=[32,32]",
    "tokenizer.vocab_size=64",
    "tokenizer.n_hid=8",
    "tokenizer.n_init=8",
    "tokenizer.blocks_per_group=1",
    "latent_prior.backbone.options={embed_dim: 16, depths: [1,1,1,1], num_heads: [1,1,2,2], window_size: 4}",
    "latent_prior.channels=8",
    "latent_prior.seg_channels=16",
    "latent_prior.cls_channels=16",
    "latent_prior.num_heads=2",
    "posterior.channels=8",
    "posterior.num_heads=2",
)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        most: largest batch that is tried. several: batch of the switches. images: measured at least in a row.
        fed: images of a row with loading. pictures: pairs that are made up.
    """

    overrides: tuple[str, ...]
    most: int
    several: int
    images: int
    fed: int
    pictures: int


FULL = Size((), 256, 16, 32, 800, 32)
LITTLE = Size(SMALL, 4, 2, 1, 8, 4)


# ---- what child processes measure


def training(run: Run, part: str, images: int, switches: tuple[Switch, ...], *, with_loading: bool = False) -> Section:
    """Steps of a training, in phases."""
    for switch in switches:
        switch()
    return measure.training(run, part, images, with_loading=with_loading)


def unwatched(run: Run, images: int) -> dict[str, Any]:
    """Images/s of the latent prior's training loop when nobody waits for the device between its phases."""
    config, world = run.experiment.latent_prior, measure.one_process()
    learner, _ = networks.learner(run, "latent_prior", world, Stopwatch(world.device))
    count = max(10, images // config.training.batch_size)
    ticks = []

    class Enough(Exception):
        pass

    def batches(step: int) -> Iterator[Any]:
        batch = next(iter(make_loader(run, run.manifest.pairs("train"), config.training, world)(step)))
        for number in range(3 + count + 1):
            if number in (3, 3 + count):
                if world.device.type == "cuda":
                    torch.cuda.synchronize()
                ticks.append(time.perf_counter())
            yield batch
        raise Enough

    settings = replace(loop_settings(run, config.training, steps=10**6), save_every=10**6, log_every=10**6)
    with tempfile.TemporaryDirectory() as work, contextlib.suppress(Enough):
        train(learner, batches, settings, work=Path(work), journal=None, world=world)
    seconds = (ticks[1] - ticks[0]) / count
    return {"seconds": seconds, "images_per_s": config.training.batch_size / seconds}


@torch.inference_mode()
def _predict(model: GSS, image: Tensor) -> Tensor:
    """Classes uint8 [B, H, W] of a normalised batch."""
    return torch.stack([lowest_best([scores], tuple(scores.shape[1:])) for scores in model.scores(image)])


def _batch(run: Run, batch: int, device: torch.device) -> Tensor:
    generator = torch.Generator(device).manual_seed(1)
    return torch.randn(batch, 3, *run.experiment.augment.crop, device=device, generator=generator)


def prediction(run: Run, side: str, batch: int, images: int, switches: tuple[Switch, ...]) -> Section:
    """Predictions of GSS-FT for crops, by the project (`ours`) or as published (`oracle`)."""
    import oracle

    for switch in switches:
        switch()
    device = measure.one_process().device
    watch = Stopwatch(device)
    model, _ = networks.segmenter(run, "gss_ft", device, watch if side == "ours" else Stopwatch(device))
    image = _batch(run, batch, device)
    for _ in watch.laps(max(measure.LEAST_LAPS, images // batch)):
        watch.enter("argmax" if side == "ours" else "everything")
        _predict(model, image) if side == "ours" else oracle.predict(model, image)
    return Section(batch, watch.phases)


def agreement(run: Run) -> dict[str, float]:
    """How far ours and the oracle are apart on this device, with the same weights and the same images."""
    import oracle

    device = measure.one_process().device
    prior, dvae, posterior, colours = networks.random_networks(run, run.space, run.experiment.posterior.variant, device)
    learner = LatentPriorLearner(prior, dvae, colours).to(device).eval()
    model = GSS(prior, dvae, posterior).to(device).eval()
    image = _batch(run, PUBLISHED, device)
    label = torch.randint(0, run.space.num_classes, (PUBLISHED, *run.experiment.augment.crop), device=device)
    label = label[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)
    label[:, :24] = 255
    with torch.no_grad():
        ours = learner.losses(image, label)[0].double()
        plain = oracle.latent_prior_losses(prior, dvae, learner.colours, image, label).double()
        tokens = oracle.head_logits(prior.head, prior.backbone(image))[0].argmax(1)
        same_tokens = (tokens == prior.tokens(image)).double().mean().item()
        apart = ((ours - plain).abs() / plain).tolist()
    same = (oracle.predict(model, image) == _predict(model, image)).double().mean().item()
    return {
        "token loss, relative difference": apart[0],
        "pixel loss, relative difference": apart[1],
        "tokens that are the same": same_tokens,
        "classes that are the same": same,
    }


def flips(folder: Path | None, run: Run) -> dict[str, Any]:
    """Tokens that change with the arithmetic, of a trained tokenizer with labels of its data set or of a random one."""
    if folder is not None:
        return {"of": f"{folder.name}, trained", "rows": list(token_flips.of_experiment(folder, 24))}
    config = run.experiment.tokenizer

    def load() -> DVAE:
        torch.manual_seed(0)
        dvae = DVAE(config.vocab_size, config.n_hid, config.n_init, config.blocks_per_group).requires_grad_(False)
        return dvae.eval().to(measure.one_process().device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    pairs = run.manifest.pairs("train")
    labels = [pairs[index].read_label() for index in range(4)]
    colours = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (run.space.num_classes + 1, 3)))
    return {"of": "random weights, made-up labels", "rows": list(token_flips.compare(load, labels, colours))}


def about() -> dict[str, Any]:
    """Machine and versions."""
    import timm

    return measure.hardware() | {
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


# ---- the parts


class Failed(Exception):
    """A measurement ended without a result."""


def _answer(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    try:
        pipe.send((None, measure.in_child(function, *arguments, **options)))
    except NoMemory as error:
        pipe.send((f"out of memory: {error}", None))
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", None))


class Bench:
    """Measurements one after the other, each in a process of its own, until the time is over.

    Args:
        out: folder of the JSON files.
        end: `time.monotonic()` at which the last measurement is ended.
        folder: where the pictures are made up.
    """

    def __init__(self, size: Size, out: Path, end: float, tokenizer: Path | None, folder: Path) -> None:
        self.size, self.out, self.end, self.tokenizer = size, out, end, tokenizer
        self.pictures = made_up(Run.open("ade20k", size.overrides), folder, size.pictures)
        os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, os.environ.get("PYTHONPATH", "")])
        self._context = multiprocessing.get_context("forkserver")  # imports once, forks without CUDA and threads
        self._context.set_forkserver_preload(["gss.benchmark.benchmark", "token_flips", "oracle", "timm"])
        self.about = self.alone(about)
        # CPUs without bf16 compute it slowly: there the unit is fp32
        self.unit = "bf16" if self.about["device"] == "cuda" else "fp32"
        self.peak = self.alone(measure.matrix_peak, self.unit)
        machine = self.about.get("gpu", self.about["cpu"])
        print(f"{machine}: {2 * self.peak / 1e12:.3g} TFLOP/s in {self.unit}", flush=True)

    def alone(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a function returns in a process of its own.

        Raises:
            Failed: it raised, ran out of memory, or the time is over.
        """
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(theirs, function, arguments, options))
        process.start()
        theirs.close()
        try:
            if not ours.poll(max(0.0, self.end - time.monotonic())):
                process.kill()
                raise Failed("not measured: the time was over")
            fault, result = ours.recv()
        except EOFError:
            fault, result = "the process died", None
        process.join()
        if fault is not None:
            raise Failed(fault)
        return result

    def run(self, *overrides: str) -> Run:
        """The experiment with further values, its pictures made up, fed by no other process."""
        run = Run.open("ade20k", ["run.workers=0", "reference={}", *self.size.overrides, *overrides])
        vars(run)["manifest"] = self.pictures
        return run

    def row(
        self, part: "Part", name: str, batch: int, function: Callable[..., Any], *arguments: Any, **options: Any
    ) -> bool:
        """Measure a row and add it to its part; whether it worked."""
        row: dict[str, Any] = {"name": name, "batch": batch}
        try:
            result = self.alone(function, *arguments, **options)
        except Failed as error:
            part.add(row | {"failed": str(error)})
            return False
        if not isinstance(result, Section):
            part.add(row | result)
            return True
        whole, *stages = result.rows(name, collections.defaultdict(lambda: self.peak))
        part.add(row | whole | {"name": name, "stages": stages})
        return True


class Part:
    """Rows of a part, in its JSON file as soon as they are there."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.path = bench.out / f"{name}.json"
        self.content: dict[str, Any] = {
            "part": name,
            "about": bench.about,
            "unit": bench.unit,
            "peak": bench.peak,
            "rows": [],
        }

    def add(self, row: dict[str, Any]) -> None:
        self.content["rows"].append(row)
        self.path.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        print(line(cells(row)), flush=True)


def largest(fits: Callable[[int], bool], first: int, most: int) -> int:
    """The largest batch that fits, to an eighth, or 0: doubled until one does not, then halved between."""
    good, bad = 0, first
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    while bad <= most and bad - good > max(1, good // 8) and good:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _sized(batch: int, part: str = "latent_prior") -> tuple[str, ...]:
    return (f"{part}.training.batch_size={batch}", f"{part}.training.accumulation=1")


def part_training(bench: Bench) -> None:
    """GSS-FF at every batch tried on the way to the largest; as configured; the free loop; X^-1."""
    part, size = Part(bench, "training"), bench.size

    def fits(batch: int) -> bool:
        run = bench.run(*MIXED, *_sized(batch))
        return bench.row(part, "GSS-FF, bf16, tokenizer fp16", batch, training, run, "latent_prior", size.images, ())

    bench.row(
        part,
        "GSS-FF, as configured (fp32)",
        PUBLISHED,
        training,
        bench.run(*_sized(PUBLISHED)),
        "latent_prior",
        size.images,
        (),
    )
    best = largest(fits, PUBLISHED, size.most)
    for batch in dict.fromkeys((PUBLISHED, best or PUBLISHED)):
        bench.row(
            part,
            "the same loop, not stopped between phases",
            batch,
            unwatched,
            bench.run(*MIXED, *_sized(batch)),
            size.images,
        )
    run = bench.run(*MIXED, *_sized(PUBLISHED // 2, "posterior"))
    bench.row(part, "X^-1, bf16, tokenizer fp16", PUBLISHED // 2, training, run, "posterior", size.images, ())


def part_prediction(bench: Bench) -> None:
    """GSS-FT and the oracle in turns, at every batch tried, in fp32; and how far apart they are."""
    part, run = Part(bench, "prediction"), bench.run()
    bench.row(part, "ours and the oracle", PUBLISHED, agreement, run)
    for side in ("oracle", "ours"):

        def fits(batch: int, side: str = side) -> bool:
            return bench.row(part, f"GSS-FT, fp32, {side}", batch, prediction, run, side, batch, bench.size.images, ())

        largest(fits, PUBLISHED, bench.size.most)


def part_switches(bench: Bench) -> None:
    """A training step with one thing changed."""
    part, batch = Part(bench, "switches"), bench.size.several
    for name, (overrides, switches) in OF_TRAINING.items():
        run = bench.run(*MIXED, *_sized(batch), *overrides)
        bench.row(part, name, batch, training, run, "latent_prior", 1, switches)


def part_prediction_switches(bench: Bench) -> None:
    """A prediction with one thing changed."""
    part, batch = Part(bench, "prediction-switches"), bench.size.several
    for name, (overrides, switches) in OF_PREDICTION.items():
        bench.row(part, name, batch, prediction, bench.run(MIXED[-1], *overrides), "ours", batch, 1, switches)


def part_tokens(bench: Bench) -> None:
    """Tokens that change with the arithmetic."""
    bench.row(Part(bench, "tokens"), "tokens", 1, flips, bench.tokenizer, bench.run())


def part_loading(bench: Bench) -> None:
    """A training whose batches are read while it runs."""
    part, several = Part(bench, "loading"), bench.size.several
    for workers, batch in ((8, PUBLISHED), (8, several), (4, several), (16, several)):
        run = bench.run(*MIXED, *_sized(batch), f"run.workers={workers}")
        bench.row(
            part,
            f"GSS-FF, bf16, tokenizer fp16, {workers} loader processes",
            batch,
            training,
            run,
            "latent_prior",
            bench.size.fed,
            (),
            with_loading=True,
        )


PARTS = {
    "training": part_training,
    "prediction": part_prediction,
    "switches": part_switches,
    "prediction-switches": part_prediction_switches,
    "tokens": part_tokens,
    "loading": part_loading,
}


def main() -> None:
    """Measure parts, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all", "page"], metavar="PART", help=", ".join(PARTS))
    out = Path(os.environ.get("OUT") or "results/gpu")
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="of the JSON files")
    parser.add_argument("--minutes", type=float, default=9.0, help="of all parts of this call together")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="finished results for `tokens`: results/toy")
    parser.add_argument("--small", action="store_true", help="networks of toy size")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    if given.parts == ["page"]:
        write_page(given.out, PARTS)
        return
    size = LITTLE if given.small else FULL
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, given.out.resolve(), end, given.tokenizer, Path(folder))
        chosen = list(PARTS) if "all" in given.parts else given.parts
        for name in chosen:
            PARTS[name](bench)
    for name in chosen:
        print(f"\n{tables(json.loads((given.out / f'{name}.json').read_text()))}")


if __name__ == "__main__":
    main()
