"""Stage 1: look at everything before anything trains: settings, files, and every image and label."""

from gss.data.check import fault_error, scan
from gss.data.manifest import manifest_sha256, write_manifest
from gss.data.pairing import SplitFolders
from gss.files import remove, write_json, write_text
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
    data = run.experiment.data
    splits: dict[str, SplitFolders] = {
        name: SplitFolders(split.images, split.labels, data.image_suffix, data.label_suffix, split.count)
        for name, split in data.splits.items()
    }
    space = run.declared_space()
    rehearse(run, space)
    record = run.folder / "work" / "check_pairs.jsonl"
    manifest, statistics, faults = scan(
        run.root,
        splits,
        space,
        orientation=data.exif_orientation,
        workers=run.experiment.resources("check").threads,
        quiet=False,
        obtain=data.obtain,
        record=record,
    )
    folder = run.folder / "data"
    for warning in statistics["warnings"]:
        print(f"warning: {warning}")
    if faults:
        write_text(folder / "faults.txt", "\n".join(faults) + "\n")
        raise fault_error(faults, run.root)
    (folder / "faults.txt").unlink(missing_ok=True)
    manifest["root"] = data.root  # as the configuration names it: the manifest is the same on every machine
    looked_into = [folder / "prepared.json", *([run.class_table] if run.class_table else [])]
    with run.stage("check", {"manifest": manifest_sha256(manifest)}, looked_into=looked_into) as journal:
        assert journal is not None
        journal.figures({f"{split}/images": found["images"] for split, found in statistics["splits"].items()})
        remove(folder / "manifest.json")
        write_json(folder / "statistics.json", statistics)
        write_manifest(folder / "manifest.json", manifest)
    record.unlink(missing_ok=True)  # the next check looks at everything again
