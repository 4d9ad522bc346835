"""`gss launch` in jobs of a real SLURM, started as Snakemake's executor starts it: inside a step of its own.

What only waits is started by the fixture `slow_ones` and looked at by the last tests.
"""

import json
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from slurm_cluster import SlurmCluster, running_cluster
from test_launch import alive, pid_of, wait_for

from gss.cluster.gpus import PRETENDED_GPUS

HERE = Path(__file__).resolve().parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(bool(SlurmCluster.missing()), reason=f"not installed: {', '.join(SlurmCluster.missing())}"),
]
PATIENCE = 200  # seconds; other tests run beside these
PROGRAM = """
import sys
from pathlib import Path
from gss.cluster.launch import launch
nodes, nproc, work, how, module, gpus = sys.argv[1:]
Path(work, "launcher.pid").write_text(str(__import__("os").getpid()))
nproc, gpus = (None if word == "auto" else int(word) for word in (nproc, gpus))
sys.exit(launch(nproc, [work, how], work=Path(work), nodes=int(nodes), cpus=4, gpus=gpus, module=module))
"""


class Job:
    """A launch in a SLURM job, which is given `gpus` on each node; with `auto` the launch finds out how many."""

    def __init__(
        self,
        cluster: SlurmCluster,
        work: Path,
        how: str,
        *,
        nodes: int = 1,
        nproc: int = 1,
        gpus: int = 0,
        auto: bool = False,
        module: str = "ending_worker",
        options: tuple[str, ...] = (),
        after: str = "true",
    ) -> None:
        work.mkdir(exist_ok=True)
        self.cluster, self.work = cluster, work
        self._out = work / f"{time.monotonic_ns()}.out"
        wanted = ("auto", "auto") if auto else (nproc, gpus)
        arguments = [str(word) for word in (nodes, wanted[0], work, how, module, wanted[1])]
        launcher = shlex.join([sys.executable, "-c", PROGRAM, *arguments])
        step = shlex.join(["srun", "-n1", "--nodes=1", "--cpus-per-task=4", "bash", "-c", launcher])
        environment = [f"PYTHONPATH={HERE}:{HERE.parents[1]}", f"{PRETENDED_GPUS}={gpus or 4}"]
        self.number = cluster.call(
            "env",
            *environment,
            "sbatch",
            "--parsable",
            f"--nodes={nodes}",
            f"--ntasks={nodes}",
            "--cpus-per-task=4",
            "--mem=1000",
            f"--gres=gpu:{gpus}",
            f"--output={self._out}",
            "--open-mode=append",
            *options,
            "--wrap",
            f"{step}; echo the launcher ended with $?; {after}",
        )

    @property
    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def code(self) -> int:
        """The launcher's exit code, once it ended."""
        wait_for(lambda: "the launcher ended with" in self.out, PATIENCE)
        return int(re.findall(r"the launcher ended with (\d+)", self.out)[-1])

    def fact(self, name: str) -> str:
        """What SLURM knows of the job under a name of its own."""
        return self.cluster.job(self.number)[name]

    def left(self) -> dict:
        return json.loads((self.work / "exit.json").read_text())

    def wait(self, ranks: int = 1) -> list[int]:
        """Wait until the workers run; their pids."""
        return [pid_of(self.work, rank, PATIENCE) for rank in range(ranks)]

    def wait_end(self) -> None:
        wait_for(lambda: not self.cluster.call("squeue", "-h", "-j", self.number, "-o", "%T"), PATIENCE)


@pytest.fixture(scope="module")
def clusters() -> Iterator[dict[str, SlurmCluster]]:
    """One that watches over processes by control groups, where these are free, and one by process groups."""
    with running_cluster() as first:
        if not first.cgroups:
            yield {"process groups": first}
            return
        second = SlurmCluster(Path(tempfile.mkdtemp(prefix="gss-", dir="/tmp")), cgroups=False)
        try:
            second.start()
            yield {"control groups": first, "process groups": second}
        finally:
            second.stop()


