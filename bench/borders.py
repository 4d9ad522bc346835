"""How sure a latent prior is of its tokens, within classes and at their borders.

    python bench/borders.py camvid_gss/seed_1 [--every 10] [--results results]

Prints, of the token positions of every tenth image of `val` whose 4 x 4 pixels are of one class, or of several and none
ignored: how many there are, the mean probability of the most probable token, how often it is below one half, and among
how many equally likely tokens the choice would be as open (the exponential of the entropy).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.loader import read_pair
from gss.evaluate.inference import one_inference, resize_image
from gss.modelfile import load_model
from gss.recipes.gss.assemble import build_model, read_beside
from gss.stages.run import Run

SIDE = 4  # pixels of the image across of a token


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--every", type=int, default=10, metavar="N")
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args()
    run = Run.open(given.experiment, results=given.results)
    path = run.folder / "gss_ff.pth"
    model = build_model(load_model(path, "gss_ff"), read_beside(lambda file: run.folder / file), where=path)
    head, pairs = model.prior.head, run.manifest.pairs("val")
    sums = {name: np.zeros(4) for name in ("one class", "several classes")}
    for index in range(0, len(pairs), given.every):
        image, label = read_pair(pairs[index])
        resized = resize_image(image, one_inference(run.experiment.evaluation).scale)
        normalised = model.normalise(torch.from_numpy(resized).permute(2, 0, 1)[None])
        fused = head.fuse(model.prior.backbone(model.prior.backbone.fit(normalised)))
        probabilities = head.conv_seg(head.hidden(fused))[0].float().softmax(0)  # [V, h, w]
        top, open_to = probabilities.amax(0), torch.special.entr(probabilities).sum(0).exp()
        places = _places(torch.from_numpy(label.astype(np.int64)), top.shape, run.space.ignore_index)
        for name, where in zip(sums, places, strict=True):
            some = top[where]
            sums[name] += [len(some), float(some.sum()), float((some < 0.5).sum()), float(open_to[where].sum())]
    for name, (count, total, unsure, among) in sums.items():
        print(f"{name}: {count:.0f} tokens, {total / count:.2f}, {unsure / count:.0%}, {among / count:.1f}")


def _places(label: Tensor, grid: torch.Size, ignored: int) -> tuple[Tensor, Tensor]:
    """bool [h, w] each: one class, several classes, of a label [H, W]."""
    (rows, columns), (height, width) = grid, label.shape
    padded = F.pad(label, (0, SIDE * columns - width, 0, SIDE * rows - height), value=ignored)
    blocks = padded.view(rows, SIDE, columns, SIDE).movedim(2, 1).flatten(2)  # [h, w, 16]
    is_known, is_one = (blocks != ignored).all(2), (blocks == blocks[..., :1]).all(2)
    return is_known & is_one, is_known & ~is_one


if __name__ == "__main__":
    main()
