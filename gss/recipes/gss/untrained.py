"""Networks as an experiment describes them, with random weights: to measure and to try."""

import numpy as np
import torch
from torch import Tensor

from gss.data.classes import ClassSpace
from gss.recipes.gss.assemble import at_precision, build_posterior, build_prior, describe
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.latent_prior import LatentPrior
from gss.recipes.gss.palette.palette import Palette
from gss.recipes.gss.posterior import Posterior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.stages.run import Run


def random_networks(
    run: Run[GSSExperiment], space: ClassSpace, variant: str, device: torch.device
) -> tuple[LatentPrior, DVAE, Posterior, Tensor]:
    """Latent prior, tokenizer, X^-1 and palette as the experiment describes them, all random."""
    torch.manual_seed(run.experiment.seed)
    dvae = at_precision(random_dvae(run).requires_grad_(False).eval(), run.experiment.tokenizer.precision, device)
    colours = any_colours(space)
    meta = describe(run, space, Palette(colours, space.names), dvae)
    meta["posterior"] = (
        run.experiment.posterior.architecture()
        if variant != "nearest"
        else {"variant": variant, "temperature": run.experiment.evaluation.vote_temperature}
    )
    return build_prior(meta), dvae, build_posterior(meta), torch.from_numpy(colours)


def random_dvae(run: Run[GSSExperiment]) -> DVAE:
    """The tokenizer as it begins."""
    config = run.experiment.tokenizer
    dvae = DVAE(config.vocab_size, config.n_hid, config.n_init, config.blocks_per_group)
    return dvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def any_colours(space: ClassSpace) -> np.ndarray:
    """Any palette: int64 [N+1, 3]."""
    codes = np.random.default_rng(0).choice(2**24, space.num_classes + 1, replace=False)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
