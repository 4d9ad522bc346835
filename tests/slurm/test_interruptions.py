"""Trainings on a real SLURM cluster that are disturbed in all ways a cluster knows, and end as if nothing had happened.

SLURM and Snakemake make a test wait most of the time: all run at once, each in a folder of its own.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from project import Project
from scene import DISTURBED, MODEL, SAVE_EVERY, STEPS, Scene
from slurm_cluster import SlurmCluster
from tiny_disk import tiny_disk

from gss.results.journal import read_journal

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(2700)]

Reference = Future[Scene]
Play = Callable[[Scene, Reference], None]
PLAYS: dict[str, Play] = {}
PROCESSES: dict[str, int] = {}  # of the training, by play
AT_ONCE = 6  # a training, its launchers and Snakemakes take 2 GB


def play(function: Play, processes: int = 2) -> Play:
    """A test that runs beside the others, in a prepared folder of its own."""
    PLAYS[function.__name__], PROCESSES[function.__name__] = function, processes
    return function


def play_alone(function: Play) -> Play:
    """A `play` whose training is one process, which starts and stops without torchrun."""
    return play(function, processes=1)


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """All plays that were asked for, on their way."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if item.fspath == request.path and hasattr(item, "callspec")
    }
    folder = tmp_path_factory.mktemp("scenes")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        prepared = pool.submit(_prepare, folder / "prepared")
        references = {
            processes: pool.submit(_undisturbed, folder / f"undisturbed_{processes}", cluster, prepared, processes)
            for processes in sorted({PROCESSES[name] for name in asked})
        }

        def act(name: str) -> None:
            processes = PROCESSES[name]
            scene = Scene(folder / name, cluster, prepared=prepared.result(), processes=processes)
            PLAYS[name](scene, references[processes])

        yield {name: pool.submit(act, name) for name in PLAYS if name in asked}
        pool.shutdown(cancel_futures=True)


def _prepare(folder: Path) -> Project:
    folder.mkdir()
    project = Project(folder)
    project.configure("toy", **DISTURBED)
    done = project.snakemake("results/toy/tokenizer.safetensors")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def _undisturbed(folder: Path, cluster: SlurmCluster, prepared: Future[Project], processes: int) -> Scene:
    scene = Scene(folder, cluster, prepared=prepared.result(), processes=processes)
    done = scene.snakemake(MODEL)
    assert done.returncode == 0, done.stdout[-6000:]
    return scene


@play
def the_whole_pipeline(scene: Scene, reference: Reference) -> None:
    fresh = Scene(scene.folder.with_name("fresh"), scene.cluster)
    fresh.configure("toy", evaluation__splits=["test"], latent_prior__training__validate_every=20)
    fresh.start("all")
    assert fresh.end() == 0, fresh.report()
    jobs = [fresh.cluster.job(job) for job in fresh.jobs]
    evaluations = [f"rule_evaluate_wildcards_toy_{model}_test" for model in ("gss_ff", "gss_ft")]
    rules = ("latent_prior", "posterior", "reconstruct", "tokenizer")
    others = [f"rule_{rule}_wildcards_toy" for rule in rules]
    assert sorted(job["Comment"] for job in jobs) == ["rule_data_check_palette", *evaluations, *others]
    assert {(job["JobState"], job["NumNodes"], "gpu" in job["TRES"]) for job in jobs} == {("COMPLETED", "1", False)}
    logs = {path.stem: path.read_text() for path in (fresh.folder / "results/toy/logs").glob("*.log")}
    for stage in ("tokenizer", "reconstruct", "latent_prior", "posterior"):
        assert "2 process(es) on cpu" in logs[stage]
    images = [*(fresh.folder / "data/toy/images/test").iterdir()]
    for model in ("gss_ff", "gss_ft"):
        assert "computing on the CPU, 2 x 1 threads" in logs[f"evaluate_{model}_test"]
        kept = fresh.folder / "results/toy/evaluation" / model / "test/predictions"
        assert len([*kept.iterdir()]) == len(images)
    assert " s after the start of the job\n" in logs["latent_prior"]
    assert [event["step"] for event in read_journal(fresh.work / "journal.jsonl") if "val/mIoU" in event.get("m", {})]
    fresh.assert_undisturbed(reference)


@play
def its_time_limit_is_shorter_than_the_training(scene: Scene, reference: Reference) -> None:
    scene.configure("toy", run__deadline_margin=30)
    scene.profile(stages={"latent_prior": {"minutes": 3}})
    scene.start()
    with scene.held():
        stopped_at = scene.step()
        (job,) = scene.jobs
        limit = time.mktime(time.strptime(scene.cluster.job(job)["EndTime"], "%Y-%m-%dT%H:%M:%S"))
        time.sleep(max(0.0, limit - 35 - time.time()))
    scene.wait(lambda: scene.jobs[job] != "RUNNING", "the job's own requeue")
    assert time.time() < limit, "stopped by SLURM, not by itself"
    assert scene.end() == 0, scene.report()
    assert list(scene.jobs) == [job]
    assert int(scene.cluster.job(job)["Restarts"]) >= 1
    assert scene.starts()[1] >= stopped_at
    scene.assert_undisturbed(reference)


