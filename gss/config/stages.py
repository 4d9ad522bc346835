"""The stages: their names, the versions of their results, and what of a configuration each of them reads."""

from typing import Literal, get_args

Stage = Literal[
    "prepare",
    "check",
    "palette",
    "tokenizer",
    "reconstruct",
    "latent_prior",
    "posterior",
    "import",
    "merge",
    "evaluate",
]
STAGES: tuple[Stage, ...] = get_args(Stage)
GPU_STAGES: frozenset[Stage] = frozenset(("tokenizer", "reconstruct", "latent_prior", "posterior", "evaluate"))
# Raise a stage's number when its results change for the same configuration: results made before are redone.
STAGE_VERSIONS: dict[Stage, int] = {
    **dict.fromkeys(STAGES, 1),
    "check": 2,
    "tokenizer": 2,
    "reconstruct": 2,
    "latent_prior": 3,
    "posterior": 3,
    "evaluate": 3,
}
# Dotted keys of the sections and values that a stage reads.
READS: dict[Stage, tuple[str, ...]] = {
    "prepare": ("data.archives",),
    "check": ("data",),
    "palette": ("palette",),
    "tokenizer": ("tokenizer", "seed"),
    "reconstruct": ("reconstruction", "tokenizer", "seed"),
    "latent_prior": ("latent_prior", "augment", "seed", "numerics", "tokenizer.precision"),
    "posterior": ("posterior", "augment", "seed", "numerics", "tokenizer.precision"),
    "import": (),  # its inputs say it all
    "merge": (),
    "evaluate": ("evaluation", "numerics", "tokenizer.precision"),
}
# And beside them with `numerics: reference`.
READS_FOR_REFERENCE: dict[Stage, tuple[str, ...]] = {"reconstruct": ("numerics", "evaluation.scale")}
