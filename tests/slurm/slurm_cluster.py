"""A real SLURM on this machine: five nodes on loopback, four pretended GPUs each, all files below one folder.

`python tests/slurm/slurm_cluster.py FOLDER` starts one by hand, prints the PATH to use, and stops it at Ctrl-C.
"""

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("srun", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2", "n3", "n4", "n5")  # jobs that exclude none go to the first two
GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # SLURM wants devices; nobody opens them
_CGROUPS = Path("/sys/fs/cgroup")

_CONF = """
ClusterName=gss
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/sock/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/ctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType={proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdTimeout=15
KillWait=30
MinJobAge=3600
TCPTimeout=5
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
"""


class SlurmCluster:
    """SLURM's daemons below a folder; `environment` has clients that talk to them.

    Args:
        folder: a short path (sockets' names are limited to about 100 characters), made new.
        cgroups: watch over processes by control groups, as most clusters do; needs root and cgroup v1, and one cluster
            per machine. Otherwise by process groups: there, signals reach all processes of a job, and those with a
            session of their own outlive it.
    """

    def __init__(self, folder: Path, *, cgroups: bool) -> None:
        self.folder, self.cgroups = folder, cgroups

    @staticmethod
    def missing() -> list[str]:
        """Programs that are not installed."""
        return [name for name in (*DAEMONS, *CLIENTS) if _program(name) is None]

    @property
    def environment(self) -> dict[str, str]:
        """This environment with the cluster's clients first in PATH (the variable SLURM_CONF is lost in jobs)."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH_"))}
        return {**kept, "PATH": f"{self.folder}/bin:{kept['PATH']}"}

    def start(self) -> None:
        """Start all daemons and wait until all nodes are idle."""
        for name in (*(f"spool/{node}" for node in NODES), "state", "log", "bin", "munge", "sock"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._configure()
        self._daemon(
            "munged",
            f"--key-file={key}",
            f"--socket={self.folder}/sock/munge",
            f"--pid-file={self.folder}/munge/pid",
            f"--log-file={self.folder}/munge/log",
            f"--seed-file={self.folder}/munge/seed",
            "--force",
        )
        self._daemon("slurmctld", "-c")
        for node in NODES:
            self.start_node(node)
        self.wait_idle()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._daemon("slurmd", "-c", "-N", node)

    def kill_node(self, node: str) -> None:
        """Let a node die: its daemon and all that runs there, at once, without a last word."""
        _kill_all(lambda environment: f"{self.folder}/" in environment and f"\0SLURMD_NODENAME={node}\0" in environment)

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until all nodes can take jobs."""
        end = time.monotonic() + seconds
        while set(self.call("sinfo", "-h", "-N", "-o", "%T").split()) != {"idle"}:
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-2000:] for path in (self.folder / "log").iterdir())
                raise RuntimeError(f"the nodes did not become idle; SLURM's logs:\n{logs}")
            time.sleep(0.1)

    def call(self, *command: str) -> str:
        """Run a client; its output, or nothing when it fails."""
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    def jobs(self, folder: Path) -> dict[str, str]:
        """States of the jobs that were submitted from a folder, also of those that ended, by job id."""
        lines = self.call("squeue", "-h", "--states=all", "-o", "%i %T %Z").splitlines()
        found = sorted((line.split(maxsplit=2) for line in lines), key=lambda line: int(line[0]))
        return {job: state for job, state, place in found if place == str(folder)}

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job, by its own names; empty when it knows none."""
        fields = self.call("scontrol", "show", "job", "-o", number).split()
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def stop(self) -> None:
        """End all daemons and jobs, and whatever else knows of this cluster; nothing is left of them."""
        _kill_all(lambda environment: f"{self.folder}/" in environment)
        if self.cgroups:
            _remove_cgroups()
        shutil.rmtree(self.folder)

    def _configure(self) -> None:
        ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=32 Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket=32 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:{len(GPUS)} Weight={1 + number // 2}"
            for number, (name, port) in enumerate(zip(NODES, ports[1:], strict=True))
        )
        user = pwd.getpwuid(os.getuid()).pw_name
        conf = self.folder / "slurm.conf"
        proctrack = "proctrack/cgroup" if self.cgroups else "proctrack/pgid"
        conf.write_text(_CONF.format(folder=self.folder, port=ports[0], user=user, nodes=nodes, proctrack=proctrack))
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in GPUS))
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={_CGROUPS}\n")
        for name in (*CLIENTS, *(["sacct"] if _program("sacct") else [])):
            client = self.folder / "bin" / name
            client.write_text(f'#!/bin/sh\nexport SLURM_CONF={conf}\nexec {_program(name)} "$@"\n')
            client.chmod(0o755)

    def _daemon(self, name: str, *arguments: str) -> None:
        """Start a daemon; the watchers of a node's steps inherit its environment, so that `kill_node` finds them."""
        node = {"SLURMD_NODENAME": arguments[-1]} if name == "slurmd" else {}
        subprocess.run(
            [str(_program(name)), *arguments],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **node},
        )


@contextlib.contextmanager
def running_cluster(folder: Path | None = None) -> Iterator[SlurmCluster]:
    """A cluster inside, in a new folder; with control groups where they can be used."""
    place = folder or Path(tempfile.mkdtemp(prefix="gss-", dir="/tmp"))
    with _control_groups() as cgroups:
        cluster = SlurmCluster(place, cgroups=cgroups)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def _control_groups() -> Iterator[bool]:
    """Whether control groups can be used: SLURM's are named by node, so one cluster of the machine has them."""
    if os.geteuid() != 0 or not os.access(_CGROUPS / "freezer/cgroup.procs", os.W_OK):
        yield False
        return
    with open("/tmp/gss-slurm-cgroups.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        _remove_cgroups()  # of a cluster that was killed
        yield True


def _remove_cgroups(seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    for top in _CGROUPS.glob("*/slurm_n[0-9]"):
        for folder, _, _ in os.walk(top, topdown=False):
            while os.path.isdir(folder):
                try:
                    os.rmdir(folder)
                except OSError:  # a process that was killed is still ending
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.1)


def _kill_all(belongs: Callable[[str], bool]) -> None:
    """SIGKILL every process whose environment belongs, and all below it; none sees another one die and reports it."""
    end = time.monotonic() + 20
    stopped: set[int] = set()
    while new := _with_children(belongs) - stopped:
        _signal(new, signal.SIGSTOP)
        stopped |= new
    while found := _with_children(belongs):
        if time.monotonic() > end:
            raise RuntimeError(f"cannot kill {sorted(found)}")
        _signal(found, signal.SIGKILL)
        time.sleep(0.02)


def _signal(processes: set[int], number: int) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _with_children(belongs: Callable[[str], bool]) -> set[int]:
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state in "ZX" or int(folder.name) == os.getpid():
                continue
            parents[int(folder.name)] = int(parent)
            if belongs(f"\0{(folder / 'environ').read_text(errors='replace')}"):
                found.add(int(folder.name))
    while below := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= below
    return found


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with running_cluster(Path(sys.argv[1]).absolute()) as started:
        print(f"export PATH={started.folder}/bin:$PATH", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
