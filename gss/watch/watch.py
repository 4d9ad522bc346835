"""`gss watch`: how far an experiment is, from any terminal or node that sees its results."""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from gss.config import experiment_name, load_experiment, runs_of
from gss.progress import clock
from gss.text import shorten
from gss.watch.standing import Standing, Watched, seconds_left

LOOK_SECONDS = 2.0  # between two looks, on a terminal
LINE_SECONDS = 30.0  # the same where every line stays, as in a file
Looks = dict[str, list[Standing]]


def watch(name: str, results: Path, *, once: bool = False) -> None:
    """Show how far an experiment is until all that `snakemake all` makes of it is there, or until Ctrl-C.

    On a terminal the same lines change; elsewhere new ones come where something changed.

    Args:
        name: of an experiment, of one with `seeds` all of them, or `NAME/seed_0`.
        results: the folder of all results.
        once: say it once and end.

    Raises:
        ConfigError: there is no such experiment.
    """
    watched = watched_runs(name, results)
    is_terminal = sys.stdout.isatty()
    shown: Looks = {}
    height = 0
    try:
        while True:
            looks = {run.name: run.look() for run in watched}
            if is_terminal or not shown:
                lines = describe(looks, shutil.get_terminal_size().columns)
                above = f"\x1b[{height}A\x1b[J" if height else ""
                print(above + "\n".join(lines), flush=True)
                height = len(lines)
            else:
                for line in changes(shown, looks):
                    print(time.strftime("%H:%M:%S"), line, flush=True)
            shown = looks
            if once or all(standing.state == "done" for look in looks.values() for standing in look):
                return
            time.sleep(LOOK_SECONDS if is_terminal else LINE_SECONDS)
    except KeyboardInterrupt:
        print(flush=True)


def watched_runs(name: str, results: Path) -> list[Watched]:
    """The results folders behind an experiment; of one with `seeds` that of each, and the one with their common page.

    Raises:
        ConfigError: there is no such experiment.
    """
    runs = [
        Watched(each, results / each, load_experiment(run)) for run in runs_of(name) if (each := experiment_name(run))
    ]
    common = experiment_name(name)
    return runs if runs[0].name == common else [*runs, Watched(common, results / common, None)]


def describe(looks: Looks, width: int) -> list[str]:
    """What is said of the standings of several runs: of each what is done, runs, waits, and of all the end."""
    lines: list[str] = []
    for name, look in looks.items():
        lines += _of_run(name, look, width)
    everything = [standing for look in looks.values() for standing in look]
    return [*lines, *_end(everything, width)]


def _of_run(name: str, look: Sequence[Standing], width: int) -> list[str]:
    done = [each.job.name for each in look if each.state == "done"]
    waits = [each.job.name for each in look if each.state == "waits"]
    if len(done) == len(look):
        return [f"{name}: finished"]
    lines = [f"{name}: {len(done)} of {len(look)} stages done"]
    lines += _list("done", done, width)
    for each in look:
        if each.state in ("runs", "stopped", "failed"):
            lines.append(shorten(f"  {each.state:8}{line_of(each)}", width))
    return lines + _list("waits", waits, width)


def changes(before: Looks, now: Looks) -> list[str]:
    """A line for each job that stands otherwise than before, and when all ends if that is so of any."""
    lines = [
        f"{name}: {standing.state} {line_of(standing)}"
        for name, look in now.items()
        for earlier, standing in zip(before[name], look, strict=True)
        if (standing.state, standing.text) != (earlier.state, earlier.text)
    ]
    everything = [standing for look in now.values() for standing in look]
    is_open = any(standing.state != "done" for standing in everything)
    return [*lines, expected_end(everything)] if lines and is_open else lines


def line_of(standing: Standing) -> str:
    """The line of one job: its name, how far it is, and when it ends."""
    moment = f"ETA {clock(standing.left)}" if standing.state == "runs" and standing.left is not None else ""
    text = standing.text.removeprefix(f"{standing.job.name} ")  # `palette 3/12` of the palette
    return "  ".join(word for word in (standing.job.name, text, moment) if word)


def _list(title: str, names: Sequence[str], width: int) -> list[str]:
    text = f"  {title:8}{', '.join(names)}"
    return textwrap.wrap(text, width, subsequent_indent=" " * 10, break_on_hyphens=False) if names else []


def _end(standings: Sequence[Standing], width: int) -> list[str]:
    if all(each.state == "done" for each in standings):
        return []
    return textwrap.wrap(expected_end(standings), width, break_on_hyphens=False)


def expected_end(standings: Sequence[Standing]) -> str:
    """When all is done, as far as that can be known."""
    seconds, unknown = seconds_left(standings)
    runs = any(each.state == "runs" for each in standings)
    if not unknown:
        return (
            f"all done in about {clock(seconds)}, at {moment(seconds)}"
            if runs
            else f"nothing runs; left: about {clock(seconds)}"
        )
    names = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    rest = f"{names}, whose time is not known yet"
    known = f"about {clock(seconds)}{f', until {moment(seconds)},' if runs else ''} and " if seconds else ""
    return f"{'' if runs else 'nothing runs; '}left: {known}{rest}"


def moment(seconds: float) -> str:
    """The time of day after so many seconds, with the day where it is another one."""
    form = "%H:%M" if seconds < 20 * 3600 else "%a %d %b, %H:%M"
    return time.strftime(form, time.localtime(time.time() + seconds))
