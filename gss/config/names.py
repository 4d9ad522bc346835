"""What may be a name of an experiment, a results folder, a run or a file in a configuration."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator

from gss.config.recipe import all_models

_TAKEN = ("comparisons", "mlflow.log")  # what else lies in the results folder


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
    if composed in _TAKEN:
        raise ValueError(f"{name!r} cannot be a name: results/{name} is something else")
    return composed


def results_name(name: str) -> str:
    """The name of a results folder: that of an experiment, or of other settings of one, `<experiment>+<hash>`.

    Raises:
        ValueError: see `valid_name`.
    """
    experiment, plus, digest = name.partition("+")
    return valid_name(experiment) + plus + digest if re.fullmatch("[0-9a-f]{8}", digest) else valid_name(name)


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
    """Experiment and model of a run named `EXPERIMENT[/MODEL]`; the model is empty where none is named.

    Raises:
        ValueError: it is no such name.
    """
    experiment, slash, model = run.partition("/")
    if slash and model not in all_models():
        ways = ", ".join(f"EXPERIMENT/{name}" for name in all_models())
        raise ValueError(f"{run!r} is no run: write EXPERIMENT, or one of {ways}")
    return results_name(experiment), model


Name = Annotated[str, AfterValidator(valid_name)]
Place = Annotated[str, AfterValidator(plain_path)]
