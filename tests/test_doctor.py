"""The doctor names what is wrong, of whatever kind it is, and what to do; it never hangs and leaves nothing behind."""

import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml

from gss.cluster import gpus
from gss.doctor import experiments, machine, probe, slurm
from gss.doctor.findings import Check, Finding, examine, ok, summary, warn
from gss.errors import GssError

ROOT = Path(__file__).resolve().parents[1]
for room in ("slurm", "train"):  # pytest's importlib mode does not
    sys.path.insert(0, str(ROOT / "tests" / room))
from slurm_cluster import SlurmCluster, running_cluster  # noqa: E402
from tiny_disk import tiny_disk  # noqa: E402


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def only(findings: Iterable[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


# --- how checks run ---------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_or_breaks_does_not_disturb_the_others() -> None:
    def hangs() -> Iterator[Finding]:
        yield ok("first", "seen")
        time.sleep(100)

    def breaks() -> Iterator[Finding]:
        raise ZeroDivisionError("oh")
        yield

    def refuses() -> Iterator[Finding]:
        raise GssError("a wrong file", where="there", todo="mend it")
        yield

    started = time.monotonic()
    screen = io.StringIO()
    checks = [Check("slow", hangs, 0.5), Check("broken", breaks), Check("wrong", refuses)]
    found = examine({"one": checks, "two": [Check("good", lambda: iter([ok("good", "all of it")]))]}, screen)
    assert time.monotonic() - started < 5
    assert [(each.state, each.name) for each in found] == [
        ("ok", "first"),
        ("FAIL", "slow"),
        ("FAIL", "broken"),
        ("FAIL", "wrong"),
        ("ok", "good"),
    ]
    assert summary(found) == "2 ok, 0 warnings, 3 FAIL"
    assert "  FAIL  wrong            a wrong file (there) -> mend it\n" in screen.getvalue()


def test_colour_and_line_breaks_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(stream: io.StringIO) -> str:
        examine({"group": [Check("x", lambda: iter([warn("x", "word " * 60)]))]}, stream)
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[33mwarn" in shown(Terminal()) and max(map(len, shown(Terminal()).splitlines())) < 120
    assert "\033" not in shown(io.StringIO()) and len(shown(io.StringIO()).splitlines()) == 2
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in shown(Terminal())


def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    started = time.monotonic()
    answer = machine.call("sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait", seconds=0.5)
    assert "no answer" in answer.problem and time.monotonic() - started < 5
    pid, end = int((tmp_path / "pid").read_text()), time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


# --- Python and packages ----------------------------------------------------------------------------------------------


def test_packages_are_those_of_the_constraints(tmp_path: Path) -> None:
    assert [each.state for each in machine.packages(ROOT)] == ["ok"]
    requirements, constraints = ((ROOT / name).read_text() for name in ("requirements.in", "constraints.txt"))
    (tmp_path / "requirements.in").write_text(requirements)
    (tmp_path / "constraints.txt").write_text(constraints.replace("\ntorch==2.13.0\n", "\ntorch==2.14.1\n"))
    (found,) = machine.packages(tmp_path)
    assert found.state == "warn" and "torch 2.13.0 (tested: 2.14.1)" in found.found

    (tmp_path / "requirements.in").write_text("torch>=2.14\n# a comment\nno-such-package\n")
    found = next(machine.packages(tmp_path))
    assert found.state == "FAIL" and "pip install" in found.todo
    assert found.found == "torch 2.13.0 (needed: >=2.14); no-such-package is missing (needed: any version)"


def test_torch_that_kills_its_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = only(machine.Probe([], tmp_path).about("torch"), "torch")
    assert found.state == "FAIL" and "SIGILL" in found.found


@pytest.mark.slow
def test_torch_two_processes_and_the_size_of_checkpoints(tmp_path: Path) -> None:
    probe = machine.Probe(["toy", "ade20k"], tmp_path)
    assert {(each.state, each.name) for each in probe.about("torch")} == {("ok", "torch"), ("ok", "torchvision")}
    assert only(probe.about("GPU"), "gloo all-reduce").state == "ok"
    toy, ade20k = probe.about("disk")
    assert "2 models of" in ade20k.found and "3 checkpoints of 2.7 GB" in ade20k.found and toy.state == "ok"
    assert not any(tmp_path.iterdir())


# --- GPUs, processes, shared memory -----------------------------------------------------------------------------------


def looked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int, *names: str
) -> list[Finding]:
    """What the doctor says of a machine with so many GPUs."""
    kind = SimpleNamespace(name="NVIDIA H200", major=9, total_memory=140 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: kind)
    monkeypatch.setattr(shutil, "which", lambda _: None)  # no SLURM
    probe._gpus(list(names))
    told = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    return [Finding(**{key: value for key, value in each.items() if key != "topic"}) for each in told]


def test_gpus_are_named_and_what_experiments_do_with_them(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "present", lambda: True)
    mine = tmp_path / "mine.yaml"
    content = yaml.safe_load((ROOT / "config/experiments/toy.yaml").read_text())
    mine.write_text(yaml.safe_dump({**content, "run": {"resources": {"posterior": {"gpus": 0}}}}))
    first, *others = looked(monkeypatch, capsys, 3, "ade20k", str(mine))
    assert (first.state, first.found) == ("ok", "3 x NVIDIA H200, 140 GiB, bf16")
    told = [f"{each.state} {each.found}" for each in others if each.name == "GPU"]
    assert any(text.startswith("warn ade20k, latent_prior: 1 of 3 GPUs lies idle: a batch of 32") for text in told)
    assert any(
        re.match("ok ade20k, latent_prior: made for 8 GPUs; here are 2, .* about 4 times as long", text)
        for text in told
    )
    assert any(text.startswith(f"warn {mine}, latent_prior: 1 of 3 GPUs lies idle") for text in told)
    assert any(
        f"{mine}, posterior: the GPUs of this machine lie idle: run.resources asks for none" in text for text in told
    )


def test_a_machine_without_gpus_is_no_fault_and_a_published_experiment_a_warning(monkeypatch, capsys) -> None:
    monkeypatch.setattr(probe, "_gpus_present", lambda: False)
    first, *others = looked(monkeypatch, capsys, 0, "toy", "ade20k")
    assert (first.state, first.found) == ("ok", "none here; stages compute on the CPU")
    assert [(each.state, each.found) for each in others if each.name == "GPU"] == [
        ("warn", "ade20k, latent_prior: made for 8 GPUs"),
        ("warn", "ade20k, posterior: made for 8 GPUs"),
    ]


def test_gpus_that_torch_does_not_see_are_a_fault(monkeypatch, capsys, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.version, "cuda", None)
    (found,) = looked(monkeypatch, capsys, 0, "toy")
    assert found.state == "FAIL" and "it is a CPU build" in found.found and "pip install" in found.todo
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = looked(monkeypatch, capsys, 0, "toy")
    assert found.state == "warn" and "CUDA_VISIBLE_DEVICES= hides those" in found.found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (found,) = looked(monkeypatch, capsys, 0, "toy")
    assert found.state == "FAIL" and "cannot use the GPUs" in found.found


def test_shared_memory_that_the_crops_do_not_fit_into(monkeypatch, capsys) -> None:
    monkeypatch.setattr(probe, "_gpus_present", lambda: False)
    blocks = 64 * 2**20 // 4096  # Docker's
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=blocks, f_bavail=blocks, f_frsize=4096))
    found = [each for each in looked(monkeypatch, capsys, 0, "toy", "ade20k") if each.name == "shared memory"]
    assert [each.state for each in found] == ["ok", "FAIL"]
    assert "ade20k: /dev/shm is too small" in found[1].found and "--shm-size" in found[1].todo


