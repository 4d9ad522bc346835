"""A results folder made by code: synthetic pictures and figures in the files a real pipeline writes."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

from gss.config import origins
from gss.config.load import load_experiment
from gss.data.check import scan
from gss.data.classes import ClassSpace
from gss.data.images import write_png
from gss.data.manifest import evenly_spaced, read_manifest, write_manifest
from gss.data.metrics import scores
from gss.data.pairing import SplitFolders
from gss.data.reliability import BINS, STEPS, UNIT, Reliability
from gss.evaluate.inference import Inference
from gss.evaluate.measure import Evaluation
from gss.evaluate.pictures import picture_name
from gss.evaluate.write import write_evaluation
from gss.files import sha256_file, write_json, write_text
from gss.recipes.gss.palette.palette import Palette, write_palette
from gss.results.journal import Journal

NOTICE = "SYNTHETIC: the pictures and every figure on this page were made by a test; no model was trained."
EVIL = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=\'broken\'">',
    "a & b's `{{ 7*7 }}`",
)
TEXT = """\
data:
  root: {root}
  classes: {classes}
  splits:
    train: {{images: images/train, labels: labels/train}}
{splits}
augment: {{base_scale: [64, 64], crop: [64, 64]}}
latent_prior:
  backbone: {{name: resnet18}}
  milestones: [{steps}]
published:
  gss_ff: {{mIoU: 0.5, mAcc: 0.6}}
  source: a test
run:
  resources: {{latent_prior: {{gpus: 2, nodes: 2}}}}
