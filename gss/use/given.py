"""What a person gave as a model, or among the images, that is none; and what they may have meant."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from gss.config import list_experiments, recipes, seed_folders
from gss.data.walk import is_picture
from gss.errors import CheckpointError, GssError
from gss.layout import CONFIG

WEIGHTS = (".pth", ".pt", ".ckpt", ".onnx", ".safetensors")
_ORDER = "the model comes first: gss predict MODEL INPUT ... -o FOLDER"


def _models() -> list[str]:
    """Names of model files, of each recipe the final one first."""
    return [f"{model}.pth" for recipe in recipes() for model in reversed(recipe.models)]


def no_model_there(path: Path) -> CheckpointError:
    """What to say of a folder that is no export, or of a name that there is not."""
    what, todo = _of_folder(path) if path.is_dir() else _of_name(path)
    return CheckpointError(what, where=path, todo=todo)


def _of_folder(path: Path) -> tuple[str, str]:
    for folder in (path, *seed_folders(path)):
        for model in _models():
            if (folder / model).is_file():
                return "this is the folder of a model, not the model", f"give {folder / model}"
    if (path / CONFIG).is_file():
        return "no model is finished in this results folder", f"build it: snakemake {path / _models()[0]}"
    if any(is_picture(Path(file.name), "") for file in path.iterdir()):
        return "this is a folder of images", _ORDER
    return "this folder holds no model", f"give a {_models()[0]}, or a folder that gss export wrote"


def _of_name(path: Path) -> tuple[str, str]:
    results = Path("results") / path.name
    for folder in (results, *seed_folders(results)):
        for model in _models():
            if (folder / model).is_file():
                return "this is the name of an experiment, not of a model file", f"give {folder / model}"
    what = "model file not found"
    if path.name in _models():
        return what, f"build it: snakemake {path}"
    if path.name in list_experiments():
        return what, f"build it: snakemake {(seed_folders(results) or [results])[0] / _models()[0]}"
    names = [file.name for file in path.parent.glob("*")]
    near = difflib.get_close_matches(path.name, names, n=1)
    return what, f"did you mean {path.with_name(near[0])}?" if near else f"give the {_models()[0]} of an experiment"


def refuse_models(inputs: Sequence[str]) -> None:
    """Raise GssError when one of the images is a model."""
    if models := [name for name in inputs if name.lower().endswith(WEIGHTS)]:
        raise GssError("a model among the images", where=models[0], todo=f"one model at a time; {_ORDER}")
