"""MSeg's tables as they are shipped, for tests."""

from functools import cache
from pathlib import Path

from gss.config import shipped
from gss.data.classes import read_classes
from gss.data.native import NativeClasses, read_native_classes
from gss.data.taxonomy import read_taxonomy, targets

TABLE = Path(str(shipped("taxonomies", "mseg")))
UNIVERSAL, _ = read_classes(Path(str(shipped("classes", "mseg"))))


@cache
def names(name: str) -> list[str]:
    """The classes of a set, or of its raw labels."""
    return list(read_native_classes(Path(str(shipped("classes", f"mseg/{name}"))), painted=False).names.values())


@cache
def becomes(name: str) -> dict[int, int | None]:
    """Universal class of each class of a training set."""
    return targets(
        NativeClasses(dict(enumerate(names(name)))), UNIVERSAL, {}, read_taxonomy(TABLE, name, "universal"), name
    )


def targets_in(name: str, table: Path = TABLE) -> list[int | None]:
    """Class of a test set that each universal class becomes, as a check of a set with `model_taxonomy` reads it."""
    taxonomy = read_taxonomy(table, "universal", name)
    native = NativeClasses(dict(enumerate(UNIVERSAL)))
    return list(targets(native, tuple(names(name)), {}, taxonomy, name).values())
