"""Writes constraints.txt from this environment, and from it the environments of conda: what `make lock` does.

Exact versions stand in constraints.txt and nowhere else by hand. The conda files repeat them word for word because
Snakemake copies such a file away before conda reads it: nothing beside it is found from there.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PYTHON = "3.11"  # what all of it is tested with

_TESTED = """\
# Tested versions of every package; written by `make lock`, used by pip install -r requirements.in -c constraints.txt
"""
_CUDA = "# Only beside the CUDA build of torch (Linux): resolved by pip, not tested\n"

_CPU_TEXT = """\
# For machines and jobs without GPUs. Written by `make lock` from constraints.txt: change that, not this file.
# By Snakemake: --software-deployment-method conda. By hand: conda env create -f envs/cpu.yaml
# conda gives Python, pip the rest. pip takes the CPU build of torch only where its configuration names an index that
# has one; from the default index it takes the CUDA build on Linux, which runs without a GPU and is several GB larger.
# Tried: pip resolves this list, Snakemake accepts the file. Not tried: conda itself.
"""
_GPU_TEXT = """\
# For jobs on NVIDIA GPUs, Linux. Written by `make lock` from constraints.txt: change that, not this file.
# By Snakemake: --software-deployment-method conda. By hand: conda env create -f envs/gpu.yaml
# As cpu.yaml, but with the CUDA libraries pinned as well, and with `torch===`, which takes the CUDA build even where an
# index offers a CPU build beside it. CUDA {cuda} needs a driver that supports it, and no toolkit. No `__cuda` is asked
# for: Snakemake makes the environment on the login node, which may have no GPU. `gss doctor` looks at the driver.
# Tried: pip resolves this list, Snakemake accepts the file. Not tried: conda itself, and this list on a GPU.
"""


def main() -> None:
    """Freeze, resolve what the CUDA build of torch brings along, and write all files."""
    pins = freeze()
    CONSTRAINTS.write_text(_TESTED + _lines(pins) + _CUDA + _lines(cuda_pins(pins)))
    for path, text in environments(CONSTRAINTS.read_text()).items():
        path.write_text(text)


def freeze() -> list[str]:
    """`name==version` of all packages here, without folders, addresses and local builds."""
    listed = _pip("freeze", "--all", "--exclude-editable").splitlines()
    pins = [line for line in listed if re.fullmatch(r"[\w.-]+==\S+", line)]  # no packages from folders or addresses
    # torch==2.13.0+cpu: the same line serves GPU machines
    return [pin.partition("+")[0] for pin in pins if pin.partition("==")[0] not in ("pip", "wheel", "gss")]


def cuda_pins(pins: list[str]) -> list[str]:
    """What the CUDA build of the same torch needs beyond `pins`; only descriptions are downloaded."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(_lines(pins))
        constraints.flush()
        report = _pip(
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            "-",
            "--constraint",
            constraints.name,
            _cuda_build(next(pin for pin in pins if _is_torch(pin))),
        )
    chosen = [each["metadata"] for each in json.loads(report)["install"]]
    known = {_normal(pin.partition("==")[0]) for pin in pins}
    added = [f"{each['name']}=={each['version']}" for each in chosen if _normal(each["name"]) not in known]
    if not any(pin.startswith("nvidia-") for pin in added):
        sys.exit("pip finds no CUDA build of torch: run `make lock` on Linux with the default package index")
    return sorted(added)


def environments(constraints: str) -> dict[Path, str]:
    """The conda files that belong to constraints.txt, as path -> text.

    Args:
        constraints: content of constraints.txt.
    """
    tested, cuda = (part.splitlines() for part in constraints.removeprefix(_TESTED).split(_CUDA))
    gpu = [_cuda_build(pin) if _is_torch(pin) else pin for pin in tested] + cuda
    toolkit = next(pin for pin in cuda if pin.startswith("cuda-toolkit==")).partition("==")[2]
    cuda_version = ".".join(toolkit.split(".")[:2])
    return {
        ROOT / "envs" / "cpu.yaml": _CPU_TEXT + _conda("gss", tested),
        ROOT / "envs" / "gpu.yaml": _GPU_TEXT.format(cuda=cuda_version) + _conda("gss-gpu", gpu),
    }


def _conda(name: str, pins: list[str]) -> str:
    packages = "".join(f"      - {pin}\n" for pin in pins)
    return (
        f"name: {name}\nchannels: [conda-forge, nodefaults]\ndependencies:\n"
        f"  - python={PYTHON}\n  - pip\n  - pip:\n{packages}"
    )


def _is_torch(pin: str) -> bool:
    return pin.startswith("torch==")


def _cuda_build(pin: str) -> str:
    """`===` compares letters: 2.13.0+cpu is another version then."""
    return pin.replace("==", "===")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(pins: list[str]) -> str:
    return "".join(f"{pin}\n" for pin in pins)


def _pip(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else sys.exit(done.returncode)


if __name__ == "__main__":
    main()