def test_a_host_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.name for each in machine.host_name()] == ["host name"]

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (found,) = machine.host_name()
    assert found.state == "warn" and "has no address here: Name or service not known" in found.found
    assert "/etc/hosts" in found.todo


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_disk_that_is_good(tmp_path: Path) -> None:
    found = list(machine.disk(tmp_path / "results"))
    assert [each.name for each in found] == ["results folder", "write speed", "hard links", "locks"]
    assert {each.state for each in found} <= {"ok", "warn"} and only(found, "locks").state == "ok"
    assert not (tmp_path / "results").exists()


def test_nothing_stays_in_the_results_folder(tmp_path: Path) -> None:
    code = "import sys, pathlib; from gss.doctor import machine; print(*machine.disk(pathlib.Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    assert not list(tmp_path.iterdir())


def test_disk_that_is_full(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "1m"):
        found = only(machine.disk(tmp_path / "disk"), "results folder")
        assert found.state == "FAIL" and "No space left" in found.found and "free some disk space" in found.todo
        assert "tmpfs" in found.found


def test_folder_that_others_own() -> None:
    code = (
        "import os, pathlib\nfrom gss.doctor import machine\nos.geteuid() or os.seteuid(65534)\n"
        "print(*machine.disk(pathlib.Path('/usr/lib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "state='FAIL', name='results folder', found='cannot write: Permission denied" in done.stdout, done.stderr


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("")  # in a chroot
    assert machine.file_system(tmp_path, table) == "unknown" and not machine.is_network("unknown")
    table.write_text(f"30 1 8:1 / / rw - ext4 /dev/sda rw\n31 30 0:9 /x {tmp_path} rw shared:1 - nfs4 server:/x rw\n")
    assert machine.file_system(tmp_path / "results", table) == "nfs4" and machine.is_network("nfs4")
    assert machine.file_system(Path("/usr"), table) == "ext4" and not machine.is_network("ext4")


# --- SLURM ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    if missing := SlurmCluster.missing():
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)")
    with running_cluster() as started:
        yield started


