"""The pins stand in one place: constraints.txt, from which the conda files are written."""

import ast
import importlib.util
import re
import subprocess
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
    assert required("requirements.in") | required("requirements-dev.in") <= pinned


def required(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    return {re.split(r"[<>=\[ ;]", line)[0].lower() for line in lines if line and not line.startswith(("#", "-r"))}


def test_running_imports_nothing_that_only_development_installs() -> None:
    names = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
    imported: set[str] = set()
    for path in [*(ROOT / "gss").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    needed = {names.get(name, name).replace("_", "-").lower() for name in imported}
    assert {"torch", "pyyaml", "shtab"} <= needed  # this does find what is imported
    assert not needed & {name.removesuffix("-binary") for name in required("requirements-dev.in")}
    assert not required("requirements.in") & required("requirements-dev.in")


def test_make_env_installs_what_running_needs_and_make_test_the_rest() -> None:
    def commands(target: str) -> str:
        return subprocess.run(["make", "-nB", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "-r requirements.in -c constraints.txt" in commands("env") and "-dev.in" not in commands("env")
    assert "-dev.in" not in commands("demo")
    for target in ("dev", "test", "test-fast", "lint"):
        assert "-r requirements-dev.in -c constraints.txt" in commands(target), target
    assert (ROOT / "requirements-dev.in").read_text().splitlines()[1] == "-r requirements.in"


def test_pins_name_no_build_and_no_address() -> None:
    for line in CONSTRAINTS.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_image_reads_the_same_files() -> None:
    text = (ROOT / "envs" / "gss.def").read_text()
    assert "-r /opt/gss/requirements.in -c /opt/gss/constraints.txt" in text and "://" not in text
