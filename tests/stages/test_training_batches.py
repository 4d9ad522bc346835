"""What a training asks of the machine before it begins."""

import os
from types import SimpleNamespace

import pytest
import torch

from gss.errors import GssError
from gss.stages.run import Run
from gss.stages.training import make_loader
from gss.train.distributed import World


def test_shared_memory_is_looked_at_before_a_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open("toy", ["augment.crop=[512,512]"])
    world = World(0, 2, 0, torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    sizes = SimpleNamespace(f_blocks=50, f_bavail=50, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: sizes)
    monkeypatch.setattr(os, "access", lambda *_: True)
    with pytest.raises(GssError, match=r"(?s)/dev/shm is too small .*: 0.2 MB free, .*run.workers of toy.*--shm-size"):
        make_loader(run, run.experiment.latent_prior.training, world)
    run = Run.open("toy", ["run.workers=0"])
    make_loader(run, run.experiment.latent_prior.training, world)
