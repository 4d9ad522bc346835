"""Stage between preparation and check: label files of annotation files, for those who have no label files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gss.config import class_file, tables_of
from gss.config.schema import Source
from gss.data.annotations.formats import FORMATS
from gss.data.annotations.make import Made, make_labels
from gss.data.annotations.paint import Options
from gss.data.classes import IGNORE, default_colours
from gss.data.images import Orientation, read_image, read_native_label
from gss.data.native import NativeClasses, read_native_classes
from gss.data.pairing import SplitFolders, folders_of
from gss.errors import ConfigError
from gss.evaluate.pictures import sheet
from gss.files import read_json, remove, sha256_json, write_json
from gss.layout import ANNOTATED, LABELS, labels_of_set
from gss.results.records import read_record
from gss.stages.run import Run, source_folder

_Sheet = tuple[str, str, Made, Orientation]  # root, split, what was made, how pictures are read


@dataclass(frozen=True)
class Annotated:
    """The label files of a source.

    Args:
        classes: what their ids mean.
        shapes: how many of each class were drawn, over all splits.
        folders: of images and labels, by split.
    """

    classes: NativeClasses
    shapes: Mapping[str, int]
    folders: Mapping[str, SplitFolders]


def labels(run: Run, name: str | None = None) -> dict[str, Annotated]:
    """Make the labels of all sources that have `annotations`, and write `data/labels.json`: how, and what they hold.

    What is there and was made of the same stays; where nothing has changed nothing is written.

    Args:
        name: of a set of `evaluation.sets`, whose labels are made; None: those of the data set.

    Returns:
        By root the sources with annotations.

    Raises:
        ConfigError: there are none.
        DataError: annotations that cannot be used, see `make_labels`.
    """
    data = run.experiment.data
    sources = (data, *data.sources) if name is None else (run.experiment.evaluation.sets[name],)
    output = run.folder / (LABELS if name is None else labels_of_set(name))
    if not any(source.annotations for source in sources):
        where = "data" if name is None else f"evaluation.sets.{name}"
        raise ConfigError("there are no `annotations` to make labels of", where=where)
    content: dict[str, Any] = {"version": 1, "sources": {}}
    found: dict[str, Annotated] = {}
    files: list[Path] = []
    sheets: dict[Path, _Sheet] = {}
    for number, source in enumerate(sources):
        if source.annotations is None:
            continue
        root = run.root if source is data else source_folder(source, "source" if name is None else "evaluation set")
        files += [*tables_of(source, root), *(root / split.labels for split in source.splits.values())]
        folder = output.parent / ANNOTATED / str(number)
        options = _options(source, root)
        made = make_labels(
            root,
            {split: folders for split, folders in folders_of(source).items() if split == _whole(split, folders)},
            options,
            folder,
            title=source.root,
            workers=run.experiment.resources("labels").threads,
            missing=source.annotations.missing,
            most=run.experiment.debug.images,
        )
        ground = "ignored" if options.background == IGNORE else options.background
        print(f"annotations of {source.root}: {options.format}, overlap {options.overlap}, unlabelled ground {ground}")
        how = {key: value for key, value in options._asdict().items() if key not in ("classes", "orientation")}
        content["sources"][source.root] = {**how, "classes": list(made.classes), "splits": made.splits}
        sheets |= {folder / f"{split}.png": (source.root, split, made, options.orientation) for split in made.splits}
        for line in _table(made):
            print(line)
        found[source.root] = _annotated(source, made, folder)
    _write(run, name, output, content, files, sheets)
    return found


def _options(source: Source, root: Path) -> Options:
    asked, native = source.annotations, source.native_classes
    assert asked is not None
    names: tuple[str, ...] = native if isinstance(native, tuple) else ()
    if isinstance(native, str):
        by_id = read_native_classes(class_file(native, root), painted=False).names
        if list(by_id) != list(range(len(by_id))):
            raise ConfigError("the classes of annotations are numbered 0, 1, 2, ...", where=class_file(native, root))
        names = tuple(by_id.values())
    overlap = asked.overlap or FORMATS[asked.format].overlap
    return Options(asked.format, overlap, asked.background, asked.line_width, names, source.exif_orientation or "apply")


def _annotated(source: Source, made: Made, folder: Path) -> Annotated:
    splits = made.splits.values()
    shapes = {name: sum(split["shapes"][name] for split in splits) for name in made.classes}
    classes = NativeClasses(dict(enumerate(made.classes)))
    return Annotated(classes, shapes, made_folders(source, folder, made.splits))


def made_folders(source: Source, folder: Path, splits: Mapping[str, Any]) -> dict[str, SplitFolders]:
    """Where label files lie that were made of annotations, and their pictures.

    Args:
        folder: of the labels.
        splits: what the record of the stage says of them.
    """
    folders: dict[str, SplitFolders] = {}
    for name, asked in folders_of(source).items():
        whole = _whole(name, asked)
        place = (folder / whole).absolute()
        is_embedded = splits[whole]["embedded"]
        images, listed = (str(place / "images"), None) if is_embedded else (asked.images, asked.list)
        labels = str(place / "labels")
        folders[name] = SplitFolders(
            images, labels, count=asked.count, list=listed, labelled_only=True, divide=asked.divide
        )
    return folders


def _whole(split: str, folders: SplitFolders) -> str:
    """The split whose labels are those of a split, too."""
    return "train" if folders.divide else split


def _table(made: Made) -> Iterator[str]:
    """Shapes and pixels by class, as lines."""
    for split, found in made.splits.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items())
        yield f"{split}: {found['files']} pictures ({kinds or 'no shape'})"
        width = max(map(len, made.classes), default=0)
        unused = 0
        for name in made.classes:
            shapes, pixels = found["shapes"][name], found["pixels"][name]
            unused += not (shapes or pixels)
            if shapes or pixels:
                yield f"  {name:<{width}}  {shapes:>8} shapes  {pixels:>12} pixels"
        if unused:
            yield f"  {unused} classes without a shape"
        if found["ignored_pixels"]:
            yield f"  {found['ignored_pixels']} pixels are ignored"
        for remark in found["remarks"]:
            yield f"warning: {split}: {remark}"


def _write(
    run: Run,
    name: str | None,
    output: Path,
    content: Mapping[str, Any],
    files: list[Path],
    sheets: Mapping[Path, _Sheet],
) -> None:
    """Write what the labels hold, the sheets, and the record of the stage, where they are not there already."""
    rule = "labels" if name is None else f"set_labels_{name}"  # its own: records of the stage are of the data set
    inputs = {"labels": sha256_json(content)}
    record = read_record(run.folder, rule)
    is_same = record is not None and record["settings"] == run.experiment.slice("labels", name)
    if is_same and output.is_file() and read_json(output) == content and all(path.is_file() for path in sheets):
        return
    with run.stage("labels", inputs, name=rule, split=name, looked_into=files) as journal:
        assert journal is not None
        remove(output)
        for path, (root, split, made, orientation) in sheets.items():
            tiles = [
                (image.name, read_image(image, orientation), read_native_label(label))
                for image, label in made.shown[split]
            ]
            colours = default_colours(len(made.classes))
            sheet(path, tiles, made.classes, colours, f"{root}, {split}: {len(tiles)} of {made.splits[split]['files']}")
            print(f"{len(tiles)} pictures with their labels: {path}")
        write_json(output, content)
