"""The pins stand in one place: constraints.txt, from which the conda files are written."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def load_lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "envs" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pip_lines(name: str) -> list[str]:
    *_, pip = yaml.safe_load((ROOT / "envs" / name).read_text())["dependencies"]
    return pip["pip"]


def test_files_are_what_make_lock_writes() -> None:
    for path, text in load_lock().environments(CONSTRAINTS).items():
        assert path.read_text() == text, f"{path.name} is out of date: make lock"


def test_conda_files_stand_alone() -> None:
    for name in ("cpu.yaml", "gpu.yaml"):  # Snakemake copies them away from their neighbours
        assert all(re.fullmatch(r"[\w.-]+={2,3}[\w.]+", line) for line in pip_lines(name)), name


def test_environments_differ_by_the_build_of_torch_alone() -> None:
    cpu, gpu = set(pip_lines("cpu.yaml")), set(pip_lines("gpu.yaml"))
    assert [line.partition("==")[0] for line in cpu - gpu] == ["torch"]
    more = {line.partition("==")[0] for line in gpu - cpu}
    assert {"torch", "triton", "nvidia-nccl-cu13"} <= more
    assert all(re.match(r"torch|triton|nvidia-|cuda-", name) for name in more)


def test_every_required_package_is_pinned() -> None:
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in CONSTRAINTS.splitlines()}
    lines = (ROOT / "requirements.in").read_text().splitlines()
    needed = {re.split(r"[<>=\[ ;]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    assert needed <= pinned


def test_pins_name_no_build_and_no_address() -> None:
    for line in CONSTRAINTS.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_image_reads_the_same_files() -> None:
    text = (ROOT / "envs" / "gss.def").read_text()
    assert "-r /opt/gss/requirements.in -c /opt/gss/constraints.txt" in text and "://" not in text
