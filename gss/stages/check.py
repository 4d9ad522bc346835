"""Stage 1: look at everything before anything trains: settings, files, and every image and label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gss import layout
from gss.config import class_file, data_folder, prepared_file, schema, tables_of, taxonomy_file
from gss.config.schema import OF_ANNOTATIONS, Source
from gss.data.check import fault_error, in_both, scan
from gss.data.classes import IGNORE, ClassSpace
from gss.data.manifest import Rows, manifest_sha256, named_beside, read_manifest, write_manifest
from gss.data.mseg.sets import root_of
from gss.data.native import NativeClasses, painted_classes, read_native_classes, some
from gss.data.pairing import folders_of
from gss.data.sources import Found, join, relabelled
from gss.data.taxonomy import Taxonomy, read_taxonomy, targets
from gss.errors import ConfigError
from gss.files import remove, write_json, write_table, write_text
from gss.layout import FAULTS, LABELS, LISTS, MANIFEST, OVERVIEW, PREPARED, RELABELLED, STATISTICS, WORK
from gss.report import overview
from gss.stages.labels import Annotated, labels
from gss.stages.memory import faults_of_trainings
from gss.stages.rehearse import rehearse
from gss.stages.run import Run, class_space, source_folder
from gss.stages.seen import look_at


def check(run: Run) -> None:
    """Scan the data set and write `data/manifest.json` and `data/statistics.json`.

    Until that is done, `work/check_pairs.jsonl` keeps what was found: the same command goes on where it was
    interrupted, and after faults were mended it reads only what has changed.

    Raises:
        ConfigError, CheckpointError: a later stage would stop, see `rehearse`, or nothing says what becomes of a class;
            the data set was not looked at.
        DataError: any fault of the data; the message shows the first ones, `data/faults.txt` all of them.
    """
    data = run.experiment.data
    annotated = labels(run) if data.classes == OF_ANNOTATIONS else {}
    space = run.declared_space()
    rehearse(run, space)
    if run.experiment.debug.images is None:  # else it is all tried in full
        for fault in faults_of_trainings(run, space):  # no fault of the data, and the trainings may be for elsewhere
            print(f"warning: {fault}", flush=True)
    if data.annotated and not annotated:  # what settings stop at is said before labels are made for an hour
        annotated = labels(run)
    records_of_labels = [_made_labels(source, f"source {source.root!r}") for source in (data, *data.sources)]
    places = {data.root: run.root} | {source.root: source_folder(source, "source") for source in data.sources}
    spaces = {
        source.root: source_space(
            source, space, places[source.root], run.class_table, f"source {source.root!r}", annotated.get(source.root)
        )
        for source in (data, *data.sources)
    }
    seen = look_at(run.experiment, run.folder)
    records: list[Path] = []
    found: dict[str, Found] = {}
    for number, source in enumerate((data, *data.sources)):
        if data.sources:
            print(f"source {source.root}", flush=True)
        records.append(run.folder / WORK / f"check_pairs{f'_{number}' if number else ''}.jsonl")
        manifest, statistics, faults = _scan(
            run,
            source,
            spaces[source.root],
            places[source.root],
            records[-1],
            annotated.get(source.root),
            obtain=data.obtain if source is data else None,
            is_part=bool(data.sources),
        )
        if source.annotations:
            folder = (run.folder / MANIFEST).parent
            manifest["splits"] = _beside(manifest["splits"], places[source.root], folder)
        repeat = {"repeat": source.repeat} if source.repeat > 1 else {}
        found[source.root] = {**manifest, **repeat}, statistics, faults
    # The roots are as the configuration names them: the manifest is the same on every machine.
    manifest, statistics, faults = join(found)
    _tell(statistics)
    _require_sound(faults, statistics["faults"], run.folder / FAULTS, run.root)
    looked_into = [run.folder / PREPARED, run.folder / LABELS, *filter(None, (run.class_table, *records_of_labels))]
    looked_into += [path for source in (data, *data.sources) for path in tables_of(source, places[source.root])]
    inputs = {"manifest": manifest_sha256(manifest)}
    with run.stage("check", inputs, looked_into=looked_into, noted={"seen": seen}) as journal:
        assert journal is not None
        journal.figures({f"{split}/images": found["images"] for split, found in statistics["splits"].items()})
        remove(run.folder / MANIFEST, run.folder / LISTS)
        write_json(run.folder / STATISTICS, statistics)
        for number, source in enumerate((data, *data.sources)):
            _write_lists(run.folder, source, found[source.root][0], f"_{number}" if number else "")
        write_manifest(run.folder / MANIFEST, manifest)
        _show(run.folder / MANIFEST, run.root, statistics, run.name)
    for record in records:
        record.unlink(missing_ok=True)  # the next check looks at everything again


def check_set(run: Run, name: str) -> None:
    """Scan a set of `evaluation.sets` and write its manifest, its statistics, and what the model's classes become.

    Args:
        name: of the set.

    Raises:
        ConfigError: nothing says what becomes of a class of the labels, or there is no table of those of the model and
            nothing says what becomes of one.
        DataError: any fault of the data.
    """
    config = run.experiment.evaluation.sets[name]
    if run.experiment.data.classes == OF_ANNOTATIONS:
        labels(run)
    model = run.declared_space()
    where = f"evaluation.sets.{name}"
    made = _made_labels(config, where)
    root = source_folder(config, "evaluation set")
    annotated = labels(run, name)[config.root] if config.annotations else None
    table = class_file(config.class_table, root) if config.class_table else None
    own = class_space(config, table, run.folder / layout.labels_of_set(name))
    asked = config.model_taxonomy
    found = targets(
        NativeClasses(dict(enumerate(model.names))),
        own.names,
        config.model_mapping,
        _read(asked),
        where,
        kind="class of the model",
        key="model_mapping",
        partial=True,  # a model of many classes, tested on a few
    )
    space = source_space(config, own, root, table, where, annotated)
    manifest_file, statistics_file, targets_file = (run.folder / file for file in layout.of_set(name))
    seen = look_at(run.experiment, run.folder, name)
    record = run.folder / WORK / f"check_pairs_{name}.jsonl"
    print(f"evaluation set {name}", flush=True)
    found_in = _scan(run, config, space, root, record, annotated, is_part=True)
    if annotated:
        found_in[0]["splits"] = _beside(found_in[0]["splits"], root, manifest_file.parent)
    records, sources = [record], [config]
    if config.relabelled:
        other = config.relabelled_source()
        records.append(record.with_stem(f"{record.stem}_{RELABELLED}"))
        sources.append(other)
        other_space = source_space(other, own, root, table, f"{where}.{RELABELLED}")
        found_too = _scan(run, other, other_space, root, records[-1], is_part=True)
        manifest, statistics, faults = relabelled(config.root, found_in, found_too, RELABELLED)
    else:
        manifest, statistics, faults = join({config.root: found_in})
    _tell(statistics)
    if without := [model.names[index] for index, target in found.items() if target is None]:
        print(f"{len(without)} of {model.num_classes} classes of the model have no target: {some(without)}")
    reached = {target for target in found.values() if target is not None}
    if out_of_reach := [own.names[index] for index in range(own.num_classes) if index not in reached]:
        print(f"warning: no class of the model becomes {some(out_of_reach)}: never predicted")
    rows, *_ = manifest["splits"].values()
    if known := in_training(run, rows):
        print(f"warning: {told_of_training(known, name)}")
    _require_sound(faults, statistics["faults"], manifest_file.with_name(Path(FAULTS).name), root)
    tables = [path for source in sources for path in tables_of(source, root)]
    looked_into = [
        table,
        run.class_table,
        made,
        run.folder / layout.labels_of_set(name),
        *tables,
        *([taxonomy_file(asked)] if asked else []),
    ]
    inputs = {"manifest": manifest_sha256(manifest)}
    rule = f"set_{name}"  # its own: records of the check are of the data set
    noted, read = {"seen": seen}, filter(None, looked_into)
    with run.stage("check", inputs, name=rule, split=name, looked_into=read, noted=noted) as journal:
        assert journal is not None
        remove(manifest_file)
        write_json(statistics_file, statistics)
        rows = [(model.names[k], "" if target is None else own.names[target]) for k, target in found.items()]
        write_table(targets_file, ("model", "set"), rows)
        write_manifest(manifest_file, manifest)
        _show(manifest_file, root, statistics, name)
    for record in records:
        record.unlink(missing_ok=True)


def in_training(run: Run, rows: Rows) -> list[str]:
    """Names of a test set's images that are in the training data, as far as that was checked; its files may be gone."""
    manifest = run.file(run.folder / MANIFEST)
    return in_both(rows, read_manifest(manifest).rows["train"]) if manifest.is_file() else []


