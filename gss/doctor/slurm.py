"""The cluster: whether SLURM answers, and whether slurm/config.yaml and the experiments fit it."""

import fcntl
import getpass
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gss.config import Cluster, Resources, load_cluster, load_experiment
from gss.doctor.findings import Finding, fail, ok, warn
from gss.doctor.machine import TRY_LOCK, Answer, call, nearest_folder, scratch
from gss.errors import GssError
from gss.workflow import NESTED_SNAKEMAKES_MB

PROFILE = Path("slurm/config.yaml")
_CLIENTS = ("sbatch", "squeue", "scontrol", "srun", "scancel")
_SECONDS = 8
_QUESTIONS = {
    "squeue": ("squeue", "-h", "--me", "-o", "%i"),
    "config": ("scontrol", "show", "config"),
    "partitions": ("scontrol", "show", "partition", "-o"),
    "nodes": ("sinfo", "-h", "-N", "-o", "%R|%N|%G|%c|%m|%T"),
    "sacct": ("sacct", "-X", "-n", "--starttime=now-1hour", "-o", "JobID"),
    "accounts": ("sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}", "format=Account"),
}


@dataclass(frozen=True)
class _Node:
    gpus: int
    cpus: int
    memory_mb: int
    usable: bool


@dataclass(frozen=True)
class _Partition:
    name: str
    fields: Mapping[str, str]  # as scontrol names them
    nodes: list[_Node]


def slurm(experiments: list[str], profile: Path = PROFILE) -> Iterator[Finding]:
    """All that needs no job."""
    missing = [name for name in _CLIENTS if shutil.which(name) is None]
    if len(missing) == len(_CLIENTS):
        yield ok("SLURM", "none here; jobs run on this machine")
        return
    if missing:
        yield fail("SLURM", f"not in PATH: {', '.join(missing)}", "use a login node, or load the site's module")
        return
    with ThreadPoolExecutor(len(_QUESTIONS)) as pool:
        asked = {name: pool.submit(call, *command, seconds=_SECONDS) for name, command in _QUESTIONS.items()}
        answers = {name: future.result() for name, future in asked.items()}
    if "configuration source" in answers["squeue"].problem:
        yield warn(
            "SLURM",
            "its programs are here, but know of no cluster; jobs run on this machine",
            "for a cluster, use its login node",
        )
        return
    for name in ("squeue", "config", "partitions", "nodes"):
        if answers[name].problem:
            yield fail("SLURM", answers[name].problem, "ask the cluster's support whether the controller runs")
            return
    config = _config(answers["config"].text)
    yield ok(
        "SLURM",
        f"{config.get('SLURM_VERSION', '?')}, cluster {config.get('ClusterName', '?')}; "
        f"{len(answers['squeue'].text.splitlines())} jobs of yours are queued or running",
    )
    content = _read_profile(profile)
    yield from _status_command(content, config, answers["sacct"])
    yield from _requeue(content, config)
    cluster = load_cluster(content.get("config") or {}, profile)
    yield from _account(cluster, config, answers["accounts"])
    yield from _partitions(cluster, config, _parse_partitions(answers), experiments)


