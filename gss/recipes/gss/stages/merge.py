"""Stage 7: the latent prior and X^-1 become one model file."""

from gss.errors import CheckpointError
from gss.files import sha256_file
from gss.modelfile import ModelFile, load_model, load_strictly, save_model
from gss.recipes.gss.assemble import build_posterior
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.layout import GSS_FF, GSS_FT, POSTERIOR
from gss.stages.run import Run

SHARED = ("palette", "classes", "tokenizer")


def merge(run: Run[GSSExperiment]) -> None:
    """Join `gss_ff.pth` and `posterior.pth` into `gss_ft.pth`, which predicts with nothing else but the tokenizer.

    Raises:
        CheckpointError: the parents differ in palette, classes or tokenizer, or X^-1 is not complete.
    """
    prior = load_model(run.file(run.folder / GSS_FF), "gss_ff")
    source = run.experiment.posterior.experiment
    posterior_path = run.file((run.results / source if source else run.folder) / POSTERIOR)
    posterior = load_model(posterior_path, "posterior")
    refuse_strangers(prior, posterior, where=f"{run.folder / 'gss_ff.pth'} and {posterior_path}")
    load_strictly(build_posterior(posterior.meta), posterior.tensors, "posterior.", where=posterior_path)
    inputs = {GSS_FF: prior.sha256, POSTERIOR: posterior.sha256}
    meta = {
        **prior.meta,
        "posterior": posterior.meta["posterior"],
        "protocol": run.experiment.protocol(),
        "parents": {
            "gss_ff": {"sha256": prior.sha256, **prior.meta["provenance"]},
            "posterior": {"sha256": posterior.sha256, **posterior.meta["provenance"]},
        },
        "provenance": run.provenance("merge", inputs),
    }
    tensors = {**prior.tensors, **posterior.tensors}
    path = run.folder / GSS_FT
    with run.stage("merge", inputs) as journal:
        assert journal is not None
        save_model(path, "gss_ft", tensors, meta)
        journal.tags({"file": str(path), "sha256": sha256_file(path)})


def refuse_strangers(prior: ModelFile, posterior: ModelFile, *, where: str) -> None:
    """Raise CheckpointError, with the reason, unless both were made for the same classes, colours and tokenizer."""
    for key in SHARED:
        ours, theirs = prior.meta[key], posterior.meta[key]
        if ours != theirs:
            raise CheckpointError(
                f"the latent prior and X^-1 have different {key}: {_differ(ours, theirs)}",
                where=where,
                todo="train X^-1 again for this latent prior, or name the right one",
            )
    clash = sorted(set(prior.tensors) & set(posterior.tensors))
    if clash:
        raise CheckpointError(f"both files hold the tensors {', '.join(clash[:5])}", where=where)


def _differ(ours: object, theirs: object) -> str:
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return f"{len(ours)} against {len(theirs)} rows"
        row = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        return f"row {row} is {ours[row]} against {theirs[row]}"
    return f"{ours} against {theirs}"
