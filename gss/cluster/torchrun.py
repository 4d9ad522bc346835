"""torchrun as `gss launch` starts it, once per node: quiet about orderly ends, and with the cause of the others told.
A process that is the only one runs without it.

`python -m gss.cluster.torchrun WORK [--nproc P] [--gpus G] [--divided B] --cpus C [--nodes N --address A --port P]
-- MODULE ARGUMENTS`
"""

import argparse
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from gss.cluster import gpus
from gss.cluster.exit import LAUNCHED_IN, TORCHRUN_PID, die_with, leave, read_exit
from gss.collector import spare_modules
from gss.errors import GssError
from gss.output import open_output

_LOCAL = "127.0.0.1"
_STOPPED = "stopped by {}; the same command starts it again"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(arguments: list[str]) -> int:
    """Run the processes of one node, and leave `exit.json` when they fail.

    Returns:
        0, or the exit code of the first worker that failed; 1 when a signal ended that one, 75 when a signal came
        to torchrun itself. With several nodes the highest code wins; only `exit.json` knows the first.
    """
    open_output()
    spare_modules()
    given = _grammar().parse_args(arguments)
    die_with(os.getppid())  # the launcher, or SLURM's watcher of this node
    signal.signal(signal.SIGUSR1, _stop_once)

    try:
        processes, note = _processes(given)
        if given.nodes > 1:
            _check_names(given.address)
    except GssError as error:
        leave(given.work, error.exit_code, f"error: {error}")
    if given.nodes == 1:  # not --standalone, which looks up the address of this machine's name
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={_LOCAL}:0", f"--local-addr={_LOCAL}"]
        stay_local()
    else:
        meeting = [
            f"--nnodes={given.nodes}",
            f"--node-rank={os.environ['SLURM_PROCID']}",
            f"--master-addr={given.address}",
            f"--master-port={given.port}",
        ]
    # torch notes it with each event that it records, for nobody here; a silent name server takes 10 s every time
    socket.getfqdn = lambda name="": name or socket.gethostname()
    # Snakemake sets all cores for each
    os.environ.update(dict.fromkeys(_THREADS, str(max(1, given.cpus // processes))))
    os.environ[gpus.NOTE] = note
    os.environ[TORCHRUN_PID] = str(os.getpid())
    os.environ[LAUNCHED_IN] = str(given.work.absolute())
    if given.nodes == processes == 1:
        return _run_alone(given.work, given.command)

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # it reports each ended worker with a traceback of its own
    try:
        run.main([*meeting, f"--nproc-per-node={processes}", "-m", *given.command])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _ended(given.work, rank, failure.pid, failure.exitcode)
    except SignalException as stopped:
        leave(given.work, 75, _STOPPED.format(stopped.sigval.name))
    return 0


def _run_alone(work: Path, command: list[str]) -> int:
    """Run the only process without torch's agent: it has nobody to bring it together with, and its import takes longer
    than many a stage."""
    worker: subprocess.Popen[bytes] | None = None
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if worker is not None:
            worker.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    worker = subprocess.Popen([sys.executable, "-u", "-m", *command], env=os.environ | place, start_new_session=True)
    if stopped:  # it came before there was a worker
        worker.send_signal(signal.SIGTERM)
    code = worker.wait()
    if stopped and code == -signal.SIGTERM:  # before it could hear it
        leave(work, 75, _STOPPED.format("SIGTERM"))
    return _ended(work, 0, worker.pid, code)


def _ended(work: Path, rank: int, pid: int, exitcode: int) -> int:
    """The exit code of a worker; of one that a signal ended, who could not say it itself, `exit.json` tells it."""
    if exitcode < 0:
        left = read_exit(work)
        if left is not None and left["code"] == 75 and not left["deadline"]:
            (work / "exit.json").unlink()  # said by a process that was stopped because this one had died
        name, host = signal.Signals(-exitcode).name, socket.gethostname()
        cause = "SIGKILL without a cause in sight often means that memory ran out"
        leave(work, 1, f"process {rank} (pid {pid} on {host}) was ended by {name}; {cause}")
    return exitcode


def stay_local() -> None:
    """Let the processes of this machine talk without asking a name server for its address."""
    for interface in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def _grammar() -> argparse.ArgumentParser:
    grammar = argparse.ArgumentParser()
    grammar.add_argument("work", type=Path)
    grammar.add_argument("--nproc", type=int)
    grammar.add_argument("--gpus", type=int)
    grammar.add_argument("--divided", type=int)
    grammar.add_argument("--cpus", type=int, required=True)
    grammar.add_argument("--nodes", type=int, default=1)
    grammar.add_argument("--address")
    grammar.add_argument("--port", type=int)
    grammar.add_argument("command", nargs="+")
    return grammar


def _stop_once(number: int, frame: FrameType | None) -> None:
    """SIGUSR1, the one signal that srun passes on without killing, is SIGTERM; the launcher repeats it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGTERM)


def _processes(given: argparse.Namespace) -> tuple[int, str]:
    """How many processes this node runs, and what is to be said of its GPUs; those that are not for them are hidden.

    Raises:
        GssError: GPUs are wanted and none is seen, or fewer than the SLURM job was given.
    """
    usable = 0
    if gpus.present() or given.gpus:  # without, torch need not be asked
        import torch

        if torch.cuda.is_available():  # those of too old a driver would be counted, too
            usable = torch.cuda.device_count()
    seen, wanted = int(os.environ.get(gpus.PRETENDED_GPUS, usable)), given.gpus
    if wanted and not seen:
        build = "" if torch.version.cuda or torch.version.hip else f"; torch {torch.__version__} knows no GPUs"
        raise GssError(
            f"{wanted} GPUs were asked for, but torch sees none on {socket.gethostname()}{build}",
            where=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}",
            todo="run `nvidia-smi` there, and `gss doctor`; to use the CPU set run.resources.STAGE.gpus: 0",
        )
    if wanted and "SLURM_JOB_ID" in os.environ and seen < min(wanted, given.nproc or wanted):
        raise GssError(
            f"the SLURM job was given {wanted} GPUs, but torch sees {seen} on {socket.gethostname()}",
            where=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}",
            todo="run `nvidia-smi` there, and ask the cluster's support",
        )
    if seen and wanted != 0 and (wanted or gpus.granted()):
        return gpus.share(seen, gpus=wanted, processes=given.nproc, batch=given.divided, nodes=given.nodes)
    note = gpus.unused(seen, wanted)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # here, because SLURM sets it anew on every node
    return given.nproc or 1, note


def _check_names(address: str) -> None:
    """That this node finds the first one, and is found by the others: each of them waits for half an hour otherwise.

    gloo gives them the address that belongs to the name of its host.
    """
    here = socket.gethostname()
    try:
        first = _resolve(address)
    except OSError as error:
        raise GssError(
            f"{here} cannot find the first node, {address}: {error.strerror}",
            where="NodeAddr of `scontrol show node`",
            todo="have it added to /etc/hosts or the name server, or run the stage on one node",
        ) from error
    if first.is_loopback or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    try:
        found = str(_resolve(here))
    except OSError as error:
        found = error.strerror or str(error)
    else:
        if not ipaddress.ip_address(found).is_loopback:
            return
    raise GssError(
        f"other nodes cannot reach {here}: the address of its name is not known here ({found})",
        where="/etc/hosts, or the name server",
        todo="have it mended, or name the network between the nodes, as `ip address` does: "
        "export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0",
    )


def _resolve(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(socket.getaddrinfo(name, None)[0][4][0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
