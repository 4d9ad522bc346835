"""Stage 1: look at everything before anything trains: settings, files, and every image and label."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gss.config import data_folder, require_data
from gss.config.schema import Source
from gss.data.check import fault_error, scan
from gss.data.classes import IGNORE, ClassSpace
from gss.data.manifest import manifest_sha256, write_manifest
from gss.data.native import NativeClasses, read_native_classes
from gss.data.pairing import SplitFolders
from gss.data.sources import Found, join
from gss.data.taxonomy import read_taxonomy, targets
from gss.errors import ConfigError
from gss.files import remove, write_json, write_text
from gss.layout import FAULTS, MANIFEST, PREPARED, STATISTICS, WORK
from gss.stages.rehearse import rehearse
from gss.stages.run import Run, shipped_table


def check(run: Run) -> None:
    """Scan the data set and write `data/manifest.json` and `data/statistics.json`.

    Until that is done, `work/check_pairs.jsonl` keeps what was found: the same command goes on where it was
    interrupted, and after faults were mended it reads only what has changed.

    Raises:
        ConfigError, CheckpointError: a later stage would stop, see `rehearse`, or nothing says what becomes of a class;
            the data set was not looked at.
        DataError: any fault of the data; the message shows the first ones, `data/faults.txt` all of them.
    """
    data, space = run.experiment.data, run.declared_space()
    rehearse(run, space)
    places = {data.root: run.root} | {source.root: _folder(source) for source in data.sources}
    spaces = {source.root: _space(run, source, space, places[source.root]) for source in (data, *data.sources)}
    records: list[Path] = []
    found: dict[str, Found] = {}
    for number, source in enumerate((data, *data.sources)):
        if data.sources:
            print(f"source {source.root}", flush=True)
        records.append(run.folder / WORK / f"check_pairs{f'_{number}' if number else ''}.jsonl")
        manifest, statistics, faults = scan(
            places[source.root],
            {
                name: SplitFolders(
                    split.images, split.labels, source.image_suffix, source.label_suffix, split.count, source.label_name
                )
                for name, split in source.splits.items()
            },
            spaces[source.root],
            orientation=source.exif_orientation,
            workers=run.experiment.resources("check").threads,
            quiet=False,
            obtain=data.obtain if source is data else None,
            record=records[-1],
            is_part=bool(data.sources),
        )
        repeat = {"repeat": source.repeat} if source.repeat > 1 else {}
        found[source.root] = {**manifest, **repeat}, statistics, faults
    # The roots are as the configuration names them: the manifest is the same on every machine.
    manifest, statistics, faults = join(found)
    for line in _table(statistics.get("becomes", {})):
        print(line)
    for warning in statistics["warnings"]:
        print(f"warning: {warning}")
    if faults:
        write_text(run.folder / FAULTS, "\n".join(faults) + "\n")
        raise fault_error(faults, run.root)
    (run.folder / FAULTS).unlink(missing_ok=True)
    looked_into = [run.folder / PREPARED, *([run.class_table] if run.class_table else [])]
    looked_into += [path for source in (data, *data.sources) for path in _tables(source, places[source.root])]
    with run.stage("check", {"manifest": manifest_sha256(manifest)}, looked_into=looked_into) as journal:
        assert journal is not None
        journal.figures({f"{split}/images": found["images"] for split, found in statistics["splits"].items()})
        remove(run.folder / MANIFEST)
        write_json(run.folder / STATISTICS, statistics)
        write_manifest(run.folder / MANIFEST, manifest)
    for record in records:
        record.unlink(missing_ok=True)  # the next check looks at everything again


def _folder(source: Source) -> Path:
    """Where a further source lies."""
    folders = sorted({folder for split in source.splits.values() for folder in (split.images, split.labels)})
    kind, todo = f"folder of the source {source.root!r}", f"expected in it: {', '.join(folders)}"
    return require_data(data_folder() / source.root, kind=kind, todo=todo)


def _tables(source: Source, root: Path) -> list[Path]:
    """Files that say what the labels of a source hold, and what becomes of it."""
    native = source.native_classes
    tables = [shipped_table(native) or root / native] if isinstance(native, str) else []
    return [*tables, *([data_folder() / source.taxonomy.file] if source.taxonomy else [])]


def _space(run: Run, source: Source, space: ClassSpace, root: Path) -> ClassSpace:
    """The classes, and the way from what the labels of a source hold to them.

    Raises:
        ConfigError, DataError: see `gss.data.native` and `gss.data.taxonomy`.
    """
    where = f"source {source.root!r}"
    painted, native = source.encoding == "colours", source.native_classes
    if native is None and not painted:
        return replace(space, reduce_zero_label=source.reduce_zero_label, label_map=source.label_map)
    if isinstance(native, tuple):
        classes = NativeClasses(dict(enumerate(native)))
    else:
        table = run.class_table if native is None else shipped_table(native) or root / native
        if table is None:
            raise ConfigError(
                "`encoding: colours` needs a table of colours",
                where=where,
                todo="name a CSV `name,r,g,b` in native_classes, or write `classes` as a CSV `index,name,r,g,b`",
            )
        classes = read_native_classes(table, painted=painted)
    asked = source.taxonomy
    taxonomy = (
        None if asked is None else read_taxonomy(data_folder() / asked.file, asked.native, asked.common, asked.rows)
    )
    found = targets(classes, space.names, source.mapping, taxonomy, where)
    label_map = {native: IGNORE if target is None else target for native, target in found.items()}
    return ClassSpace(space.names, space.colours, label_map=label_map, native=classes)


def _table(becomes: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What becomes of the classes of each source, as lines."""
    for root, rows in becomes.items():
        total, width = sum(row["pixels"] for row in rows), max((len(row["name"]) for row in rows), default=0)
        yield f"what becomes of the classes of {root}:"
        for row in rows:
            name = f"  {row['name']:<{width}}" if width else ""
            share = 100 * row["pixels"] / max(total, 1)
            yield f"  {row['id']:>5}{name}  {share:>6.2f} %  {row['becomes'] or 'ignored'}"
