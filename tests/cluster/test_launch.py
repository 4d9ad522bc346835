import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gss.cluster.launch import launch

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
PROGRAM = """
import sys, json
from pathlib import Path
from gss.cluster.launch import launch
nproc, work, how, follow = sys.argv[1:5]
sys.exit(launch(int(nproc), [work, how], work=Path(work), module="ending_worker", follow=json.loads(follow)))
"""


def start(work, ending, *, nproc=1, follow=None, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(nproc), str(work), ending, json.dumps(follow)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


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


def pid_of(work, rank=0):
    path = work / f"worker_{rank}.pid"
    wait_for(lambda: path.is_file() and path.read_text())
    return int(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code", "reason"), [
    ("mend", 2, "label 7 is unknown\n  where: a.png\n  to do: map it"),
    ("again", 75, "come again"), ("fault", 1, "ZeroDivisionError: our own fault"), ("kill", 1, None)])
def test_exit_codes_reach_the_caller(tmp_path, ending, code, reason):
    """Only the last of two processes fails; the other is ended, and only the cause is told."""
    (tmp_path / "exit.json").write_text('{"code": 33}')
    process = start(tmp_path, ending, nproc=2 if ending in ("mend", "kill") else 1)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == code, out
    if reason is None:
        assert not (tmp_path / "exit.json").exists()
    else:
        left = json.loads((tmp_path / "exit.json").read_text())
        assert left["code"] == code and reason in left["reason"]
        assert out.count(reason) == 1
    assert ("Traceback" in out) == (ending == "fault"), out
    if ending == "kill":
        assert "was ended by SIGKILL" in out
    if ending == "again":
        assert "to go on, run the same command again" in out


@pytest.mark.slow
def test_workers_die_with_a_killed_torchrun_or_launch(tmp_path):
    for number, victim in enumerate(("torchrun", "launch")):
        work = tmp_path / victim
        process = start(work, "sleep", nproc=2)
        workers = [pid_of(work, rank) for rank in (0, 1)]
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
    owner = json.loads((tmp_path / "owner.json").read_text())
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
    wait_for((tmp_path / "early" / "owner.json").is_file)
    early.send_signal(signal.SIGTERM)
    assert early.wait(60) == 75
    for started in (process, early):
        started.stdout.close()


@pytest.mark.slow
def test_the_follower_runs_beside_and_ends_with_the_training(tmp_path):
    notes = tmp_path / "notes"
    follower = ("import signal, sys, time\n"
                f"note = open({str(notes)!r}, 'a', buffering=1)\n"
                "def end(*_):\n"
                "    note.write('ended\\n'); sys.exit(3)\n"
                "signal.signal(signal.SIGTERM, end)\n"
                "note.write('running\\n')\n"
                "time.sleep(600)\n")
    process = start(tmp_path, "done", follow=[sys.executable, "-c", follower])
    assert process.wait(60) == 0
    process.stdout.close()
    assert not (tmp_path / "exit.json").exists()
    assert notes.read_text() == "running\nended\n"


@pytest.mark.slow
def test_a_follower_that_cannot_start_costs_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    code = launch(2, [str(tmp_path), "done"], work=tmp_path, module="ending_worker", cpus=6,
                  follow=["/nonexistent/follower"])
    out = capfd.readouterr().out
    assert code == 0 and "cannot start /nonexistent/follower: No such file" in out
    assert out.count("threads 3 of 2") == 2
