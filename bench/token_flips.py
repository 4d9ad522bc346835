"""How many tokens of real labels change when the dVAE computes in half precision.

    python bench/token_flips.py camvid [--labels 24]

Takes the final palette and tokenizer of an experiment and labels of its last split, evenly spaced, at training
resolution. Prints a table: tokens that differ from those of float32; pixels that differ when tokens of float32 are
decoded in half precision; and reconstruction mIoU with half precision both ways.
"""

import argparse

import numpy as np
import torch

from gss.data.images import read_label
from gss.evaluate.metrics import scores
from gss.evaluate.pictures import evenly_spaced
from gss.palette.maskige import nearest, paint
from gss.palette.palette import read_palette
from gss.stages.run import Run
from gss.tokenizer.reconstruct import reconstruct
from gss.tokenizer.store import load_tokenizer
from gss.tokenizer.targets import double_label


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment")
    parser.add_argument("--labels", type=int, default=24)
    given = parser.parse_args()
    run = Run.open(given.experiment)
    colours = torch.from_numpy(read_palette(run.folder / "palette.csv").colours)
    split = list(run.experiment.data.splits)[-1]
    pairs = run.manifest.pairs(split)
    labels = [read_label(pairs[index].label, run.space) for index in evenly_spaced(len(pairs), given.labels)]
    device = "cuda" if torch.cuda.is_available() else "cpu"

    print(f"{len(labels)} labels of {split}, {device}\n")
    print("| arithmetic | tokens changed | pixels changed | mIoU |\n|---|---|---|---|")
    exact = load_tokenizer(run.folder / "tokenizer.safetensors", device=device)
    for dtype in (None, torch.float16, torch.bfloat16):
        dvae = load_tokenizer(run.folder / "tokenizer.safetensors", device=device)
        if dtype is not None:
            dvae.lower_precision(dtype)
        tokens, pixels = zip(*(changed(exact, dvae, label, colours.to(device)) for label in labels), strict=True)
        found = scores(reconstruct(dvae, labels, colours, doubled=True).confusion.numpy()).mIoU
        name = str(dtype or torch.float32).removeprefix("torch.")
        print(f"| {name} | {100 * np.mean(tokens):.3f} % | {100 * np.mean(pixels):.4f} % | {found:.4f} |", flush=True)


@torch.no_grad()
def changed(exact, dvae, label, colours):  # type: ignore[no-untyped-def]
    """Shares of tokens and of decoded pixels that differ."""
    ids = torch.from_numpy(label)[None].to(colours.device)  # [1, H, W]
    picture = paint(double_label(ids, (-(-ids.shape[1] // 4), -(-ids.shape[2] // 4))), colours)
    tokens = exact.encode(picture)
    classes, others = (nearest(255 * model.decode(tokens), colours) for model in (exact, dvae))
    return (dvae.encode(picture) != tokens).float().mean().item(), (classes != others).float().mean().item()


if __name__ == "__main__":
    main()
