"""Configuration files: reading, overriding, checking, and messages that name the key."""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gss.config.reference import model_in
from gss.config.schema import Cluster, Data, Experiment, Project
from gss.errors import ConfigError

EXPERIMENTS = Path("config/experiments")
PROJECT = Path("config/config.yaml")
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where PyYAML was built with libyaml
Model = TypeVar("Model", bound=BaseModel)


def load_project(path: Path = PROJECT) -> Project:
    """Read config/config.yaml; see `load_experiment` for errors."""
    return _validate(Project, _read_yaml(path), path)


def load_cluster(content: Mapping[str, Any], where: Path = Path("the profile's config.cluster")) -> Cluster:
    """Check the cluster block of a Snakemake profile; see `load_experiment` for errors.

    Args:
        content: Snakemake's `config`, whose key `cluster` is looked at; without it nothing is known of the cluster.
        where: named in errors.
    """
    block = content.get("cluster") or {}
    return _validate(Cluster, {key: value for key, value in block.items() if value not in (None, "None")}, where)


def list_experiments(folder: Path = EXPERIMENTS) -> list[str]:
    """Names of the experiments, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_experiment(name: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read and check an experiment.

    Args:
        name: a name in config/experiments, or the path of a YAML file.
        overrides: `section.key=value` strings; values are read as YAML.

    Raises:
        ConfigError: unknown experiment, unknown key (with the nearest valid one), or a wrong value.
    """
    path = experiment_path(name)
    content = _read_yaml(path)
    for override in overrides:
        _apply(content, override)
    default = _validate(Experiment, content, path)
    if not default.reference:
        return default
    changes = {**default.reference, "numerics": "reference"}
    if default.numerics == "reference":
        return _validate(Experiment, _merged(content, changes), path)
    # The other reading is checked, too, so that its faults do not wait until it is asked for; that it trains in fp32
    # says whoever asks for it.
    fp32 = {part: {"training": {"precision": "fp32"}} for part in ("latent_prior", "posterior")}
    _validate(Experiment, _merged(_merged(content, fp32), changes), path)
    return default


def experiment_path(name: str | Path) -> Path:
    """The YAML file of an experiment given by name or path."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = EXPERIMENTS / f"{name}.yaml"
    if not path.is_file():
        known = list_experiments(path.parent)
        near = difflib.get_close_matches(path.stem, known, n=1)
        raise ConfigError(
            f"no experiment {path.stem!r}; there are: {', '.join(known) or 'none'}",
            where=path,
            todo=f"did you mean {near[0]!r}?" if near else "write this file, see config/README.md",
        )
    return path


def require_data(path: Path, *, kind: str, todo: str = "") -> Path:
    """The path, if it exists.

    Args:
        path: a data folder or file, see `data_folder`.
        kind: what it is, for the message.

    Raises:
        ConfigError: it does not exist.
    """
    if not path.exists():
        advice = "put it there, or set GSS_DATA to the folder that holds your data"
        raise ConfigError(f"{kind} not found", where=path.absolute(), todo=f"{advice}. {todo}".rstrip(". ") + ".")
    return path


def data_set_folder(data: Data) -> Path:
    """Where a data set lies or belongs; one that is made by the project never leaves its own folder."""
    return (project_data_folder() if data.generate else data_folder()) / data.root


def project_data_folder() -> Path:
    """`data_root` of config/config.yaml."""
    return Path(load_project().data_root if PROJECT.is_file() else "data")


def data_folder() -> Path:
    """The folder that relative data paths start from."""
    named = os.environ.get("GSS_DATA")
    return Path(named) if named else project_data_folder()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _YAML)
    except FileNotFoundError as error:
        raise ConfigError("configuration file not found", where=path) from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"not readable as YAML: {error}", where=path) from error
    if not isinstance(content, dict):
        raise ConfigError("a configuration is a mapping of sections", where=path, todo="see config/README.md")
    return content


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The content with the values of `changes` put in, section by section."""
    result = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"not an override: {override!r}", todo="write section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{section!r} in the override {override!r} is a value, not a section")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of the override {override!r} is not valid YAML", todo="quote it") from error


def _validate(model: type[Model], content: dict[str, Any], path: Path) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        messages = [_explain(model, fault) for fault in error.errors()]
        raise ConfigError("; ".join(messages), where=path, todo="every key: docs/reference/config.md") from error


def _explain(model: type[BaseModel], fault: Any) -> str:
    location = [part for part in fault["loc"] if isinstance(part, str)]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        valid = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        return f"unknown key {key!r}, " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(valid)}")
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    found = "" if isinstance(fault["input"], dict) else f", found {fault['input']!r}"
    return f"{key or 'configuration'}: {message}{found}"


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for name in location:
        field = next((f for n, f in model.model_fields.items() if name in (n, f.alias)), None)
        if field is not None:  # a name of a mapping (a split, a stage) stands for no field
            model = model_in(field.annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]
