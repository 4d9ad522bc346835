"""The status line below Snakemake's lines: on a terminal it changes in its place, elsewhere lines come seldom."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gss.watch import status
from gss.watch.status import StatusLine

ROOT = Path(__file__).resolve().parents[2]
# A job of the toy as Snakemake sees it: its log says how far it is while it runs.
SNAKEFILE = """
from gss.watch import status as room
room.LINE_SECONDS = 0.5
status = room.Status()
onstart:
    status.start(workflow)
onsuccess:
    status.end()
rule check:
    output: "results/{experiment}/data/manifest.json"
    log: "results/{experiment}/logs/check.log"
    shell:
        "for number in 1 2 3 4 5 6 7 8; do echo 'check '$number'/8  1.0 pairs/s  ETA 0:0'$((8 - number)) >> {log}; "
        "sleep 0.5; done; echo made > {output}"
"""
COMMAND = (sys.executable, "-m", "snakemake", "-c1", "results/toy/data/manifest.json")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def after_a_moment(stream: io.StringIO, text: str) -> str:
    end = time.monotonic() + 10
    while text not in stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    return stream.getvalue()


def test_lines_come_above_it_and_it_goes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.01)
    terminal = Terminal()
    line = StatusLine(terminal, lambda width: "now " + "x" * 200)
    assert after_a_moment(terminal, "now").startswith("now x")
    line.write("a line\n")
    line.end()
    said = terminal.getvalue()
    assert "\r\x1b[Ka line\n" in said and not said.endswith("x")
    assert max(map(len, re.split(r"\r\x1b\[K|\n", said))) < 80  # it would wrap, and could not be taken back
    line = StatusLine(terminal, lambda width: 1 / 0)  # type: ignore[arg-type, return-value]
    line.write("goes on\n")
    line.end()
    assert terminal.getvalue().endswith("goes on\n")


def test_half_a_line_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.01)
    terminal = Terminal()
    line = StatusLine(terminal, lambda width: "now")
    line.write("half")
    before = terminal.getvalue()
    time.sleep(0.1)
    assert terminal.getvalue() == before
    line.end()


def test_in_a_log_lines_come_when_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LINE_SECONDS", 0.01)
    log, said = io.StringIO(), iter(["first", "first", "second"])
    line = StatusLine(log, lambda width: next(said, ""))
    assert re.fullmatch(r"\d\d:\d\d:\d\d first\n\d\d:\d\d:\d\d second\n", after_a_moment(log, "second\n"))
    line.end()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    experiments = tmp_path / "config" / "experiments"
    experiments.mkdir(parents=True)
    (experiments / "toy.yaml").write_text((ROOT / "config/experiments/toy.yaml").read_text())
    return tmp_path


def test_snakemake_in_a_pipe_writes_plain_lines(project: Path) -> None:
    done = subprocess.run(COMMAND, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    assert re.search(rb"^\d\d:\d\d:\d\d toy: check  \d/8", done.stdout, re.MULTILINE), done.stdout.decode()
    assert not {b"\r", b"\x1b"} & {bytes([byte]) for byte in done.stdout}


@pytest.mark.parametrize("quiet", [[], ["--quiet", "progress"]])
def test_snakemake_on_a_terminal_shows_what_runs(project: Path, quiet: list[str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *quiet], cwd=project, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += os.read(ours, 4096)
            except OSError:  # they have closed it
                break
    os.close(ours)
    assert process.returncode == 0, said.decode()
    shown = re.search(rb"toy: check  \d/8  1.0 pairs/s  ETA 0:0\d \| all done at \d\d:\d\d", said)
    assert (shown is None) == bool(quiet), said.decode()
