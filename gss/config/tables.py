"""The tables and lists that the section of a data set names: shipped ones by a name, the user's by their path."""

import re
from pathlib import Path
from typing import Literal

import gss
from gss.config.load import data_folder
from gss.config.schema import Source, Taxonomy

_RESOURCES = Path(gss.__file__).parent / "resources"
_ENDINGS = {"classes": ".csv", "taxonomies": ".tsv", "lists": ".txt"}


def shipped(kind: Literal["classes", "taxonomies", "lists"], name: str) -> Path | None:
    """The file of this name that comes with the project, such as the classes `mseg/bdd`; None where there is none."""
    path = _RESOURCES / kind / f"{name}{_ENDINGS[kind]}"
    return path if re.fullmatch(r"[\w-]+(/[\w-]+)*", name) and path.is_file() else None


def is_shipped(path: Path) -> bool:
    """Whether a file comes with the project."""
    return path.is_relative_to(_RESOURCES)


def class_file(name: str, root: Path) -> Path:
    """A table of classes.

    Args:
        root: folder of the data set.
    """
    return shipped("classes", name) or root / name


def taxonomy_file(taxonomy: Taxonomy) -> Path:
    """The file of a taxonomy."""
    return shipped("taxonomies", taxonomy.file) or data_folder() / taxonomy.file


def list_file(name: str) -> Path:
    """A list of images."""
    return shipped("lists", name) or data_folder() / name


def prepared_file(source: Source) -> Path | None:
    """The record of labels that are made; None where they are there."""
    return data_folder() / source.prepared if source.prepared else None


def tables_of(source: Source, root: Path) -> list[Path]:
    """The files that say which pairs of a source count, what its labels hold, and what becomes of them.

    Args:
        root: its folder.
    """
    native = source.native_classes
    return [
        *(list_file(split.list) for split in source.splits.values() if split.list),
        *([class_file(native, root)] if isinstance(native, str) else []),
        *([taxonomy_file(source.taxonomy)] if source.taxonomy else []),
    ]
