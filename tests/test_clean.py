"""`gss clean`: what can go is told with its size and removed when asked; what results are made of stays."""

import os
from pathlib import Path

import pytest

from gss.cli import main
from gss.cluster.lock import writer_lock
from gss.config import load_experiment
from gss.results.records import write_record
from gss.results.work import KEPT_STALE, open_work

TOY = load_experiment("toy")
FINISHED = ("check", "palette", "tokenizer", "latent_prior_225")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of the toy: some stages are done, of the latent prior the first segment of two."""
    folder = tmp_path / "results" / "toy"
    for job in TOY.jobs():
        if job.name in FINISHED:
            write_record(folder, job.name, {"settings": TOY.slice(job.stage, job.split), "inputs": {}})
            put(folder / "logs" / "all_starts" / f"{job.name}.log", 1000)
            (folder / "logs" / f"{job.name}.log").symlink_to(f"all_starts/{job.name}.log")
    for stage in ("tokenizer", "latent_prior"):
        for name in ("fingerprint.json", "journal.jsonl", "lock", "checkpoints/step_1.pt", "checkpoints/.a.tmp"):
            put(folder / "work" / stage / name, 1_000_000)
    put(folder / "work" / "stale" / "posterior-01234567" / "checkpoints" / "step_1.pt", 5_000_000)
    put(folder / "work" / "stale" / "posterior-01234567" / "journal.jsonl", 10)
    put(folder / "tokenizer.safetensors", 100)
    os.link(folder / "tokenizer.safetensors", folder / "work" / "tokenizer" / "finished.safetensors")
    put(folder / "logs" / "latent_prior.log", 10)
    put(folder / "evaluation" / "gss_ff" / "test" / "metrics.json", 10)
    return folder


def put(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b" " * size)


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_what_can_go_is_told_and_nothing_is_removed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(results)
    assert main(["clean", "toy", "--results", str(results.parent)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in said[:2]] == [
        ["2.0", "MB", f"{results}/work/tokenizer:"],
        ["5.0", "MB", f"{results}/work/stale/posterior-01234567:"],
    ]
    assert said[-1] == "   7.0 MB  can go; to remove it: gss clean toy --yes"
    assert content(results) == before


def test_what_results_are_made_of_stays(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(results)
    assert main(["clean", "toy", "--results", str(results.parent), "--yes"]) == 0
    gone = before - content(results)
    checkpoints = {"work/tokenizer/checkpoints", "work/stale/posterior-01234567/checkpoints"}
    logs = {f"logs/{place}{name}.log" for name in FINISHED for place in ("", "all_starts/")}
    files = {"work/tokenizer/checkpoints/step_1.pt", "work/tokenizer/checkpoints/.a.tmp"}
    assert gone == checkpoints | logs | files | {
        "logs/all_starts",
        "work/stale/posterior-01234567/checkpoints/step_1.pt",
    }
    assert main(["clean", "toy", "--results", str(results.parent)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing of toy can go"


def test_a_stage_at_work_is_left_alone(results: Path) -> None:
    before = content(results / "work" / "tokenizer")
    with writer_lock(results / "work" / "tokenizer"):
        assert main(["clean", "toy", "--results", str(results.parent), "--yes"]) == 0
        assert before <= content(results / "work" / "tokenizer")


def test_without_results_there_is_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "toy", "--results", str(tmp_path)]) == 2
    assert "no results" in capsys.readouterr().err
    assert main(["clean", "tyo", "--results", str(tmp_path)]) == 2
    assert "did you mean 'toy'?" in capsys.readouterr().err


def test_what_was_put_aside_is_bounded(tmp_path: Path) -> None:
    """The last ones of a stage whole, of those before what was told of them; those of other stages do not count."""
    work = tmp_path / "work"
    put(work / "stale" / "pixel_more-01234567" / "checkpoints" / "step_1.pt", 10)
    for seed in range(KEPT_STALE + 3):
        open_work(work / "pixel", {"seed": seed})
        put(work / "pixel" / "checkpoints" / "step_1.pt", 10)
        put(work / "pixel" / "journal.jsonl", 10)
        for number, folder in enumerate(
            sorted((work / "stale").glob("pixel-*"), key=lambda path: path.stat().st_mtime_ns)
        ):
            os.utime(folder, (number, number))  # of one moment each, however fast this is
    stale = sorted((work / "stale").glob("pixel-*"), key=lambda path: path.stat().st_mtime_ns)
    assert len(stale) == KEPT_STALE + 2
    kept = [(folder / "checkpoints" / "step_1.pt").is_file() for folder in stale]
    assert kept == [False, False, *[True] * KEPT_STALE]
    assert all((folder / name).is_file() for folder in stale for name in ("journal.jsonl", "fingerprint.json"))
    assert (work / "stale" / "pixel_more-01234567" / "checkpoints" / "step_1.pt").is_file()
