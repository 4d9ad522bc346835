"""What the schema says, for editors (JSON schema) and readers (the reference page)."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter

from gss.config.recipe import recipes
from gss.files import write_text


def json_schema() -> dict[str, Any]:
    """JSON schema of an experiment file, for editors."""
    kinds: Any = Union[tuple(recipe.experiment for recipe in recipes())]  # noqa: UP007  # of classes found at run time
    return TypeAdapter(kinds).json_schema()


def reference(kind: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, description) of every key of a recipe's experiments, in file order."""
    yield from _reference(kind, "")


def _reference(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + name
        inner = model_in(field.annotation)
        default = (
            "required"
            if field.is_required()
            else (
                ""
                if inner
                else yaml.safe_dump(
                    list(field.default) if isinstance(field.default, tuple) else field.default, default_flow_style=True
                )
                .removesuffix("...\n")
                .strip()
            )
        )
        meaning = " ".join((field.description or "").split())  # a row of a table is one line
        yield key, "" if inner else _type_name(field.annotation), default, meaning
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
        annotation.__name__, annotation.__name__
    )


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def write_reference(*, check: bool = False) -> int:
    """Write `config/schema.json` and `docs/reference/config.md`, or only say whether they are up to date.

    Returns:
        0 when they are (now) up to date, 1 when a check found them stale.
    """
    stale = []
    for path, text in {
        Path("config/schema.json"): json.dumps(json_schema(), indent=1) + "\n",
        Path("docs/reference/config.md"): reference_page(),
    }.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
            if not check:
                write_text(path, text)
    if check and stale:
        print(f"stale: {', '.join(stale)}; run: python -m gss config-reference")
    return int(check and bool(stale))


def reference_page() -> str:
    """The reference page of all keys of an experiment file, Markdown."""
    lines = [
        "# Keys of an experiment file",
        "",
        "`config/experiments/NAME.yaml`; on the command line the same keys are `section.key=value`. "
        "Made by `python -m gss config-reference` from `gss/config/`.",
    ]
    for recipe in recipes():
        lines += ["", f"## recipe: {recipe.name}"]
        for key, kind, default, description in reference(recipe.experiment):
            if "." not in key:
                lines += ["", f"### {key}", "", description]
                if kind:
                    lines.append(f"Type {kind}, default `{default}`.")
                else:
                    lines += ["", "| key | type | default | meaning |", "|---|---|---|---|"]
            else:
                shown = default if default in ("", "required") else f"`{default}`"
                lines.append(f"| `{key}` | {kind} | {shown} | {description} |")
    return "\n".join(lines) + "\n"
