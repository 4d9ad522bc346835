import os
import select
import shlex
import signal
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from apart import apart

from gss.data import waiting
from gss.data.augment import Augment
from gss.data.loader import Batch, SampleOrder, TrainLoader, read_pair, sample_seed, shard
from gss.data.manifest import evenly_spaced
from gss.errors import ConfigError, DataError, GssError

PINNED_SEEDS = [1607770444, 656268352, 2235919913]
AUGMENT = Augment(base_scale=(56, 40), ratio=(0.5, 2.0), crop=(32, 48))


def loader(tiny, **settings) -> TrainLoader:
    manifest = tiny.manifest()
    return TrainLoader(manifest.pairs("train"), manifest.space, AUGMENT, **{"seed": 5, "batch_size": 8, **settings})


def steps(tiny, count: int, **settings) -> list[list[Batch]]:
    return list(islice(loader(tiny, **settings), count))


def joined(batches: list[Batch]) -> dict[str, torch.Tensor]:
    """All samples of some micro-batches in the order of their positions."""
    whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    order = whole["position"].argsort()
    return {key: tensor[order] for key, tensor in whole.items()}


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


def test_evenly_spaced_indices():
    assert evenly_spaced(233, 8) == [14, 43, 72, 101, 131, 160, 189, 218]
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(10, 0) == [] and evenly_spaced(0, 4) == []


def test_batches_have_the_promised_shapes(tiny):
    (batch,) = steps(tiny, 1)[0]
    assert batch["image"].shape == (8, 3, 32, 48)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["label"].shape == (8, 32, 48)
    assert batch["label"].dtype == torch.uint8
    assert all(box[:2] == [0, 0] and box[2] <= 32 and box[3] <= 48 for box in batch["valid"].tolist())
    assert (batch["photometric"].shape, batch["photometric"].dtype) == ((8, 5), torch.float32)
    assert batch["position"].tolist() == list(range(8))


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_global_batch_does_not_depend_on_processes_and_accumulation(tiny, world_size, accumulation):
    reference = steps(tiny, 3)
    ranks = [steps(tiny, 3, rank=rank, world_size=world_size, accumulation=accumulation) for rank in range(world_size)]
    for step in range(3):
        assert all(len(rank[step]) == accumulation for rank in ranks)
        assert_equal(joined(reference[step]), joined([batch for rank in ranks for batch in rank[step]]))


def test_resume_gives_the_batches_of_the_unbroken_run(tiny):
    unbroken = steps(tiny, 5)
    for step, batches in enumerate(steps(tiny, 2, start_step=3), 3):
        assert_equal(joined(unbroken[step]), joined(batches))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(tiny, workers):
    for here, there in zip(steps(tiny, 3), steps(tiny, 3, workers=workers), strict=True):
        assert_equal(joined(here), joined(there))


def test_a_loader_can_be_iterated_again(tiny):
    again = loader(tiny)
    assert_equal(joined(next(iter(again))), joined(next(iter(again))))


def test_another_seed_gives_other_samples(tiny):
    assert not torch.equal(steps(tiny, 1)[0][0]["image"], steps(tiny, 1, seed=6)[0][0]["image"])


def test_every_round_holds_each_pair_once():
    order = SampleOrder(7, seed=3)
    rounds = [[order[position] for position in range(7 * k, 7 * k + 7)] for k in range(3)]
    assert all(sorted(turn) == list(range(7)) for turn in rounds)
    assert rounds[0] != rounds[1]
    assert order[0] == rounds[0][0], "any position can be asked for at any time"
    assert rounds[1] == torch.randperm(7, generator=torch.Generator().manual_seed(4)).tolist()


def test_sample_seeds_are_pinned():
    """A change here would silently change the data of a resumed run."""
    assert [sample_seed(0, 0), sample_seed(0, 1), sample_seed(1, 0)] == PINNED_SEEDS
    assert len({sample_seed(0, position) for position in range(1000)}) == 1000


def test_indivisible_batches_are_refused_with_a_size_that_works(tiny):
    with pytest.raises(ConfigError, match=r"(?s)batch_size 8 .* 3 processes with accumulation 2.*multiple of 6.* 6"):
        loader(tiny, world_size=3, accumulation=2)