def _read_profile(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise GssError(f"not readable as YAML: {' '.join(str(error).split())}", where=path) from error
    return content if isinstance(content, dict) else {}


def _config(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _status_command(content: Mapping[str, Any], config: Mapping[str, str], sacct: Answer) -> Iterator[Finding]:
    """How Snakemake learns of the ends of jobs; a way that does not work makes it wait for ever, without a word."""
    works = not sacct.problem and config.get("AccountingStorageType", "").removeprefix("accounting_storage/") not in (
        "none",
        "(null)",
        "",
    )
    said = f"sacct {'works' if works else 'does not work here'}"
    # Snakemake's SLURM plugin takes sacct, where it is installed, unless it is told otherwise.
    chosen = content.get("slurm-status-command", "sacct" if shutil.which("sacct") else "squeue")
    pause = int(content.get("slurm-init-seconds-before-status-checks", 40))
    age = int(re.match(r"\d*", config.get("MinJobAge", ""))[0] or 300)  # type: ignore[index]
    if chosen == "sacct" and not works:
        reason = sacct.problem or "no accounting"
        yield fail(
            "job states",
            f"by sacct, which fails: {reason}; Snakemake would wait for ever",
            f"slurm-status-command: squeue in {PROFILE}",
        )
    elif chosen == "squeue" and age < 3 * pause:
        text = f"by squeue, but ended jobs leave it after {age} s (MinJobAge), less than three times {pause} s"
        advice = f"slurm-init-seconds-before-status-checks: {age // 3} or less in {PROFILE}"
        yield (
            warn("job states", f"{text}; Snakemake takes sacct then", advice)
            if works
            else fail("job states", f"{text}; {said}", advice)
        )
    else:
        yield ok("job states", f"by {chosen}; {said}; ended jobs stay {age} s in squeue")


def _requeue(content: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    """A training at its time limit has SLURM start its job again."""
    advice = f"slurm-requeue: true in {PROFILE}"
    if content.get("slurm-no-requeue"):
        yield warn("requeue", "forbidden by slurm-no-requeue; each time limit costs one of the `retries`", advice)
    elif content.get("slurm-requeue"):
        yield ok("requeue", "asked for by slurm-requeue")
    elif config.get("JobRequeue") == "1":
        yield ok("requeue", "JobRequeue=1 on this cluster")
    else:
        yield warn("requeue", "JobRequeue=0 on this cluster; each time limit costs one of the `retries`", advice)


def _account(cluster: Cluster, config: Mapping[str, str], answer: Answer) -> Iterator[Finding]:
    enforced = "associations" in config.get("AccountingStorageEnforce", "")
    yours = sorted(set(answer.text.split()))
    if answer.problem or (not yours and not enforced):
        if cluster.account:
            yield warn("account", f"{cluster.account}; whether you may use it cannot be asked here")
    elif cluster.account and cluster.account not in yours:
        yield fail(
            "account",
            f"{cluster.account} is none of yours: {', '.join(yours) or 'you have none'}",
            f"set account in {PROFILE}",
        )
    elif enforced and not yours:
        yield fail("account", "jobs need one and you have none", "ask the cluster's support for an account")
    else:
        yield ok("account", cluster.account or f"none named; yours: {', '.join(yours)}")


def _parse_partitions(answers: Mapping[str, Answer]) -> dict[str, _Partition]:
    nodes: dict[str, list[_Node]] = {}
    for line in answers["nodes"].text.splitlines():
        partition, _, gres, cpus, memory, state = line.split("|")
        gpus = sum(int(count) for count in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres))
        usable = not re.match(r"down|drain|fail|unknown|inval|no_respond|not_respond", state.lower())
        nodes.setdefault(partition, []).append(_Node(gpus, int(cpus), int(memory), usable))
    partitions = {}
    for line in answers["partitions"].text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        name = fields["PartitionName"]
        partitions[name] = _Partition(name, fields, nodes.get(name, []))
    return partitions


def _partitions(
    cluster: Cluster, config: Mapping[str, str], known: Mapping[str, _Partition], experiments: list[str]
) -> Iterator[Finding]:
    default = next((name for name, each in known.items() if each.fields.get("Default") == "YES"), None)
    plain, gpu = cluster.partition or default, cluster.gpu_partition or cluster.partition or default
    if plain is None:
        yield fail(
            "partition",
            f"none named, and the cluster has no default; there are: {', '.join(known)}",
            f"set partition in {PROFILE}",
        )
    for name in dict.fromkeys(filter(None, (plain, gpu))):
        if name in known:
            yield from _partition(known[name], config)
        else:
            yield fail(
                "partition",
                f"no partition {name!r}; there are: {', '.join(known)}",
                f"set partition and gpu_partition in {PROFILE}",
            )
    most = 0
    if gpu is not None and gpu in known:
        most = max((node.gpus for node in known[gpu].nodes), default=0)
        yield from _gpus_per_node(cluster, known[gpu].name, most)
        if most and cluster.gpus_per_node and cluster.gpus_per_node > most:  # what is wrong once that is corrected?
            cluster = cluster.model_copy(update={"gpus_per_node": most})
    for experiment in experiments:
        problems = list(_stages(experiment, cluster, known, plain, gpu))
        for problem in problems:
            yield fail("jobs", f"{experiment}: {problem}", f"change {PROFILE} or the experiment's run.resources")
        if not problems:
            yield ok("jobs", f"{experiment}: every stage fits its partition{_without_gpus(experiment, cluster, most)}")


def _partition(partition: _Partition, config: Mapping[str, str]) -> Iterator[Finding]:
    name, fields = f"partition {partition.name}", partition.fields
    usable = [node for node in partition.nodes if node.usable]
    text = (
        f"{len(usable)} of {len(partition.nodes)} nodes usable, up to {max((n.cpus for n in usable), default=0)} "
        f"cores, {max((n.gpus for n in usable), default=0)} GPUs, time limit {fields.get('MaxTime', '?')}"
    )
    preempts = config.get("PreemptType", "preempt/none") != "preempt/none"
    if fields.get("State") != "UP":
        yield fail(name, f"is {fields.get('State', '?')}", "choose another, or wait for the cluster's support")
    elif not usable:
        yield warn(name, text, "jobs will wait until nodes come back")
    elif preempts and "CANCEL" in fields.get("PreemptMode", ""):
        yield warn(
            name,
            f"{text}; it cancels preempted jobs (PreemptMode=CANCEL): Snakemake waits for them for ever",
            "choose a partition that requeues; else stop Snakemake with Ctrl-C and start it again",
        )
    else:
        yield ok(name, text)


def _gpus_per_node(cluster: Cluster, partition: str, most: int) -> Iterator[Finding]:
    name, asked = "gpus_per_node", cluster.gpus_per_node
    if most == 0:
        return  # whether anything asks for GPUs is said with the stages
    if asked is None:
        yield warn(name, f"not set; nodes of {partition} have {most}", f"gpus_per_node: {most} in {PROFILE}")
    elif asked > most:
        yield fail(name, f"{asked}, but nodes of {partition} have {most}", f"gpus_per_node: {most} in {PROFILE}")
    else:
        yield ok(name, f"{asked}; nodes of {partition} have {most}")


def _stages(
    name: str, cluster: Cluster, known: Mapping[str, _Partition], plain: str | None, gpu: str | None
) -> Iterator[str]:
    """What of an experiment's stages their partition cannot run."""
    try:
        experiment = load_experiment(name)
    except GssError:  # said elsewhere
        return
    for stage in (row.name for row in experiment.kind.stages):
        try:
            asked = cluster.fit(experiment.resources(stage), stage)
        except ValueError as error:
            yield str(error)
            continue
        partition = known.get((gpu if asked.gpus else plain) or "")
        if partition is not None and (problem := _misfit(asked, stage, partition)):
            yield problem


def _without_gpus(name: str, cluster: Cluster, most: int) -> str:
    """What to say of an experiment none of whose stages uses the GPUs of a cluster."""
    try:
        experiment = load_experiment(name)
    except GssError:  # said elsewhere
        return ""
    gaining = [row.name for row in experiment.kind.stages if row.in_processes]
    if most == 0 or any(cluster.fit(experiment.resources(stage), stage).gpus for stage in gaining):
        return ""
    return f"; none asks for GPUs (stages: {{{[*experiment.trainings, *gaining][0]}: {{gpus: 1}}}} in {PROFILE} would)"


def _misfit(asked: Resources, stage: str, partition: _Partition) -> str | None:
    limit = _minutes(partition.fields.get("MaxTime", "UNLIMITED"))
    if limit is not None and asked.minutes > limit:
        return (
            f"{stage} asks for {asked.minutes} minutes, {partition.name} grants {limit}: it would wait for ever "
            f"(max_minutes: {limit} lets it go on in several jobs)"
        )
    memory, gpus = asked.memory_mb + NESTED_SNAKEMAKES_MB, int(asked.gpus)
    fitting = sum(
        node.gpus >= gpus and node.cpus >= asked.threads and node.memory_mb >= memory for node in partition.nodes
    )
    if fitting < asked.nodes and partition.nodes:
        return (
            f"{stage} asks for {asked.nodes} x ({gpus} GPUs, {asked.threads} cores, {memory} MB); "
            f"{fitting} of {len(partition.nodes)} nodes of {partition.name} have that"
        )
    return None


def _minutes(limit: str) -> int | None:
    """A time limit of SLURM in minutes, such as 2-00:00:00; None: there is none."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if found is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return 1440 * days + 60 * hours + minutes


def lock_across_nodes(results: Path, profile: Path = PROFILE) -> Iterator[Finding]:
    """Whether two nodes see the lock that this process holds in the results folder: a job of a second."""
    name = "locks of nodes"
    cluster = load_cluster(_read_profile(profile).get("config") or {}, profile)
    existing = nearest_folder(results)
    options = [f"--partition={cluster.partition}"] if cluster.partition and "SLURM_JOB_ID" not in os.environ else []
    options += [f"--account={cluster.account}"] if cluster.account else []
    with (scratch(existing) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        answer = call(
            "srun",
            "--nodes=2",
            "--ntasks=2",
            "--ntasks-per-node=1",
            "--mem=100",
            "--time=2",
            "--overlap",
            "--immediate=60",
            "--job-name=gss-doctor",
            *options,
            sys.executable,
            "-c",
            TRY_LOCK,
            file.name,
            seconds=90,
            stop_first=True,
        )
    said = answer.text.split()
    if answer.problem:
        yield fail(name, answer.problem, "look at the nodes with sinfo; Python must be on a disk that all nodes see")
    elif said == ["held", "held"]:
        yield ok(name, "two nodes see a lock that is held here")
    elif "absent" in said:
        yield fail(name, f"nodes do not see {existing}", "put the results folder on a disk that all nodes see")
    elif "free" in said:
        yield warn(
            name,
            "a node does not see a lock that is held here; work folders are guarded by the times of files",
            "mount it with locks shared between nodes (Lustre: -o flock)",
        )
    else:
        yield warn(name, f"flock on the nodes: {answer.text}; work folders are guarded by the times of their files")
