"""How many tokens of real labels change with the arithmetic of the dVAE.

    python bench/token_flips.py camvid [--labels 24]

Takes the final palette and tokenizer of an experiment and labels of its last split, evenly spaced, at training
resolution. Prints a table: tokens that differ from those of float32; pixels that differ when tokens of float32 are
decoded otherwise; and reconstruction mIoU both ways. On a GPU float32 is measured twice: exactly, and with the TF32
that torch gives convolutions.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from page import table
from torch import Tensor

from gss.data.manifest import evenly_spaced
from gss.data.metrics import scores
from gss.recipes.gss.palette.maskige import nearest, paint
from gss.recipes.gss.palette.palette import read_palette
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.reconstruct import reconstruct
from gss.recipes.gss.tokenizer.store import load_tokenizer
from gss.recipes.gss.tokenizer.targets import double_label
from gss.stages.run import Run


class Row(NamedTuple):
    """Shares of tokens and pixels that changed, and the mIoU of the reconstruction."""

    arithmetic: str
    tokens: float
    pixels: float
    miou: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment")
    parser.add_argument("--labels", type=int, default=24)
    given = parser.parse_args()
    print("\n".join(lines(of_experiment(Run.open(given.experiment).folder, given.labels))))


def of_experiment(folder: Path, count: int) -> Iterator[Row]:
    """Rows of the tokenizer and of labels of finished results, on the GPU where there is one."""
    run = Run.open(folder.name, results=folder.parent)
    colours = torch.from_numpy(read_palette(run.folder / "palette.csv").colours)
    pairs = run.manifest.pairs(run.experiment.last_split)
    labels = [pairs[index].read_label() for index in evenly_spaced(len(pairs), count)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield from compare(lambda: load_tokenizer(run.folder / "tokenizer.safetensors", device=device), labels, colours)


def compare(load: Callable[[], DVAE], labels: Sequence[np.ndarray], colours: Tensor) -> Iterator[Row]:
    """A row for each arithmetic.

    Args:
        load: gives the tokenizer in float32, anew at each call.
        labels: uint8 [H, W]. colours: [N + 1, 3].
    """
    exact = load()
    colours = colours.to(exact.weight.device)
    rows = [
        ("float32, exact", torch.float32, False),
        ("float32 with TF32", torch.float32, True),
        ("float16", torch.float16, True),
        ("bfloat16", torch.bfloat16, True),
    ]
    for name, dtype, tf32 in rows:
        if name == "float32 with TF32" and not colours.is_cuda:
            continue
        dvae = load()
        if dtype != torch.float32:
            dvae.lower_precision(dtype)
        found = np.mean([changed(exact, dvae, label, colours, tf32=tf32) for label in labels], axis=0)
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            confusion = reconstruct(dvae, labels, colours, doubled=True).confusion.numpy()
        yield Row(name, float(found[0]), float(found[1]), scores(confusion).mIoU)


@torch.no_grad()
def changed(exact: DVAE, dvae: DVAE, label: np.ndarray, colours: Tensor, *, tf32: bool) -> tuple[float, float]:
    """Shares of tokens and of decoded pixels that differ."""
    ids = torch.from_numpy(label)[None].to(colours.device)  # [1, H, W]
    picture = paint(double_label(ids, (-(-ids.shape[1] // 4), -(-ids.shape[2] // 4))), colours)
    with torch.backends.cudnn.flags(allow_tf32=False):
        tokens = exact.encode(picture)
        classes = nearest(255 * exact.decode(tokens), colours)
    with torch.backends.cudnn.flags(allow_tf32=tf32):
        others = nearest(255 * dvae.decode(tokens), colours)
        return (dvae.encode(picture) != tokens).float().mean().item(), (classes != others).float().mean().item()


def lines(rows: Iterable[Row]) -> list[str]:
    """Markdown."""
    return table(
        ("arithmetic", "tokens changed", "pixels changed", "mIoU"),
        (
            (name, f"{100 * tokens:.3f} %", f"{100 * pixels:.4f} %", f"{miou:.4f}")
            for name, tokens, pixels, miou in rows
        ),
    )


if __name__ == "__main__":
    main()
