"""What may be a name of an experiment, a results folder, a run or a file in a configuration.

An experiment with `seeds` is run under one name for each: `NAME/seed_0`, and so is its folder below `results`.
"""

import re
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from gss.config.recipe import all_models
from gss.errors import did_you_mean

_TAKEN = ("comparisons", "mlflow.log")  # what else lies in the results folder
SEED_PATTERN = r"/seed_(?:0|[1-9]\d*)"
_SEED = re.compile(SEED_PATTERN)


def valid_name(name: str) -> str:
    """The name of an experiment or a comparison as its files have it, Unicode composed (NFC).

    Raises:
        ValueError: it would need quotes in a shell, hides its folder, looks like an option or a file, or is taken.
    """
    composed = unicodedata.normalize("NFC", name)
    if not re.fullmatch(r"\w[\w.-]*", composed) or composed.lower().endswith((".yaml", ".yml")):
        raise ValueError(
            f"{name!a} cannot be a name: names have letters, digits, `_`, `.` and `-`, begin with none of the last two "
            "and do not end in `.yaml`"
        )
    if composed in _TAKEN or _SEED.fullmatch(f"/{composed}"):
        raise ValueError(f"{name!r} cannot be a name: results/{name} is something else")
    return composed


def seed_parts(name: str) -> tuple[str, int | None]:
    """An experiment, by name or by the path of its file, and the seed that `/seed_N` behind it names, if any."""
    experiment, _, seed = name.rpartition("/seed_")
    return (experiment, int(seed)) if _SEED.fullmatch(f"/seed_{seed}") and experiment else (name, None)


def seed_name(experiment: str, seed: int) -> str:
    """The name that an experiment with `seeds` is run by."""
    return f"{experiment}/seed_{seed}"


def valid_run(name: str) -> str:
    """The name that an experiment is run by: its own, or with `seeds` that of one.

    Raises:
        ValueError: see `valid_name`.
    """
    experiment, seed = seed_parts(name)
    return valid_name(experiment) if seed is None else seed_name(valid_name(experiment), seed)


def folder_name(folder: Path) -> str:
    """The name that the results in a folder were made under: its own, of a seed's folder with the one above."""
    is_seed = _SEED.fullmatch(f"/{folder.name.partition('+')[0]}")
    return f"{folder.parent.name}/{folder.name}" if is_seed else folder.name


def results_name(name: str) -> str:
    """The name of a results folder: that of an experiment, of a seed of one, or of other settings, `<name>+<hash>`.

    Raises:
        ValueError: see `valid_name`.
    """
    run, plus, digest = name.partition("+")
    return valid_run(run) + plus + digest if re.fullmatch("[0-9a-f]{8}", digest) else valid_run(name)


def valid_set(name: str) -> str:
    """The name of an evaluation set; folders, logs and figures have it, and `_` divides theirs.

    Raises:
        ValueError: it has other characters, or is that of a split.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name) or name in ("train", "val", "test", "data"):
        raise ValueError(
            f"{name!r} cannot be the name of a set: names have letters, digits, `.` and `-`, begin with none of the "
            "last two, and are not `train`, `val`, `test` or `data`"
        )
    return name


def plain_path(path: str) -> str:
    """A path as it is: nothing in it is replaced.

    Raises:
        ValueError: it says what only a shell or Windows understands.
    """
    if re.match(r"~|[^:]*\$(\{|[A-Za-z_])", path):
        raise ValueError("`~` and `$NAME` are not replaced in paths: write it out, or relative to GSS_DATA")
    if "\\" in path:
        raise ValueError("folders in paths are separated by `/`")
    return path


def run_parts(run: str) -> tuple[str, str]:
    """Results folder and model of a run named `EXPERIMENT[/seed_N][/MODEL]`; the model is empty where none is named.

    Raises:
        ValueError: it is no such name.
    """
    name, slash, last = run.rpartition("/")
    name, model = (name, last) if last in all_models() else (run, "")
    try:
        return results_name(name), model
    except ValueError as error:
        if not slash:
            raise
        ways = ", ".join(f"EXPERIMENT/{name}" for name in all_models())
        near = did_you_mean(last, all_models())
        advice = f"; {near}" if near else ""
        raise ValueError(f"{run!r} is no run: write EXPERIMENT, or one of {ways}{advice}") from error


Name = Annotated[str, AfterValidator(valid_name)]
RunName = Annotated[str, AfterValidator(valid_run)]
"""An experiment, of one with `seeds` one of them: `NAME/seed_0`."""
SetName = Annotated[str, AfterValidator(valid_set)]
Place = Annotated[str, AfterValidator(plain_path)]
