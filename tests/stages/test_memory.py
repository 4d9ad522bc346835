"""Memory that runs out in a stage is one clear error, whatever raised it, with the keys that need less."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gss.cli import main
from gss.recipes.gss.stages import latent_prior, merge, posterior, reconstruct, tokenizer
from gss.stages import evaluate


def raises(error: Exception) -> None:
    raise error


OVERFLOWS: list[Callable[[], object]] = [
    lambda: torch.empty(2**50),
    lambda: np.zeros(2**50),
    lambda: raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore")),
    lambda: raises(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    lambda: raises(cv2.error("(-4:Insufficient memory) Failed to allocate 3600000000 bytes")),
    lambda: raises(MemoryError()),
]
TOKENIZER = "tokenizer.train={batch_size: 8, crop: 32}"
OVERRIDES = ["latent_prior.training={batch_size: 8, accumulation: 2}", "augment.crop=[96,80]", TOKENIZER]
OF_TOKENIZER = ["tokenizer.train.batch_size (now 8)", "tokenizer.train.crop (now 32)", "tokenizer.n_hid", "memory_mb"]
KEYS = {
    "train latent-prior": (
        "latent_prior",
        latent_prior,
        "4 images of 96 x 80 at a time",
        [
            "latent_prior.training.batch_size (now 8)",
            "latent_prior.training.accumulation (now 2)",
            "augment.crop (now [96, 80])",
            "latent_prior.training.precision=bf16",
            "run.resources.latent_prior.memory_mb",
        ],
    ),
    "train posterior": (
        "posterior",
        posterior,
        "8 images of 96 x 80 at a time",
        [
            "posterior.training.batch_size (now 8)",
            "posterior.training.accumulation (now 1)",
            "augment.crop",
            "posterior.training.precision=bf16",
            "run.resources.posterior.memory_mb",
        ],
    ),
    "tokenizer": ("tokenizer", tokenizer, "; 8 crops of 32 x 32 at a time", OF_TOKENIZER),
    "reconstruct": ("reconstruct", reconstruct, "; 8 crops", OF_TOKENIZER),
    "evaluate": ("evaluate", evaluate, "one image at a time", ["evaluation.mode=slide", "evaluation.scale (now None)"]),
}


def failing(verb: str, overflow: Callable[[], object], results: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a verb of the toy experiment whose stage runs out of memory."""
    stage, module = KEYS[verb][:2]
    monkeypatch.setattr(module, stage, lambda *_: overflow())
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "toy", *OVERRIDES, "--results", str(results)])
    return int(str(ended.value.code))


@pytest.mark.parametrize("verb", KEYS)
def test_a_stage_names_device_share_and_keys(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, _, at_once, keys = KEYS[verb]
    assert failing(verb, OVERFLOWS[0], tmp_path, monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: memory ran out in the stage {stage}: ") and "DefaultCPUAllocator" in said
    assert "process 0 of 1 on the CPU with " in said and " GiB; " in said and at_once in said
    places = [said.index(key) for key in keys]
    assert places == sorted(places) and "Traceback" not in said


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_every_allocator_is_understood(
    overflow: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing("train posterior", overflow, tmp_path, monkeypatch) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: memory ran out in the stage posterior: ") and said[1].startswith("  where: ")


def test_other_verbs_say_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(merge, "merge", lambda _: torch.empty(2**50))
    assert main(["merge", "toy", "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: memory ran out: ") and "Traceback" not in said
