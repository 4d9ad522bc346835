"""What checks find, how they run beside each other, and how it looks on a screen."""

import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from gss.errors import GssError

State = Literal["ok", "warn", "FAIL"]
_COLOURS: dict[State, str] = {"ok": "32", "warn": "33", "FAIL": "31;1"}
_INDENT = 25


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Args:
        name: what was looked at.
        found: what is there.
        todo: what to do; empty where there is nothing to do.
    """

    state: State
    name: str
    found: str
    todo: str = ""


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", name, found)


def warn(name: str, found: str, todo: str = "") -> Finding:
    """It works, and something may surprise."""
    return Finding("warn", name, found, todo)


def fail(name: str, found: str, todo: str = "") -> Finding:
    """It will not work."""
    return Finding("FAIL", name, found, todo)


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Args:
        name: for the finding that it did not end.
        look: yields findings; an exception becomes one.
        seconds: its patience.
    """

    name: str
    look: Callable[[], Iterator[Finding]]
    seconds: float = 30


def examine(groups: Mapping[str, Sequence[Check]], stream: TextIO = sys.stdout) -> list[Finding]:
    """Run all checks beside each other and print what they find, group by group.

    A check that hangs, say on a dead file server, is left behind when its time is over; the others do not notice.
    """
    running = {name: [_Running(check) for check in checks] for name, checks in groups.items()}
    everything: list[Finding] = []
    for name, checks in running.items():
        print(_styled(name, "1", stream), file=stream, flush=True)
        for check in checks:
            found = check.findings()
            for finding in found:
                print(_line(finding, stream), file=stream, flush=True)
            everything += found
    return everything


class _Running:
    """A check in a thread of its own; a daemon, so that the program ends even if the thread does not."""

    def __init__(self, check: Check) -> None:
        self._check, self._found = check, list[Finding]()
        self._deadline = time.monotonic() + check.seconds
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def findings(self) -> list[Finding]:
        self._thread.join(max(0, self._deadline - time.monotonic()))
        if self._thread.is_alive():
            return [*self._found, fail(self._check.name, f"did not end within {self._check.seconds:.0f} s")]
        return self._found

    def _run(self) -> None:
        try:
            for finding in self._check.look():
                self._found.append(finding)
        except GssError as error:
            where = f" ({error.where})" if error.where else ""
            self._found.append(fail(self._check.name, f"{error.what}{where}", error.todo or ""))
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            self._found.append(fail(self._check.name, f"{error.strerror or error}{where}"))
        except Exception as error:  # the other checks are still worth something
            self._found.append(
                fail(self._check.name, f"the check itself broke: {type(error).__name__}: {error}", "please report it")
            )


def summary(findings: Sequence[Finding]) -> str:
    """`14 ok, 2 warnings, 1 FAIL`."""
    counts = {state: sum(finding.state == state for finding in findings) for state in _COLOURS}
    warnings = f"{counts['warn']} warning{'' if counts['warn'] == 1 else 's'}"
    return f"{counts['ok']} ok, {warnings}, {counts['FAIL']} FAIL"


def _line(finding: Finding, stream: TextIO) -> str:
    """One line; on a terminal broken at its width."""
    text = " ".join(f"{finding.found}{' -> ' if finding.todo else ''}{finding.todo}".split())
    if stream.isatty():
        width = max(60, shutil.get_terminal_size().columns - _INDENT)
        text = f"\n{' ' * _INDENT}".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
    state = _styled(f"{finding.state:<4}", _COLOURS[finding.state], stream)
    return f"  {state}  {finding.name:<{_INDENT - 9}} {text}"


def _styled(text: str, code: str, stream: TextIO) -> str:
    return f"\033[{code}m{text}\033[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text
