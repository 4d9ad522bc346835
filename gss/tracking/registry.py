"""Final models as versions of registered models: plain files, no pickled code; one version per file hash."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gss.config import Recipe, seed_parts
from gss.files import sha256_file, write_json
from gss.tracking.overview import EVALUATED, Told, makes_final
from gss.tracking.store import sanitise

Put = Callable[[str, Path, str, str], None]


def register(
    client: Any,
    folder: Path,
    told: Sequence[Told],
    recipe: Recipe,
    runs: Mapping[str, str],
    put: Put,
    *,
    upload: bool,
) -> str | None:
    """Make sure that the final model of a results folder is registered, with all that is known of it.

    Args:
        client: of the store.
        folder: results folder.
        told: its stages, in order of their ends.
        runs: ids of the pipelines' runs, by the first digits of their configurations.
        put: brings a file to a pipeline's run unless it is there: first digits, file, folder there, SHA-256.
        upload: copy the model and what stands beside it; otherwise only a file that says where they are.

    Returns:
        `<name>/<version>`; None when there is none yet.
    """
    made = next(
        (
            stage
            for stage in reversed(told)
            if makes_final(recipe, stage.stage)
            and stage.current
            and "sha256" in stage.tags
            and stage.config[:8] in runs
        ),
        None,
    )
    if made is None:
        return None
    name, sha, pipeline = model_name(made.experiment), made.tags["sha256"], made.config[:8]
    tags = _tags(folder, made, told, recipe)
    text = _text(folder, made, tags, recipe)
    place = f"model/{sha[:8]}"
    _registered(client, name, f"{recipe.models[recipe.final]} of the experiment {seed_parts(made.experiment)[0]}")
    version = next(
        (found for found in client.search_model_versions(f"name = '{name}'") if found.tags.get("sha256") == sha), None
    )
    with tempfile.TemporaryDirectory() as fresh:  # a version needs a folder with something in it
        note = Path(fresh) / "model.json"
        write_json(note, {"file": tags["file"], "sha256": sha, "host": tags.get("host", "")})
        put(pipeline, note, place, sha256_file(note))
    if upload:
        for file, expected in {
            f"{recipe.final}.pth": sha,
            **{f: tags.get(f"input {f}") for f in recipe.beside},
        }.items():
            if expected and (folder / file).is_file():
                put(pipeline, folder / file, place, expected)
    if version is None:
        version = client.create_model_version(
            name, f"runs:/{runs[pipeline]}/{place}", runs[pipeline], tags, description=text, await_creation_for=0
        )
    else:
        for key, value in tags.items():
            if version.tags.get(key) != value:
                client.set_model_version_tag(name, version.version, key, value)
        if version.description != text:
            client.update_model_version(name, version.version, text)
    return f"{name}/{version.version}"


def model_name(experiment: str) -> str:
    """The registered model of an experiment, which has no `/`: models of its seeds are versions of one.

    Args:
        experiment: what it is run by, `camvid_pixel/seed_1`, or with other settings `camvid_pixel/seed_1+7d09849e`.
    """
    name, plus, settings = experiment.partition("+")
    return f"gss-{seed_parts(name)[0]}{plus}{settings}"


def _registered(client: Any, name: str, what: str) -> None:
    from mlflow.exceptions import MlflowException

    if not client.search_registered_models(f"name = '{name}'"):
        try:
            client.create_registered_model(
                name,
                description=f"{what}: one version per file, its SHA-256 and its scores are tags.",
            )
        except MlflowException:  # another process was faster, or there is a reason that the next call will tell
            client.get_registered_model(name)


def _tags(folder: Path, made: Told, told: Sequence[Told], recipe: Recipe) -> dict[str, str]:
    """Hashes, provenance, and the scores of this very file."""
    tags = {
        **made.tags,
        "file": str((folder / f"{recipe.final}.pth").absolute()),
        "experiment": made.experiment,
        "config_sha256": made.config,
    }
    hashes = {model: made.tags.get(f"input {model}.pth") for model in recipe.models}
    hashes[recipe.final] = made.tags["sha256"]
    known: dict[str, str] = {}
    for stage in told:
        model = EVALUATED.sub(r"\1", stage.stage).removeprefix("evaluate_")
        measured = stage.tags.get(f"input {model}.pth")
        if not stage.current or measured is None or measured != hashes.get(model):
            continue
        prefix = "" if model == recipe.final else f"{model}/"
        tags |= {prefix + point.name: f"{point.value:.6f}" for point in stage.points if point.name.count("/") == 1}
        tags |= {name: stage.tags[name] for file in recipe.beside if (name := f"input {file}") in stage.tags}
    return {sanitise(name, known): value for name, value in tags.items()}


def _text(folder: Path, made: Told, tags: Mapping[str, str], recipe: Recipe) -> str:
    scores = [f"{name} **{100 * float(tags[name]):.2f}**" for name in ("test/mIoU", "val/mIoU") if name in tags]
    title = recipe.models[recipe.final]
    return (
        f"{title} of `{made.experiment}`: {', '.join(scores) or 'not evaluated yet'} (percent).\n\n"
        f'    import gss\n    model = gss.load("{folder / recipe.final}.pth")    # in the project folder\n'
        '    ids = model.predict("photo.jpg")\n'
    )
