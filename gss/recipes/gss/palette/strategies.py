"""The ways to give classes their colours."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

import gss
from gss.errors import ConfigError
from gss.recipes.gss.palette.maximal import maximal_colours
from gss.recipes.gss.palette.palette import Palette, checked_palette, read_palette, read_rows

PUBLISHED = Path(gss.__file__).parent / "resources" / "palettes"
JITTER = 15  # of the published generator, either way


def make_palette(
    strategy: str,
    names: Sequence[str],
    *,
    seed: int,
    published: str | None = None,
    file: Path | None = None,
    colours: Sequence[Sequence[int]] | None = None,
    quiet: bool = True,
) -> Palette:
    """Return the palette of a strategy.

    Args:
        strategy: `maximal` (optimised distances), `grid` (the published random grid), `published` (a published
            list), `dataset` (the class colours of the data set) or `file`.
        names: class names, N of them.
        seed: of `maximal` and `grid`.
        published: `ade20k`, `cityscapes` or `mseg`.
        file: as `write_palette` writes it.
        colours: [N][3] class colours in 0..255, for `dataset`.
        quiet: without lines of progress while `maximal` searches.

    Raises:
        ConfigError: unknown strategy, a list of other classes, no class colours or doubled ones.
    """
    names = tuple(names)
    if strategy == "maximal":
        return Palette(maximal_colours(len(names) + 1, seed=seed, quiet=quiet), names)
    if strategy == "grid":
        return Palette(with_ignore(grid_colours(len(names), np.random.default_rng(seed))), names)
    if strategy == "published":
        return published_palette(str(published), names)
    if strategy == "dataset":
        return dataset_palette(colours, names)
    if strategy == "file" and file is not None:
        return file_palette(file, names)
    raise ConfigError(
        f"palette strategy {strategy!r} is not one of maximal, grid, published, dataset, file",
        where="palette.strategy",
        todo="choose one of them",
    )


def published_palette(published: str, names: tuple[str, ...]) -> Palette:
    """One of the palettes the published models were trained with.

    Source: the 13 published configurations; one palette per data set.
    """
    path = PUBLISHED / f"{published}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PUBLISHED.glob("*.csv")))
        what = f"there is no published palette {published!r}"
        raise ConfigError(what, where="palette.published", todo=f"use {known}")
    rows = np.array(read_rows(path, ["index", "r", "g", "b"]), np.int64)[:, 1:]  # [N+1,3]
    if len(rows) != len(names) + 1:
        raise ConfigError(
            f"the published palette {published!r} has {len(rows) - 1} classes, the data set has {len(names)}",
            where="palette.published",
            todo="use `strategy: maximal`, or the class list the palette was made for",
        )
    return checked_palette(rows, names, where=path)


def file_palette(path: Path, names: tuple[str, ...]) -> Palette:
    """The palette of a file whose rows are the classes in their order and, last, `ignore`.

    Raises:
        ConfigError: see `read_palette`; or the rows are not those of the classes.
    """
    palette = read_palette(path)
    if palette.names != names:
        missing, unknown = (
            [repr(name) for name in one if name not in other]
            for one, other in ((names, palette.names), (palette.names, names))
        )
        faults = [f"no row for {', '.join(missing)}"] if missing else []
        faults += [f"no class is called {', '.join(unknown)}"] if unknown else []
        pairs = zip_longest(palette.names, names)
        faults = (
            faults
            or [
                f"row {row} is {found!r}, class {row} is {name!r}"
                for row, (found, name) in enumerate(pairs)
                if found != name
            ][:1]
        )
        raise ConfigError(
            f"the palette has {len(palette.names)} classes, the data set {len(names)}: {'; '.join(faults)}",
            where=path,
            todo="write one row per class, in the order of the classes, and `ignore` last",
        )
    return palette


def dataset_palette(colours: Sequence[Sequence[int]] | None, names: tuple[str, ...]) -> Palette:
    """The data set's own colours, with an ignore colour beside them."""
    if colours is None:
        raise ConfigError(
            "the data set has no colours for its classes",
            where="palette.strategy",
            todo="add the columns r,g,b to the class table (data.classes), or use `strategy: maximal`",
        )
    table = with_ignore(np.array(colours, np.int64).reshape(-1, 3))
    return checked_palette(table, names, where="class colours of the data set (data.classes)")


def grid_colours(num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [N,3]: one jittered colour per cell of a regular RGB grid, r outermost, b innermost.

    Note: the smallest of the grids L-1,L,L-1 / L-1,L,L / L,L,L that holds all classes; spare cells are dropped
        at the dark end. Jitter is 15 either way, both ends included, less where neighbouring cells could meet.

    Source: the published palette generator (150 = 5 x 6 x 5 cells for ADE20K; the first 6 of 200 dropped for
        MSeg), here seeded and for any number of classes.
    """
    levels = grid_levels(num_classes)
    cells = np.stack(np.meshgrid(*map(np.arange, levels), indexing="ij"), axis=-1).reshape(-1, 3)[-num_classes:]
    step = 255 / np.array(levels)
    jitter = np.minimum(JITTER, (np.floor(step).astype(int) - 1) // 2)
    return np.floor((cells + 0.5) * step).astype(np.int64) + rng.integers(-jitter, jitter + 1, cells.shape)


def grid_levels(num_classes: int) -> tuple[int, int, int]:
    """Cells along r, g and b."""
    side = next(side for side in range(1, 257) if side**3 >= num_classes)
    candidates = [(side - 1, side, side - 1), (side - 1, side, side), (side, side, side)]
    return next(levels for levels in candidates if np.prod(levels) >= num_classes)


def with_ignore(colours: np.ndarray) -> np.ndarray:
    """[N+1,3]: the colours and, last, black, or if a class is black the colour farthest from all classes."""
    if not (colours == 0).all(axis=1).any():
        return np.concatenate([colours, np.zeros((1, 3), np.int64)])
    values = np.arange(0, 256, 5)
    candidates = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.full(len(candidates), np.iinfo(np.int64).max)
    for colour in colours:
        distance = np.minimum(distance, ((candidates - colour) ** 2).sum(axis=1))
    return np.concatenate([colours, candidates[[distance.argmax()]]])
