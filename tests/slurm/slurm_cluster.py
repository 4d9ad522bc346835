"""A real SLURM on this machine: two nodes on loopback, four pretended GPUs each, all files below one folder.

`python tests/slurm/slurm_cluster.py FOLDER` starts one by hand, prints the PATH to use, and stops it at Ctrl-C.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("srun", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")
NODES = ("n1", "n2")
GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # SLURM wants devices; nobody opens them

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
MinJobAge=300
TCPTimeout=5
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
PartitionName=scavenge Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
"""


class SlurmCluster:
    """SLURM's daemons below a folder; `environment` has clients that talk to them.

    Args:
        folder: a short path (sockets' names are limited to about 100 characters), made new.
    """

    def __init__(self, folder: Path, proctrack: str = "proctrack/pgid") -> None:
        self.folder, self._proctrack = folder, proctrack

    @staticmethod
    def missing() -> list[str]:
        """Programs that are not installed."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return [name for name in (*DAEMONS, *CLIENTS[:6]) if shutil.which(name, path=path) is None]

    @property
    def environment(self) -> dict[str, str]:
        """This environment with the cluster's clients first in PATH (the variable SLURM_CONF is lost in jobs)."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**kept, "PATH": f"{self.folder}/bin:{kept['PATH']}"}

    def start(self) -> None:
        """Start all daemons and wait until both nodes are idle."""
        for name in ("state", "spool/n1", "spool/n2", "log", "bin", "munge", "sock"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o700)
        (self.folder / "sock").chmod(0o755)
        self.folder.chmod(0o755)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._configure()
        self._daemon("munged", f"--key-file={key}", f"--socket={self.folder}/sock/munge",
                     f"--pid-file={self.folder}/munge/pid", f"--log-file={self.folder}/munge/log",
                     f"--seed-file={self.folder}/munge/seed", "--force")
        self._daemon("slurmctld", "-c")
        for node in NODES:
            self.start_node(node)
        self.wait_idle()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._daemon("slurmd", "-c", "-N", node)

    def kill_node(self, node: str) -> None:
        """Let a node die: its daemon and the steps it watches over, all at once."""
        pid = int((self.folder / f"{node}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        for step, command in _processes():
            if "slurmstepd" in command and self._node_of(step) == node:
                for child in _descendants(step):
                    _kill(child)

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until all nodes can take jobs."""
        end = time.monotonic() + seconds
        while set(self.call("sinfo", "-h", "-N", "-o", "%T").split()) != {"idle"}:
            if time.monotonic() > end:
                raise RuntimeError(f"the nodes did not become idle; see {self.folder}/log")
            time.sleep(0.1)

    def call(self, *command: str) -> str:
        """Run a client; its output, or nothing when it fails."""
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    def stop(self) -> None:
        """End all jobs and daemons, and what is left of jobs."""
        user = pwd.getpwuid(os.getuid()).pw_name
        self.call("scancel", "-u", user)
        end = time.monotonic() + 10
        while self.call("squeue", "-h") and time.monotonic() < end:
            time.sleep(0.2)
        for name in ("n1.pid", "n2.pid", "ctld.pid", "munge/pid"):
            with contextlib.suppress(OSError, ValueError):
                _kill(int((self.folder / name).read_text()), signal.SIGTERM)
        for pid, _ in _processes():
            with contextlib.suppress(OSError):
                if f"{self.folder}/bin:" in Path(f"/proc/{pid}/environ").read_text(errors="replace") and pid != os.getpid():
                    _kill(pid)

    def _configure(self) -> None:
        ports = _free_ports(3)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket=8 ThreadsPerCore=1 RealMemory=16000 Gres=gpu:{len(GPUS)} State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True))
        user = pwd.getpwuid(os.getuid()).pw_name
        conf = self.folder / "slurm.conf"
        conf.write_text(_CONF.format(folder=self.folder, port=ports[0], user=user, nodes=nodes,
                                     proctrack=self._proctrack))
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in GPUS))
        for name in CLIENTS:
            real = shutil.which(name)
            if real is not None:
                client = self.folder / "bin" / name
                client.write_text(f'#!/bin/sh\nexport SLURM_CONF={conf}\nexec {real} "$@"\n')
                client.chmod(0o755)

    def _daemon(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert program is not None
        subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env={**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}, cwd=self.folder)

    def _node_of(self, pid: int) -> str | None:
        """The node a step's watcher belongs to, by the log file it holds open."""
        for node in NODES:
            with contextlib.suppress(OSError):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    if os.readlink(link) == f"{self.folder}/log/{node}.log":
                        return node
        return None


@contextlib.contextmanager
def running_cluster(folder: Path, proctrack: str = "proctrack/pgid") -> Iterator[SlurmCluster]:
    """A cluster inside."""
    cluster = SlurmCluster(folder, proctrack)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def _processes() -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((int(folder.name), (folder / "cmdline").read_text(errors="replace").replace("\0", " ")))
    return found


def _descendants(pid: int) -> list[int]:
    """A process and all below it."""
    children: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                children += _descendants(int(folder.name))
    return [pid, *children]


def _kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    with running_cluster(Path(sys.argv[1]).absolute()) as started:
        print(f"export PATH={started.folder}/bin:$PATH", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
