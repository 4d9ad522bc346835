import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from apart import apart

from gss.cli import parser
from gss.cluster import launch as launching
from gss.cluster import torchrun
from gss.cluster.gpus import PRETENDED_GPUS
from gss.cluster.launch import launch
from gss.errors import GssError

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
ENVIRONMENT.pop("SLURM_JOB_ID", None)
PROGRAM = """
import sys
from pathlib import Path
from gss.cluster.launch import launch
nproc, work, how = sys.argv[1:]
sys.exit(launch(int(nproc), [work, how], work=Path(work), module="ending_worker"))
"""


def start(work, ending, *, nproc=1):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(nproc), str(work), ending],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid):
    """Whether a process runs; one that nobody reaps does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def pid_of(work, rank=0, seconds=60):
    path = work / f"worker_{rank}.pid"
    wait_for(lambda: path.is_file() and path.read_text(), seconds)
    return int(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "nproc", "code", "reason"),
    [
        ("mend", 2, 2, "label 7 is unknown\n  where: a.png\n  to do: map it"),
        ("again", 1, 75, "come again"),
        ("fault", 1, 1, "ZeroDivisionError: our own fault"),
        ("kill", 1, 1, "was ended by SIGKILL"),
        ("kill", 2, 1, "was ended by SIGKILL"),
    ],
)
def test_exit_codes_reach_the_caller(tmp_path, ending, nproc, code, reason):
    """Only the last of two processes fails; the other is ended, and only the cause is told."""
    (tmp_path / "exit.json").write_text('{"code": 33}')
    process = start(tmp_path, ending, nproc=nproc)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == code, out
    left = json.loads((tmp_path / "exit.json").read_text())
    assert left["code"] == code and reason in left["reason"]
    assert out.count(reason) == 1
    assert ("Traceback" in out) == (ending == "fault"), out
    if ending == "again":
        assert "to go on, run the same command again" in out


@pytest.mark.slow
@pytest.mark.parametrize("nproc", [1, 2])
def test_workers_die_with_a_killed_torchrun_or_launch(tmp_path, nproc):
    for number, victim in enumerate(("torchrun", "launch")):
        work = tmp_path / victim
        process = start(work, "sleep", nproc=nproc)
        workers = [pid_of(work, rank) for rank in range(nproc)]
        torchrun = psutil.Process(workers[0]).ppid()
        assert psutil.Process(torchrun).ppid() == process.pid
        os.kill(torchrun if number == 0 else process.pid, signal.SIGKILL)
        wait_for(lambda pids=(torchrun, *workers): not any(alive(pid) for pid in pids), 10)
        assert process.wait(20) == (1 if number == 0 else -9)
        process.stdout.close()


@pytest.mark.slow
def test_a_second_launch_waits_and_names_the_owner(tmp_path):
    first = start(tmp_path, "sleep")
    pid_of(tmp_path)
    owner = json.loads((tmp_path / "lock").read_text())
    assert owner["pid"] == first.pid
    second, third = start(tmp_path, "done"), start(tmp_path, "done")
    for waiting in (second, third):
        line = waiting.stdout.readline()
        assert f"{tmp_path} is in use by process {first.pid} on {owner['host']}" in line and "waiting" in line
    third.send_signal(signal.SIGTERM)
    assert third.wait(20) == 75
    assert second.poll() is None and first.poll() is None
    first.kill()
    assert second.wait(60) == 0
    for process in (first, second, third):
        process.stdout.close()


@pytest.mark.slow
def test_a_stop_outside_the_loop_is_orderly(tmp_path):
    """In a verb without the training loop, and before any worker runs."""
    process = start(tmp_path / "verb", "sleep")
    pid_of(tmp_path / "verb")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75
    early = start(tmp_path / "early", "sleep")
    wait_for(lambda: (tmp_path / "early" / "lock").exists() and (tmp_path / "early" / "lock").read_text())
    early.send_signal(signal.SIGTERM)
    assert early.wait(60) == 75
    for started in (process, early):
        started.stdout.close()


@pytest.mark.slow
def test_nodes_and_cores_are_those_of_this_machine_outside_slurm(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert launch(1, [str(tmp_path), "done"], work=tmp_path, nodes=2, module="ending_worker", cpus=6) == 0
    assert capfd.readouterr().out.count("threads 3 of 2") == 2
    assert not (tmp_path / "exit.json").exists()


@pytest.mark.slow
def test_processes_of_one_machine_meet_without_a_name_for_it(tmp_path):
    program = PROGRAM.replace("ending_worker", "meeting_worker")
    command = shlex.join([sys.executable, "-c", program, "2", str(tmp_path), ""])
    nameless = f"hostname no-such-name-anywhere && exec {command}"
    done = subprocess.run(
        [*apart("--uts"), "sh", "-c", nameless], env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads((tmp_path / f"note_{rank}.json").read_text())["total"] for rank in (0, 1)] == [3, 3]
    assert "no-such-name-anywhere" not in done.stderr


def addresses(monkeypatch, **known):
    """A name server that knows these names only."""

    def resolve(name, *_):
        if name not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(None, None, None, "", (known[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "gethostname", lambda: "n2")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"n2": "10.0.0.2"}, "n2 cannot find the first node, n1: Name or service not known"),
        ({"n1": "10.0.0.1"}, "other nodes cannot reach n2: .*Name or service not known"),
        ({"n1": "10.0.0.1", "n2": "127.0.1.1"}, r"(?s)other nodes cannot reach n2: .*127\.0\.1\.1.*GLOO_SOCKET_IFNAME"),
    ],
)
def test_nodes_that_could_not_meet_say_so_at_once(monkeypatch, known, said):
    addresses(monkeypatch, **known)
    with pytest.raises(GssError, match=said):
        torchrun._check_names("n1")


def test_nodes_that_can_meet_are_let_through(monkeypatch):
    addresses(monkeypatch, n1="10.0.0.1", n2="10.0.0.2")
    torchrun._check_names("n1")
    addresses(monkeypatch, n1="10.0.0.1", n2="127.0.1.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    torchrun._check_names("n1")
    addresses(monkeypatch, n1="127.0.0.1")  # both on one machine
    torchrun._check_names("n1")


@pytest.mark.slow
def test_the_printed_command_is_the_whole_command(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    work, given = tmp_path / "a work", {"cpus": 2, "gpus": 0, "divided": 8, "log": tmp_path / "its.log", "nodes": 1}
    words = [str(work), "again", "--results", "r", "a.b=c d"]
    assert launch(1, words, work=work, module="ending_worker", **given) == 75
    (line,) = (line for line in capfd.readouterr().out.splitlines() if line.startswith("to go on"))
    again = parser().parse_args(shlex.split(line.partition(" or: gss ")[2]))
    assert {name: getattr(again, name) for name in (*given, "nproc", "work")} == {**given, "nproc": 1, "work": work}
    assert again.command == ["--", *words]


def test_stages_start_with_what_makes_them_faster_unless_told_otherwise(monkeypatch):
    for name in launching._FASTER:
        monkeypatch.delenv(name, raising=False)
    assert launching._environment(None).items() >= launching._FASTER.items()
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert launching._environment(None)["GOMP_SPINCOUNT"] == "7"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "processes", "note"),
    [
        ({"divided": 16}, 2, "1 of 3 GPUs lies idle: a batch of 16 cannot be divided among 3"),
        ({"divided": 12}, 3, ""),
        ({"divided": 16, "gpus": 8}, 2, "1 of 3 GPUs lies idle: a batch of 16 cannot be divided among 3"),
        ({"nproc": 2, "gpus": 0}, 2, "the GPUs of this machine lie idle: run.resources asks for none; `gpus: auto`"),
    ],
)
def test_the_gpus_of_this_machine_are_used(tmp_path, monkeypatch, capfd, options, processes, note):
    """Unless they are refused; those that lie idle are named, and how to use them."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(PRETENDED_GPUS, "3")
    options = {"nproc": None, **options}
    assert launch(command=[str(tmp_path)], work=tmp_path, module="meeting_worker", cpus=4, **options) == 0
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("note_*.json")]
    assert len(notes) == processes
    assert {each["OMP_NUM_THREADS"] for each in notes} == {str(4 // processes)}
    out = capfd.readouterr().out
    assert f"computing on the CPU, {processes} x {4 // processes} threads" in out
    assert note in out and ("idle" in out) == bool(note)


@pytest.mark.slow
def test_gpus_that_are_not_there_are_one_clear_error(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv(PRETENDED_GPUS, raising=False)
    assert launch(2, [str(tmp_path), "done"], work=tmp_path, gpus=2, module="ending_worker") == 2
    told = capfd.readouterr()
    assert (told.out + told.err).count("2 GPUs were asked for, but torch sees none") == 1
    assert "Traceback" not in told.err


def test_in_a_slurm_job_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GssError, match="this is SLURM job 7, but there is no command scontrol in PATH"):
        launch(1, ["check"], work=tmp_path)
