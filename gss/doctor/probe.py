"""What can be found out only with torch: a process of its own, which prints one JSON line for each finding.

Called as `python -m gss.doctor.probe RESULTS [EXPERIMENT ...]`; a torch that does not fit the machine may kill it.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from gss.cluster import gpus
from gss.cluster.exit import die_with
from gss.cluster.torchrun import stay_local
from gss.config import Experiment, load_experiment
from gss.data.shared_memory import REMEDY, Demand
from gss.doctor.findings import Finding, fail, ok, warn
from gss.doctor.machine import call, nearest_folder
from gss.errors import GssError

_AGAIN = "pip install -r requirements.in -c constraints.txt"
_PATIENCE = 20  # s that two processes wait for each other


def main(results: Path, names: list[str]) -> None:
    """Import torch, let two processes talk, look at GPUs and at the size of checkpoints."""
    die_with(os.getppid())
    try:
        import torch
    except (ImportError, OSError) as error:
        _tell("torch", fail("torch", f"cannot be imported: {error}", _AGAIN))
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    _tell("torch", ok("torch", f"{torch.__version__} ({build})"))
    _two_processes()  # forks: before anything touches a GPU
    _torchvision()
    _gpus(names)
    for name in names:
        try:
            _space(results, name, load_experiment(name))
        except GssError as error:
            _tell("disk", warn("space", f"{name}: not known: {error.what}", error.todo or ""))


def _tell(topic: str, finding: Finding) -> None:
    print(json.dumps({"topic": topic, **vars(finding)}), flush=True)


def _torchvision() -> None:
    from gss._compat import import_timm

    try:
        timm = import_timm()
        _tell("torch", ok("torchvision", f"{version('torchvision')}, imported by timm {timm.__version__}"))
    except (ImportError, RuntimeError, OSError) as error:
        _tell(
            "torch",
            fail("torchvision", f"{version('torchvision')} does not fit torch: {str(error).splitlines()[0]}", _AGAIN),
        )


def _two_processes() -> None:
    stay_local()  # as on one machine `gss launch` does
    with tempfile.TemporaryDirectory() as folder:
        children = [_fork_rank(rank, Path(folder) / "meeting") for rank in (0, 1)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(os.WIFSIGNALED(status) for status in statuses):
        _tell(
            "GPU",
            fail(
                "all-reduce",
                f"two processes did not find each other within {_PATIENCE} s",
                "name the network interface: export GLOO_SOCKET_IFNAME=... NCCL_SOCKET_IFNAME=...",
            ),
        )


def _fork_rank(rank: int, meeting: Path) -> int:
    child = os.fork()
    if child == 0:
        signal.alarm(_PATIENCE)  # ends it, wherever it hangs
        try:
            _all_reduce(rank, meeting)
        except Exception as error:
            if rank == 0:
                _tell("GPU", fail("all-reduce", f"{type(error).__name__}: {str(error).splitlines()[0]}"))
        finally:
            os._exit(0)
    return child


def _all_reduce(rank: int, meeting: Path) -> None:
    import torch
    from torch import distributed

    patience = timedelta(seconds=_PATIENCE)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=patience)
    rooms = [("gloo", "cpu", None)]
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(rank)
        rooms.append(("NCCL", f"cuda:{rank}", distributed.new_group(backend="nccl", timeout=patience)))
    for name, device, group in rooms:
        value = torch.tensor([rank + 1.0], device=device)
        distributed.all_reduce(value, group=group)
        if value.item() != 3:
            raise RuntimeError(f"{name} adds 1 and 2 to {value.item()}")
        if rank == 0:
            _tell("GPU", ok(f"{name} all-reduce", "two processes on this machine"))


def _gpus(names: list[str]) -> None:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count or not _gpus_present():
        _compare(names, count)
    elif torch.version.cuda is None and torch.version.hip is None:
        _tell(
            "GPU",
            fail(
                "GPU",
                f"torch {torch.__version__} cannot use the GPUs of this machine: it is a CPU build",
                f"pip install 'torch==={version('torch').partition('+')[0]}' -c constraints.txt",
            ),
        )
    elif gpus.hidden():
        value = os.environ["CUDA_VISIBLE_DEVICES"]
        _tell("GPU", warn("GPU", f"CUDA_VISIBLE_DEVICES={value} hides those of this machine", "unset it to use them"))
    else:
        reason = str(said[-1].message).splitlines()[0] if said else "no reason given"
        _tell(
            "GPU",
            fail(
                "GPU",
                f"torch for CUDA {torch.version.cuda} cannot use the GPUs of this machine: {reason}",
                "a newer driver, or CUDA_VISIBLE_DEVICES",
            ),
        )


def _gpus_present() -> bool:
    """By the files of this machine, or by NVIDIA's own tool."""
    return gpus.present() or "GPU 0" in call("nvidia-smi", "-L", seconds=10).text


