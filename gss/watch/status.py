"""The line of what runs, below what Snakemake prints."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from gss.config import Experiment, load_experiment
from gss.errors import ConfigError
from gss.text import shorten
from gss.watch.standing import Watched, seconds_left
from gss.watch.watch import line_of, moment

LOOK_SECONDS, LINE_SECONDS = 2.0, 60.0  # between two states of the line; between two lines in a log or a pipe
_LONGEST = 1000  # letters of a line where none is cut by a terminal


class StatusLine:
    """A last line of a terminal that changes while other lines come above it; elsewhere a line now and then.

    It stands in the place of the stream that the other lines are written to.

    Args:
        stream: the terminal, file or pipe.
        line: what to show in so many letters; an empty line shows nothing.
    """

    def __init__(self, stream: TextIO, line: Callable[[int], str]) -> None:
        self.stream, self._line = stream, line
        self._is_terminal = stream.isatty()
        self._lock = threading.Lock()
        self._is_shown, self._at_start = False, True
        self._ended = threading.Event()
        threading.Thread(target=self._show, name="status line", daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write above the line, which comes back a moment later."""
        with self._lock:
            self._erase()
            self._at_start = text.endswith("\n") or (not text and self._at_start)
            return self.stream.write(text)

    def end(self) -> None:
        """Show no line any more."""
        self._ended.set()
        with self._lock, contextlib.suppress(OSError):
            self._erase()
            self.stream.flush()

    def _show(self) -> None:
        said = ""
        while not self._ended.wait(LOOK_SECONDS if self._is_terminal else LINE_SECONDS):
            line, width = "", shutil.get_terminal_size().columns - 1 if self._is_terminal else _LONGEST
            with contextlib.suppress(Exception):  # whatever it meets: the jobs are not disturbed by who watches them
                line = shorten(self._line(width), width)
            with self._lock, contextlib.suppress(OSError, ValueError):
                if not line or not self._at_start or self._ended.is_set():
                    continue
                if self._is_terminal:
                    self._erase()
                    self.stream.write(line)
                    self._is_shown = True
                elif line != said:
                    self.stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")
                self.stream.flush()
                said = line

    def _erase(self) -> None:
        if self._is_shown:
            self.stream.write("\r\x1b[K")
            self._is_shown = False


class Status:
    """The status line of a Snakemake call; its handlers start and end it."""

    def __init__(self) -> None:
        self._line: StatusLine | None = None
        self._handler: Any = None

    def start(self, workflow: Any) -> None:
        """Show the running jobs of a workflow below Snakemake's own lines, unless it shall be quiet."""
        from snakemake.logging import logger  # type: ignore[import-untyped]

        handlers = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
        if not handlers or workflow.output_settings.quiet:
            return
        self._handler = handlers[0]
        asked = {
            (job.wildcards.experiment, Path(job.log[0]).stem)
            for job in workflow.dag.needrun_jobs()
            if job.log and hasattr(job.wildcards, "experiment")
        }
        self._line = StatusLine(self._handler.stream, Line(asked))
        self._handler.setStream(self._line)

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._line is not None:
            self._handler.setStream(self._line.stream)
            self._line.end()


class Line:
    """What runs now of the jobs that were asked for, and when all are done.

    Args:
        asked: name of the experiment's run, and name of the log, of each.
    """

    def __init__(self, asked: Iterable[tuple[str, str]]) -> None:
        self._asked = set(asked)
        self._watched: list[Watched] = []

    def __call__(self, width: int) -> str:
        names = sorted({name for name, _ in self._asked})
        self._watched = self._watched or [Watched(name, Path("results", name), _experiment(name)) for name in names]
        looks = {run.name: run.look() for run in self._watched}
        found = [(name, each) for name, look in looks.items() for each in look if (name, each.job.name) in self._asked]
        running = [f"{name}: {line_of(each)}" for name, each in found if each.state == "runs"]
        if not running:
            return ""
        end = f" and {len(running) - 1} more" if len(running) > 1 else ""
        seconds, unknown = seconds_left([each for _, each in found])
        if seconds:
            end += f" | all done {'after' if unknown else 'at'} {moment(seconds)}"
        return shorten(running[0], width - len(end)) + end


def _experiment(name: str) -> Experiment | None:
    """The configuration of a run; None of the page of several seeds."""
    with contextlib.suppress(ConfigError):
        return load_experiment(name)
    return None
