"""Results folders made by code: small images, labels, predictions, and all files a comparison reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from gss.config import load_experiment
from gss.data.classes import ClassSpace, ids_dtype, ignore_index
from gss.data.ids import ids_tensor
from gss.data.images import write_png
from gss.data.manifest import read_manifest
from gss.data.metrics import confusion
from gss.evaluate.inference import Inference
from gss.evaluate.measure import Evaluation
from gss.evaluate.pictures import picture_name
from gss.evaluate.write import write_evaluation
from gss.files import sha256_file, write_json, write_text
from gss.recipes.gss.palette.strategies import grid_colours

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("sky", "road", "car", "pole")
HEIGHT, WIDTH = 40, 64
WHOLE = Inference()


def noisy(labels: Sequence[np.ndarray], num_classes: int, errors: float, seed: int) -> list[np.ndarray]:
    """Predictions in which squares, `errors` of the image, have another class; ignored pixels are some class."""
    rng = np.random.default_rng(seed)
    predictions = []
    for label in labels:
        changed = np.kron(rng.random((HEIGHT // 8, WIDTH // 8)) < errors * rng.uniform(0, 2), np.ones((8, 8))) > 0
        other = np.kron(rng.integers(0, num_classes, (HEIGHT // 8, WIDTH // 8)), np.ones((8, 8), int))
        ignored = label == ignore_index(num_classes)
        predictions.append(np.where(changed | ignored, other, label).astype(label.dtype))
    return predictions


class Made:
    """A data set and a folder of results.

    Args:
        folder: where both go.
        names: of the classes; the last one is in few images.
    """

    def __init__(self, folder: Path, names: Sequence[str] = NAMES, num_images: int = 12) -> None:
        self.data, self.results, self.names = folder / "set", folder / "results", tuple(names)
        self.dtype = ids_dtype(len(names))
        rng = np.random.default_rng(0)
        self.labels, self.rows = [], []
        for index in range(num_images):
            label = np.sort(rng.integers(0, len(names) - (index > 2), (HEIGHT // 8, WIDTH // 8)), axis=0)
            label = np.kron(label, np.ones((8, 8))).astype(self.dtype)
            label[:3, :10] = ignore_index(len(names))
            files = {kind: self.data / kind / f"{index:02}.png" for kind in ("images", "labels")}
            write_png(files["labels"], label)
            grey = rng.integers(0, 60, (*label.shape, 3)) + 40 * label[..., None] % 180
            write_png(files["images"], grey.astype(np.uint8))
            self.labels.append(label)
            self.rows.append(
                {
                    "image": f"images/{index:02}.png",
                    "label": f"labels/{index:02}.png",
                    "height": HEIGHT,
                    "width": WIDTH,
                    **{f"{kind[:-1]}_sha256": sha256_file(path) for kind, path in files.items()},
                }
            )

    def run(
        self,
        name: str,
        errors: float,
        *,
        seed: int = 1,
        order: Sequence[int] | None = None,
        split: str = "test",
        overrides: Sequence[str] = (),
        inference: Inference = WHOLE,
        rows: list[dict] | None = None,
        predictions: bool = True,
    ) -> None:
        """Write the results of a run `EXPERIMENT[/seed_N]/MODEL` whose share of wrong pixels is about `errors`.

        Args:
            order: place of each class in the experiment's own list; None: as in `names`.
            rows: of the manifest; None: those of the images.
        """
        experiment, _, model = name.rpartition("/")
        folder = self.results / experiment
        number = len(self.names)
        order = list(range(number) if order is None else order)
        names = [self.names[order.index(place)] for place in range(number)]
        own = np.arange(np.iinfo(self.dtype).max + 1, dtype=self.dtype)
        own[:number] = order
        overrides = [f"data.root={self.data}", "data.generate=null", *overrides]
        config = load_experiment(ROOT / "config/experiments/toy.yaml", overrides)
        write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json")))
        colours = tuple(tuple(map(int, colour)) for colour in grid_colours(number, np.random.default_rng(0)))
        space = ClassSpace(tuple(names), colours, label_map=dict(enumerate(order)))
        rows = self.rows if rows is None else rows
        write_json(
            folder / "data/manifest.json",
            {"version": 1, "root": "set", "classes": space.as_dict(), "splits": {split: rows}},
        )
        predicted = [own[each] for each in noisy(self.labels, number, errors, seed)]
        counts = np.stack(
            [
                confusion(ids_tensor(ids), ids_tensor(own[label]), number).numpy()
                for ids, label in zip(predicted, self.labels, strict=True)
            ]
        )
        evaluation = Evaluation(
            counts.sum(0), np.diagonal(counts, axis1=1, axis2=2).copy(), counts.sum(1), counts.sum(2), 0
        )
        path, manifest = folder / "evaluation" / model / split, read_manifest(folder / "data/manifest.json")
        write_evaluation(
            path,
            evaluation,
            names,
            protocol=inference.as_dict(),
            model=folder / f"{model}.pth",
            model_sha256=f"{name} {errors} {seed}",
            manifest_sha256=manifest.sha256,
            split_sha256=manifest.split_sha256(split),
        )
        if predictions:
            for index, ids in enumerate(predicted):
                write_png(path / "predictions" / picture_name(index, Path(self.rows[index]["image"])), ids)