"""


class SyntheticResults:
    """A data set and `results/made`.

    Args:
        project: an empty folder; the experiment's file goes to `config/experiments/made.yaml` in it.
        size: (height, width) of the images.
        images: of each split.
        steps: of the trainings, one line of figures for 50 of them.
    """

    def __init__(
        self,
        project: Path,
        names: Sequence[str],
        *,
        size: tuple[int, int] = (48, 64),
        images: int = 6,
        splits: Sequence[str] = ("val", "test"),
        steps: int = 1000,
    ) -> None:
        self.folder, self.data, self.names = project / "results" / "made", project / "set", tuple(names)
        self.space = ClassSpace(self.names)
        self.size, self.splits = size, tuple(splits)
        self.rng = np.random.default_rng(0)
        for split in ("train", *splits):
            for index in range(images):
                self._make_pair(split, index)
        self.experiment_file = project / "config" / "experiments" / "made.yaml"
        text = TEXT.format(
            root=self.data,
            classes=json.dumps(self.names),
            steps=steps,
            splits="".join(f"    {split}: {{images: images/{split}, labels: labels/{split}}}\n" for split in splits),
        )
        write_text(self.experiment_file, text)
        self._write_config()
        self._write_check()
        self._write_palette()
        self._write_models()
        for split in splits:
            for model, errors in (("gss_ff", 0.35), ("gss_ft", 0.3)):
                self._evaluate(model, split, errors)
        self._write_journals(steps)

    def _make_pair(self, split: str, index: int) -> None:
        """Cells of classes, frequent and rare ones, and a photograph of clouds in their brightness."""
        height, width = self.size
        label = self._cells(40)
        label[: height // 12] = self.space.ignore_index
        clouds = cv2.resize(self.rng.normal(128, 60, (9, 12, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        photo = 0.6 * clouds + 0.4 * (label[..., None].astype(int) * 37 % 256) + self.rng.normal(0, 4, clouds.shape)
        photo = np.clip(photo, 0, 255)
        write_png(self.data / "images" / split / f"{index:03}.png", photo.astype(np.uint8))
        write_png(self.data / "labels" / split / f"{index:03}.png", label)

    def _cells(self, count: int) -> np.ndarray:
        height, width = self.size
        share = 1 / np.arange(1, len(self.names) + 1)
        classes = self.rng.choice(len(self.names), count, p=share / share.sum())
        points = self.rng.random((count, 2)) * self.size
        rows, columns = np.mgrid[:height:2, :width:2]
        distance = (rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2
        cells = classes[distance.argmin(axis=2)].astype(self.space.dtype)
        return cells.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]

    def _write_config(self) -> None:
        overrides = ["posterior.steps=77"]
        experiment = load_experiment(self.experiment_file, overrides)
        text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
        write_text(self.folder / "config.yaml", text)
        write_json(self.folder / "config_origins.json", origins(self.experiment_file, overrides, experiment))

    def _write_check(self) -> None:
        folders = {split: SplitFolders(f"images/{split}", f"labels/{split}") for split in ("train", *self.splits)}
        manifest, statistics, faults = scan(self.data, folders, self.space)
        assert not faults
        write_manifest(self.folder / "data" / "manifest.json", manifest)
        write_json(self.folder / "data" / "statistics.json", statistics)

    def _write_palette(self) -> None:
        grid = np.stack(np.meshgrid(*[np.arange(0, 256, 36)] * 3), axis=-1).reshape(-1, 3)
        self.palette = Palette(self.rng.permutation(grid)[: len(self.names) + 1], self.names)
        write_palette(self.folder / "palette.csv", self.palette)
        iou = dict(zip(self.names, self.rng.uniform(0.6, 1, len(self.names)).tolist(), strict=True))
        figures = {"mIoU": 0.8, "mAcc": 0.85, "aAcc": 0.95, "images": 6, "IoU": iou, "tokens_used": 99}
        measured = {"splits": {split: {"4": figures} for split in self.splits}}
        write_json(self.folder / "reconstruction" / "metrics.json", measured)
        lines = ["round,kept,mIoU,class,iou,r,g,b,old_colour"]
        lines += [
            f'{number},{number == 0},0.{8 - number},"{name}",0.5,1,2,3,{"4 5 6" if number and place < 3 else ""}'
            for number in range(2)
            for place, name in enumerate(n.replace('"', '""') for n in self.names)
        ]
        write_text(self.folder / "reconstruction" / "rounds.csv", "\n".join(lines) + "\n")

    def _write_models(self) -> None:
        """Files with hashes; what is in them is of no interest here."""
        for name in ("tokenizer.safetensors", "gss_ff.pth", "posterior.pth", "gss_ft.pth"):
            write_text(self.folder / name, f"synthetic {name}\n")

    def _evaluate(self, model: str, split: str, errors: float) -> None:
        folder = self.folder / "evaluation" / model / split
        manifest = read_manifest(self.folder / "data" / "manifest.json")
        pairs, count = manifest.pairs(split), len(self.names)
        per_image = np.zeros((3, len(pairs), count), np.int64)
        total, ignored = np.zeros((count, count), np.int64), 0
        drawn = evenly_spaced(len(pairs), 4)
        for index, pair in enumerate(pairs):
            label = cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED)
            wrong = self.rng.random((6, 8)) < errors * 2 * index / len(pairs)
            wrong = cv2.resize(wrong.astype(np.uint8), self.size[::-1], interpolation=cv2.INTER_NEAREST) > 0
            known = label != self.space.ignore_index
            prediction = np.where(wrong | ~known, self._cells(30), label)
            write_png(folder / "predictions" / picture_name(index, pair.image), prediction)
            if index in drawn:
                painted = self.palette.colours.astype(np.uint8)[prediction]
                write_png(folder / "maskiges" / picture_name(index, pair.image), cv2.blur(painted, (5, 5)))
                unsure = cv2.blur(np.where(prediction == label, 20, 200).astype(np.uint8), (9, 9))
                write_png(folder / "uncertainties" / picture_name(index, pair.image), unsure)
            counts = np.bincount(label[known].astype(int) * count + prediction[known], minlength=count**2)
            counts = counts.reshape(count, count)
            per_image[:, index] = np.diag(counts), counts.sum(0), counts.sum(1)
            total += counts
            ignored += int((~known).sum())
        evaluation = Evaluation(total, *per_image, ignored_pixels=ignored, reliability=_reliability(total))
        assert evaluation.scores == scores(total)
        protocol = {**Inference().as_dict(), "numerics": "default"}
        write_evaluation(
            folder,
            evaluation,
            self.names,
            protocol=protocol,
            model=self.folder / f"{model}.pth",
            model_sha256=sha256_file(self.folder / f"{model}.pth"),
            manifest_sha256=manifest.sha256,
        )

    def _write_journals(self, steps: int) -> None:
        """Two trainings, one of them interrupted once, and a merge."""
        for stage, inputs in {
            "latent_prior": ["palette.csv", "tokenizer.safetensors"],
            "posterior": ["gss_ff.pth"],
            "merge": ["gss_ff.pth", "posterior.pth"],
        }.items():
            header = {"experiment": "made", "stage": stage, "dataset": "set", "config_sha256": "c0ffee" + "0" * 58}
            journal = Journal(self.folder / "work" / stage / "journal.jsonl", header)
            hashes = {f"input {name}": sha256_file(self.folder / name) for name in inputs}
            journal.tags(
                {
                    **hashes,
                    "gss": "0",
                    "git": "0123456789ab",
                    "torch": "2",
                    "host": "<b>here</b>",
                    "command": f"gss train {stage}",
                }
            )
            if stage != "merge":
                for step in range(50, steps + 1, 50):
                    fall = float(np.exp(-3 * step / steps) + self.rng.normal(0, 0.02))
                    figures = {
                        "train/loss": fall,
                        "train/loss_token": 0.8 * fall,
                        "train/lr": 1e-3 * (1 - step / steps),
                        "train/token_acc": 1 - fall,
                        "train/grad_norm": 1 + fall,
                        "train/img_per_s": 30 + fall,
                    }
                    journal.metrics(step, figures)
                    if step % 100 == 0:
                        of_classes = {f"val/iou/{name}": 1 - fall for name in self.names}
                        journal.metrics(step, {"val/mIoU": 1 - fall, **of_classes})
                    if step == steps // 2 // 50 * 50 and stage == "latent_prior":
                        journal.end("interrupted")
            journal.end("finished")
            columns = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
            row = f"3600\t1:00:00\t{'NA' if stage == 'merge' else 1234.5}\t1\t1\t1\t1\t1\t90\t5400"
            write_text(self.folder / "benchmarks" / f"{stage}.tsv", f"{columns}\n{row}\n")


def _reliability(confusion: np.ndarray) -> Reliability:
    """Of a model that is sure of what is right, and half sure of what is wrong."""
    right, wrong = np.diag(confusion), confusion.sum(0) - np.diag(confusion)
    confidence = np.zeros((len(confusion), BINS, 3), np.int64)
    confidence[:, 14] = np.stack([right, right, right * UNIT * 19 // 20], axis=1)
    confidence[:, 7] = np.stack([wrong, 0 * wrong, wrong * UNIT // 2], axis=1)
    uncertainty = np.zeros((STEPS, 2), np.int64)
    uncertainty[[20, 200]] = (right.sum(), 0), (wrong.sum(), wrong.sum())
    return Reliability(confidence, uncertainty)
