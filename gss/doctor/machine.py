"""This machine: Python, packages, torch, GPUs, and the disk under the results."""

import atexit
import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from gss.doctor.findings import Finding, fail, ok, warn
from gss.files import REMEDIES

_BLOCK = os.urandom(4 * 2**20)
_TOPICS = ("torch", "GPU", "disk")
_NETWORK = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|cifs|smb|afs|9p|panfs|pvfs|orangefs|glusterfs|sshfs")
TRY_LOCK = """
import fcntl, sys
try:
    file = open(sys.argv[1], "r+")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
except FileNotFoundError:
    print("absent")
except BlockingIOError:
    print("held")
except OSError as error:
    print(error.strerror)
"""


def python() -> Iterator[Finding]:
    """The version of Python."""
    yield ok("Python", f"{platform.python_version()}, {sys.executable}")


def packages(project: Path) -> Iterator[Finding]:
    """The installed versions against requirements.in (needed) and constraints.txt (tested)."""
    if not (project / "requirements.in").is_file() or not (project / "constraints.txt").is_file():
        yield warn(
            "packages", f"no requirements.in and constraints.txt in {project}", "call gss in the project's folder"
        )
        return
    lines = (project / "requirements.in").read_text(encoding="utf-8").splitlines()
    needed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    refused = [
        f"{each.name} {found or 'is missing'} (needed: {each.specifier or 'any version'})"
        for each in needed
        if not (found := _installed(each.name)) or not each.specifier.contains(found, prereleases=True)
    ]
    again = "pip install -r requirements.in -c constraints.txt"
    if refused:
        yield fail("packages", "; ".join(refused), again)
    lines = (project / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    here = {name: found for name in pins if (found := _installed(name))}
    other = [f"{name} {found} (tested: {pins[name]})" for name, found in here.items() if found != pins[name]]
    if other:
        rest = f" and {len(other) - 5} more" if len(other) > 5 else ""
        yield warn("packages", f"{len(other)} of {len(here)} are not as tested: {', '.join(other[:5])}{rest}", again)
    elif not refused:
        yield ok("packages", f"{len(here)}, as in constraints.txt")


def _installed(name: str) -> str | None:
    """The version of a package without its local part: 2.13.0 for 2.13.0+cpu."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


class Probe:
    """What `gss.doctor.probe` finds: one process imports torch, once, and may die of it."""

    def __init__(self, experiments: list[str], results: Path, seconds: float = 90) -> None:
        self._command = [sys.executable, "-m", "gss.doctor.probe", str(results), *experiments]
        self._seconds = seconds
        self._found: dict[str, list[Finding]] = {topic: [] for topic in _TOPICS}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def about(self, topic: str) -> Iterator[Finding]:
        """Its findings about `torch`, `GPU` or `disk`."""
        self._thread.join()
        yield from self._found[topic]

    def _run(self) -> None:
        answer = call(*self._command, seconds=self._seconds)
        for line in answer.text.splitlines():
            if line.startswith("{"):
                content = json.loads(line)
                self._found[content.pop("topic")].append(Finding(**content))
        if answer.problem:
            self._found["torch"].append(fail("torch", answer.problem, "try: python -c 'import torch'"))


class Answer:
    """What a command printed, and why it failed, if it did."""

    def __init__(self, text: str, problem: str) -> None:
        self.text, self.problem = text.strip(), problem


def call(*command: str, seconds: float, stop_first: bool = False) -> Answer:
    """Run a command that may hang; nothing of it is left when its time is over.

    Args:
        seconds: its patience.
        stop_first: SIGTERM and two seconds to tidy up, before SIGKILL.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:  # no pipes: grandchildren keep them open
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as error:
            return Answer("", f"{command[0]}: {error.strerror}")
        try:
            status: int | None = child.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            if stop_first:
                child.terminate()
                _ended(child, 2)
            os.killpg(child.pid, signal.SIGKILL)
            _ended(child, 2)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if status is None:
        return Answer(texts[0], f"{Path(command[0]).name} gave no answer within {seconds:.0f} s")
    last = (texts[1].strip() or texts[0].strip() or "no message").splitlines()[-1]
    end = f"ended with {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
    return Answer(texts[0], f"{Path(command[0]).name} {end}: {last}" if status else "")


def _ended(child: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)


def driver() -> Iterator[Finding]:
    """What NVIDIA's own tool says of the GPUs."""
    if shutil.which("nvidia-smi") is None:
        if Path("/proc/driver/nvidia").exists():
            yield warn("driver", "an NVIDIA driver, but no nvidia-smi in PATH")
        return
    query = "driver_version,name,memory.total,memory.used"
    answer = call("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", seconds=10)
    if answer.problem:
        yield fail("driver", answer.problem, "ask for a node with GPUs, or have the driver mended")
        return
    rows = [line.split(", ") for line in answer.text.splitlines() if line]
    busy = [f"{i}: {int(used) // 1024} GB" for i, (*_, used) in enumerate(rows) if used.isdigit() and int(used) > 2048]
    versions = ", ".join(sorted({row[0] for row in rows}))
    if busy:
        yield warn("driver", f"{versions}; memory in use by others on GPU {', '.join(busy)}", "see nvidia-smi")
    else:
        yield ok("driver", versions)


def host_name() -> Iterator[Finding]:
    """Whether the name of this machine leads to an address: torch and MPI programs ask for it, and may wait long."""
    name, began = socket.gethostname(), time.monotonic()
    alone = "runs on this machine do without"
    mend = "add it to /etc/hosts, or have it added to the name server"
    try:
        address = socket.getaddrinfo(name, None)[0][4][0]
    except OSError as error:
        reason = f"{name} has no address here: {error.strerror}"
        yield warn("host name", f"{reason}; {alone}, stages on several nodes do not", mend)
        return
    seconds = time.monotonic() - began
    if seconds > 2:
        yield warn("host name", f"it took {seconds:.0f} s to find the address of {name}; {alone}", mend)
    else:
        yield ok("host name", f"{name}, {address}")


def disk(results: Path) -> Iterator[Finding]:
    """Space, speed, links, clock and locks of the results folder. What it writes is removed."""
    existing = nearest_folder(results)
    kind = file_system(existing)
    free = shutil.disk_usage(existing).free
    place = f"{free / 1e9:.1f} GB free in {existing} ({kind})"
    try:
        folder = scratch(existing)
        speed = _write_speed(folder / "speed")
    except OSError as error:
        yield fail("results folder", f"cannot write: {error.strerror}; {place}", REMEDIES.get(error.errno or 0, ""))
        return
    if free < 2e9:
        yield warn("results folder", place, "free some space, or choose another disk with --results")
    else:
        yield ok("results folder", place)
    if speed < 20:
        yield warn("write speed", f"{speed:.1f} MB/s with fsync", "checkpoints take long: choose another disk")
    else:
        yield ok("write speed", f"{speed:.0f} MB/s with fsync")
    yield from _names(folder)
    yield from _clock(folder)
    yield from _lock(folder)


def scratch(folder: Path) -> Path:
    """A folder that is gone when this program ends."""
    made = tempfile.mkdtemp(prefix=".gss-doctor-", dir=folder)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _write_speed(path: Path, seconds: float = 2, size: int = 64 * 2**20) -> float:
    """MB/s of writing what reaches the disk."""
    start, written = time.monotonic(), 0
    try:
        with path.open("wb") as file:
            while written < size and time.monotonic() - start < seconds:
                written += file.write(_BLOCK)
                file.flush()
                os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    return written / 1e6 / (time.monotonic() - start)


def _names(folder: Path) -> Iterator[Finding]:
    new, old = folder / "new", folder / "old"
    new.write_text("new")
    old.write_text("old")
    os.replace(new, old)
    if old.read_text() != "new" or new.exists():
        yield fail("rename", "a file does not replace another at once", "choose another results folder")
    try:
        os.link(old, new)
        yield ok("hard links", "yes; files replace each other by renaming")
    except OSError as error:
        yield warn("hard links", f"{error.strerror}: finished models are copied instead", "expect twice their space")


def _clock(folder: Path) -> Iterator[Finding]:
    path = folder / "clock"
    before = time.time()
    path.touch()
    skew = path.stat().st_mtime - before
    if abs(skew) > 5:
        yield warn(
            "clock",
            f"the file server's is {skew:+.0f} s off: Snakemake compares times of files",
            "have the clocks synchronised (NTP)",
        )


def _lock(folder: Path) -> Iterator[Finding]:
    path = folder / "lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield warn(
                "locks",
                f"flock: {error.strerror}; work folders are guarded by the times of their files",
                "a job after a crash waits some minutes",
            )
            return
        answer = call(sys.executable, "-c", TRY_LOCK, str(path), seconds=10)
    if answer.text == "held":
        yield ok("locks", "flock works between two processes")
    else:
        yield fail(
            "locks",
            f"flock does not keep a second process out: {answer.problem or answer.text}",
            "choose another results folder: two trainings could write into one",
        )


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the one it will be made in."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def file_system(path: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """Its type, such as `ext4` or `nfs4`; inside a chroot it may be unknown."""
    mounts = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    kinds = {mount[4].replace("\\040", " "): mount[mount.index("-") + 1] for mount in mounts}
    resolved = path.resolve()
    return next((kinds[str(folder)] for folder in (resolved, *resolved.parents) if str(folder) in kinds), "unknown")


def is_network(kind: str) -> bool:
    """Whether a file system's type is one of several machines."""
    return _NETWORK.search(kind) is not None
