"""What `gss benchmark` measures of GSS beside what it measures of every recipe; its networks with random weights."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from gss.benchmark.measure import Enough, num_laps, one_process, steps
from gss.benchmark.stopwatch import Section, Stopwatch
from gss.recipes.gss import rehearse
from gss.recipes.gss.assemble import options
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.learners import LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.tokenizer.crops import MaskigeCrops
from gss.recipes.gss.tokenizer.learn import DVAELearner
from gss.recipes.gss.tokenizer.reconstruct import reconstruct
from gss.recipes.gss.untrained import any_colours, random_dvae, random_networks
from gss.stages.run import Run
from gss.train.distributed import World
from gss.train.settings import LoopSettings

_LABELS = 64  # to cut a tokenizer's crops from


def sections(experiment: GSSExperiment) -> Iterator[tuple[str, str, Any, str]]:
    """Title, stage, measurement and name of the whole of what is measured before the trainings."""
    if experiment.tokenizer.source == "train":
        yield "tokenizer", "tokenizer", tokenizer, "step"
    yield "reconstruction", "reconstruct", reconstruction, "label"


def tokenizer(run: Run[GSSExperiment], images: int) -> Section:
    """Steps of the tokenizer's training, on the crops of a few labels."""
    config = run.experiment.tokenizer.train
    world = one_process()
    watch = Stopwatch(world.device)
    colours = torch.from_numpy(any_colours(run.space))
    learner = DVAELearner(random_dvae(run), colours, random_palettes=config.palettes == "random")
    pairs = run.manifest.pairs("train")
    labels = [pairs[i].read_label() for i in range(min(_LABELS, len(pairs)))]
    size, num_classes = config.batch_size, run.space.num_classes

    def batches(step: int) -> Iterator[Any]:
        crops = iter(MaskigeCrops(labels, num_classes, seed=0, batch_size=size, crop=config.crop, start_step=step))
        for _ in watch.laps(num_laps(images, size)):
            watch.enter("crops")
            batch = next(crops)
            watch.enter("transfer, counts")
            yield batch
        raise Enough

    settings = LoopSettings(1, config.lr, clip_norm=1.0, deterministic=run.experiment.run.deterministic)
    steps(watch, learner, batches, settings, world)
    return Section(size, watch.phases)


def reconstruction(run: Run[GSSExperiment], images: int) -> Section:
    """Training labels, one by one, through the tokenizer and back as the refinement of the palette does it."""
    world = one_process()
    watch = Stopwatch(world.device)
    dvae = random_dvae(run).requires_grad_(False).eval().to(world.device)
    colours = torch.from_numpy(any_colours(run.space))
    watch.around(dvae, "encode", "tokens of the label")
    watch.around(dvae, "decode", "decode")
    pairs = itertools.cycle(run.manifest.pairs("train"))
    for _, pair in zip(watch.laps(num_laps(images, 1)), pairs, strict=False):
        label = pair.read_label()
        watch.enter("paint, nearest colour, count")
        reconstruct(dvae, [label], colours, doubled=True)
    return Section(1, watch.phases)


def learner(
    run: Run[GSSExperiment], stage: str, world: World, watch: Stopwatch
) -> tuple[LatentPriorLearner | PosteriorLearner, dict[str, str]]:
    """What a stage trains, watched, and the precision of phases that is not the training's."""
    made = rehearse.learner(run, run.space, stage, world.device)
    dvae = made.dvae
    watch.around(dvae, "encode", "tokens of the label")
    watch.around(made.prior, "see", "tokens of the image")
    watch.around(dvae, "decode", "decode")
    return made, dict.fromkeys(("tokens of the label", "decode"), dvae.precision)


def segmenter(
    run: Run[GSSExperiment], model: str, device: torch.device, watch: Stopwatch
) -> tuple[GSS, dict[str, str]]:
    """A model on its device, watched, and the precision of phases that is not fp32."""
    variant = "nearest" if model == "gss_ff" else run.experiment.posterior.variant
    prior, dvae, module, colours = random_networks(run, run.space, variant, device)
    made = GSS(prior, dvae, module, **options(run.experiment.protocol(), colours.tolist())).to(device).eval()
    watch.around(made.prior, "see", "tokens of the image")
    watch.around(made.tokenizer, "decode", "decode")
    watch.around(made.posterior, "scores", "X^-1: scores of the classes")
    return made, {"decode": made.tokenizer.precision}
