"""Stage 1: look at every image and label before anything trains."""

from gss.data.check import SplitFolders, scan
from gss.errors import DataError
from gss.files import write_json, write_text
from gss.stages.run import Run

SHOWN = 20


def check(run: Run) -> None:
    """Scan the data set and write `data/manifest.json` and `data/statistics.json`.

    Raises:
        DataError: any fault; the message shows the first ones, `data/faults.txt` all of them.
    """
    data = run.experiment.data
    splits = {name: SplitFolders(split.images, split.labels) for name, split in data.splits.items()}
    manifest, statistics, faults = scan(
        run.root, splits, run.space, workers=run.experiment.resources("check").threads,
        image_suffix=data.image_suffix, label_suffix=data.label_suffix)
    folder = run.folder / "data"
    if faults:
        write_text(folder / "faults.txt", "\n".join(faults) + "\n")
        more = f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"{len(faults)} faults in the data set:\n  " + "\n  ".join(faults[:SHOWN]) + more,
                        where=folder / "faults.txt", todo="mend the files or the class table, then check again")
    (folder / "faults.txt").unlink(missing_ok=True)
    with run.journal("check", run.work("check"), {}) as journal:
        for split, found in statistics["splits"].items():
            journal.metrics(0, {f"{split}/images": found["images"]})
    for warning in statistics["warnings"]:
        print(f"warning: {warning}")
    write_json(folder / "statistics.json", statistics)
    write_json(folder / "manifest.json", manifest)
