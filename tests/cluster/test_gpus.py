"""How processes share GPUs; no GPU is needed to know that."""

from pathlib import Path

import pytest

from gss.cluster import gpus


@pytest.mark.parametrize(
    ("seen", "options", "found", "reason"),
    [
        (1, {"batch": 16}, 1, ""),
        (2, {"batch": 16}, 2, ""),
        (3, {"batch": 16}, 2, "1 of 3 GPUs lies idle: a batch of 16 cannot be divided among 3"),
        (8, {"batch": 12}, 6, "2 of 8 GPUs lie idle: a batch of 12"),
        (3, {"batch": None}, 3, ""),
        (2, {"batch": 16, "gpus": 8}, 2, ""),
        (4, {"batch": 16, "gpus": 1}, 1, "3 of 4 GPUs lie idle: run.resources asks for 1 GPUs; `gpus: auto` takes all"),
        (4, {"batch": 16, "processes": 2}, 2, "2 of 4 GPUs lie idle: run.resources asks for 2 processes"),
        (4, {"batch": 12, "nodes": 2}, 3, "1 of 4 GPUs lies idle: a batch of 12 cannot be divided among 8"),
        (2, {"batch": 7}, 1, "1 of 2 GPUs lies idle: a batch of 7"),
    ],
)
def test_one_process_for_each_gpu_that_a_batch_can_be_divided_among(seen, options, found, reason):
    processes, note = gpus.share(seen, **{"gpus": None, "processes": None, "batch": None, **options})
    assert processes == found
    assert note.startswith(reason) and bool(note) == bool(reason)


@pytest.mark.parametrize(
    ("batch", "accumulation", "made_for", "size", "expected"),
    [
        (16, 1, 8, 8, 1),
        (16, 1, 8, 1, 8),
        (16, 1, 8, 2, 4),
        (16, 2, 8, 2, 8),
        (16, 1, 8, 16, 1),
        (32, 2, 4, 8, 1),
        (12, 1, 4, 3, 2),
        (12, 1, 4, 6, 1),
        (18, 3, None, 2, 3),
        (15, 1, 5, 3, 5),
    ],
)
def test_no_gpu_gets_more_at_once_than_the_experiment_is_made_for(batch, accumulation, made_for, size, expected):
    parts = gpus.parts(batch, accumulation, made_for, size)
    assert parts == expected
    assert batch % (parts * size) == 0
    assert made_for is None or batch // (parts * size) <= max(1, batch // (made_for * accumulation))


def test_a_machine_has_gpus_by_its_files(tmp_path, monkeypatch):
    monkeypatch.delenv(gpus.PRETENDED_GPUS, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("dev/nvidiactl", "dev/null"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert not gpus.present(tmp_path)
    (tmp_path / "dev/nvidia1").touch()
    assert gpus.present(tmp_path)


def test_idle_gpus_come_with_what_helps(monkeypatch):
    monkeypatch.setattr(gpus, "present", lambda root=Path("/"): True)
    assert "`gpus: auto` takes them" in gpus.unused(2, 0, {})
    assert "stages: {STAGE: {gpus: 1}}" in gpus.unused(2, None, {"SLURM_JOB_ID": "7"})
    assert "stages: {STAGE: {gpus: 1}}" in gpus.unused(2, 0, {"SLURM_JOB_ID": "7"})
    assert "CUDA_VISIBLE_DEVICES= hides them" in gpus.unused(0, None, {"CUDA_VISIBLE_DEVICES": ""})
    assert "gss doctor" in gpus.unused(0, None, {})
    monkeypatch.setattr(gpus, "present", lambda root=Path("/"): False)
    assert gpus.unused(0, None, {}) == ""


def test_in_a_slurm_job_only_what_it_was_given_may_be_used():
    assert gpus.granted({}) and not gpus.granted({"SLURM_JOB_ID": "7"})
    assert gpus.granted({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"})
