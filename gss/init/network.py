"""Sizes, encoder and training for this machine: the sections beside `data`."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gss.config import Resources, data_folder, find_recipe
from gss.errors import ConfigError
from gss.init.plan import Plan
from gss.init.splits import placed

DOWNLOADED = "weights"  # folder in that of the data sets
_UNKNOWN = 100  # steps, until one is measured
_AS_SHIPPED = "as the shipped CamVid experiments train"
_PIXEL = (
    "a per-pixel network: on CamVid, in small, it scored higher than GSS in a quarter of the time (README); --recipe "
    "gss trains GSS"
)


class Machine(NamedTuple):
    """What is computed on.

    Args:
        device: `cpu` or `cuda`.
        cores: CPU cores.
        memory: GiB of the GPU, or of the machine.
        hides_gpus: a GPU is there and not to be used.
    """

    device: str
    cores: int
    memory: float
    hides_gpus: bool = False

    def __str__(self) -> str:
        kind = "a GPU" if self.device == "cuda" else f"{self.cores} CPU cores"
        return f"{kind} with {self.memory:.0f} GiB"


class Means(NamedTuple):
    """What kind of device an experiment is for.

    Args:
        side: longest side of a photograph at ratio 1, pixels.
        channels: width of heads.
        batch: images per update.
        encoder: timm's name and tag of an encoder where no file of weights is at hand.
    """

    side: int
    channels: int
    batch: int
    encoder: tuple[str, str]


_CPU = Means(480, 64, 8, ("tf_efficientnet_lite0", "in1k"))
_SMALL_GPU = Means(768, 128, 8, ("resnet50", "a1_in1k"))
_LARGE_GPU = Means(1024, 256, 16, ("convnext_tiny", "fb_in22k_ft_in1k"))


def machine(device: str | None) -> Machine:
    """This machine.

    Args:
        device: what is asked for; None: a GPU where torch sees one.

    Raises:
        ConfigError: there is none.
    """
    import torch

    sees = torch.cuda.is_available()
    if device == "cuda" and not sees:
        raise ConfigError("torch sees no GPU", where="--device cuda", todo="see `gss doctor`, or take --device cpu")
    chosen = device or ("cuda" if sees else "cpu")
    cores = len(os.sched_getaffinity(0))
    if chosen == "cuda":
        return Machine(chosen, cores, torch.cuda.get_device_properties(0).total_memory / 2**30)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return Machine(chosen, cores, memory, hides_gpus=sees)


def means(on: Machine) -> Means:
    """The sizes that fit a machine."""
    if on.device == "cpu":
        return _CPU
    return _LARGE_GPU if on.memory > 20 else _SMALL_GPU


def decide_sizes(plan: Plan, sizes: Sequence[tuple[int, int]], on: Machine) -> None:
    """Set `augment` and the size that images are measured at.

    Args:
        sizes: (height, width) of some photographs.
    """
    height, width = (round(statistics.median(column)) for column in zip(*sizes, strict=True))
    side = means(on).side
    factor = min(1.0, side / max(height, width))
    base = [max(1, round(width * factor)), max(1, round(height * factor))]
    kind = "all" if len(set(sizes)) == 1 else "the middle one of those looked at"
    why = f"photographs have {width} x {height} ({kind})"
    plan.put("augment.base_scale", base, why + (f"; {side} pixels are what a {on.device} does" if factor < 1 else ""))
    crop = [max(32, 32 * round(0.7 * length / 32)) for length in (base[1], base[0])]
    plan.put("augment.crop", crop, "(height, width): about 0.7 of each side, in steps of 32")
    plan.put("augment.ratio", [0.75, 1.5])
    if factor < 1:
        plan.put("evaluation.scale", base, "measured at the size that was trained on, compared at the labels' own")


def decide_encoder(plan: Plan, key: str, on: Machine, *, download: bool) -> None:
    """Set the image encoder and its weights.

    Args:
        key: of its section.
        download: fetch weights that are not at hand.
    """
    files = _weight_files()
    frozen = {"frozen_levels": 2} if on.device == "cpu" else {}
    if files:
        small = on.device == "cpu"
        name, path = (min if small else max)(files, key=lambda found: (found[1].stat().st_size, found[0]))
        others = ", ".join(sorted(other for other, file in files if file != path))
        why = f"pretrained weights that lie there{f'; {others} besides' if others else ''}"
        why += ", the smallest for a CPU" if small and others else ", the largest for a GPU" if others else ""
        weights = placed(path)
    else:
        name, tag = means(on).encoder
        weights = f"timm:{tag}"
        why = f"no weights of an encoder in {data_folder() / DOWNLOADED}: these are downloaded when the training begins"
        if download:
            weights, why = _downloaded(name, weights), f"downloaded: {name}.{tag} of timm"
        else:
            plan.notes.append(
                f"{name} needs pretrained weights, {weights}, and a network when its training begins: --download "
                "fetches them now"
            )
    plan.put(f"{key}.backbone", {"name": name, "weights": weights, **frozen, "norm_eval": True}, why)


def _weight_files() -> list[tuple[str, Path]]:
    """Encoders whose weights lie in the folder of data sets, and the files."""
    from gss._compat import import_timm

    timm, base = import_timm(), data_folder().resolve()
    files = [path for folder in (base / DOWNLOADED, base) for path in sorted(folder.glob("*"))]
    named = [(path.stem, path) for path in files if path.suffix in (".safetensors", ".pth") and path.is_file()]
    return [(stem, path) for stem, path in named if timm.is_model(stem)]


def _downloaded(name: str, weights: str) -> str:
    """Fetch weights of timm into the folder of data sets; returns the file as experiments name it.

    Raises:
        CheckpointError, ConfigError: they cannot be had.
    """
    from safetensors.torch import save

    from gss.checkpoints import read_backbone_weights
    from gss.files import write_atomic

    tensors = read_backbone_weights(name, weights, data_folder())
    path = data_folder().resolve() / DOWNLOADED / f"{name}.safetensors"
    content = save({key: value.contiguous() for key, value in tensors.items()})
    write_atomic(path, lambda file: file.write(content))
    return placed(path)


def decide_training(plan: Plan, recipe: str | None, on: Machine, *, download: bool) -> None:
    """Set the recipe and its sections but for the numbers of steps.

    Args:
        recipe: what is asked for; None: what is better in small.
    """
    size = means(on)
    plan.content = {"recipe": recipe or "pixel", **plan.content}
    plan.reasons["recipe"] = "as asked" if recipe else _PIXEL
    shared = {"batch_size": size.batch, "warmup_steps": 40, "clip_norm": 1.0}
    training = {**shared, "lr": 2.0e-3, "backbone_lr_factor": 0.5, "class_balance": 0.5}
    if recipe == "gss":
        _decide_gss(plan, on, shared, training, download=download)
        return
    decide_encoder(plan, "pixel", on, download=download)
    plan.put("pixel.channels", size.channels)
    plan.put("pixel.steps", _UNKNOWN)
    plan.put("pixel.training", training, _AS_SHIPPED)


def _decide_gss(plan: Plan, on: Machine, shared: dict[str, Any], training: dict[str, Any], *, download: bool) -> None:
    """Set the sections of GSS.

    Args:
        shared: settings of every training; `training`: those of the latent prior.
    """
    wide = means(on).channels
    plan.put(
        "tokenizer",
        {"vocab_size": 512, "n_hid": wide // 4, "n_init": wide, "blocks_per_group": 1},
        "a small one: the published one takes days",
    )
    plan.put("reconstruction", {"max_rounds": 1, "retrain_steps": 300, "refine_images": 40})
    decide_encoder(plan, "latent_prior", on, download=download)
    widths = {"channels": wide, "seg_channels": 2 * wide, "cls_channels": 4 * wide}
    plan.content["latent_prior"] |= {"milestones": [_UNKNOWN], **widths, "num_heads": 4}
    plan.put("latent_prior.training", training, _AS_SHIPPED)
    plan.put("posterior.variant", "conv", "the small X^-1")
    plan.content["posterior"] |= {"channels": wide // 4, "steps": _UNKNOWN}
    plan.put("posterior.training", {**shared, "lr": 4.0e-3, "class_balance": 0.25})


def decide_machine(plan: Plan, on: Machine) -> None:
    """Set what the stages ask of the machine."""
    trained = [row.name for row in find_recipe(plan.content["recipe"]).stages if row.in_processes]
    read = ("labels", "check") if "annotations" in plan.content["data"] else ("check",)
    asked = {stage: {"gpus": 0} if on.hides_gpus else {} for stage in trained}
    if on.cores != Resources().threads:
        asked = {stage: {"threads": on.cores, **asked.get(stage, {})} for stage in (*read, *trained)}
    if any(asked.values()):
        plan.put("run.resources", asked, f"{on}")
    plan.put("run.log_every", 20)
    plan.put("run.save_every", 100)
