"""Stage 1: look at everything before anything trains: settings, files, and every image and label."""

from dataclasses import replace
from pathlib import Path

from gss.config import data_folder, require_data
from gss.config.schema import Source
from gss.data.check import fault_error, scan
from gss.data.manifest import manifest_sha256, write_manifest
from gss.data.pairing import SplitFolders
from gss.data.sources import join
from gss.files import remove, write_json, write_text
from gss.layout import FAULTS, MANIFEST, PREPARED, STATISTICS, WORK
from gss.stages.rehearse import rehearse
from gss.stages.run import Run


def check(run: Run) -> None:
    """Scan the data set and write `data/manifest.json` and `data/statistics.json`.

    Until that is done, `work/check_pairs.jsonl` keeps what was found: the same command goes on where it was
    interrupted, and after faults were mended it reads only what has changed.

    Raises:
        ConfigError, CheckpointError: a later stage would stop, see `rehearse`; the data set was not looked at.
        DataError: any fault of the data; the message shows the first ones, `data/faults.txt` all of them.
    """
    data, space = run.experiment.data, run.declared_space()
    rehearse(run, space)
    places = {data.root: run.root} | {source.root: _folder(source) for source in data.sources}
    records, found = [], {}
    for number, source in enumerate((data, *data.sources)):
        if data.sources:
            print(f"source {source.root}", flush=True)
        records.append(run.folder / WORK / f"check_pairs{f'_{number}' if number else ''}.jsonl")
        found[source.root] = scan(
            places[source.root],
            {
                name: SplitFolders(split.images, split.labels, source.image_suffix, source.label_suffix, split.count)
                for name, split in source.splits.items()
            },
            replace(space, reduce_zero_label=source.reduce_zero_label, label_map=source.label_map),
            orientation=source.exif_orientation,
            workers=run.experiment.resources("check").threads,
            quiet=False,
            obtain=data.obtain if source is data else None,
            record=records[-1],
        )
    # The roots are as the configuration names them: the manifest is the same on every machine.
    manifest, statistics, faults = join(found)
    for warning in statistics["warnings"]:
        print(f"warning: {warning}")
    if faults:
        write_text(run.folder / FAULTS, "\n".join(faults) + "\n")
        raise fault_error(faults, run.root)
    (run.folder / FAULTS).unlink(missing_ok=True)
    looked_into = [run.folder / PREPARED, *([run.class_table] if run.class_table else [])]
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
