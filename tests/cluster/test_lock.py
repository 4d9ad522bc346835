"""Holders of a work folder in processes of their own, on file systems of all kinds."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gss.cluster import lock
from gss.cluster.launch import launch
from gss.errors import GssError

HEARTBEAT = 0.4
PROGRAM = f"""
import errno, fcntl, sys
from pathlib import Path
from gss.cluster import lock
lock.HEARTBEAT_SECONDS, lock._SETTLE_SECONDS, lock._POLL_SECONDS = {HEARTBEAT}, {HEARTBEAT}, 0.05
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
if sys.argv[2] != "flock":  # what such file systems answer
    fcntl.flock = refuse if sys.argv[2] == "refused" else lambda *_: None
with lock.writer_lock(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.read()
"""


class Holder:
    """A process that holds the lock from "holding" until its `leave` or its death."""

    def __init__(self, work, flock, host="a", **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(work), flock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SLURMD_NODENAME": host, **environment},
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.said = ""

    def says(self, words, seconds=20):
        """Whether it says this within some time."""
        end = time.monotonic() + seconds
        while words not in self.said and time.monotonic() < end:
            with contextlib.suppress(TypeError):  # nothing new
                self.said += self.process.stdout.read()
            time.sleep(0.02)
        return words in self.said

    def leave(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(20)


def events(work):
    lines = [json.loads(line) for line in (work / "owners.jsonl").read_text().splitlines()]
    return [(line["event"], line["pid"]) for line in lines]


@pytest.mark.parametrize("flock", ["flock", "refused", "local"])
def test_the_next_one_waits_for_the_end_or_the_death_of_the_holder(tmp_path, flock):
    """`local`: flock is granted to everybody, as by mounts that keep it to one host."""
    first = Holder(tmp_path, flock, "a")
    assert first.says("holding")
    second = Holder(tmp_path, flock, "b")
    assert second.says(f"{tmp_path} is in use by process {first.process.pid} on a, since")
    assert not second.says("holding", 5 * HEARTBEAT)
    first.process.kill()
    assert second.says("holding")
    third = Holder(tmp_path, flock, "a")
    assert third.says(f"process {second.process.pid} on b")
    assert second.leave() == 0 and third.says("holding", 10) and third.leave() == 0
    pids = [holder.process.pid for holder in (first, second, third)]
    assert events(tmp_path) == [
        ("taken", pids[0]),
        ("taken", pids[1]),
        ("released", pids[1]),
        ("taken", pids[2]),
        ("released", pids[2]),
    ]
    first.leave()


def test_of_two_that_come_at_once_the_last_to_sign_gets_it_without_flock(tmp_path):
    lock, first = tmp_path / "writer.lock", Holder(tmp_path, "refused")
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.01)
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "host": "b", "name": "another"}))
    for _ in range(20):
        assert not first.says("holding", HEARTBEAT / 4)
        os.utime(lock)
    assert first.says("on b") and first.says("holding")  # the other one died
    assert first.leave() == 0


def test_a_holder_that_was_taken_over_dies_before_it_writes_again(tmp_path):
    """Its whole host stood still: for the others it was dead."""
    first = Holder(tmp_path, "refused")
    assert first.says("holding")
    os.kill(first.process.pid, signal.SIGSTOP)
    second = Holder(tmp_path, "refused", "b")
    assert second.says("holding")
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.says(f"was taken over by process {second.process.pid} on b")
    assert first.leave() == -signal.SIGKILL and second.leave() == 0


def test_a_dead_host_with_working_flock_does_not_delay_its_own_next_process(tmp_path):
    first = Holder(tmp_path, "flock")
    assert first.says("holding")
    first.process.kill()
    first.process.wait()
    second = Holder(tmp_path, "flock")
    assert second.says("holding") and "in use" not in second.said
    second.leave()
    first.leave()


def test_a_launch_waits_for_a_writer_without_launcher(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("GSS_DEADLINE", str(time.time() + 62))  # gives up 60 s before
    orphan = Holder(tmp_path, "flock")
    assert orphan.says("holding")
    (tmp_path / "exit.json").write_text("of the orphan")
    began = time.monotonic()
    assert launch(1, ["check"], work=tmp_path) == 75
    assert 1 < time.monotonic() - began < 10
    out = capfd.readouterr().out
    assert f"is in use by process {orphan.process.pid}" in out and "the time of this job ended while waiting" in out
    assert (tmp_path / "exit.json").read_text() == "of the orphan"
    orphan.process.kill()
    orphan.leave()


def test_a_dead_writer_of_another_host_is_watched_once(tmp_path, monkeypatch):
    """By the launcher: its training starts at once."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", HEARTBEAT)
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.05)
    dead = Holder(tmp_path, "local")
    assert dead.says("holding")
    dead.process.kill()
    began = time.monotonic()
    assert lock.wait_for_writer(tmp_path, stopped=lambda: False)
    assert time.monotonic() - began > 3 * HEARTBEAT
    next_one = Holder(tmp_path, "local", host="b")
    assert next_one.says("holding") and "in use" not in next_one.said
    for holder in (dead, next_one):
        holder.leave()


def test_an_unusable_work_folder_is_an_error_of_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GssError, match="cannot use the work folder: Not a directory"):
        launch(1, ["check"], work=tmp_path / "file" / "work")
