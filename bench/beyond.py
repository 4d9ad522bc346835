"""What the options of GSS's prediction are worth: of finished results, nothing trained anew.

    python bench/beyond.py camvid [--split val test] [--results results]

Measures `gss_ff.pth` and `gss_ft.pth` with every temperature of the tokens and every weight of the pixel branch, and
the pixel branch alone, and adds the figures to `bench/beyond.csv`: a row for each model, split and choice of options,
IoU by class. Rows of the same experiment and split are replaced. Choose on `val`; read `test` for what was chosen.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gss.data.loader import read_pair
from gss.data.metrics import scores
from gss.evaluate.inference import one_inference, resize_image
from gss.modelfile import load_model
from gss.nets.tensors import resize
from gss.progress import Progress
from gss.recipes.gss.assemble import build_model, read_beside
from gss.recipes.gss.model import GSS
from gss.stages.run import Run

TABLE = Path(__file__).with_name("beyond.csv")
TEMPERATURES = (None, 0.25, 0.5, 1.0, 2.0)  # None: the most probable tokens
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
KEYS = ["experiment", "split", "model", "token_temperature", "pixel_weight"]


def main() -> None:
    """Measure, and write the table anew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment")
    parser.add_argument("--split", nargs="+", default=["val", "test"])
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args()
    run = Run.open(given.experiment, results=given.results)
    for split in given.split:
        rows = pd.DataFrame(measured(run, split))
        if TABLE.is_file():
            kept = pd.read_csv(TABLE, dtype={"token_temperature": str}, keep_default_na=False)
            rows = pd.concat([kept[(kept["experiment"] != given.experiment) | (kept["split"] != split)], rows])
        rows.to_csv(TABLE, index=False)


def measured(run: Run, split: str) -> Iterator[dict[str, object]]:
    """A row for each choice, its figures in per cent."""
    pairs, inference = run.manifest.pairs(split), one_inference(run.experiment.evaluation)
    assert inference.mode == "whole" and not inference.flip, "one pass over an image is shared by all choices"
    models = {name: [_model(run, name, temperature) for temperature in TEMPERATURES] for name in ("gss_ff", "gss_ft")}
    names = run.space.names
    counts: dict[tuple[str, str, float], np.ndarray] = {}
    progress = Progress(f"options {run.name} {split}", len(pairs), "img")
    for done, pair in enumerate(pairs, 1):
        image, label = read_pair(pair)
        pixels = torch.from_numpy(resize_image(image, inference.scale)).permute(2, 0, 1)[None]
        truth = torch.from_numpy(label.astype(np.int64))
        for key, ids in _predictions(models, pixels, (label.shape[0], label.shape[1])):
            both = (truth * len(names) + ids)[truth < len(names)]
            found = torch.bincount(both, minlength=len(names) ** 2).view(len(names), -1).numpy()
            counts[key] = counts.get(key, 0) + found
        progress.show(done)
    for (name, temperature, weight), found in counts.items():
        figures = scores(found)
        row = dict(zip(KEYS, (run.name, split, name, temperature, weight), strict=True))
        of_classes = {each: _percent(iou) for each, iou in zip(names, figures.iou, strict=True)}
        yield {**row, "mIoU": _percent(figures.mIoU), **of_classes}


def _model(run: Run, name: str, temperature: float | None) -> GSS:
    path = run.folder / f"{name}.pth"
    tokenizer = read_beside(lambda file: run.folder / file).keep("decoder")
    protocol = {**run.experiment.protocol(), "token_temperature": temperature}
    return build_model(load_model(path, name), tokenizer, where=path, protocol=protocol)


@torch.inference_mode()
def _predictions(
    models: Mapping[str, list[GSS]], pixels: Tensor, size: tuple[int, int]
) -> Iterator[tuple[tuple[str, str, float], Tensor]]:
    """Model, temperature (`hard`: none), weight, and ids [H, W]; one pass of the latent prior for each temperature."""
    first = models["gss_ff"][0]
    image = first.normalise(pixels)
    shown = image.shape[2], image.shape[3]
    for index, temperature in enumerate(TEMPERATURES):
        of_both = {name: some[index] for name, some in models.items()}
        ff = of_both["gss_ff"]  # the latent prior and the tokenizer of both models are the same
        seen = ff.prior.see(image, mixture=ff.tokenizer.mixture(temperature), with_pixels=True)
        assert seen.pixel_logits is not None
        branch = resize(seen.pixel_logits, shown).log_softmax(1)
        if temperature is None:
            yield ("pixel_branch", "", 1.0), _ids(branch, size)
        rgb = ff.tokenizer.decode(seen.code)
        for name, model in of_both.items():
            own = model.posterior.log_probabilities(rgb, shown)
            for weight in WEIGHTS:
                plain = model.posterior.scores(rgb, shown) if weight == 0 else own + weight * branch
                yield (name, "hard" if temperature is None else str(temperature), weight), _ids(plain, size)


def _ids(values: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(values, size).argmax(1)[0]


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


if __name__ == "__main__":
    main()