@pytest.fixture
def clients(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The cluster, with its clients first in this process's PATH."""
    for name in [name for name in os.environ if name not in cluster.environment]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    return cluster


def profile(folder: Path, *, cluster: dict[str, object] | None = None, **keys: object) -> Path:
    """A profile as slurm/config.yaml is one."""
    path = folder / "config.yaml"
    block = {"partition": "main", "gpus_per_node": 4, **(cluster or {})}
    named = {name.replace("_", "-"): value for name, value in keys.items()}
    path.write_text(
        yaml.safe_dump(
            {
                "slurm-status-command": "squeue",
                "slurm-requeue": True,
                "slurm-init-seconds-before-status-checks": 20,
                **named,
                "config": {"cluster": block},
            }
        )
    )
    return path


def test_no_slurm_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [each.state for each in slurm.slurm(["toy"])] == ["ok"]
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    found = only(slurm.slurm(["toy"]), "SLURM")
    assert found.state == "FAIL" and "sbatch, scontrol, srun, scancel" in found.found


@pytest.mark.slurm
def test_profile_that_fits_the_cluster(clients: SlurmCluster, tmp_path: Path) -> None:
    found = list(slurm.slurm(["toy"], profile(tmp_path)))
    assert [(each.state, each.name) for each in found] == [
        ("ok", "SLURM"),
        ("ok", "job states"),
        ("ok", "requeue"),
        ("ok", "partition main"),
        ("ok", "gpus_per_node"),
        ("ok", "jobs"),
    ]


@pytest.mark.slurm
def test_ends_of_jobs_that_nobody_would_notice(clients: SlurmCluster, tmp_path: Path) -> None:
    found = only(slurm.slurm([], profile(tmp_path, slurm_status_command="sacct")), "job states")
    assert found.state == "FAIL" and "slurm-status-command: squeue" in found.todo
    late = profile(tmp_path, slurm_init_seconds_before_status_checks=1500)  # MinJobAge is 3600 s
    found = only(slurm.slurm([], late), "job states")
    assert found.state == "FAIL" and "checks: 1200 or less" in found.todo


@pytest.mark.slurm
def test_wishes_that_the_cluster_cannot_grant(clients: SlurmCluster, tmp_path: Path) -> None:
    found = list(slurm.slurm(["toy"], profile(tmp_path, cluster={"partition": "mian"})))
    assert only(found, "partition").state == "FAIL"
    assert "no partition 'mian'; there are: main, scavenge" in only(found, "partition").found

    found = list(slurm.slurm(["toy"], profile(tmp_path, cluster={"gpus_per_node": 8})))
    assert only(found, "gpus_per_node").todo.startswith("gpus_per_node: 4 in")

    wishes = {"latent_prior": {"gpus": 5}, "posterior": {"nodes": 9}}
    refused = list(slurm.slurm(["toy"], profile(tmp_path, cluster={"gpus_per_node": 4, "stages": wishes})))
    texts = [each.found for each in refused if each.name == "jobs"]
    assert len(texts) == 2 and "cannot be shared out evenly" in texts[0] and "posterior asks for 9 x" in texts[1]


@pytest.mark.slurm
def test_partition_that_cancels_or_grants_too_little_time(clients: SlurmCluster, tmp_path: Path) -> None:
    clients.call("scontrol", "update", "PartitionName=scavenge", "PreemptMode=CANCEL", "MaxTime=1-01:00:00")
    asked = {"partition": "main", "gpu_partition": "scavenge", "stages": {"latent_prior": {"gpus": 1, "minutes": 1501}}}
    found = list(slurm.slurm(["toy"], profile(tmp_path, cluster=asked)))
    assert "PreemptMode=CANCEL" in only(found, "partition scavenge").found
    assert only(found, "partition scavenge").state == "warn"
    assert "latent_prior asks for 1501 minutes, scavenge grants 1500" in only(found, "jobs").found
    enough = profile(tmp_path, cluster={**asked, "max_minutes": 1500})
    assert only(slurm.slurm(["toy"], enough), "jobs").state == "ok"


@pytest.mark.slurm
def test_account_that_cannot_be_asked_for(clients: SlurmCluster, tmp_path: Path) -> None:
    assert only(slurm.slurm([], profile(tmp_path, cluster={"account": "mine"})), "account").state == "warn"


@pytest.mark.slurm
def test_lock_between_nodes(clients: SlurmCluster, tmp_path: Path) -> None:
    assert [each.state for each in slurm.lock_across_nodes(tmp_path, profile(tmp_path))] == ["ok"]
    found = only(slurm.lock_across_nodes(tmp_path, profile(tmp_path, cluster={"partition": "mian"})), "locks of nodes")
    assert found.state == "FAIL" and "partition" in found.found


@pytest.mark.slurm
@pytest.mark.parametrize("trouble", ["client", "controller"])
def test_slurm_that_hangs(clients: SlurmCluster, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = int((clients.folder / "ctld.pid").read_text())
    monkeypatch.setattr(slurm, "_SECONDS", 2)
    if trouble == "client":
        (tmp_path / "squeue").write_text("#!/bin/sh\nsleep 300\n")
        (tmp_path / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    else:
        os.kill(controller, signal.SIGSTOP)
    started = time.monotonic()
    try:
        found = only(slurm.slurm(["toy"], profile(tmp_path)), "SLURM")
    finally:
        os.kill(controller, signal.SIGCONT)
    assert found.state == "FAIL" and "squeue gave no answer within 2 s" in found.found
    assert time.monotonic() - started < 10


@pytest.mark.slurm
def test_controller_that_is_gone(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster() as other:
        os.kill(int((other.folder / "ctld.pid").read_text()), signal.SIGKILL)
        monkeypatch.setenv("PATH", other.environment["PATH"])
        monkeypatch.setattr(slurm, "_SECONDS", 3)
        assert [(each.state, each.name) for each in slurm.slurm(["toy"], profile(tmp_path))] == [("FAIL", "SLURM")]


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", 0),
        ("gpu:4", 4),
        ("gpu:a100:8(S:0-1)", 8),
        ("gpu:1080ti:2,gpu:h100_3g.20gb:3", 5),
        ("shard:12", 0),
    ],
)
def test_gpus_of_a_node(gres: str, gpus: int) -> None:
    answers = {
        "nodes": machine.Answer(f"main|n1|{gres}|32|64000|mixed*", ""),
        "partitions": machine.Answer("PartitionName=main State=UP", ""),
    }
    assert slurm._parse_partitions(answers)["main"].nodes == [slurm._Node(gpus, 32, 64000, True)]


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["half-made", "no database", "folder", "refused", "silent", "nowhere"])
def test_store_that_cannot_be_used(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    uri, said = f"sqlite:///{file}", ""
    with socket.create_server(("127.0.0.1", 0)) as listening:  # nobody answers there
        if fault == "half-made":
            with sqlite3.connect(file) as database:
                database.execute("CREATE TABLE _alembic_tmp_experiments (id INTEGER)")
            said = "half-made"
        elif fault == "no database":
            file.write_text("not a database, " * 100)
            said = "file is not a database"
        elif fault == "folder":
            uri, said = f"file:{tmp_path}", "refused"
        elif fault == "nowhere":
            uri, said = f"sqlite:///{tmp_path}/no/such/mlflow.db", "cannot be made"
        else:
            uri = f"http://me:secret@127.0.0.1:{listening.getsockname()[1]}"
            said = "does not answer: "
            if fault == "refused":
                listening.close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        before = sorted(tmp_path.iterdir())
        started = time.monotonic()
        found = only(experiments.mlflow_store(), "MLflow")
    assert found.state == "FAIL" and said in found.found and found.todo
    assert "secret" not in found.found and time.monotonic() - started < 6
    assert sorted(tmp_path.iterdir()) == before


def test_store_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert "will be made" in only(experiments.mlflow_store(), "MLflow").found
    assert not any(tmp_path.iterdir())
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE alembic_version (version TEXT)")
        database.execute("CREATE TABLE runs (id TEXT)")
        database.execute("INSERT INTO runs VALUES ('a')")
    found = only(experiments.mlflow_store(), "MLflow")
    assert found.state == "ok" and found.found.endswith("mlflow.db, 1 runs")
    monkeypatch.setattr(experiments, "file_system", lambda path: "nfs4")
    assert only(experiments.mlflow_store(), "MLflow").state == "warn"


# --- data and weights -------------------------------------------------------------------------------------------------


def test_files_an_experiment_lacks_are_named_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSS_DATA", str(tmp_path))
    assert [each.state for each in experiments.inputs("toy")] == ["ok"]
    lacking = {each.found.split(": ")[1]: each for each in experiments.inputs("ade20k")}
    assert [Path(place).relative_to(tmp_path).as_posix() for place in lacking] == [
        "ADEChallengeData2016",
        "dall-e/encoder.pkl",
        "dall-e/decoder.pkl",
        "weights/swin_large_patch4_window12_384.ms_in22k.safetensors",
    ]
    assert all(each.state == "FAIL" and "GSS_DATA" in each.todo for each in lacking.values())
    for place in list(lacking)[1:]:
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("x")
    (tmp_path / "ADEChallengeData2016" / "images" / "training").mkdir(parents=True)
    split = {each.found for each in experiments.inputs("ade20k")}
    assert any(text.startswith("images of train is empty") for text in split) and len(split) == 4
    (tmp_path / "ADEChallengeData2016.zip").write_text("the workflow unpacks it")
    assert [each.state for each in experiments.inputs("ade20k")] == ["ok"]


# --- all of it --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_verb_as_a_person_types_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-m", "gss", "doctor", "--results", str(tmp_path / "results"), "toy"]
    good = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert good.returncode == 0 and good.stdout.rstrip().endswith("0 FAIL"), good.stdout + good.stderr
    bad = subprocess.run(
        [*command, "ty"], env={**environment, "MLFLOW_TRACKING_URI": "file:x"}, cwd=ROOT, capture_output=True, text=True
    )
    assert bad.returncode == 2 and "no experiment 'ty'" in bad.stdout and "refused by this MLflow" in bad.stdout
    assert not list(tmp_path.iterdir())