def told_of_training(names: Sequence[str], name: str) -> str:
    """What to say of images of the set that the model was trained on."""
    return f"{len(names)} images of {name} are in the training data, which makes its figures too high: {some(names)}"


def _scan(
    run: Run,
    source: Source,
    space: ClassSpace,
    root: Path,
    record: Path,
    annotated: Annotated | None = None,
    *,
    obtain: str | None = None,
    is_part: bool = False,
) -> Found:
    """What `gss.data.check.scan` finds in a source."""
    return scan(
        root,
        annotated.folders if annotated else folders_of(source),
        space,
        orientation=source.exif_orientation,
        workers=run.experiment.resources("check").threads,
        quiet=False,
        obtain=obtain,
        record=record,
        is_part=is_part,
        most=run.experiment.debug.images,
    )


def _beside(splits: Mapping[str, Rows], root: Path, folder: Path) -> dict[str, Rows]:
    """Rows whose files may lie in the folder of the manifest."""
    return {split: named_beside(rows, root, folder) for split, rows in splits.items()}


def _write_lists(folder: Path, source: Source, manifest: Mapping[str, Any], end: str) -> None:
    """Write down which images of a divided source are in which split.

    Args:
        end: of the files' names.
    """
    for split in ("train", *source.divide.shares) if source.divide else ():
        names = [row["image"] for row in manifest["splits"][split]]
        write_text(folder / LISTS / f"{split}{end}.txt", "".join(f"{name}\n" for name in names))


