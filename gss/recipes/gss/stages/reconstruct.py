"""Stage 4: what palette and tokenizer alone cost, and better colours for the classes that suffer."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gss.data.ids import ids_tensor
from gss.data.loader import shard
from gss.data.manifest import evenly_spaced
from gss.data.metrics import scores
from gss.evaluate.inference import as_picture
from gss.evaluate.pictures import panel, picture_name
from gss.evaluate.plots import palette_swatches, rounds
from gss.files import remove, write_json, write_table
from gss.layout import MANIFEST
from gss.progress import track
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.layout import PALETTE, START_PALETTE, START_TOKENIZER, TOKENIZER
from gss.recipes.gss.palette.palette import IGNORE, Palette, read_palette, write_palette
from gss.recipes.gss.stages.tokenizer import train_dvae
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.reconstruct import reconstruct as reconstruct_labels
from gss.recipes.gss.tokenizer.reconstruct import round_trip, token_usage
from gss.recipes.gss.tokenizer.refine import Refinement, Round, refine
from gss.recipes.gss.tokenizer.store import load_tokenizer, read_meta, save_tokenizer
from gss.results.journal import Journal
from gss.stages.run import Run
from gss.stages.training import deliver, is_missing
from gss.train.distributed import World

CANDIDATE_LABELS = 16  # labels on which single colours are tried
STRIDES = {"4": True, "8": False}  # image pixels per token -> whether the label is doubled


def reconstruct(run: Run[GSSExperiment], world: World) -> None:
    """Refine the palette on training labels, then measure label -> maskige -> tokens -> label on val and test.

    Writes the final `palette.csv` and `tokenizer.safetensors`, and `reconstruction/`. With `posterior.experiment` the
    palette and tokenizer of the other one are taken as they are.
    """
    palette_path, tokenizer_path = start_files(run)
    manifest = run.folder / MANIFEST
    inputs = run.inputs(manifest, palette_path, tokenizer_path, world=world)
    work = run.work("reconstruct")
    palette = read_palette(palette_path)
    source = run.experiment.posterior.experiment
    todo = "`posterior.experiment` needs the same classes" if source else f"make it again: gss palette {run.name}"
    run.space.require_names(palette.names, where=palette_path, todo=todo)
    with run.stage("reconstruct", inputs, world=world) as journal:
        if is_missing(work / TOKENIZER, world):
            dvae = load_tokenizer(tokenizer_path, device=world.device)
            found = _refined(run, world, journal, dvae, palette)
            if world.is_main:
                final = Palette(found.colours, palette.names)
                write_palette(work / PALETTE, final)
                _write_rounds(work, found, palette.names)
                meta = {
                    key: value
                    for key, value in read_meta(tokenizer_path).items()
                    if key not in ("format", "shape", "sha256")
                }
                save_tokenizer(
                    work / TOKENIZER,
                    found.dvae,
                    {**meta, "refinement": run.provenance("reconstruct", inputs)},
                )
            world.barrier()
        if world.is_main:
            remove(*(run.folder / name for name in ("reconstruction", PALETTE, TOKENIZER)))
        palette = read_palette(work / PALETTE)
        dvae = load_tokenizer(work / TOKENIZER, device=world.device)
        _check(run, world, journal, dvae, palette)
        if world.is_main:
            palette_swatches(run.folder / "reconstruction" / "palette.png", (*palette.names, IGNORE), palette.colours)
            for name in ("rounds.csv", "rounds.png"):
                deliver(work / name, run.folder / "reconstruction" / name)
            for name in (PALETTE, TOKENIZER):
                deliver(work / name, run.folder / name)
        if journal is not None:
            for name in ("rounds.csv", "rounds.png", "palette.png"):
                journal.artifact(run.folder / "reconstruction" / name)


def start_files(run: Run[GSSExperiment]) -> tuple[Path, Path]:
    """Palette and tokenizer to begin with."""
    source = run.experiment.posterior.experiment
    if source:
        return run.results / source / PALETTE, run.results / source / TOKENIZER
    return run.folder / START_PALETTE, run.folder / START_TOKENIZER


def _refined(
    run: Run[GSSExperiment], world: World, journal: Journal | None, dvae: DVAE, palette: Palette
) -> Refinement:
    config = run.experiment.reconstruction
    pairs = run.manifest.pairs("train")
    labels = [pairs[i].read_label() for i in evenly_spaced(len(pairs), config.refine_images)]
    taken = run.experiment.posterior.experiment is not None
    found = refine(
        dvae,
        palette.colours,
        _measure(world, labels),
        labels[:: -(-len(labels) // CANDIDATE_LABELS)],
        min_iou=config.min_iou,
        max_rounds=0 if taken else config.max_rounds,
        retrain=_retrain(run, world),
        quiet=not world.is_main,
    )
    for number, tried in enumerate(found.rounds):
        if journal is not None:
            journal.metrics(number, {"refine/mIoU": tried.miou})
            changes = ", ".join(palette.names[change.label] for change in tried.changes)
            print(
                f"round {number}: mIoU {tried.miou:.4f}  {'kept' if tried.kept else 'dropped'}"
                + (f"  new colours for {changes}" if changes else ""),
                flush=True,
            )
    return found


def _measure(world: World, labels: list[np.ndarray]) -> Callable[[DVAE, Tensor], Tensor]:
    """Confusion at training resolution over all processes."""
    mine = [labels[i] for i in shard(len(labels), world.rank, world.size)]

    def measure(dvae: DVAE, colours: Tensor) -> Tensor:
        shown = track(mine, "palette on training labels", len(mine), "labels", quiet=not world.is_main)
        return world.sum(reconstruct_labels(dvae, shown, colours, doubled=True).confusion)

    return measure


def _retrain(run: Run[GSSExperiment], world: World) -> Callable[[Tensor, DVAE], DVAE] | None:
    """How a tokenizer trained here learns new colours; None for one that stays as it is or knows any colours."""
    config, steps = run.experiment.tokenizer, run.experiment.reconstruction.retrain_steps
    if config.source != "train" or config.train.palettes == "random" or steps == 0:
        return None
    work, number = run.work("reconstruct"), itertools.count(1)

    def retrain(colours: Tensor, dvae: DVAE) -> DVAE:
        return train_dvae(
            run,
            world,
            None,
            copy.deepcopy(dvae),
            colours.numpy(),
            work=work / f"round_{next(number)}",
            steps=steps,
            fresh=False,
        )

    return retrain


def _check(run: Run[GSSExperiment], world: World, journal: Journal | None, dvae: DVAE, palette: Palette) -> None:
    folder = run.folder / "reconstruction"
    colours = torch.from_numpy(palette.colours)
    experiment = run.experiment
    scale = experiment.evaluation.scale if experiment.numerics == "reference" else None
    metrics: dict[str, Any] = {"splits": {}, "tokenizer": dvae.sha256, "palette": palette.colours.tolist()}
    for split in [name for name in run.experiment.data.splits if name != "train"]:
        pairs = run.manifest.pairs(split)
        mine = [pairs[i] for i in shard(len(pairs), world.rank, world.size)]
        metrics["splits"][split] = {}
        for stride, doubled in STRIDES.items():
            shown = track(mine, f"reconstruct {split}, stride {stride}", len(mine), "labels", quiet=not world.is_main)
            labels = (pair.read_label() for pair in shown)
            counted = reconstruct_labels(dvae, labels, colours, doubled=doubled, scale=scale)
            confusion, usage = world.sum(counted.confusion), token_usage(world.sum(counted.tokens))
            found = scores(confusion.numpy())
            metrics["splits"][split][stride] = {
                "mIoU": found.mIoU,
                "mAcc": found.mAcc,
                "aAcc": found.aAcc,
                "images": len(pairs),
                "IoU": dict(zip(palette.names, found.iou, strict=True)),
                "Acc": dict(zip(palette.names, found.acc, strict=True)),
                "tokens_used": usage.used,
                "token_perplexity": usage.perplexity,
            }
            if journal is not None:
                print(
                    f"reconstruction of {split}, one token per {stride} x {stride} pixels: mIoU {found.mIoU:.4f}, "
                    f"{usage.used} tokens used",
                    flush=True,
                )
                if doubled:
                    journal.figures(
                        {
                            f"{split}/mIoU": found.mIoU or 0.0,
                            f"{split}/aAcc": found.aAcc or 0.0,
                            **{
                                f"{split}/iou/{name}": iou
                                for name, iou in zip(palette.names, found.iou, strict=True)
                                if iou is not None
                            },
                        },
                    )
    if journal is not None:
        _draw(run, dvae, palette)
        write_json(folder / "metrics.json", metrics)
        journal.artifact(folder / "metrics.json")


def _draw(run: Run[GSSExperiment], dvae: DVAE, palette: Palette) -> None:
    """Panels of a few images: what the best possible GSS-FF would see."""
    split = run.experiment.last_split
    pairs = run.manifest.pairs(split)
    colours = torch.from_numpy(palette.colours)
    for index in evenly_spaced(len(pairs), run.experiment.evaluation.pictures):
        pair = pairs[index]
        array = pair.read_label()
        label = ids_tensor(array).to(dvae.weight.device)[None]
        ids, tokens = round_trip(dvae, label, colours, doubled=True)
        panel(
            run.folder / "reconstruction" / "pictures" / picture_name(index, pair.image),
            image=pair.read_image(),
            label=array,
            prediction=ids[0].cpu().numpy().astype(array.dtype),
            extras={"maskige": as_picture(dvae.decode(tokens)[0])},
            palette=palette.colours,
            names=palette.names,
            colours=run.space.colours,
            title=f"reconstruction {split} {pair.image.stem}",
        )


def _write_rounds(folder: Path, found: Refinement, names: tuple[str, ...]) -> None:
    """`rounds.csv`, a row per round and class, and `rounds.png`."""
    rows = []
    for number, tried in enumerate(found.rounds):
        old = {change.label: " ".join(map(str, change.old)) for change in tried.changes}
        for label, (name, iou) in enumerate(zip(names, tried.iou.tolist(), strict=True)):
            rows.append((number, tried.kept, tried.miou, name, iou, *tried.colours[label], old.get(label)))
    rounds(folder / "rounds.png", [_row(tried, names) for tried in found.rounds])
    columns = ("round", "kept", "mIoU", "class", "iou", "r", "g", "b", "old_colour")
    write_table(folder / "rounds.csv", columns, rows)


def _row(tried: Round, names: tuple[str, ...]) -> dict[str, Any]:
    iou = [None if np.isnan(value) else float(value) for value in tried.iou]
    return {"mIoU": tried.miou, "IoU": dict(zip(names, iou, strict=True))}