@pytest.fixture(scope="module")
def cluster(clusters) -> SlurmCluster:
    return next(iter(clusters.values()))


@pytest.fixture(scope="module")
def slow_ones(clusters, cluster, tmp_path_factory) -> Iterator[dict[str, Job]]:
    """Jobs that are left to themselves for a minute, and their disturber."""
    folder = tmp_path_factory.mktemp("slow")
    jobs = {
        f"limit, {kind}": Job(each, folder / kind.replace(" ", "_"), "sleep", nproc=2, options=("--time=1",))
        for kind, each in clusters.items()
    }
    jobs["deadline"] = Job(cluster, folder / "deadline", "deadline")
    jobs["first"] = Job(cluster, folder / "first", "sleep")
    jobs["node"] = Job(clusters["process groups"], folder / "node", "sleep", nodes=2, options=("--nodelist=n3,n4",))

    def disturb() -> None:
        requeued = jobs["deadline"]
        wait_for(lambda: requeued.fact("Restarts") == "1", PATIENCE)
        while requeued.fact("JobState") in ("COMPLETING", "PENDING"):  # SLURM would wait two minutes
            time.sleep(2)  # not at once: it refuses a job that starts in the second it was requeued in
            cluster.call("scontrol", "update", f"JobId={requeued.number}", "StartTime=now")
        jobs["node"].wait(ranks=2)
        jobs["node"].cluster.kill_node("n4")

    disturber = threading.Thread(target=disturb)
    disturber.start()
    yield jobs
    disturber.join()


@pytest.fixture(params=["control groups", "process groups"])
def kind(request, clusters) -> str:
    if request.param not in clusters:
        pytest.skip("control groups are in use or need root")
    return request.param


def owners(work):
    return [json.loads(line) for line in (work / "owners.jsonl").read_text().splitlines()]


def test_processes_of_one_and_of_two_nodes_meet(cluster, slow_ones, tmp_path):
    one = Job(cluster, tmp_path / "one", "", nproc=2, gpus=2, module="meeting_worker")
    two = Job(cluster, tmp_path / "two", "", nodes=2, module="meeting_worker")
    for job, nodes, gpus, threads in ((one, ["n1", "n1"], "0,1", "2"), (two, ["n1", "n2"], "", "4")):
        assert job.code == 0, job.out
        notes = [json.loads((job.work / f"note_{rank}.json").read_text()) for rank in (0, 1)]
        assert [note["total"] for note in notes] == [3, 3]
        assert [note["SLURMD_NODENAME"] for note in notes] == nodes
        assert {(note["CUDA_VISIBLE_DEVICES"], note["OMP_NUM_THREADS"], note["SLURM_JOB_ID"]) for note in notes} == {
            (gpus, threads, job.number)
        }
        assert [(line["event"], line["host"], line["job"]) for line in owners(job.work)] == [
            ("taken", "n1", job.number),
            ("released", "n1", job.number),
        ]


def test_the_gpus_that_a_job_was_given_are_found(cluster, tmp_path):
    """Those it was not given are not touched, though it may see them."""
    jobs = {
        count: Job(cluster, tmp_path / str(count), "", gpus=count, auto=True, module="meeting_worker")
        for count in (2, 0)
    }
    for count, job in jobs.items():
        assert job.code == 0, job.out
        notes = [json.loads(path.read_text()) for path in job.work.glob("note_*.json")]
        seen = [note["CUDA_VISIBLE_DEVICES"] for note in notes]  # which ones are free, an earlier job decides
        assert seen in (["0,1", "0,1"], ["2,3", "2,3"]) if count else seen == [""]
        assert ("this SLURM job was given none" in job.out) == (count == 0), job.out


