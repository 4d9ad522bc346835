"""What a command prints, where it cannot be printed: nobody reads, a full disk, a closed descriptor, plain ASCII."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.use.models import write_models

ROOT = Path(__file__).resolve().parents[1]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
GSS = [sys.executable, "-m", "gss"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    write_models(folder, classes=("Straße", "sky → blue", "c"))
    (folder / "Fotos").mkdir()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(folder / "Fotos" / "über.png")
    (folder / "Fotos" / "kaputt_ü.png").write_text("no image")
    (folder / "config").symlink_to(ROOT / "config")
    return folder


def run(folder: Path, *arguments: str, shell: str = "", environment: dict[str, str] | None = None):
    """A command in a shell that changes its streams; its output, or what is left of it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", *GSS, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def to_nobody(folder: Path, *arguments: str, error_too: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    error = writer if error_too else subprocess.PIPE
    done = subprocess.run(
        [*GSS, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=error,
        text=True,
        timeout=120,
    )
    os.close(writer)
    return done.returncode, done.stderr or ""


PREDICT = ["predict", "gss_ft.pth", "Fotos", "-o", "out"]


@pytest.mark.parametrize("arguments", [["--help"], ["config-reference", "--check"], PREDICT])
def test_a_reader_who_leaves_ends_a_command_quietly(arguments: list[str], folder: Path) -> None:
    code, error = to_nobody(folder, *arguments)
    assert code == 141
    assert [line for line in error.splitlines() if not line.startswith(("failed: ", "libpng"))] == []


def test_both_streams_may_lose_their_reader(folder: Path) -> None:
    assert to_nobody(folder, *PREDICT, error_too=True)[0] == 141
    assert to_nobody(folder, "predict", "gone.pth", "Fotos", "-o", "x", error_too=True)[0] == 2  # the fault counts


@pytest.mark.slow
def test_a_reader_who_leaves_ends_the_processes_of_a_launch(folder: Path) -> None:
    code, error = to_nobody(folder, "launch", "--work", "work", "--", "config-reference", "--check")
    assert (code, error) == (141, "")


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_full_disk_is_a_clear_error(environment: dict[str, str], folder: Path) -> None:
    for arguments in (["--help"], PREDICT):
        done = run(folder, *arguments, shell="> /dev/full", environment=environment)
        assert done.returncode == 2
        assert "error: standard output cannot be written: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
    done = run(folder, "predict", "gone.pth", "Fotos", "-o", "x", shell="2> /dev/full", environment=environment)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("shell", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_take_nothing_and_harm_nothing(shell: str, folder: Path) -> None:
    """The next file would get their numbers, and with them what libraries print about a broken image."""
    done = run(folder, *PREDICT, "--scores", shell=shell)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    for path in (folder / "out").glob("*.png"):
        assert np.asarray(Image.open(path)).shape[:2] == (24, 32)
    assert np.load(folder / "out" / "über_scores.npz")["probabilities"].shape == (3, 24, 32)
    assert (folder / "out" / "classes.csv").read_text(encoding="utf-8").startswith("index,name,r,g,b\n0,Straße,")


def test_plain_ascii_shows_other_letters_escaped(folder: Path) -> None:
    done = run(folder, *PREDICT[:-1], "Bögen", environment=ASCII)
    assert done.returncode == 3
    assert "failed: Fotos/kaputt_\\" in done.stderr and "see B\\" in done.stdout
    assert (folder / "Bögen" / "über.png").is_file()
    for arguments in (["predict", "weg_ü.pth", "Fotos", "-o", "x"], ["check", "töy"], ["compare", "ä", "ö"]):
        done = run(folder, *arguments, environment=ASCII)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr and (done.stdout + done.stderr).isascii()


@pytest.mark.slow
def test_ctrl_c_leaves_whole_images(folder: Path, tmp_path: Path) -> None:
    """However many were done: of each all files are there or none is half-written, and none is temporary."""
    for number in range(2000):  # more than any machine predicts before it hears of it
        os.link(folder / "Fotos" / "über.png", tmp_path / f"{number:04}.png")
    command = [*GSS, "predict", "gss_ft.pth", str(tmp_path), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's `&` takes it away
    )
    while not len(list((tmp_path / "out").glob("*_overlay.png"))) > 5 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "interrupted\n")
    assert not list((tmp_path / "out").glob(".*"))
    names = [path.name.removesuffix("_overlay.png") for path in (tmp_path / "out").glob("*_overlay.png")]
    assert 5 < len(names) < 2000
    for name in names:
        for ending in ("", "_colour", "_overlay"):
            assert np.asarray(Image.open(tmp_path / "out" / f"{name}{ending}.png")).shape[:2] == (24, 32)
