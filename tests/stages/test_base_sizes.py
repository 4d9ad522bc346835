"""Evaluations at several base sizes: the best one counts, all are told, and an interruption loses one at most."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import gss
from gss.config.schema import Evaluation as Config
from gss.data.images import read_native_label
from gss.data.metrics import h_mean
from gss.evaluate.inference import Inference, MSegInference, inferences
from gss.evaluate.measure import Evaluation
from gss.stages import base_sizes
from gss.stages.run import Run
from gss.stages.training import validation
from gss.train.distributed import setup
from gss.use.export import default_size
from tests.stages.village import MODEL, VILLAGE, metrics, run, trained, write

MSEG = {"protocol": "mseg", "crop": [33, 33], "base_sizes": [16, 24, 40]}


def with_mseg(content: dict[str, Any]) -> None:
    content["evaluation"].update(MSEG)
    content["evaluation"]["sets"]["soft"] = {**VILLAGE, "prediction": "soft", "absent": "zero"}


def test_the_best_base_size_counts_and_all_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(with_mseg)
    trained()
    run("evaluate", "mine")
    said = capsys.readouterr().out
    model = gss.load("results/mine/pixel.pth")
    assert isinstance(model.inference, MSegInference) and model.inference.base_size == 24
    assert default_size(model, Run.open("mine").manifest.pairs("val")[0]) == (33, 33)
    for split, photographs in {"val": "city/images/val", "village": "village/photos"}.items():
        found = metrics(split)
        assert list(found["base_sizes"]) == ["16", "24", "40"]
        assert found["mIoU"] == max(each["mIoU"] for each in found["base_sizes"].values())
        assert found["base_sizes"][str(found["base_size"])] == {key: found[key] for key in ("mIoU", "mAcc", "aAcc")}
        assert f"pixel on {split}: mIoU {100 * found['base_sizes']['16']['mIoU']:.2f} at 16, " in said
        model.inference = replace(model.inference, base_size=found["base_size"])
        table = np.array([0, 1, 255] if split == "village" else [0, 1, 2], np.uint8)
        for path in sorted((project / "sets" / photographs).iterdir()):
            kept = next((MODEL / split / "predictions").glob(f"*{path.stem}.png"))
            assert np.array_equal(read_native_label(kept), table[model.predict(path)])
        assert {path.name for path in (MODEL / split).iterdir()} >= {"predictions", "pictures", "confusion.npz"}
    protocol = metrics("soft")["protocol"]
    assert protocol["protocol"] == "mseg" and protocol["base_sizes"] == [16, 24, 40] and protocol["flip"] is True
    assert protocol["sizes"] == {"scales": [1.0], "scored_at": "original"} and protocol["stride"] == [22, 22]
    assert not list(Path("results/mine/work").rglob("base_*"))
    summary = json.loads((MODEL / "summary.json").read_text())
    assert summary["h_mean"] == pytest.approx(h_mean([metrics(name)["mIoU"] for name in ("village", "soft")]))
    run("report", "mine")
    page = Path("results/mine/report.html").read_text()
    assert f"shorter side at the best of 16, 24, 40 ({metrics('val')['base_size']})" in page
    assert f"24: {100 * metrics('soft')['base_sizes']['24']['mIoU']:.2f}, 40: " in page


def test_another_protocol_is_no_match(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(with_mseg)
    write(lambda content: content.update(seed=5), name="other")
    for name in ("mine", "other"):
        for words in (("check", name), ("train", "pixel", name), ("evaluate", name, "--split", "val")):
            run(*words)
    run("compare", "mine", "other", "--split", "val", "-o", "compared")
    assert "protocol mseg → gss" in capsys.readouterr().out


def test_a_validation_while_training_takes_the_middle_one_at_one_scale(project: Path) -> None:
    write(lambda content: content["evaluation"].update(MSEG, scales=[0.5, 1.5]))
    run("check", "mine")
    opened = Run.open("mine")
    seen: list[tuple[int, ...]] = []

    class Watched:
        training, are_votes, extra_names = False, True, ()
        protocol: ClassVar[dict[str, Any]] = {}

        def normalise(self, image: Any) -> Any:
            seen.append(tuple(image.shape))
            return image

        def scores(self, image: Any) -> Any:
            return image

        def extras(self, image: Any) -> Any: ...

    validate = validation(opened, opened.experiment.pixel.training, lambda _: Watched(), setup())
    validate(None, lambda: None)  # type: ignore[arg-type]
    assert seen == [(1, 3, 24, 36)] * 4


def evaluation(right: int) -> Evaluation:
    counts = np.array([[right, 100 - right], [0, 100]])
    return Evaluation(counts, *(np.array([[1, 2]]) for _ in range(3)), ignored_pixels=3)


def test_what_was_measured_before_an_interruption_is_kept(tmp_path: Path) -> None:
    ways, asked = inferences(Config.model_validate(MSEG)), []

    def measure(way: Inference, folder: Path) -> Evaluation:
        assert isinstance(way, MSegInference)
        asked.append(way.base_size)
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        (folder / "predictions" / "a.png").write_text(str(way.base_size))
        if asked == [16, 24]:
            raise KeyboardInterrupt
        return evaluation(way.base_size)

    with pytest.raises(KeyboardInterrupt):
        base_sizes.measure_each(ways, measure, tmp_path / "work", setup())
    found = base_sizes.measure_each(ways, measure, tmp_path / "work", setup())
    assert asked == [16, 24, 24, 40]
    assert [each.confusion[0, 0] for each in found.values()] == [16, 24, 40] and found[16].ignored_pixels == 3
    assert base_sizes.best(found) == 40
    output = tmp_path / "output"
    (output / "predictions").mkdir(parents=True)
    (output / "predictions" / "old.png").touch()
    base_sizes.take(40, tmp_path / "work", output)
    assert [path.read_text() for path in (output / "predictions").iterdir()] == ["40"]
    base_sizes.measure_each(ways, measure, tmp_path / "work", setup())  # interrupted before the figures were written
    assert asked == [16, 24, 24, 40, 40]
    base_sizes.clear(found, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_equal_to_four_decimals_is_equal() -> None:
    """As published; the first of them counts. A split without a labelled pixel has no mIoU at any size."""
    almost = replace(evaluation(50), confusion=np.array([[5000001, 5000000], [0, 10000000]]))
    assert almost.scores.mIoU > evaluation(50).scores.mIoU  # type: ignore[operator]
    assert base_sizes.best({360: evaluation(50), 720: almost}) == 360
    assert base_sizes.best({360: evaluation(50), 720: evaluation(51)}) == 720
    empty = replace(evaluation(0), confusion=np.zeros((2, 2), np.int64))
    assert base_sizes.best({360: empty, 720: empty}) == 360


@pytest.mark.slow
def test_two_processes_measure_all_sets_at_all_sizes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(with_mseg)
    trained()
    run("evaluate", "mine")
    alone = {name: metrics(name) for name in ("val", "village", "soft")}
    summary = (MODEL / "summary.json").read_text()
    shutil.rmtree(MODEL)
    monkeypatch.setenv("PYTHONPATH", str(Path(gss.__file__).parents[1]))
    words = ("--nproc", "2", "--gpus", "0", "--cpus", "2", "--work", "results/mine/work/all")
    run("launch", *words, "--", "evaluate", "mine")
    assert {name: metrics(name) for name in alone} == alone
    assert (MODEL / "summary.json").read_text() == summary
    assert len(list((MODEL / "village/predictions").iterdir())) == 3