def _require_sound(faults: Sequence[str], summed: Sequence[str], path: Path, root: Path) -> None:
    """Raise DataError with the equal ones as one line, and write all faults down, where there are some."""
    if faults:
        write_text(path, "\n".join(faults) + "\n")
        raise fault_error(len(faults), summed, root)
    path.unlink(missing_ok=True)


def _show(manifest: Path, root: Path, statistics: Mapping[str, Any], title: str) -> None:
    page = manifest.with_name(OVERVIEW)
    overview.write_overview(page, read_manifest(manifest).at(root, data_folder()), statistics, title)
    print(f"pictures and counts: {page}")


def _tell(statistics: Mapping[str, Any]) -> None:
    for line in (*_table(statistics.get("becomes", {})), *overview.table(statistics)):
        print(line)
    for warning in statistics["warnings"]:
        print(f"warning: {warning}")


def _made_labels(source: Source, where: str) -> Path | None:
    """The record of labels that are made, where the source has one.

    Args:
        where: what messages call the source.

    Raises:
        ConfigError: there is none yet.
    """
    record = prepared_file(source)
    if record is not None and not record.is_file():
        what, root = f"the labels of {where} are not made yet: no record {record}", root_of(record)
        if root is None:
            raise ConfigError(what, todo="`gss mseg-labels SET` writes prepared/SET.json in the folder of MSeg's sets")
        raise ConfigError(
            what,
            todo="make them of those that the data set is published with: "
            f"snakemake -c all {record}, or gss mseg-labels {record.stem} --root {root}",
        )
    return record


def source_space(
    source: Source,
    space: ClassSpace,
    root: Path,
    class_table: Path | None,
    where: str,
    annotated: Annotated | None = None,
) -> ClassSpace:
    """The classes, and the way from what the labels of a source hold to them.

    Args:
        class_table: of `space`, where it has one.
        where: what messages call the source.
        annotated: the labels that were made for it.

    Raises:
        ConfigError, DataError: see `gss.data.native` and `gss.data.taxonomy`.
    """
    painted, native = source.encoding == "colours", source.native_classes
    if annotated is not None:
        found = _of_annotations(source, space, annotated, where)
        return _sent(space, annotated.classes, found)
    if native is None and not painted:
        return replace(space, reduce_zero_label=source.reduce_zero_label, label_map=source.label_map)
    if isinstance(native, tuple):
        classes = NativeClasses(dict(enumerate(native)))
    elif isinstance(native, dict):
        classes = painted_classes(native)
    else:
        table = class_table if native is None else class_file(native, root)
        if table is None:
            raise ConfigError(
                "`encoding: colours` needs a table of colours",
                where=where,
                todo="name a CSV `name,r,g,b` in native_classes, or write `classes` as a CSV `index,name,r,g,b`",
            )
        classes = read_native_classes(table, painted=painted)
    found = targets(classes, space.names, source.mapping, _read(source.taxonomy), where)
    return _sent(space, classes, found)


def _sent(space: ClassSpace, native: NativeClasses, found: Mapping[int, int | None]) -> ClassSpace:
    label_map = {native: IGNORE if target is None else target for native, target in found.items()}
    return ClassSpace(space.names, space.colours, label_map=label_map, native=native)


def _of_annotations(source: Source, space: ClassSpace, annotated: Annotated, where: str) -> dict[int, int | None]:
    """The class that each id of made labels becomes; of classes without a shape nothing has to be said."""
    names, taxonomy = annotated.classes.names, _read(source.taxonomy)
    if not taxonomy:
        said = {*space.names, *source.mapping}
        unsaid = [name for name in names.values() if name not in said]
        if missing := [f"{name} ({annotated.shapes[name]} shapes)" for name in unsaid if annotated.shapes[name]]:
            raise ConfigError(
                f"nothing says what becomes of {len(missing)} classes of the annotations: {some(missing)}",
                where=where,
                todo="name them in `classes`, or say what each becomes: "
                f"mapping: {{{missing[0].rpartition(' (')[0]}: CLASS}} or `ignore`",
            )
        mapping = {**dict.fromkeys(unsaid, IGNORE), **source.mapping}
        return targets(annotated.classes, space.names, mapping, None, where)
    return targets(annotated.classes, space.names, source.mapping, taxonomy, where, partial=True)


def _read(asked: schema.Taxonomy | None) -> Taxonomy | None:
    if asked is None:
        return None
    return read_taxonomy(taxonomy_file(asked), asked.native, asked.common, asked.rows)


def _table(becomes: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What becomes of the classes of each source, as lines."""
    for root, rows in becomes.items():
        total, width = sum(row["pixels"] for row in rows), max((len(row["name"]) for row in rows), default=0)
        yield f"what becomes of the classes of {root}:"
        for row in rows:
            name = f"  {row['name']:<{width}}" if width else ""
            share = 100 * row["pixels"] / max(total, 1)
            yield f"  {row['id']:>5}{name}  {share:>6.2f} %  {row['becomes'] or 'ignored'}"