@play_alone
def its_node_dies(scene: Scene, reference: Reference) -> None:
    scene.profile(extra="--exclude=n1,n2,n3")
    scene.start()
    with scene.held():
        saved = scene.saved()
        (job,) = scene.jobs
        scene.cluster.kill_node("n4")
    assert scene.end() == 0, scene.report()
    assert list(scene.jobs) == [job]
    assert scene.cluster.job(job)["NodeList"] == "n5"
    assert scene.starts()[1] == saved
    scene.assert_undisturbed(reference, killed=1)


@play_alone
def its_job_is_cancelled_and_the_command_repeated(scene: Scene, reference: Reference) -> None:
    scene.start("--retries", "0", MODEL)
    with scene.held():
        stopped_at = scene.step()
        (job,) = scene.jobs
        subprocess.run(["scancel", job], env=scene.cluster.environment, check=True)
    assert scene.end() != 0
    assert "the same command goes on" in scene.output  # the end of the training's log
    scene.start()
    assert scene.end() == 0, scene.report()
    assert scene.starts()[1] >= stopped_at
    scene.assert_undisturbed(reference)


@play_alone
def its_node_is_taken_by_a_better_job(scene: Scene, reference: Reference) -> None:
    scene.profile(partition="scavenge", extra="--nodelist=n3")
    scene.start()
    with scene.held():
        stopped_at = scene.step()
        (job,) = scene.jobs
        urgent = subprocess.Popen(
            ["srun", "-p", "main", "-w", "n3", "--exclusive", "sleep", "10"], env=scene.cluster.environment
        )
        scene.wait(lambda: scene.jobs[job] != "RUNNING", "preemption")
    assert scene.end() == 0, scene.report()
    assert urgent.wait() == 0
    assert list(scene.jobs) == [job]
    assert scene.cluster.job(job)["Restarts"] == "1"
    assert scene.starts()[1] >= stopped_at
    scene.assert_undisturbed(reference)


@play
def one_of_its_processes_is_killed(scene: Scene, reference: Reference) -> None:
    scene.start()
    with scene.held() as trainers:
        saved, stopped_at = scene.saved(), scene.step()
        os.kill(trainers[0], signal.SIGKILL)
    assert scene.end() == 0, scene.report()
    assert len(scene.jobs) == 2
    assert scene.starts()[1] == saved >= stopped_at - 2 * SAVE_EVERY
    scene.assert_undisturbed(reference, killed=1)


@play_alone
def snakemake_is_killed_and_started_again(scene: Scene, reference: Reference) -> None:
    snakemake = scene.start()
    with scene.held():
        (job,) = scene.jobs
        snakemake.kill()
        snakemake.wait()
        assert scene.snakemake("--unlock").returncode == 0
        scene.start()
        scene.wait(lambda: len(scene.jobs) == 2, "the second job")
        scene.wait(lambda: re.search(rf"waiting.*{job}|{job}.*waiting", scene.log), "its word that it waits")
    assert scene.end() == 0, scene.report()
    assert list(scene.jobs.values()) == ["COMPLETED", "COMPLETED"]
    assert scene.starts() == [0]  # the second job finds the result
    scene.assert_undisturbed(reference)


@play_alone
def snakemake_gets_sigterm(scene: Scene, reference: Reference) -> None:
    snakemake = scene.start()
    with scene.held():
        snakemake.terminate()
    assert scene.end() == 1  # after the running job, whose result is kept
    scene.start()
    assert scene.end() == 0, scene.report()
    assert "Nothing to be done" in scene.output
    assert list(scene.jobs.values()) == ["COMPLETED"]
    scene.assert_undisturbed(reference)


@play_alone
def ctrl_c_in_the_terminal(scene: Scene, reference: Reference) -> None:
    snakemake = scene.start()
    with scene.held():
        stopped_at = scene.step()
        os.killpg(snakemake.pid, signal.SIGINT)
        scene.wait(lambda: "RUNNING" not in scene.jobs.values(), "the end of the job")
    assert scene.end() != 0
    scene.start()
    assert scene.end() == 0, scene.report()
    assert scene.starts()[1] >= stopped_at
    scene.assert_undisturbed(reference)


@play
def two_nodes_train_as_one(scene: Scene, reference: Reference) -> None:
    shape = {"nodes": 2, "processes": 1, "threads": 1}
    scene.profile(stages={"latent_prior": shape, "posterior": shape})
    scene.start("results/toy/posterior.pth")
    assert scene.end() == 0, scene.report()
    assert {scene.cluster.job(job)["NumNodes"] for job in scene.jobs} == {"2"}
    assert "2 process(es) on cpu" in scene.log
    scene.assert_undisturbed(reference)


@play
def more_gpus_than_a_node_has(scene: Scene, reference: Reference) -> None:
    scene.configure("toy", run__resources__latent_prior={"gpus": 5})
    scene.start()
    assert scene.end() != 0
    assert "asks for 5 GPUs" in scene.output
    assert scene.jobs == {}


@play
def a_disk_that_cannot_be_written(scene: Scene, reference: Reference) -> None:
    with tiny_disk(scene.work) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        scene.start("--retries", "0", MODEL)
        assert scene.end() != 0
        assert "Read-only file system" in scene.output
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        scene.start("--retries", "0", MODEL)
        assert scene.end() != 0
        assert "No space left on device" in scene.output
    assert STEPS not in dict(scene.losses())


@pytest.mark.parametrize("name", PLAYS)
def test_when(name: str, running: dict[str, Future[None]]) -> None:
    running[name].result()
