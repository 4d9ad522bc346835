"""What the options of GSS's prediction are worth: of finished results, nothing trained anew.

    python bench/beyond.py camvid_gss/seed_0 camvid_gss/seed_1 [--results results]
    python bench/beyond.py camvid_gss/seed_0 --with latent_prior.training.lr=0.001

Measures `gss_ff.pth` and `gss_ft.pth` on `val` and `test` with every temperature of the tokens, every weight of the
classes' shares in the tokens and of the pixel branch, and the pixel branch alone, and adds the figures to
`bench/beyond.csv`: a row for each model, split and choice of options, mIoU and IoU by class in per cent. Rows of the
same experiment and settings are replaced. Then it writes the table of `bench/beyond.md`: of every kind of options the
choice with the best mean on `val` over the seeds, and what it reaches on `test`.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import page
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
from gss.recipes.gss.model import GSS, RAREST
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.stages.run import Run

TABLE, PAGE = Path(__file__).with_name("beyond.csv"), Path(__file__).with_name("beyond.md")
TEMPERATURES = (None, 0.5, 1.0)  # None: the most probable tokens
TOKEN_WEIGHTS, PIXEL_WEIGHTS = (0.0, 0.5, 1.0, 2.0), (0.0, 0.5, 1.0, 2.0)
OPTIONS = ["token_temperature", "token_weight", "pixel_weight"]
KEYS = ["experiment", "settings", "split", "model", *OPTIONS]
MODELS = {"gss_ff": "GSS-FF", "gss_ft": "GSS-FT", "pixel_branch": "pixel branch"}

Choice = tuple[str, str, float, float]  # model and options, as in KEYS


def main() -> None:
    """Measure, and write the tables anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="none: only the page")
    parser.add_argument(
        "--with", nargs="+", default=[], metavar="KEY=VALUE", dest="settings", help="of what was trained"
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args()
    for name in given.experiments:
        run, settings = Run.open(name, given.settings, given.results), " ".join(given.settings)
        for split in ("val", "test"):
            rows = pd.DataFrame({"experiment": name, "settings": settings, **row} for row in measured(run, split))
            if TABLE.is_file():
                kept = read()
                is_same = (kept["experiment"] == name) & (kept["settings"] == settings) & (kept["split"] == split)
                rows = pd.concat([kept[~is_same], rows])
            rows.to_csv(TABLE, index=False)
    table = page.table(("networks", "prediction", "val", "test", "difference", "seeds"), compared(read()))
    page.write(PAGE, "\n".join(table))


def read() -> pd.DataFrame:
    """The rows so far."""
    return pd.read_csv(TABLE, dtype={"token_temperature": str}, keep_default_na=False)


def compared(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Cells of the page's table, by experiment (its seeds together), model and kind of options.

    A difference is that to the published method of the same seeds.
    """
    rows = rows.assign(group=rows["experiment"].str.partition("/seed_")[0])
    for (group, settings), found in rows.groupby(["group", "settings"]):
        for model, title in MODELS.items():
            of_model = found[found["model"] == model]
            is_published = (rows["group"] == group) & (rows["settings"] == "") & (rows["model"] == model)
            published = _test(_kinds(rows[is_published])["published"])
            for kind, wanted in _kinds(of_model).items():
                means = wanted[wanted["split"] == "val"].groupby(OPTIONS)["mIoU"].mean()
                if means.empty:
                    continue
                chosen = means.idxmax()
                same = wanted[(wanted[OPTIONS].apply(tuple, axis=1)) == chosen]
                test = _test(same)
                difference = _spread((test - published).dropna(), "+.2f") if kind != "alone" else ""
                yield (
                    f"{group} {settings}".strip(),
                    f"{title}, {kind} ({_said(chosen)})",
                    _spread(same[same["split"] == "val"]["mIoU"]),
                    _spread(test),
                    difference,
                    str(len(test)),
                )


def _test(rows: pd.DataFrame) -> pd.Series:
    return rows[rows["split"] == "test"].set_index("experiment")["mIoU"]


def _kinds(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by kind of options: the published ones, and each option alone and together."""
    hard, shares, branch = rows["token_temperature"] == "hard", rows["token_weight"] > 0, rows["pixel_weight"] > 0
    if (rows["model"] == "pixel_branch").all():
        return {"published": rows[:0], "alone": rows}
    return {
        "published": rows[hard & ~shares & ~branch],
        "soft": rows[~hard & ~shares & ~branch],
        "shares": rows[hard & shares & ~branch],
        "soft, shares": rows[~hard & shares & ~branch],
        "branch": rows[hard & ~shares & branch],
        "soft, branch": rows[~hard & ~shares & branch],
        "all": rows[~hard & shares & branch],
    }


def _said(chosen: tuple[str, float, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(("T", "token", "pixel"), chosen, strict=True) if value)


def _spread(values: pd.Series, form: str = ".2f") -> str:
    mean = format(values.mean(), form)
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1):.2f}"


def measured(run: Run, split: str) -> Iterator[dict[str, object]]:
    """A row for each choice, its figures in per cent."""
    pairs, inference = run.manifest.pairs(split), one_inference(run.experiment.evaluation)
    assert inference.mode == "whole" and not inference.flip, "one pass over an image is shared by all choices"
    names, tokenizer = run.space.names, read_beside(lambda file: run.file(run.folder / file)).keep("decoder")
    models = {name: _model(run, name, tokenizer) for name in ("gss_ff", "gss_ft")}
    counts: dict[Choice, np.ndarray] = {}
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
    for choice, found in counts.items():
        figures = scores(found)
        of_classes = {each: _percent(iou) for each, iou in zip(names, figures.iou, strict=True)}
        row = dict(zip(KEYS[2:], (split, *choice), strict=True))
        yield {**row, "mIoU": _percent(figures.mIoU), **of_classes}


def _model(run: Run, name: str, tokenizer: DVAE) -> GSS:
    path = run.file(run.folder / f"{name}.pth")
    protocol = {**run.experiment.protocol(), "token_weight": 1.0}  # any: so that the shares are there
    return build_model(load_model(path, name), tokenizer, where=path, protocol=protocol)


@torch.inference_mode()
def _predictions(models: Mapping[str, GSS], pixels: Tensor, size: tuple[int, int]) -> Iterator[tuple[Choice, Tensor]]:
    """A choice and its ids [H, W]; one pass of the latent prior for each temperature."""
    first = models["gss_ff"]  # the latent prior and the tokenizer of both models are the same
    image = first.normalise(pixels)
    shown = image.shape[2], image.shape[3]
    for temperature in TEMPERATURES:
        first.token_temperature = temperature
        seen, shares = first.see(image, with_pixels=True)
        assert seen.pixel_logits is not None and shares is not None
        branch = resize(seen.pixel_logits, shown).log_softmax(1)
        of_tokens = (resize(shares, shown) + RAREST).log()
        if temperature is None:
            yield ("pixel_branch", "", 0.0, 1.0), _ids(branch, size)
        rgb = first.tokenizer.decode(seen.code)
        for name, model in models.items():
            own = model.posterior.log_probabilities(rgb, shown)
            said = "hard" if temperature is None else str(temperature)
            for weights in itertools.product(TOKEN_WEIGHTS, PIXEL_WEIGHTS):
                if weights == (0.0, 0.0):
                    found = model.posterior.scores(rgb, shown)
                else:
                    found = own + weights[0] * of_tokens + weights[1] * branch
                yield (name, said, *weights), _ids(found, size)


def _ids(values: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(values, size).argmax(1)[0]


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


if __name__ == "__main__":
    main()
