"""Results folders of whole pipelines, made in a moment: real journals and files, invented numbers."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from gss.config import Experiment, load_experiment
from gss.files import sha256_file, write_json, write_text
from gss.results.journal import Journal

TOY = Path(__file__).parents[2] / "config" / "experiments" / "toy.yaml"


class Pipeline:
    """An experiment with journals in `folder`; its stages run one by one, or all with `run`.

    Args:
        folder: `results/<name>`.
        dataset: its name.
        classes: names.
        seed: of the numbers.
        overrides: of the toy's configuration.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        *,
        dataset: str = "toy",
        seed: int = 0,
        overrides: Iterable[str] = (),
    ) -> None:
        self.folder, self.classes, self.dataset = folder, classes, dataset
        self._random = random.Random(seed)
        self._base = {name: self._random.uniform(0.2, 0.9) for name in classes}
        self.reconfigure(load_experiment(TOY, [f"data.root={dataset}", *overrides]))

    def reconfigure(self, experiment: Experiment) -> None:
        """Go on with this configuration."""
        self.experiment = experiment
        write_text(
            self.folder / "config.yaml",
            yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False),
        )

    def run(self) -> "Pipeline":
        """All stages, with a report."""
        self.palette()
        self.reconstruct()
        self.train()
        self.merge(b"weights")
        for model in ("gss_ff", "gss_ft"):
            for split in ("val", "test"):
                self.evaluate(model, split)
        self.report("all is well")
        return self

    def journal(self, stage: str) -> Journal:
        header = {
            "experiment": self.folder.name,
            "stage": stage,
            "dataset": self.dataset,
            "config_sha256": self.experiment.sha256,
        }
        return Journal(self.folder / "work" / stage / "journal.jsonl", header)

    def palette(self) -> None:
        counted = {"splits": {"train": {"classes": [{"name": name} for name in self.classes]}}}
        write_json(self.folder / "data" / "statistics.json", counted)
        with self.journal("palette") as journal:
            journal.metrics(0, {"palette/num_classes": len(self.classes)})

    def reconstruct(self) -> None:
        write_json(self.folder / "reconstruction" / "metrics.json", {"made": "up"})
        write_text(self.folder / "tokenizer.safetensors", "tokens")
        with self.journal("reconstruct") as journal:
            for split in ("val", "test"):
                journal.metrics(0, self._scores(split, 0.1))

    def train(self) -> None:
        with self.journal("latent_prior") as journal:
            for step in range(1, 101):
                journal.metrics(step, {"train/loss": 1 / step})

    def merge(self, content: bytes) -> None:
        """Journal and file of a merged model."""
        (self.folder / "gss_ft.pth").write_bytes(content)
        with self.journal("merge") as journal:
            journal.tags(
                {
                    "git": "abc",
                    "input gss_ff.pth": "ff" * 32,
                    "file": f"results/{self.folder.name}/gss_ft.pth",
                    "sha256": sha256_file(self.folder / "gss_ft.pth"),
                }
            )

    def evaluate(self, model: str, split: str, gain: float = 0.02) -> None:
        """Figures of a model: GSS-FT is better by `gain` than GSS-FF, more or less."""
        place = self.folder / "evaluation" / model / split
        scores = self._scores(split, gain if model == "gss_ft" else 0)
        rows = [f"{name},{scores[f'{split}/iou/{name}']}" for name in self.classes]
        write_text(place / "per_class.csv", "\n".join(["class,iou", *rows]))
        write_json(place / "metrics.json", {"mIoU": scores[f"{split}/mIoU"]})
        used = "ff" * 32 if model == "gss_ff" else sha256_file(self.folder / "gss_ft.pth")
        with self.journal(f"evaluate_{model}_{split}") as journal:
            tokenizer = sha256_file(self.folder / "tokenizer.safetensors")
            journal.tags({f"input {model}.pth": used, "input tokenizer.safetensors": tokenizer})
            journal.metrics(0, scores)
            for name in ("metrics.json", "per_class.csv"):
                journal.artifact(place / name)

    def report(self, text: str) -> None:
        write_text(
            self.folder / "report.html",
            f"""<!doctype html><html><head>
<meta name="config-sha256" content="{self.experiment.sha256}"><title>{self.folder.name}</title></head>
<body><h1>Report of {self.folder.name}</h1><p>{text}</p></body></html>""",
        )

    def _scores(self, split: str, gain: float) -> dict[str, float]:
        iou = {name: min(1.0, base + gain * self._random.uniform(-0.5, 2.5)) for name, base in self._base.items()}
        mean = sum(iou.values()) / len(iou)
        return {
            f"{split}/mIoU": mean,
            f"{split}/mAcc": mean + 0.05,
            f"{split}/aAcc": mean + 0.08,
            **{f"{split}/iou/{name}": value for name, value in iou.items()},
            **{f"{split}/acc/{name}": min(1.0, value + 0.05) for name, value in iou.items()},
        }
