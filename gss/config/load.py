"""Configuration files: reading, overriding, checking, and messages that name the key."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gss.config.experiment import Experiment, NamedFile
from gss.config.names import folder_name, seed_name, seed_parts, valid_name
from gss.config.project import Cluster, Project
from gss.config.recipe import find_recipe
from gss.config.reference import model_in
from gss.config.schema import Backbone, Data, Evaluation
from gss.errors import ConfigError, did_you_mean
from gss.layout import CONFIG

EXPERIMENTS = Path("config/experiments")
PROJECT = Path("config/config.yaml")
SUFFIXES = (".yaml", ".yml")
PUT_IT_THERE = "put it there, or set GSS_DATA to the folder that holds your data"
# What PyYAML raises: its own errors, and whatever a number too long, a tag that does not fit (`!!bool x`) leads it to.
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
Model = TypeVar("Model", bound=BaseModel)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C ten times as fast
    """YAML whose plain words and numbers are those of YAML 1.2, as editors read them.

    PyYAML knows 1.1 alone, where `no` and `off` are false, `012` is ten, `1:30` ninety, and `1e-3` a text.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        digits = node.value.replace("_", "")
        return int(digits, 0 if digits.startswith(("0x", "0o")) else 10)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


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
    """Names of the experiments, sorted; whether their files can be read is not looked at.

    What editors and file systems leave beside them (`.#mine.yaml`, `._mine.yaml`) cannot be a name and is none.
    """
    return sorted(_experiment_files(folder))


