"""The page about extending: its pieces, in a copy of the project, do what the page says of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gss.data.toy import make_toy

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/how-to/extend.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## \d\. (.*?)\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
PIECES = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COPIED = ("gss", "rules", "Snakefile", "config", "docs", "envs", "profiles", "pyproject.toml")
RUN = """
import sys
from gss.cli import main
for call in sys.argv[1:]:
    assert main(call.split()) == 0, call
"""


def code(text: str) -> int:
    """Lines of Python of a section: without imports, docstrings, comments and blank lines."""
    count = 0
    for kind, piece in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if kind == "diff":
            piece = "\n".join(line[1:] for line in piece.splitlines() if re.match(r"\+(?!\+\+ )", line))
        if kind in ("diff", "python"):
            lines = [line.strip() for line in re.sub(r'""".*?"""', "", piece, flags=re.DOTALL).splitlines()]
            count += sum(bool(line) and not line.startswith(("#", "import ", "from ")) for line in lines)
    return count


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with everything that the page adds, and a small data set."""
    folder = tmp_path_factory.mktemp("extended")
    for name in COPIED:
        source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    for kind, piece in PIECES:
        if kind == "diff":
            done = subprocess.run(["git", "apply", "-"], cwd=folder, input=piece, text=True, capture_output=True)
            assert done.returncode == 0, f"{done.stderr}\n{piece}"
            continue
        first, _, rest = piece.partition("\n")
        assert first.startswith("# "), f"a piece without the name of its file: {first}"
        path = folder / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.read_text().rstrip()}\n\n{rest}" if path.is_file() else rest.lstrip("\n"))
    make_toy(folder / "data" / "toy", sizes={"train": 4, "val": 1, "test": 2})
    return folder


def run(project: Path, *command: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("GSS_DATA", "RANK", "WORLD_SIZE")}
    environment = {**kept, "PYTHONPATH": str(project), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_each_takes_less_than_fifty_lines() -> None:
    assert [title for title, _ in SECTIONS] == ["An option of a head", "An encoder", "A stage", "A system"]
    lengths = {title: code(text) for title, text in SECTIONS}
    assert all(0 < count < 50 for count in lengths.values()), lengths


def test_pieces_are_as_the_rest_of_the_code(project: Path) -> None:
    """They fit into the files as they are, and pass the checks of style."""
    run(project, "-m", "ruff", "check", "gss")
    run(project, "-m", "ruff", "format", "--check", "gss")


@pytest.mark.slow
def test_head_encoder_and_stage(project: Path) -> None:
    few = ("pixel.steps=2", "pixel.training.warmup_steps=1", "pixel.training.batch_size=2", "run.workers=0")
    calls = ("check", "exposure", "train pixel", "evaluate")
    said = run(project, "-c", RUN, *(f"{call} toy_pixel {' '.join(few)}" for call in calls), "config-reference")
    folder = next((project / "results").glob("toy_pixel+*"))
    tensors = torch.load(folder / "pixel.pth", weights_only=True)
    assert tensors["meta"]["pixel"]["depth"] == 2 and tensors["meta"]["pixel"]["backbone"]["name"] == "pyramid"
    assert "pixel.head.deeper.0.conv.weight" in tensors["tensors"]
    assert "pixel.backbone.features.level3.1.conv.weight" in tensors["tensors"]
    assert all(0 < value < 255 for value in json.loads((folder / "exposure.json").read_text())["mean"])
    assert (folder / "records" / "exposure.json").is_file()
    assert "pixel on test: mIoU" in said
    assert "`pixel.depth`" in (project / "docs/reference/config.md").read_text()


@pytest.mark.slow
def test_system(project: Path) -> None:
    stages = ("check", "majority", "evaluate", "evaluate --split val", "export -o exported", "report")
    calls = [f"{verb} toy_floor{' ' if rest else ''}{rest}" for verb, _, rest in (s.partition(" ") for s in stages)]
    image = "data/toy/images/test/0000.png"
    said = run(project, "-c", RUN, *calls, f"predict results/toy_floor/majority.pth {image} -o predicted")
    assert "Majority" in said and (project / "predicted" / "0000.png").is_file()
    assert (project / "exported" / "model.safetensors").is_file()
    run(project, "-c", "from gss.cli import main; assert main(['benchmark', 'toy_floor']) == 2")
    assert "ok" in run(project, "-m", "gss.doctor.probe", "results", "toy_floor")
    metrics = json.loads((project / "results/toy_floor/evaluation/majority/test/metrics.json").read_text())
    assert [value for value in metrics["Acc"].values() if value] == [1.0]  # that of the most frequent class
    planned = run(project, "-m", "snakemake", "-n", "-F", "results/toy_floor/report.html")
    assert {"check", "majority", "evaluate", "report"} <= set(re.findall(r"^(\w+) +\d+$", planned, re.MULTILINE))
    planned = run(project, "-m", "snakemake", "-n", "results/toy_pixel/exposure.json")
    assert {"check", "exposure"} <= set(re.findall(r"^(\w+) +\d+$", planned, re.MULTILINE))