def test_exit_codes_travel_from_two_nodes(cluster, tmp_path):
    """Only the process on the second node fails; the other is ended, and only the cause counts."""
    causes = {
        "mend": (2, "label 7 is unknown"),
        "fault": (1, "ZeroDivisionError: our own fault"),
        "again": (75, "come again"),
        "kill": (1, "was ended by SIGKILL"),
    }
    jobs = {how: Job(cluster, tmp_path / how, how, nodes=2) for how in causes}
    for how, (code, reason) in causes.items():
        job = jobs[how]
        assert job.code == code, job.out
        assert reason in job.left()["reason"] and job.left()["code"] == code
        assert job.out.count(reason) == 1, job.out
        assert "go on, run the same command again" in job.out if code == 75 else "back into the queue" not in job.out


def test_a_cancelled_job_lets_all_processes_end_in_good_order(clusters, kind, tmp_path):
    job = Job(clusters[kind], tmp_path / "work", "sleep", nodes=2)
    workers = job.wait(ranks=2)
    job.cluster.call("scancel", job.number)
    job.wait_end()
    assert "stopped by SIGTERM" in (job.work / "worker_0.stop").read_text() + job.left()["reason"]
    assert (job.work / "worker_1.stop").exists() and job.left()["code"] == 75
    assert not any(alive(pid) for pid in workers)
    assert "back into the queue" not in job.out and job.fact("JobState") == "CANCELLED"


def test_a_killed_launcher_leaves_no_process_on_any_node(clusters, tmp_path):
    job = Job(clusters["process groups"], tmp_path / "work", "sleep", nodes=2, after="sleep 600")
    workers = job.wait(ranks=2)
    everything = [*workers, *(psutil.Process(pid).ppid() for pid in workers)]
    os.kill(int((job.work / "launcher.pid").read_text()), signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in everything), 20)
    assert job.fact("JobState") == "RUNNING"
    job.cluster.call("scancel", job.number)


def test_a_second_job_waits_for_the_first(slow_ones):
    """Until the first one's end, or until its own time is nearly over."""
    first = slow_ones["first"]
    (worker,), launcher = first.wait(), int((first.work / "launcher.pid").read_text())
    second, third = (Job(first.cluster, first.work, "done", options=options) for options in ((), ("--time=1",)))
    for job in (second, third):
        wait_for(lambda job=job: "waiting for its end" in job.out, PATIENCE)
        assert re.search(rf"is in use by process \d+ on n\d, SLURM job {first.number}, since", job.out)
    assert third.code == 75 and "the time of this job ended while waiting" in third.out
    assert alive(worker) and not (first.work / "exit.json").exists()
    os.kill(launcher, signal.SIGTERM)  # as Ctrl-C in an interactive job: it reaches the workers through srun
    assert first.code == 75 and "stopped by SIGTERM" in (first.work / "worker_0.stop").read_text()
    assert second.code == 0


def test_the_deadline_puts_the_job_back_into_the_queue_once(slow_ones):
    job = slow_ones["deadline"]
    job.wait_end()
    assert (job.fact("JobState"), job.fact("Restarts")) == ("COMPLETED", "1"), job.out
    assert job.out.count("goes back into the queue") == 1 and job.code == 0


def test_a_dead_node_ends_the_rest(slow_ones):
    """SLURM ends the job on the other node, too, and would start it anew."""
    job = slow_ones["node"]
    workers = job.wait(ranks=2)
    wait_for(lambda: job.fact("JobState") == "PENDING", PATIENCE)
    wait_for(lambda: not any(alive(pid) for pid in workers), 10)


def test_the_time_limit_lets_all_processes_end_in_good_order(kind, slow_ones):
    job = slow_ones[f"limit, {kind}"]
    workers = job.wait(ranks=2)
    job.wait_end()
    assert all("stopped by SIGTERM" in (job.work / f"worker_{rank}.stop").read_text() for rank in (0, 1))
    assert job.left()["code"] == 75 and not job.left()["deadline"]
    assert not any(alive(pid) for pid in workers)
    assert "back into the queue" not in job.out
