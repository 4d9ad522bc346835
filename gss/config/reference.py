"""What the schema says, for editors (JSON schema) and readers (the reference page)."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from gss.config.schema import Experiment


def json_schema() -> dict[str, Any]:
    """JSON schema of an experiment file, for editors."""
    return Experiment.model_json_schema(by_alias=True)


def reference() -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, description) of every key, in file order."""
    yield from _reference(Experiment, "")


def _reference(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        inner = model_in(field.annotation)
        default = "required" if field.is_required() else ("" if inner else yaml.safe_dump(
            list(field.default) if isinstance(field.default, tuple) else field.default,
            default_flow_style=True).removesuffix("...\n").strip())
        yield key, "" if inner else _type_name(field.annotation), default, field.description or ""
        if inner is not None:
            repeated = get_origin(field.annotation) is dict
            yield from _reference(inner, f"{key}.{'NAME.' if repeated else ''}")


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join("none" if a is type(None) else _type_name(a) for a in arguments)
    if origin is tuple:
        return "list of " + _type_name(arguments[0]) if arguments[-1] is Ellipsis else f"{len(arguments)} values"
    if origin is dict:
        return "mapping"
    return {"int": "integer", "str": "text", "bool": "true or false", "float": "number"}.get(
        annotation.__name__, annotation.__name__)


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)