def _compare(names: list[str], count: int) -> None:
    """The GPUs against what the experiments ask of one machine."""
    import torch

    kinds: dict[str, int] = {}
    for i in range(count):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if properties.major >= 8 else "no fast bf16: use precision fp16 or fp32"
        kind = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}"
        kinds[kind] = kinds.get(kind, 0) + 1
    here = "; ".join(f"{number} x {kind}" for kind, number in kinds.items()) or "none here"
    if shutil.which("sbatch"):
        _tell("GPU", ok("GPU", f"{here}; those that experiments ask for are SLURM's affair"))
        return
    _tell("GPU", ok("GPU", f"{here}{'' if count else '; stages compute on the CPU'}"))
    for name in names:
        try:
            experiment = load_experiment(name)
        except GssError:  # said elsewhere
            continue
        demands = []
        for part in experiment.trainings:
            processes, findings = _on_gpus(f"{name}, {part}", experiment, part, count)
            demands.append(_of_loader(experiment, part, processes, count, _label_bytes(name)))
            for finding in findings:
                _tell("GPU", finding)
        if not demands:
            continue
        largest = max(demands, key=lambda demand: demand.bytes)
        shortage = largest.shortage()
        _tell(
            "GPU",
            fail("shared memory", f"{name}: {shortage}", REMEDY)
            if shortage
            else ok("shared memory", f"{name}: {largest}"),
        )


def _on_gpus(name: str, experiment: Experiment, part: str, count: int) -> tuple[int, list[Finding]]:
    """Processes of a training here, and which GPUs it leaves idle, lacks, or replaces by accumulation."""
    asked, made_for = experiment.resources(part), experiment.made_for(part)
    wanted = None if asked.gpus == "auto" else asked.nodes * asked.gpus
    processes = asked.processes and asked.nodes * asked.processes
    if count == 0 or wanted == 0:
        lacking = f"made for {made_for} GPUs" if made_for else gpus.unused(count, wanted)
        remedy = "set gpus: auto in run.resources, or use another machine" if made_for else ""
        return processes or 1, [warn("GPU", f"{name}: {lacking}", remedy)] if lacking else []
    found, idle = gpus.share(count, gpus=wanted, processes=processes, batch=experiment.divided(part))
    findings = [warn("GPU", f"{name}: {idle}")] if idle else []
    if made_for and made_for > found:
        findings.append(
            ok(
                "GPU",
                f"{name}: made for {made_for} GPUs; here are {found}, which keep its batch by "
                f"accumulation and take about {made_for / found:.2g} times as long",
            )
        )
    return found, findings


def _of_loader(experiment: Experiment, part: str, processes: int, count: int, label_bytes: int) -> Demand:
    """What the loader of a training needs here."""
    training = experiment.at(experiment.trainings[part])
    made_for = experiment.made_for(part) if count else None
    parts = gpus.parts(training.batch_size, training.accumulation, made_for, processes)
    samples = training.batch_size // (processes * parts)
    return Demand(samples, experiment.augment.crop, parts, experiment.run.workers, processes, label_bytes)


def _label_bytes(name: str) -> int:
    """Of a pixel of the label; 1 while the class table is not there."""
    from gss.data.ids import tensor_dtype
    from gss.stages.run import Run

    with contextlib.suppress(GssError):
        return tensor_dtype(Run.open(name).declared_space().num_classes).itemsize
    return 1


def _space(results: Path, name: str, experiment: Experiment) -> None:
    """What the checkpoints and model files of an experiment will take, against what is free."""
    import torch

    classes = experiment.data.classes
    with torch.device("meta"):  # no memory, no arithmetic
        found = experiment.kind.part("rehearse").largest(
            experiment, len(classes) if isinstance(classes, tuple) else 150
        )
    if found is None:
        return
    network, key, files = found
    parameters = sum(parameter.numel() for parameter in network.parameters())
    model = 4 * parameters
    checkpoint = model * (3 + (experiment.at(key).ema is not None))  # weights, two moments of Adam, moving average
    kept = experiment.run.keep_checkpoints + 1  # one more while it is written
    total = kept * checkpoint + files * model
    folder = results / name
    written = sum(path.stat().st_size for path in [*folder.rglob("*.pt"), *folder.glob("**/*.pth")])
    free = shutil.disk_usage(nearest_folder(results)).free
    text = (
        f"{name}: about {_size(total)}: {parameters / 1e6:.1f} M parameters, "
        f"{kept} checkpoints of {_size(checkpoint)}, {files} models of {_size(model)}"
    )
    if total - written > free:
        _tell(
            "disk",
            fail("space", f"{text}; {_size(free)} are free", "free some space, or choose another results folder"),
        )
    else:
        _tell("disk", ok("space", text))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
