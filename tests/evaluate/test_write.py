"""The files of an evaluation, as other tools read them."""

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pytest

import gss
from gss.data.reliability import BINS, STEPS, UNIT, Reliability
from gss.errors import GssError
from gss.evaluate.inference import Inference
from gss.evaluate.measure import Evaluation
from gss.evaluate.write import summarise, write_evaluation

NAMES = ("wall, painted", 'the "sky"', "<b>$x_$</b>", "=SUM(A1)", "Straße\n")


def _evaluation() -> Evaluation:
    confusion = np.zeros((5, 5), np.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1], confusion[4, 2] = 6, 2, 4, 3  # class 3 occurs nowhere
    right, predicted, labelled = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    rows = [np.stack([array, np.zeros_like(array)]) for array in (right, predicted, labelled)]
    return Evaluation(confusion, *rows, ignored_pixels=9)


def _write(folder, evaluation=None):
    return write_evaluation(
        folder,
        evaluation or _evaluation(),
        NAMES,
        protocol=Inference().as_dict(),
        model=folder.parent / "gss_ft.pth",
        model_sha256="ab" * 32,
        manifest_sha256="cd" * 32,
    )


def test_metrics_json(tmp_path):
    returned = _write(tmp_path / "test")
    stored = json.loads((tmp_path / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert stored == returned
    assert list(stored) == [
        *("mIoU", "mAcc", "aAcc", "IoU", "Acc", "images", "pixels", "ignored_pixels"),
        *("protocol", "model", "data", "version"),
    ]
    assert stored["IoU"] == dict(zip(NAMES, (0.75, 4 / 6, 0.0, None, 0.0), strict=True))
    assert stored["Acc"] == dict(zip(NAMES, (0.75, 1.0, None, None, 0.0), strict=True))
    assert stored["mIoU"] == pytest.approx((0.75 + 4 / 6) / 4)
    assert stored["mAcc"] == pytest.approx(1.75 / 3)
    assert stored["aAcc"] == pytest.approx(10 / 15)
    assert (stored["images"], stored["pixels"], stored["ignored_pixels"]) == (2, 15, 9)
    assert stored["protocol"] == Inference().as_dict()
    assert stored["model"] == {"file": "gss_ft.pth", "sha256": "ab" * 32}
    assert stored["data"] == {"manifest_sha256": "cd" * 32}
    assert stored["version"] == gss.__version__


def test_calibration_is_written_where_it_was_counted(tmp_path):
    counts = np.zeros((5, BINS, 3), np.int64)
    counts[1, 14] = 6, 4, 6 * UNIT  # sure and right in two of three
    counts[0, 8] = 9, 5, 9 * UNIT * 5 // 9  # as right as it says
    steps = np.zeros((STEPS, 2), np.int64)
    steps[[0, 255]] = (12, 4), (3, 2)
    returned = _write(tmp_path, replace(_evaluation(), reliability=Reliability(counts, steps)))
    stored = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert stored == returned
    assert stored["ECE"] == pytest.approx(2 / 15)
    assert stored["class_ECE"] == dict(zip(NAMES, (0, pytest.approx(1 / 3), None, None, None), strict=True))
    assert stored["errors_in_most_uncertain_tenth"] == pytest.approx(1 / 6)  # half of the uncertain three
    with (tmp_path / "reliability.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "above", "up_to", "pixels", "right", "confidence"]
    assert len(rows) == 5 * BINS
    row = rows[BINS + 14]
    assert (row["class"], float(row["up_to"]), row["pixels"], row["right"]) == (NAMES[1], 1.0, "6", "4")
    assert float(row["confidence"]) == 6
    plain = _write(tmp_path / "plain")
    assert {**returned, **plain} == returned
    assert not (tmp_path / "plain" / "reliability.csv").exists()


def test_per_class_table_survives_any_name(tmp_path):
    _write(tmp_path)
    with (tmp_path / "per_class.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["class", "iou", "acc", "precision", "pixels"]
    assert [row[0] for row in rows] == list(NAMES)
    assert rows[3][1:] == ["", "", "", "0"]
    assert [float(cell) for cell in rows[0][1:]] == [0.75, 0.75, 1.0, 8]


def test_arrays(tmp_path):
    evaluation = _evaluation()
    _write(tmp_path, evaluation)
    with np.load(tmp_path / "confusion.npz", allow_pickle=False) as stored:
        assert sorted(stored) == ["confusion", "intersection", "labelled", "predicted"]
        for name in stored:
            assert stored[name].dtype == np.int64
            np.testing.assert_array_equal(stored[name], getattr(evaluation, name))


def test_nothing_labelled_gives_nulls(tmp_path):
    empty = Evaluation(np.zeros((5, 5), np.int64), *np.zeros((3, 1, 5), np.int64), ignored_pixels=4)
    summary = summarise(empty, NAMES)
    assert (summary["mIoU"], summary["mAcc"], summary["aAcc"]) == (None, None, None)
    _write(tmp_path, empty)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        _write(tmp_path / folder)
    for name in ("metrics.json", "per_class.csv", "confusion.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_failed_write_leaves_the_old_files_and_nothing_else(tmp_path, monkeypatch):
    _write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GssError, match=r"cannot write: No space left"):
        _write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
