"""From the classes of a source to those of the data set: what becomes of each."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gss.data.native import NativeClasses, read_csv, some
from gss.errors import ConfigError, DataError

IGNORED = ("", "ignore", "unlabeled", "void")  # as the target of a class, where no class has the name


@dataclass(frozen=True)
class Taxonomy:
    """A table from native classes to common ones.

    Args:
        path: of its file, for messages.
        targets: native name -> what it becomes, as the table writes it.
    """

    path: Path
    targets: Mapping[str, str]


def read_taxonomy(path: Path, native: str, common: str, rows: Mapping[str, str] | None = None) -> Taxonomy:
    """Read a taxonomy.

    Args:
        path: CSV with a heading, or tab separated as `.tsv`.
        native, common: the two columns. A native cell holds a name, or several as `{a, b}`, as MSeg's table has them.
        rows: column -> what it holds in the rows that count; none: all do.

    Raises:
        DataError: the file cannot be read, has no such column or row, or sends one class to two.
    """
    table = read_csv(path, "the taxonomy")
    rows = rows or {}
    if missing := [column for column in (native, common, *rows) if column not in table]:
        raise DataError(
            f"the taxonomy has no column {missing[0]!r}",
            where=path,
            todo=f"columns found: {', '.join(table.columns) or 'none'}; see `taxonomy`",
        )
    for column, value in rows.items():
        if table[table[column] == value].empty:
            raise DataError(
                f"the taxonomy has no row with {value!r} in column {column!r}",
                where=path,
                todo=f"found there: {some(sorted(set(table[column])))}",
            )
        table = table[table[column] == value]
    targets: dict[str, str] = {}
    for cell, target in zip(table[native], table[common].str.strip(), strict=True):
        for name in _names(cell):
            if targets.setdefault(name, target) != target:
                raise DataError(
                    f"the taxonomy sends {name!r} to {targets[name]!r} and to {target!r}",
                    where=path,
                    todo="keep one of the rows, or choose rows by `taxonomy.rows`",
                )
    return Taxonomy(path, targets)


def _names(cell: str) -> Iterator[str]:
    cell = cell.strip()
    names = cell[1:-1].split(",") if cell.startswith("{") and cell.endswith("}") else [cell]
    return (name.strip() for name in names if name.strip())


def targets(
    native: NativeClasses,
    names: tuple[str, ...],
    mapping: Mapping[str, str],
    taxonomy: Taxonomy | None,
    where: str,
    *,
    kind: str = "native class",
    key: str = "mapping",
    partial: bool = False,
) -> dict[int, int | None]:
    """The class that each native id becomes, None where it is ignored.

    What `mapping` says counts, then the taxonomy, and where there is none, equal names.

    Args:
        names: the classes of the data set.
        mapping: native name -> name of a class, or a word of `IGNORED`.
        where: what messages call the source.
        kind, key: what messages call one of its classes, and `mapping`.
        partial: a class of which a taxonomy says nothing becomes nothing.

    Raises:
        ConfigError: a class becomes nothing or something that is no class, or `mapping` names a class that is none.
    """
    several = kind.replace("class", "classes", 1)
    known = dict.fromkeys(native.names.values())
    if strange := [name for name in mapping if name not in known]:
        raise ConfigError(
            f"`{key}` names {strange[0]!r}, which is no {kind}",
            where=where,
            todo=f"{_near(strange[0], known)}{several}: {some(list(known))}",
        )
    table = taxonomy.targets if taxonomy else {name: name for name in known if name in names}
    place = where if taxonomy is None else f"{where}, by {taxonomy.path}"
    said = {**table, **mapping}
    indices = {name: index for index, name in enumerate(names)}
    wrong: dict[str, list[str]] = defaultdict(list)
    for name in known:
        if name in said and said[name] not in indices and said[name] not in IGNORED:
            wrong[said[name]].append(name)
    if wrong:
        target, sources = next(iter(wrong.items()))
        others = f", and {len(wrong) - 1} more such names" if len(wrong) > 1 else ""
        raise ConfigError(
            f"{some([repr(name) for name in sources])} becomes {target!r}, which is no class{others}",
            where=place,
            todo=f"{_near(target, names)}`ignore` where its pixels are to be ignored",
        )
    if not (partial and taxonomy) and (unmapped := [name for name in known if name not in said]):
        unused = [name for name in table if name not in known]
        hint = f"; rows of the taxonomy that name no {kind}: {some(unused)}" if taxonomy and unused else ""
        raise ConfigError(
            f"nothing says what becomes of {len(unmapped)} of {len(known)} {several}: {some(unmapped)}{hint}",
            where=place,
            todo=f"give each a class, or ignore it: {key}: {{{unmapped[0]}: ignore}}",
        )
    return {key: indices.get(said.get(name, "")) for key, name in native.names.items()}


def _near(name: str, known: Collection[str]) -> str:
    """A question, if something known looks like it."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""
