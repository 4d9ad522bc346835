"""Stage 3: the discrete VAE that turns maskiges into tokens and back."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gss.config import data_folder
from gss.data.manifest import Pairs, evenly_spaced
from gss.layout import MANIFEST
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.layout import START_PALETTE, START_TOKENIZER
from gss.recipes.gss.palette.palette import read_palette
from gss.recipes.gss.tokenizer.crops import MaskigeCrops
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.learn import DVAELearner, NormalisedDVAE, export
from gss.recipes.gss.tokenizer.reconstruct import reconstruct, require_usage
from gss.recipes.gss.tokenizer.store import save_tokenizer
from gss.recipes.gss.tokenizer.unpickle import import_openai
from gss.results.journal import Journal
from gss.stages.memory import faults_of_trainings
from gss.stages.rehearse import rehearse
from gss.stages.run import Run
from gss.stages.training import batches, deliver, is_missing, on_this_machine, run_settings
from gss.train.distributed import World
from gss.train.loop import train
from gss.train.settings import LoopSettings

HEALTH_LABELS = 8  # training labels on which a trained tokenizer is looked at


KEPT_BYTES = 2**32  # of labels in the memory of each process


class TrainingLabels(Sequence[np.ndarray]):
    """Labels of pairs, [H,W] each. The first ones stay in memory, the rest is read whenever it is asked for."""

    def __init__(self, pairs: Pairs, kept_bytes: int = KEPT_BYTES) -> None:
        self._pairs, self._free = pairs, kept_bytes
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # no slices
        label = self._kept.get(index)
        if label is None:
            label = self._pairs[index].read_label()
            if label.nbytes <= self._free:
                self._kept[index] = label
                self._free -= label.nbytes
        return label


def tokenizer(run: Run[GSSExperiment], world: World) -> None:
    """Import OpenAI's dVAE, or train one on the maskiges of the training labels; `tokenizer/start.safetensors`."""
    start = run.folder / START_PALETTE
    inputs = run.inputs(run.folder / MANIFEST, start, world=world)
    finished = run.work("tokenizer") / "finished.safetensors"
    with run.stage("tokenizer", inputs, world=world) as journal:
        if is_missing(finished, world):
            rehearse(run, run.space)  # the configuration may have changed since the check
            if world.is_main and run.experiment.debug.images is None:
                for fault in faults_of_trainings(run, run.space):
                    raise fault
            if run.experiment.tokenizer.source == "openai":
                if world.is_main:
                    _import(run, finished, inputs)
            else:
                palette = read_palette(start)
                run.space.require_names(palette.names, where=start, todo=f"make it again: gss palette {run.name}")
                colours = palette.colours
                dvae = train_dvae(
                    run,
                    world,
                    journal,
                    _fresh(run),
                    colours,
                    work=finished.parent,
                    steps=run.experiment.tokenizer.train.steps,
                )
                if world.is_main:
                    if run.experiment.debug.images is None:  # of a few labels little can be learned
                        _require_health(run, dvae, colours)
                    machine = on_this_machine(world, run.experiment.tokenizer.train.batch_size)
                    provenance = {**run.provenance("tokenizer", inputs), "machine": machine}
                    save_tokenizer(finished, dvae, {"source": "train", **provenance})
            world.barrier()
        if world.is_main:
            deliver(finished, run.folder / START_TOKENIZER)


def train_dvae(
    run: Run[GSSExperiment],
    world: World,
    journal: Journal | None,
    dvae: DVAE,
    colours: np.ndarray,
    *,
    work: Path,
    steps: int,
    fresh: bool = True,
) -> DVAE:
    """Train a dVAE on maskiges in the given colours.

    Args:
        colours: int64 [N+1, 3], last row = ignored pixels.
        work: folder of its checkpoints.
        fresh: the dVAE is untrained; otherwise it only learns new colours.

    Returns:
        The trained dVAE, in every process.
    """
    config = run.experiment.tokenizer.train
    labels = TrainingLabels(run.manifest.pairs("train"))
    settings = LoopSettings(
        steps=steps,
        lr=config.lr,
        warmup_steps=min(100, steps // 10),
        weight_decay=1e-4,
        betas=(0.9, 0.99),
        clip_norm=1.0,
        machine=on_this_machine(world, config.batch_size),
        **run_settings(run),
    )

    def crops(step: int) -> Iterator[list[dict[str, Tensor]]]:
        found = MaskigeCrops(
            labels,
            len(colours) - 1,
            seed=run.experiment.seed,
            batch_size=config.batch_size,
            crop=config.crop,
            rank=world.rank,
            world_size=world.size,
            start_step=step,
        )
        return iter(found)

    seen = None if fresh else next(crops(0))[0]["label"].to(world.device)
    learner = DVAELearner(dvae, torch.from_numpy(colours), random_palettes=config.palettes == "random", trained_on=seen)
    result = train(learner, batches(run, crops), settings, work=work, journal=journal, world=world)
    return export(cast(NormalisedDVAE, result.exported))


def _require_health(run: Run[GSSExperiment], dvae: DVAE, colours: np.ndarray) -> None:
    """Raise TokenizerError when training ended with a handful of tokens."""
    pairs = run.manifest.pairs("train")
    labels = [pairs[i].read_label() for i in evenly_spaced(len(pairs), HEALTH_LABELS)]
    present = set().union(*(np.unique(label).tolist() for label in labels)) - {run.space.ignore_index}
    usage = require_usage(reconstruct(dvae, labels, torch.from_numpy(colours), doubled=True).tokens, len(present))
    print(f"{usage.used} of {dvae.vocab_size} tokens in use, perplexity {usage.perplexity:.1f}", flush=True)


def _fresh(run: Run[GSSExperiment]) -> DVAE:
    config = run.experiment.tokenizer
    torch.manual_seed(run.experiment.seed)
    return DVAE(config.vocab_size, config.n_hid, config.n_init, config.blocks_per_group)


def _import(run: Run[GSSExperiment], finished: Path, inputs: dict[str, str]) -> None:
    config = run.experiment.tokenizer
    encoder, decoder = (_located(name) for name in (config.encoder, config.decoder))
    dvae = import_openai(encoder, decoder, encoder_sha256=config.encoder_sha256, decoder_sha256=config.decoder_sha256)
    save_tokenizer(
        finished,
        dvae,
        {"source": "openai", "encoder": encoder, "decoder": decoder, **run.provenance("tokenizer", inputs)},
    )


def _located(name: str | None) -> str:
    """A URL as it is; a path below the data folder."""
    assert name is not None, "the configuration requires both files"
    return name if "://" in name else str(data_folder() / name)
