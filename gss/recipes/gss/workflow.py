"""What the rules of GSS ask: palettes, milestones of the latent prior, and what `posterior.experiment` lends.

Functions of `wildcards` take any object with the attributes `experiment` and, for a segment of the latent prior,
`step`. No torch is imported.
"""

from pathlib import Path
from typing import Any

from gss.errors import ConfigError
from gss.layout import MANIFEST
from gss.recipes.gss import layout
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.layout import GSS_FF, PALETTE, POSTERIOR, START_PALETTE, START_TOKENIZER, TOKENIZER
from gss.workflow import find_experiment, user_file


def palette_inputs(wildcards: Any) -> list[str]:
    """The checked data set, and the palette that the experiment names."""
    file = _find(wildcards.experiment).palette.file
    return [f"results/{wildcards.experiment}/{MANIFEST}", *([user_file(Path(file))] if file else [])]


def reconstruction_inputs(wildcards: Any) -> dict[str, str]:
    """Palette and tokenizer to check: the experiment's own, or the final ones of `posterior.experiment`."""
    source = _find(wildcards.experiment).posterior.experiment
    if source:
        return {"palette": f"results/{source}/{PALETTE}", "tokenizer": f"results/{source}/{TOKENIZER}"}
    own = f"results/{wildcards.experiment}"
    return {"palette": f"{own}/{START_PALETTE}", "tokenizer": f"{own}/{START_TOKENIZER}"}


def milestone(wildcards: Any) -> int:
    """The step a segment of the latent prior ends at; without the wildcard `step`, the last one."""
    milestones = _find(wildcards.experiment).milestones
    step = int(getattr(wildcards, "step", milestones[-1]))
    if hasattr(wildcards, "step") and step not in milestones[:-1]:
        raise ConfigError(f"step {step} is none of the milestones {milestones[:-1]}; that of the last is gss_ff.pth")
    return step


def previous_segment(wildcards: Any) -> list[str]:
    """The model file of the milestone before, if there is one: training goes on from there."""
    earlier = [step for step in _find(wildcards.experiment).milestones if step < milestone(wildcards)]
    return [milestone_file(wildcards.experiment, step) for step in earlier[-1:]]


def posterior_start(wildcards: Any) -> str:
    """The latent prior that X^-1 is trained behind."""
    experiment = _find(wildcards.experiment)
    return milestone_file(wildcards.experiment, experiment.posterior.start_step or experiment.milestones[-1])


def posterior_file(wildcards: Any) -> str:
    """The X^-1 to merge: the experiment's own, or that of `posterior.experiment`."""
    return f"results/{_find(wildcards.experiment).posterior.experiment or wildcards.experiment}/{POSTERIOR}"


def milestone_file(name: str, step: int) -> str:
    """The model file of a milestone; that of the last one is GSS-FF."""
    last = _find(name).milestones[-1]
    return f"results/{name}/{GSS_FF if step == last else layout.milestone(step)}"


def _find(name: str) -> GSSExperiment:
    """The experiment of a name.

    Raises:
        ConfigError: it is of another recipe.
    """
    experiment = find_experiment(name)
    if not isinstance(experiment, GSSExperiment):
        models = ", ".join(f"results/{name}/{model}.pth" for model in experiment.kind.models)
        raise ConfigError(f"{name!r} is of recipe {experiment.recipe!r}; it makes {models}", where="recipe")
    return experiment
