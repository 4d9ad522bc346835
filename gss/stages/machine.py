"""Who works where, with what: for lists of runs, beside `gss.stages.run.environment`, which results carry."""

import contextlib
import getpass
import os
import subprocess
import sys
from pathlib import Path

import gss


def machine_facts() -> dict[str, str]:
    """User, commit, hardware, and `packages`: a line `name==version` for each that is installed."""
    user = f"user {os.getuid()}"
    with contextlib.suppress(OSError, KeyError):  # an id without a name
        user = getpass.getuser()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {
        "user": user,
        "git_commit": git("rev-parse", "HEAD"),
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.1f} GiB",
        "gpus": _gpus(),
        "packages": "\n".join(_packages()),
    }
    return {name: value for name, value in found.items() if value}


def git(*arguments: str) -> str:
    """What git says of the package's checkout; nothing where there is none, or no git."""
    with contextlib.suppress(OSError):
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=Path(gss.__file__).parent, check=False
        ).stdout.strip()
    return ""


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def _gpus() -> str:
    """Names of those that this process sees; a stage without torch uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def _packages() -> list[str]:
    """By the names of their folders: reading what is in them takes a hundred times as long."""
    folders = (path for place in sys.path for path in Path(place or ".").glob("*.dist-info"))
    named = (path.name.removesuffix(".dist-info").rpartition("-") for path in folders)
    return sorted({f"{name}=={version}" for name, _, version in named if name}, key=str.lower)
