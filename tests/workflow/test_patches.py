"""What Snakemake says of a job that failed, and of one that has to run again."""

import subprocess
import sys
from pathlib import Path

import pytest

from gss.results.records import write_record
from gss.text import differences

HEAD = """
from gss import snakemake_patches
snakemake_patches.trust_records()
snakemake_patches.show_last_lines()
"""
FAILS = """
rule check:
    output: "results/toy/data/manifest.json"
    log: "results/toy/logs/check.log"
    shell: "for n in $(seq 100); do echo line $n; done > {log}; exit 2"
"""
CHANGED = """
rule palette:
    output: "results/toy/palette.csv"
    params: config={"version": 2, "palette": {"seed": 3, "strategy": "grid"}, "seed": 1}
    log: "results/toy/logs/palette.log"
    shell: "exit 1"
"""


def snakemake(folder: Path, rules: str, *arguments: str) -> str:
    (folder / "Snakefile").write_text(HEAD + rules)
    command = [sys.executable, "-m", "snakemake", "-c1", "--rerun-triggers", "params", "input", "mtime", *arguments]
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout


@pytest.mark.parametrize("arguments", [[], ["--keep-going"]])
def test_the_end_of_the_log_of_a_failed_job_is_shown_once(tmp_path: Path, arguments: list[str]) -> None:
    said = snakemake(tmp_path, FAILS, "--show-failed-logs", *arguments).splitlines()
    assert said.count("Logfile results/toy/logs/check.log, the last 30 lines:") == 1
    assert [line for line in said if line.startswith("line ")] == [f"line {number}" for number in range(71, 101)]


def test_a_dry_run_names_the_keys_that_changed_with_both_values(tmp_path: Path) -> None:
    results = tmp_path / "results" / "toy"
    made = {"version": 2, "palette": {"seed": 0, "strategy": "grid", "file": "a.csv"}, "seed": 1}
    write_record(results, "palette", {"settings": made, "inputs": {}})
    (results / "palette.csv").write_text("")
    said = snakemake(tmp_path, CHANGED, "-n")
    assert "Params have changed since last execution: palette.file 'a.csv' -> default, palette.seed 0 -> 3\n" in said
    write_record(
        results,
        "palette",
        {"settings": {"version": 2, "palette": {"seed": 3, "strategy": "grid"}, "seed": 1}, "inputs": {}},
    )
    assert "Nothing to be done" in snakemake(tmp_path, CHANGED, "-n")


def test_values_are_shown_short_and_compared_whole() -> None:
    names = [f"class {number}" for number in range(200)]
    (said,) = differences({"data": {"classes": names}}, {"data": {"classes": [*names, "one more"]}}, absent="default")
    assert said.startswith("data.classes ['class 0', ") and " -> ['class 0'" in said and len(said) < 200
    assert differences({"a": {"b": {}}}, {"a": {}}, absent="default") != []
    assert differences({"a": 1, "b": 2}, {"b": 2, "a": 1}, absent="default") == []
