"""`gss clean`: what of the results of an experiment can go, and its removal."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gss.cluster.lock import is_held
from gss.errors import GssError
from gss.files import write_error
from gss.layout import WORK
from gss.results.work import STALE, spare_files
from gss.text import size
from gss.watch.standing import Standing, Watched
from gss.watch.watch import watched_runs


class Spare(NamedTuple):
    """Files that no finished result needs.

    Args:
        place: the folder or file that is shown.
        files: what goes; folders left empty go, too.
        what: why it can go.
    """

    place: Path
    files: list[Path]
    what: str

    @property
    def bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.files)


def clean(name: str, results: Path, *, remove: bool) -> str:
    """Remove, or only tell, what of an experiment's results can go.

    That is: what finished stages have left in their work folders, what was put aside there for other settings, and the
    logs of finished stages. Figures, models, records and journals, of which pages and MLflow are made, stay, as does
    everything of stages that are not finished.

    Args:
        name: of an experiment, of one with `seeds` all of them, or `NAME/seed_0`.
        results: the folder of all results.
        remove: do it.

    Returns:
        A line for each place, with its size, and the sum.

    Raises:
        ConfigError: there is no such experiment.
        GssError: there are no results of it; something cannot be removed.
    """
    runs = [run for run in watched_runs(name, results) if run.folder.is_dir()]
    if not runs:
        raise GssError("no results of this experiment", where=results / name)
    found = [spare for run in runs for spare in _spare(run) if spare.files]
    if not found:
        return f"nothing of {name} can go"
    lines = [f"{size(spare.bytes):>9}  {spare.place}: {spare.what}" for spare in found]
    total = size(sum(spare.bytes for spare in found))
    if not remove:
        return "\n".join([*lines, f"{total:>9}  can go; to remove it: gss clean {name} --yes"])
    for spare in found:
        _remove(spare)
    return "\n".join([*lines, f"{total:>9}  removed"])


def _spare(run: Watched) -> Iterator[Spare]:
    """What of a results folder can go."""
    standings = run.look()
    open_works = {each.job.work for each in standings if each.state != "done"}
    works = sorted((run.folder / WORK).glob("*/fingerprint.json"))
    done = {each.job.work for each in standings} - open_works
    for work in [path.parent for path in works if path.parent.name in done]:
        if not is_held(work):
            yield Spare(work, list(spare_files(work)), "of a finished stage")
    for work in sorted((run.folder / WORK / STALE).glob("*")):
        yield Spare(work, list(spare_files(work)), "of other settings or other inputs")
    yield Spare(run.folder / "logs", list(_logs(run.folder / "logs", standings)), "of finished stages")


def _logs(folder: Path, standings: list[Standing]) -> Iterator[Path]:
    names = [f"{each.job.name}.log" for each in standings if each.state == "done"]
    places = (folder / name for name in names), (folder / "all_starts" / name for name in names)
    yield from (path for paths in places for path in paths if path.is_symlink() or path.is_file())


def _remove(spare: Spare) -> None:
    for path in spare.files:
        try:
            path.unlink(missing_ok=True)
            parent = path.parent
            while parent != spare.place and parent.is_relative_to(spare.place) and not os.listdir(parent):
                parent.rmdir()
                parent = parent.parent
        except OSError as error:
            raise write_error(path, error) from error