def _experiment_files(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            with contextlib.suppress(ConfigError):
                found.setdefault(experiment_name(path), []).append(path)
    return found


def load_experiment(name: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read and check an experiment, of one with `seeds` that of one seed.

    Args:
        name: a name in config/experiments, or the path of a YAML file; of one with `seeds`, `/seed_N` behind it.
        overrides: `section.key=value` strings; values are read as YAML.

    Raises:
        ConfigError: unknown experiment, unknown key (with the nearest valid one), or a wrong value; no such seed, or
            one of several has to be named.
    """
    path, (_, seed) = experiment_path(name), seed_parts(str(name))
    content = _of_seed(_content(path), seed, path)
    for override in overrides:
        if (key := override.partition("=")[0]) in ("base", "seeds"):
            raise ConfigError(f"`{key}` is said in the file of an experiment", where=override)
        _apply(content, override)
    kind = experiment_class(content, path)
    if content.get("numerics") == "reference" and isinstance(changes := content.get("reference"), dict):
        return _validate(kind, _merged(content, changes), path)
    default = _validate(kind, content, path)
    if not default.reference:
        return default
    # The other reading is checked, too, so that its faults do not wait until it is asked for; that it trains in fp32
    # says whoever asks for it.
    for key in kind.trainings.values():
        content = _merged(content, _nested(f"{key}.precision", "fp32"))
    _validate(kind, _merged(content, {**default.reference, "numerics": "reference"}), path)
    return default


def runs_of(name: str | Path) -> list[str]:
    """The names that an experiment is run by: its own or, with `seeds`, one for each.

    Args:
        name: see `load_experiment`; with a seed it is the only one.
    """
    bare, seed = seed_parts(str(name))
    seeds = _seeds(_content(path := experiment_path(bare)), path) if seed is None else ()
    return [seed_name(bare, each) for each in seeds] or [str(name)]


def seed_folders(folder: Path) -> list[Path]:
    """The results folders of the seeds of an experiment, in their order; none where it has no `seeds`.

    Those that the experiment's file names; where there is no such file, those that are there.

    Args:
        folder: `results/<experiment>`.
    """
    try:
        names = [name for name in runs_of(folder.name) if name != folder.name]
    except ConfigError:
        names = [folder_name(path) for path in folder.glob("seed_*") if (path / CONFIG).is_file()]
        names = sorted((name for name in names if "/" in name), key=seed_parts)
    return [folder.parent / name for name in names]


def _content(path: Path) -> dict[str, Any]:
    """What the file of an experiment and its bases say."""
    content: dict[str, Any] = {}
    for file in lineage(path):
        own = _read_yaml(file)
        if isinstance(debug := own.get("debug"), dict) and any(debug.values()):
            todo = f"take it out, and call: gss VERB {experiment_name(path)} " + " ".join(
                f"debug.{key}={str(value).lower()}" for key, value in debug.items()
            )
            raise ConfigError("`debug` is said on the command line, for one call", where=file, todo=todo)
        content = _merged(_of_recipe(content, own), own)
    return content


def _seeds(content: dict[str, Any], path: Path) -> tuple[int, ...]:
    """The seeds of an experiment with several; the rest is looked at only where there are some."""
    return _validate(experiment_class(content, path), content, path).seeds if content.get("seeds") else ()


def _of_seed(content: dict[str, Any], seed: int | None, path: Path) -> dict[str, Any]:
    """The content for one seed.

    Raises:
        ConfigError: it is none of the experiment's, or one of them has to be named.
    """
    seeds, name = _seeds(content, path), experiment_name(path)
    names = ", ".join(seed_name(name, each) for each in seeds)
    if seed is not None and not seeds:
        raise ConfigError(f"{name!r} has no `seeds`", where=path, todo=f"name it {name}, or write: seeds: [{seed}]")
    if seed is not None and seed not in seeds:
        raise ConfigError(f"{name!r} has no seed {seed}", where=path, todo=f"add it to `seeds`; there are: {names}")
    if seed is None and seeds:
        raise ConfigError(
            f"{name!r} is trained with the seeds {', '.join(map(str, seeds))}, each in a folder of its own",
            where=path,
            todo=f"name one, here and below results: {names}",
        )
    return content if seed is None else {**content, "seed": seed, "seeds": []}


def lineage(path: Path) -> list[Path]:
    """The files of an experiment: those its `base` leads to, the farthest first, then its own.

    Raises:
        ConfigError: a base that is no experiment, or that leads back to itself.
    """
    files = [path]
    while base := _read_yaml(files[0]).get("base"):
        if not isinstance(base, str):
            raise ConfigError(f"`base` names an experiment, not {base!r}", where=files[0])
        file = experiment_path(base)
        if any(file.samefile(known) for known in files):
            raise ConfigError(f"`base: {base}` leads back to {file}", where=files[0], todo="name another experiment")
        files.insert(0, file)
    return files


def _of_recipe(content: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What an experiment takes of its base: of one with another recipe the sections and keys that all recipes have."""
    if not content or own.get("recipe", content.get("recipe", "gss")) == content.get("recipe", "gss"):
        return content
    taken = {key: value for key, value in content.items() if key in Experiment.model_fields}
    run = taken.get("run")
    if isinstance(run, dict):
        taken["run"] = {key: value for key, value in run.items() if key != "resources"}  # of the other's stages
    if isinstance(evaluation := taken.get("evaluation"), dict):
        taken["evaluation"] = {key: value for key, value in evaluation.items() if key in Evaluation.model_fields}
    return {key: value for key, value in taken.items() if key not in ("recipe", "published", "reference")}


def experiment_class(content: Mapping[str, Any], where: Path | None = None) -> type[Experiment]:
    """The class of an experiment by what its file says of the recipe.

    Raises:
        ConfigError: no such recipe.
    """
    try:
        return find_recipe(str(content.get("recipe", "gss"))).experiment
    except ConfigError as error:
        raise ConfigError(error.what, where=where, todo="write recipe: gss") from error


def experiment_name(name: str | Path) -> str:
    """The name of an experiment given by name or by the path of its file, which need not exist; a seed stays behind it.

    Raises:
        ConfigError: it cannot be a name, see `gss.config.names.valid_name`.
    """
    given, seed = seed_parts(str(name))
    path = Path(given)
    try:
        bare = valid_name(path.stem if path.suffix in SUFFIXES else given)
        return bare if seed is None else seed_name(bare, seed)
    except ValueError as error:
        todo = "rename it; a file elsewhere is named by its path, with its ending .yaml"
        raise ConfigError(str(error), todo=todo) from error


def experiment_path(name: str | Path) -> Path:
    """The YAML file of an experiment given by name or path.

    Raises:
        ConfigError: no such experiment, or two files of this name.
    """
    name, _ = seed_parts(str(name))
    path, bare = Path(name), experiment_name(name)
    if path.suffix not in SUFFIXES:
        files = _experiment_files(EXPERIMENTS).get(bare, [EXPERIMENTS / f"{bare}.yaml"])
        if len(files) > 1:
            raise ConfigError(
                f"experiment {bare!r} has two files, {files[0].name} and {files[1].name}",
                where=EXPERIMENTS,
                todo="rename or remove one of them",
            )
        path = files[0]
    if not path.is_file():
        known = list_experiments(path.parent) or list_experiments()
        what = f"no {'file' if path == Path(name) else 'experiment'} {str(name)!r}; "
        what += f"there are: {', '.join(known) or 'none'}"
        if path.is_symlink():
            what = f"the file of experiment {bare!r} is a link to {os.readlink(path)}, which is no file"
        elif path.is_dir():
            what = f"the file of experiment {bare!r} is a folder"
        raise ConfigError(
            what,
            where=path,
            todo=did_you_mean(bare, known) or "write this file, see config/README.md",
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
        raise ConfigError(f"{kind} not found", where=path.absolute(), todo=f"{PUT_IT_THERE}. {todo}".rstrip(". ") + ".")
    return path


def weights_file(backbone: Backbone, key: str) -> Iterator[NamedFile]:
    """The file of an encoder's pretrained weights, where one is named.

    Args:
        key: dotted, of the section.
    """
    weights = backbone.weights
    if weights and not weights.startswith("timm:"):
        advice = f"{PUT_IT_THERE}, or name timm's: weights: timm:TAG"
        yield NamedFile(f"weights of {backbone.name}", f"{key}.weights", data_folder() / weights, advice)


def start_file(start_from: str | None, key: str) -> Iterator[NamedFile]:
    """The model that a training goes on from, unless it is one of the results, which Snakemake makes.

    Args:
        key: dotted, of the section.
    """
    if start_from and Path(start_from).parts[0] != "results":
        yield NamedFile("model to go on from", f"{key}.start_from", Path(start_from), "name the file of a model")


def weights_download(backbone: Backbone) -> Iterator[tuple[str, str, str]]:
    """For `Experiment.downloads`: the weights that timm would fetch."""
    if (backbone.weights or "").startswith("timm:"):
        name = f"{backbone.name}.{(backbone.weights or '').removeprefix('timm:')}"
        yield "weights", name, f"https://huggingface.co/timm/{name}"


def data_set_folder(data: Data) -> Path:
    """Where a data set lies or belongs; one that is made by the project never leaves its own folder."""
    return (project_data_folder() if data.generate else data_folder()) / data.root


def project_data_folder() -> Path:
    """`data_root` of config/config.yaml."""
    return Path(load_project().data_root if PROJECT.is_file() else "data")


def data_folder() -> Path:
    """The folder that relative data paths start from."""
    named = os.environ.get("GSS_DATA")
    return Path(os.path.expanduser(named)) if named else project_data_folder()


def _read_yaml(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        content = _parsed(text)
    except FileNotFoundError as error:
        raise ConfigError("configuration file not found", where=path) from error
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read: {error.strerror}", where=path) from error
    except _UNREADABLE as error:
        reason = re.sub(r'\n\s*in "<unicode string>",', " in", str(error)).replace("\n", ", ")
        todo = None
        if isinstance(error, UnicodeDecodeError):
            todo = "save it as UTF-8"
        elif re.search(r"^ *\t", text, re.MULTILINE):
            todo = "indent with blanks, not with tabs"
        elif "\xa0" in text:
            todo = "it has blanks that do not break (U+00A0), as text processors write them: type them again"
        raise ConfigError(f"not readable as YAML: {reason}", where=path, todo=todo) from error
    if not isinstance(content, dict):
        raise ConfigError("a configuration is a mapping of sections", where=path, todo="see config/README.md")
    return content


def _parsed(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        yaml.YAMLError: it is none; a key is given twice in one mapping, of which PyYAML takes the last; or an alias
            stands in what it means. And the rest of `_UNREADABLE`.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if faults := list(_faults(loader, root, (), {})):
            raise yaml.YAMLError("; ".join(faults))
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _faults(loader: _Loader, node: yaml.Node, above: tuple[str, ...], is_open: dict[int, bool]) -> Iterator[str]:
    """What to say of each key that a mapping has twice (`7` and `"7"` are one, merged ones are not its own) and of each
    alias that stands in what it means.

    Args:
        above: keys that the node stands below.
        is_open: of each node met so far, whether it is looked at right now.
    """
    if id(node) in is_open:
        if is_open[id(node)]:
            yield f"{'.'.join(above)!r} is an alias of what it stands in"
        return
    is_open[id(node)] = True
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _faults(loader, item, above, is_open)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            inside = above
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name, line = str(loader.construct_object(key)).strip(), key.start_mark.line + 1
                inside = (*above, name)
                if name in lines:
                    yield f"the key {'.'.join(inside)!r} is given twice, in lines {lines[name]} and {line}"
                lines[name] = line
            yield from _faults(loader, value, inside, is_open)
    is_open[id(node)] = False


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The content with the values of `changes` put in, section by section; one that is null there is left out."""
    result = dict(content)
    for key, value in changes.items():
        has_section = isinstance(result.get(key), dict)
        if has_section and value is None:
            del result[key]
        else:
            result[key] = _merged(result[key], value) if has_section and isinstance(value, dict) else value
    return result


def _nested(key: str, value: Any) -> dict[str, Any]:
    """A value at a dotted key, as sections within each other."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


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
        content[last] = _parsed(value)
    except _UNREADABLE as error:
        raise ConfigError(f"the value of the override {override!r} is not valid YAML", todo="quote it") from error


def _validate(model: type[Model], content: dict[str, Any], path: Path) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        messages = [_explain(model, fault) for fault in error.errors()]
        raise ConfigError("; ".join(messages), where=path, todo="every key: docs/reference/config.md") from error


_MEANT = {  # what pydantic says in terms of Python
    "string_type": "text is expected",
    "model_type": "a section with keys is expected",
    "dict_type": "keys with values are expected",
    "tuple_type": "a list is expected",
    "bool_type": "true or false is expected",
}


_NO_KEY = re.compile(r"constrained-\w+|\w*\[.*\]")  # in a location: `[key]`, and which of several types did not fit


def _explain(model: type[BaseModel], fault: Any) -> str:
    location = [part for part in fault["loc"] if isinstance(part, str)]
    key = ".".join(part for part in map(str, fault["loc"]) if not _NO_KEY.fullmatch(part))
    if fault["type"] == "extra_forbidden":
        valid = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        return f"unknown key {key!r}, " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(valid)}")
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    message = _MEANT.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    found = "" if isinstance(fault["input"], dict) else f", found {fault['input']!r}"
    if fault["type"] == "string_type" and isinstance(fault["input"], int | float):
        found += "; in quotes it is text"
    return f"{key or 'configuration'}: {message}{found}"


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for name in location:
        field = model.model_fields.get(name)
        if field is not None:  # a name of a mapping (a split, a stage) stands for no field
            model = model_in(field.annotation) or model
    return list(model.model_fields)
