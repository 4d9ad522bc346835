"""What a training asks of the machine before it begins."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gss.data.classes import ClassSpace
from gss.errors import GssError
from gss.files import write_text
from gss.recipes.gss.stages import latent_prior
from gss.stages import run as run_module
from gss.stages import training
from gss.stages.run import Run
from gss.stages.training import fit_to_devices, make_loader, on_this_machine
from gss.train.distributed import World


@pytest.mark.parametrize(("gpus", "accumulation"), [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1)])
def test_a_published_experiment_keeps_its_batch_on_fewer_gpus(
    gpus: int, accumulation: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open("ade20k")
    before = run.experiment.slice("latent_prior")
    world = World(0, gpus, 0, torch.device("cuda"))
    training = fit_to_devices(run, "latent_prior", world)
    assert (training.batch_size, training.accumulation) == (32, accumulation)
    assert run.experiment.slice("latent_prior") == before
    told = capsys.readouterr().out
    if gpus < 8:
        assert f"made for 8 GPUs, here are {gpus}" in told and f"about {8 / gpus:.2g} times as long" in told
        assert f"in {accumulation} parts" in told and "docs/reference/config.md" in told
    else:
        assert told == ""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert on_this_machine(world, 32, training.accumulation) == {
        "device": "NVIDIA H200",
        "processes": gpus,
        "accumulation": accumulation,
        "micro_batch": 4 if gpus <= 8 else 2,
    }


def test_what_names_no_gpus_is_trained_as_it_says() -> None:
    run = Run.open("toy")
    for device in ("cuda", "cpu"):
        training = run.experiment.latent_prior.training
        assert fit_to_devices(run, "latent_prior", World(0, 1, 0, torch.device(device))) == training
    run = Run.open("ade20k")
    assert fit_to_devices(run, "posterior", World(0, 1, 0, torch.device("cpu"))) == run.experiment.posterior.training


class Second(World):
    """The second of two processes, of which the main one says that all is there."""

    def from_main(self, number: int) -> int:
        return 1

    def barrier(self) -> None:
        pass


def test_only_the_main_process_reads_weights_to_know_them_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open("camvid", ["latent_prior.training.class_balance=0"], results=tmp_path)
    for file in ("data/manifest.json", "palette.csv", "tokenizer.safetensors"):
        write_text(run.folder / file, "as the main process knows")

    def read(*_: object) -> None:
        raise AssertionError("read by a process that needs no more than the finished file")

    for module, function in ((run_module, "sha256_file"), (training, "read_backbone_weights")):
        monkeypatch.setattr(module, function, read)
    latent_prior.latent_prior(run, Second(1, 2, 1, torch.device("cpu")))


def test_shared_memory_is_looked_at_before_a_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open("toy", ["augment.crop=[512,512]"])
    world = World(0, 2, 0, torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    sizes = SimpleNamespace(f_blocks=50, f_bavail=50, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: sizes)
    monkeypatch.setattr(os, "access", lambda *_: True)
    vars(run)["manifest"] = checked = SimpleNamespace(space=ClassSpace(("sky", "road")))
    with pytest.raises(GssError, match=r"(?s)/dev/shm is too small .*: 0.2 MB free, .*run.workers of toy.*--shm-size"):
        make_loader(run, [], run.experiment.latent_prior.training, world)
    run = Run.open("toy", ["run.workers=0"])
    vars(run)["manifest"] = checked
    make_loader(run, [], run.experiment.latent_prior.training, world)
