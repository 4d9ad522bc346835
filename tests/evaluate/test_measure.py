"""Evaluation of many images: real processes, shards, failures, progress."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from gss.data.loader import READ_AHEAD
from gss.errors import DataError
from gss.evaluate.measure import AGREE_EVERY, evaluate_pairs, measure
from tests.normalised import Normalised

from .standins import ALONE, MEAN, STD, WHOLE, ColourVotes, Convolution, class_image, read_case

ROOT = Path(__file__).resolve().parents[2]
ARRAYS = ("confusion", "intersection", "predicted", "labelled")


def _evaluate(pairs, read, model=None, **options):
    return evaluate_pairs(
        Normalised(model or Convolution(), MEAN, STD), pairs, 5, ALONE, read=read, inference=WHOLE, **options
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """What worker.py left under torchrun with one, two and three processes."""
    return {processes: _torchrun(tmp_path_factory.mktemp("run"), processes) for processes in (1, 2, 3)}


def _torchrun(folder: Path, processes: int) -> Path:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    worker = [str(Path(__file__).with_name("worker.py")), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, *worker], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def _seen(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[1]) for path in folder.glob("seen_*"))


def test_counts_of_known_predictions():
    labels = [np.array([[0, 1], [255, 1]], np.uint8), np.array([[4, 4, 4]], np.uint8)]
    predictions = [np.array([[0, 0], [3, 1]]), np.array([[4, 2, 4]])]
    found = _evaluate([0, 1], lambda i: (class_image(predictions[i]), labels[i]), ColourVotes(5))
    np.testing.assert_array_equal(found.intersection, [[1, 1, 0, 0, 0], [0, 0, 0, 0, 2]])
    np.testing.assert_array_equal(found.predicted, [[2, 1, 0, 0, 0], [0, 0, 1, 0, 2]])
    np.testing.assert_array_equal(found.labelled, [[1, 2, 0, 0, 0], [0, 0, 0, 0, 3]])
    np.testing.assert_array_equal(np.diag(found.confusion), found.intersection.sum(0))
    assert (found.confusion[1, 0], found.confusion[4, 2], found.ignored_pixels) == (1, 1, 1)
    assert found.scores.aAcc == pytest.approx(4 / 6)


def test_result_does_not_depend_on_the_order_of_images():
    forward, backward = (_evaluate(order, read_case) for order in (range(9), range(8, -1, -1)))
    np.testing.assert_array_equal(forward.confusion, backward.confusion)
    np.testing.assert_array_equal(forward.labelled, backward.labelled[::-1])


@pytest.mark.slow
def test_one_two_and_three_processes_agree_exactly(folders):
    """Seven images over two or three processes: nothing padded, nothing twice, the same arrays in every process."""
    alone = _evaluate(range(7), read_case, with_reliability=True)
    assert alone.labelled.any(1).all()
    for processes, folder in folders.items():
        assert _seen(folder / "whole") == list(range(7))
        for rank in range(processes):
            result = np.load(folder / "whole" / f"rank_{rank}.npz")
            for name in ARRAYS:
                np.testing.assert_array_equal(result[name], getattr(alone, name))
            for name in ("confidence", "uncertainty"):
                np.testing.assert_array_equal(result[name], getattr(alone.reliability, name))
            assert result["ignored"] == alone.ignored_pixels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "of_owner", "of_other"),
    [
        ("user", "DataError: image 3 is broken", "DataError: image 3 is broken"),
        (
            "bug",
            "ZeroDivisionError: image 3 is broken",
            "RuntimeError: in another process: ZeroDivisionError('image 3 is broken')",
        ),
    ],
)
def test_a_failing_process_takes_the_others_with_it(folders, case, of_owner, of_other):
    """Image 3 of 40 belongs to process 1; process 0 must neither wait in vain nor go on to the end."""
    folder = folders[2] / case
    assert (folder / "error_1").read_text() == of_owner
    assert (folder / "error_0").read_text() == of_other
    assert _seen(folder) == sorted([1, *range(0, 2 * AGREE_EVERY, 2)])


def test_a_broken_image_is_named():
    def read(index):
        raise DataError("the image cannot be decoded", where=f"image {index}")

    with pytest.raises(DataError, match="image 0"):
        _evaluate(range(3), read)


def test_an_error_leaves_no_reading_thread_behind():
    """Which a garbage collection would wait for, where another thread is about to start: for ever."""

    def segment(image, label):
        raise DataError("the third image")

    with pytest.raises(DataError) as kept:
        measure(segment, range(9), 5, ALONE, read=read_case)
    assert kept.traceback  # the frames are still there
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_reading_runs_ahead_but_not_far():
    started = []

    def read(index):
        started.append(index)
        return read_case(index)

    ahead = []
    _evaluate(range(12), read, each=lambda index, *_: ahead.append(len(started) - index - 1))
    assert max(ahead) <= READ_AHEAD
    assert started == list(range(12))


def test_any_function_can_be_measured():
    found = measure(
        lambda image, label: torch.from_numpy(np.where(label == 255, 0, label)),
        range(3),
        5,
        ALONE,
        read=read_case,
    )
    assert found.scores.mIoU == 1.0


def test_no_images_give_empty_counts():
    found = _evaluate([], read_case)
    assert (found.intersection.shape, found.scores.mIoU) == ((0, 5), None)


def test_one_process_of_many_speaks(capsys, monkeypatch):
    _evaluate(range(3), read_case, title="evaluate test")
    assert re.fullmatch(r"evaluate test 3/3  \d+\.\d img/s  in 0:\d\d\n", capsys.readouterr().out)
    monkeypatch.setattr(ALONE, "rank", 1)
    _evaluate(range(3), read_case)
    assert capsys.readouterr().out == ""
