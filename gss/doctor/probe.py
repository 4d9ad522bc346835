"""What can be found out only with torch: a process of its own, which prints one JSON line for each finding.

Called as `python -m gss.doctor.probe RESULTS [EXPERIMENT ...]`; a torch that does not fit the machine may kill it.
"""

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

from gss.cluster.exit import die_with
from gss.cluster.torchrun import stay_local
from gss.config import Experiment, load_experiment
from gss.doctor.findings import Finding, fail, ok, warn
from gss.doctor.machine import nearest_folder
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
        _tell("torch", fail("torchvision", f"{version('torchvision')} does not fit torch: {str(error).splitlines()[0]}",
                            _AGAIN))


def _two_processes() -> None:
    stay_local()  # as on one machine `gss launch` does
    with tempfile.TemporaryDirectory() as folder:
        children = [_fork_rank(rank, Path(folder) / "meeting") for rank in (0, 1)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(os.WIFSIGNALED(status) for status in statuses):
        _tell("GPU", fail("all-reduce", f"two processes did not find each other within {_PATIENCE} s",
                          "name the network interface: export GLOO_SOCKET_IFNAME=... NCCL_SOCKET_IFNAME=..."))


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
    present = Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/nvidia0").exists()
    if present and torch.version.cuda is None:
        _tell("GPU", fail("GPU", f"torch {torch.__version__} cannot use the GPUs of this machine: it is a CPU build",
                          f"pip install 'torch==={version('torch').partition('+')[0]}' -c constraints.txt"))
    elif present and count == 0:
        reason = str(said[-1].message).splitlines()[0] if said else "no reason given"
        _tell("GPU", fail("GPU", f"torch for CUDA {torch.version.cuda} cannot use the GPUs of this machine: {reason}",
                          "a newer driver, or CUDA_VISIBLE_DEVICES"))
    else:
        _compare(names, count)


def _compare(names: list[str], count: int) -> None:
    """The GPUs against what the experiments ask of one machine."""
    import torch

    kinds: dict[str, int] = {}
    for i in range(count):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if properties.major >= 8 else "no fast bf16: use precision fp32"
        kind = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}"
        kinds[kind] = kinds.get(kind, 0) + 1
    here = "; ".join(f"{number} x {kind}" for kind, number in kinds.items()) or "none here"
    wishes = {name: _most_gpus(name) for name in names}
    largest = max(wishes, key=lambda name: wishes[name], default="")
    if not largest or wishes[largest] <= count:
        _tell("GPU", ok("GPU", f"{here}; {largest or 'no experiment'} asks for {wishes.get(largest, 0)}"))
    elif shutil.which("sbatch"):
        _tell("GPU", ok("GPU", f"{here}; the {wishes[largest]} that {largest} asks for are SLURM's affair"))
    else:
        _tell("GPU", warn("GPU", f"{here}; {largest} asks for {wishes[largest]}",
                          f"set gpus and processes in run.resources of {largest}, or use a machine with GPUs"))


def _most_gpus(name: str) -> int:
    try:
        return max((asked.gpus for asked in load_experiment(name).run.resources.values()), default=0)
    except GssError:  # said elsewhere
        return 0


def _space(results: Path, name: str, experiment: Experiment) -> None:
    """What the checkpoints and model files of an experiment will take, against what is free."""
    import torch

    from gss.models.build import build_latent_prior

    config, classes = experiment.latent_prior, experiment.data.classes
    if config.checkpoint:
        return
    backbone = config.backbone
    with torch.device("meta"):  # no memory, no arithmetic
        prior = build_latent_prior(
            backbone.name, len(classes) if isinstance(classes, tuple) else 150, experiment.tokenizer.vocab_size,
            backbone_options=backbone.options, kind=config.head, channels=config.channels,
            seg_channels=config.seg_channels, cls_channels=config.cls_channels, swin_depth=config.swin_depth,
            num_heads=config.num_heads, token_stride=config.token_stride,
        )  # fmt: skip
    parameters = sum(parameter.numel() for parameter in prior.parameters())
    model = 4 * parameters
    checkpoint = model * (3 + (config.training.ema is not None))  # weights, two moments of Adam, moving average
    kept = experiment.run.keep_checkpoints + 1  # one more while it is written
    files = len(config.milestones) + 1  # each milestone, and gss_ft.pth
    total = kept * checkpoint + files * model
    folder = results / name
    written = sum(path.stat().st_size for path in [*folder.rglob("*.pt"), *folder.glob("**/*.pth")])
    free = shutil.disk_usage(nearest_folder(results)).free
    text = (f"{name}: about {_size(total)}: {parameters / 1e6:.1f} M parameters, "
            f"{kept} checkpoints of {_size(checkpoint)}, {files} models of {_size(model)}")
    if total - written > free:
        _tell("disk", fail("space", f"{text}; {_size(free)} are free",
                           "free some space, or choose another results folder"))
    else:
        _tell("disk", ok("space", text))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