def test_no_pairs_are_refused(tiny):
    with pytest.raises(DataError, match="the training split has no pairs"):
        TrainLoader([], tiny.space, AUGMENT, seed=0, batch_size=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_stops_training_and_is_named(tiny, workers):
    manifest = tiny.manifest()
    path = tiny.image("train/c")
    path.write_bytes(path.read_bytes()[:300])
    broken = TrainLoader(manifest.pairs("train"), tiny.space, AUGMENT, seed=0, batch_size=4, workers=workers)
    with pytest.raises(DataError) as caught:
        next(iter(broken))
    assert "the image cannot be decoded (300 bytes" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "Traceback" not in str(caught.value)


LEAVE_EARLY = """
import gc, pathlib, sys
from gss.data.augment import Augment
from gss.data.manifest import read_manifest
from gss.data.loader import TrainLoader
gc.disable()
manifest = read_manifest(pathlib.Path(sys.argv[1]))
settings = {"seed": 0, "batch_size": 4, "workers": 2}
steps = iter(TrainLoader(manifest.pairs("train"), manifest.space, Augment((56, 40), (1, 1), (32, 32)), **settings))
try:
    next(steps)
except Exception as error:
    kept = error
    print("fault")
"""


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_process_with_a_running_loader_ends(tiny, is_broken):
    tiny.manifest()
    if is_broken:
        tiny.image("train/a").write_text("no picture")
    command = [sys.executable, "-c", LEAVE_EARLY, str(tiny.root / "manifest.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert ended.stdout == ("fault\n" if is_broken else "")
    assert ended.stderr == ""


def test_workers_end_with_a_killed_process(tiny):
    """They hold the lock of the work folder, which the next start waits for."""
    tiny.manifest()
    killed = LEAVE_EARLY + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    command = [sys.executable, "-c", killed, str(tiny.root / "manifest.json")]
    reader, writer = os.pipe()  # as the lock is
    process = subprocess.Popen(command, pass_fds=[writer])
    os.close(writer)
    assert process.wait(50) == -9
    ready, _, _ = select.select([reader], [], [], 2)  # readable: nobody holds the other end any more
    os.close(reader)
    assert ready


AT_WORK = (
    """
import multiprocessing, os, time
from gss.data import loader, waiting
waiting.LOOK_SECONDS, waiting.NOTE_SECONDS, waiting.SILENCE_SECONDS = 1, 2, 4
"""
    + LEAVE_EARLY.partition("try:")[0]
    + """
workers = []
try:
    for number in range(20):
        next(steps)
        workers = workers or multiprocessing.active_children()
        if number == 3:
            for worker in workers:
                os.kill(worker.pid, int(sys.argv[2]))
            time.sleep(0.5)
            print("still training")
except loader.GssError as error:
    print(error)
"""
)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was ended by SIGKILL, most often because memory ran out"),
        (signal.SIGBUS, "was ended by SIGBUS: shared memory ran out"),
        (signal.SIGSTOP, "the loader has delivered nothing for 4 s: process"),
    ],
)
def test_workers_that_deliver_nothing_are_one_clear_error(tiny, number, said):
    """It is raised by whoever waits for a batch, not in the midst of a step or of a checkpoint."""
    tiny.manifest()
    command = [sys.executable, "-c", AT_WORK, str(tiny.root / "manifest.json"), str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert ended.stdout.startswith("still training\n") and said in ended.stdout, ended
    assert "Traceback" not in ended.stderr
    if number == signal.SIGSTOP:
        assert "waiting for the loader for 2 s: process" in ended.stdout and "in state 'stopped'" in ended.stdout


def test_the_file_that_holds_the_loader_up_is_named(tiny, monkeypatch):
    manifest, silent = tiny.manifest(), tiny.image("train/c")
    for name, seconds in (("LOOK_SECONDS", 1), ("NOTE_SECONDS", 2), ("SILENCE_SECONDS", 3)):
        monkeypatch.setattr(waiting, name, seconds)
    silent.unlink()
    os.mkfifo(silent)
    nothing = os.open(silent, os.O_RDWR)  # it can be opened, but there is nothing to read
    try:
        with pytest.raises(GssError, match=f"delivered nothing for 3 s: .*reading {silent}"):
            next(iter(TrainLoader(manifest.pairs("train"), tiny.space, AUGMENT, seed=0, batch_size=4, workers=1)))
    finally:
        os.close(nothing)


def test_shared_memory_that_is_too_small_is_one_clear_error(tiny):
    tiny.manifest()
    program = LEAVE_EARLY.replace("(32, 32)", "(256, 256)").replace("kept = error", "kept = error; print(error)")
    command = shlex.join([sys.executable, "-c", program, str(tiny.root / "manifest.json")])
    small = f"mount -t tmpfs -o size=200k tmpfs /dev/shm && exec {command}"
    ended = subprocess.run([*apart("--mount"), "sh", "-c", small], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0, ended.stderr
    assert "cannot hand over its batch: unable to allocate shared memory" in ended.stdout
    assert "docker run --shm-size" in ended.stdout and "run.workers" in ended.stdout
    assert ended.stderr == ""


def test_a_file_changed_since_the_check_is_named(tiny):
    manifest = tiny.manifest()
    tiny.write_label("train/b", np.zeros((20, 28), np.uint8))
    with pytest.raises(DataError, match=r"(?s)size 20x28, but 40x56 when the data set was checked.*train/b.png"):
        read_pair(manifest.pairs("train")[1])


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shards_are_disjoint_and_complete(world_size):
    items = [item for rank in range(world_size) for item in shard(7, rank, world_size)]
    assert sorted(items) == list(range(7))
