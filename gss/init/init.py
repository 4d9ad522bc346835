"""What `gss init` does: look, decide, measure, write."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from gss.benchmark.benchmark import NoRoom
from gss.config import Experiment, experiment_name, list_experiments, load_experiment
from gss.config.load import EXPERIMENTS, SUFFIXES
from gss.data.manifest import Manifest, Rows, Source
from gss.errors import ConfigError
from gss.files import write_text
from gss.init.budget import busy, decide_steps, fit_memory, measured, told
from gss.init.data import Found, decide_data
from gss.init.network import Machine, decide_machine, decide_sizes, decide_training, machine
from gss.init.plan import Plan
from gss.init.write import text
from gss.results.records import Made
from gss.stages.rehearse import rehearse
from gss.stages.run import Run

_MEASURED = 16  # pairs


def init(
    name: str,
    places: Sequence[Path],
    *,
    hours: float = 1.0,
    recipe: str | None = None,
    device: str | None = None,
    download: bool = False,
    dry_run: bool = False,
) -> str:
    """Write an experiment for photographs and their labels or annotations.

    Args:
        name: of the experiment, or the path of its file.
        places: the folder of a data set, or those of its parts, or annotation files.
        hours: that a whole run may take.
        recipe: `gss` or `pixel`; None: what is better in small.
        device: `cpu` or `cuda`; None: a GPU where there is one.
        download: fetch weights of an encoder where none lie in the folder of data sets.
        dry_run: write nothing.

    Returns:
        What to print: the file, and with it written what else there is to say.

    Raises:
        ConfigError: there is such an experiment, a folder is missing, or the time is too short.
        DataError: what only the owner of the data can say: the message has the answers.
    """
    path = _new_file(name)
    on = machine(device)
    with tempfile.TemporaryDirectory() as folder:
        plan, found = decide(places, on, Path(folder), recipe=recipe, download=download)
        if others := busy(on):
            plan.notes.append(others)
        draft = Path(folder) / f"{path.stem}.yaml"
        while True:
            experiment = _loaded(text(plan.content, {}, []), draft)
            try:
                laps = measured(_run(experiment, draft, found), on)
                break
            except NoRoom as error:
                fit_memory(plan, experiment, error)
        times = decide_steps(plan, experiment, laps, found, hours, others)
        content = text(plan.content, plan.reasons, _head(path, places, times, on, hours))
        run = _run(_loaded(content, draft), draft, found)
        rehearse(run, found.space)
    if dry_run:
        return content
    _write(path, content)
    return "\n".join([content, *(f"note: {note}" for note in plan.notes), *_next(path, run.experiment)])


def decide(
    places: Sequence[Path], on: Machine, folder: Path, *, recipe: str | None = None, download: bool = False
) -> tuple[Plan, Found]:
    """All that needs no measurement; see `init` and `decide_data`."""
    plan = Plan()
    found = decide_data(plan, places, folder, on.cores)
    decide_sizes(plan, [size for *_, size in found.pairs], on)
    decide_training(plan, recipe, on, download=download)
    decide_machine(plan, on)
    return plan, found


def _new_file(name: str) -> Path:
    """Where the experiment will stand.

    Raises:
        ConfigError: there is one, or no folder for it.
    """
    bare = experiment_name(name)
    path = Path(name) if Path(name).suffix in SUFFIXES else EXPERIMENTS / f"{bare}.yaml"
    there = path.exists() or (path.parent == EXPERIMENTS and bare in list_experiments())
    if there:
        raise ConfigError(f"there is an experiment {bare!r}", where=path, todo="take another name, or move it away")
    if not path.parent.is_dir():
        raise ConfigError("no such folder", where=path.parent, todo="call this in the folder of the project")
    return path


def _write(path: Path, content: str) -> None:
    """Write the file unless another one has come meanwhile."""
    if path.exists():
        raise ConfigError("the file came about meanwhile", where=path, todo="take another name, or move it away")
    write_text(path, content)


def _loaded(content: str, draft: Path) -> Experiment:
    write_text(draft, content)
    return load_experiment(draft)


def _run(experiment: Experiment, draft: Path, found: Found) -> Run:
    """A run of an experiment that is not there yet, on some of its pairs."""
    run: Run = Run(draft.stem, experiment, draft.parent / "results", Made({}, {}))
    data = experiment.data
    rows = Rows()
    for image, label, (height, width) in found.pairs[:_MEASURED]:
        names = {"image": image, "label": label, "image_sha256": "", "label_sha256": ""}
        rows.append({**names, "height": height, "width": width})
    parts = {str(split): rows for split in data.splits}
    source = Source(found.root, found.space, data.exif_orientation or "apply", dict.fromkeys(parts, len(rows)))
    vars(run)["manifest"] = Manifest((source,), "", parts)
    return run


def _head(path: Path, places: Sequence[Path], times: list[tuple[str, float]], on: Machine, hours: float) -> list[str]:
    """The lines above everything."""
    where = " ".join(str(place) for place in places)
    return [
        f"gss init {path.stem} {where} --hours {hours:g}; measured on {on}. Change what is wrong.",
        "What it will take:",
        *(f"  {line}" for line in told(times)),
    ]


def _next(path: Path, experiment: Experiment) -> list[str]:
    """What to do then."""
    if path.parent != EXPERIMENTS:
        return [f"wrote {path}; next: gss check {path}"]
    return [
        f"wrote {path}; next:",
        f"  gss check {path.stem}",
        f"  snakemake results/{path.stem}/report.html",
    ]
