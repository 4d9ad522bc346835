"""Stage 6: train X^-1, from decoded tokens back to classes (GSS-FT)."""

import copy
from pathlib import Path
from typing import cast

import torch
from torch import nn

from gss.layout import MANIFEST
from gss.modelfile import load_model, save_model
from gss.recipes.gss.assemble import build_model, build_posterior, frozen_tokenizer, options
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.layout import GSS_FF, POSTERIOR, TOKENIZER, milestone
from gss.recipes.gss.learners import PosteriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import Posterior
from gss.results.journal import Journal
from gss.stages.run import Run
from gss.stages.training import balance_inputs, class_weights, deliver, is_missing, train_network
from gss.train.distributed import World
from gss.use.start import go_on, start_files


def posterior(run: Run[GSSExperiment], world: World) -> None:
    """Train X^-1 behind a frozen latent prior and write `posterior.pth`; variant `nearest` needs no training."""
    start = start_file(run)
    finished = run.work("posterior") / "finished.pth"
    config = run.experiment.posterior
    files = (run.folder / MANIFEST, start, run.folder / TOKENIZER)
    inputs = run.inputs(*files, *start_files(config.start_from), world=world) | balance_inputs(run, config.training)
    with run.stage("posterior", inputs, world=world) as journal:
        if is_missing(finished, world):
            _train(run, world, journal, finished, start, inputs)
        if world.is_main:
            deliver(finished, run.folder / POSTERIOR)


def start_file(run: Run[GSSExperiment]) -> Path:
    """The latent prior that X^-1 is trained behind."""
    step = run.experiment.posterior.start_step
    if step is None or step == run.experiment.milestones[-1]:
        return run.folder / GSS_FF
    return run.folder / milestone(step)


def _train(
    run: Run[GSSExperiment], world: World, journal: Journal | None, finished: Path, start: Path, inputs: dict[str, str]
) -> None:
    config = run.experiment.posterior
    prior = load_model(start, "gss_ff")
    run.space.require_names(prior.meta["classes"], where=start, todo=f"train it again: snakemake {start}")
    meta = {key: prior.meta[key] for key in ("classes", "palette", "tokenizer", "vocab_size")}
    meta |= {"posterior": config.architecture(), "step": config.steps}
    meta["provenance"] = run.provenance("posterior", inputs)
    torch.manual_seed(run.experiment.seed)
    module = build_posterior(meta)
    key, quiet = "posterior.start_from", not world.is_main
    go_on(module, config.start_from, "posterior.", meta, build_posterior, key=key, quiet=quiet)
    if config.variant != "nearest":
        model = build_model(prior, frozen_tokenizer(run, "decoder", world.device), where=start).to(world.device)
        learner = PosteriorLearner(
            model.prior,
            model.tokenizer,
            module,
            class_weights=class_weights(run, config.training.class_balance),
            reference=run.experiment.numerics == "reference",
        )
        # The published prior changes while X^-1 is trained; predictions are those of the one in the file.
        kept = copy.deepcopy(model) if config.training.validate_every else model

        def segmenter(module: nn.Module) -> GSS:
            beyond = options(run.experiment.protocol(), meta["palette"])
            return GSS(kept.prior, kept.tokenizer, cast(Posterior, module), **beyond).eval()

        pairs = run.manifest.pairs("train")
        exported, origin = train_network(
            run, "posterior", learner, pairs, config.steps, world, journal, segmenter=segmenter
        )
        meta["provenance"] |= origin
        module = cast(Posterior, exported)
    if world.is_main:
        save_model(finished, "posterior", {f"posterior.{k}": v for k, v in module.state_dict().items()}, meta)
    world.barrier()
