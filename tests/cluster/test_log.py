"""Logs of jobs that Snakemake starts again and again."""

import subprocess
import sys
from pathlib import Path

from gss.cluster.log import last_lines


def start(log: Path, text: str) -> subprocess.CompletedProcess[str]:
    """One start, as a rule makes it: its shell opens the log first."""
    program = (
        f"from pathlib import Path; from gss.cluster.log import keep_log; keep_log(Path({str(log)!r})); "
        f"import subprocess; subprocess.run(['echo', {text!r}])"
    )
    return subprocess.run(
        f'{sys.executable} -c "{program}" >> {log} 2>&1',
        shell=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_every_start_is_kept_though_snakemake_deletes_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "latent_prior.log"
    log.parent.mkdir()
    for text in ("first", "second"):
        log.unlink(missing_ok=True)
        assert start(log, text).returncode == 0
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("--- ")] == ["first", "second"]
    assert len(lines) == 4
    assert sorted(path.name for path in log.parent.iterdir()) == ["all_starts", "latent_prior.log"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "all_starts").write_text("a file")
    done = start(tmp_path / "x.log", "never")
    assert done.returncode != 0
    said = (tmp_path / "x.log").read_text()
    assert "cannot write" in said and "never" not in said


def test_the_last_lines_are_those_of_the_latest_start(tmp_path):
    log = tmp_path / "train.log"
    starts = [f"--- 2026-01-0{day} 03:04:05 on host, SLURM job {day}: gss launch\n" for day in (1, 2)]
    log.write_text(starts[0] + "old\n" * 5000 + "error: old\n" + starts[1] + "step 1\nerror: new\n")
    assert last_lines(log, 30) == [starts[1].strip(), "step 1", "error: new"]
    log.write_text(starts[0] + "step\n" * 100_000 + "error: \udcff\n", errors="surrogateescape")
    assert last_lines(log, 3) == ["step", "step", "error: \ufffd"]
    log.write_text("")
    assert last_lines(log, 3) == []
