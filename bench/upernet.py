"""Time and peak memory of UPerNet on a ViT-B on the CPU: ours and the computation written out plainly.

    python bench/upernet.py          # three runs of each in turns, every one in a process of its own; half an hour
    python bench/upernet.py predict  # one of the subjects

Model: CAE's BEiT-B for 512 x 512, UPerNet of width 768, the auxiliary head, 150 classes, random weights. The plain side
(tests/oracle_upernet.py and timm's own blocks, with torch's fused attention) resizes and concatenates whole maps,
takes the loss from scores of the label's size, and sums windows in a map of the whole image; nothing is computed twice.
Single precision, one thread.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import apart
import page

PAGE = apart.ROOT / "bench" / "upernet.md"
HEADINGS = ("what", "s", "plain s", "time ratio (spread)", "MiB / plain MiB", "memory ratio")
SUBJECTS = {"train": "training step, 2 images of 512 x 512", "predict": "prediction in windows, 683 x 512"}
NUM_CLASSES, SIDE, STRIDE = 150, 512, 341
HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}  # what is freed goes back: the peak is of what is held
ENCODER = {"img_size": SIDE, "use_abs_pos_emb": True, "init_values": 0.1}


def network(side: str) -> Any:
    """The network, its auxiliary head included."""
    from oracle_upernet import plain

    from gss.recipes.pixel.network import build_pixel_network

    backbone = {"name": "beit_base_patch16_224", "options": ENCODER, "drop_path": 0.1}
    auxiliary = {"channels": 256, "dropout": 0.1}
    built = build_pixel_network(NUM_CLASSES, backbone, head="upernet", channels=768, dropout=0.1, auxiliary=auxiliary)
    return plain(built) if side == "plain" else built


def training_step(side: str) -> Callable[[], None]:
    """Forward, backward and update for two images, a tenth of whose labels is ignored."""
    import torch
    from oracle_upernet import plain_losses

    from gss.recipes.pixel.learner import PixelLearner
    from gss.train.optim import build_optimizer
    from gss.train.settings import LoopSettings

    learner = PixelLearner(network(side), auxiliary_weight=0.4).train()
    optimizer = build_optimizer(learner.saved, LoopSettings(steps=100, lr=1e-4, decay_rule="vectors"))
    weights = torch.tensor(list(learner.terms.values()), dtype=torch.float64)
    label = torch.randint(0, NUM_CLASSES, (2, SIDE // 8, SIDE // 8), dtype=torch.uint8)
    label[:, :, :6] = 255
    batch = {
        "image": torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8),
        "label": label.repeat_interleave(8, 1).repeat_interleave(8, 2),
        "valid": torch.tensor([[0, 0, SIDE, SIDE]] * 2),
        "photometric": torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]] * 2),
    }

    def step() -> None:
        sums = plain_losses(learner, batch) if side == "plain" else learner(batch, 0)[0]
        (weights * sums / learner.counts(batch)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def prediction(side: str) -> Callable[[], Any]:
    """One image, in two windows."""
    import numpy as np
    import torch
    from oracle_upernet import plain_prediction

    from gss.evaluate.inference import Inference, predict

    model = network(side).eval()
    image = np.random.default_rng(0).integers(0, 256, (SIDE, 683, 3), dtype=np.uint8)
    protocol = Inference("slide", (SIDE, SIDE), (STRIDE, STRIDE))
    if side == "plain":
        return lambda: plain_prediction(model, image, protocol)
    return lambda: predict(model, image, protocol, device=torch.device("cpu"))


def measure(subject: str, side: str) -> None:
    """See `apart.measure`."""
    import gss.evaluate.inference  # the baseline counts what every run needs
    import gss.recipes.pixel.learner
    import gss.train.optim  # noqa: F401

    apart.measure(lambda: (prediction if subject == "predict" else training_step)(side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # ours or plain
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.subjects[0], arguments.measure)
        return
    rows = []
    for subject in arguments.subjects or SUBJECTS:
        pairs = []
        for _ in range(arguments.rounds):
            ours, plain = (apart.child(__file__, subject, "--measure", side, **HEAP) for side in ("ours", "plain"))
            pairs.append((ours, plain))
        times, memory = apart.compared(pairs)
        rows.append((SUBJECTS[subject], *times, *memory))
        print(page.line(rows[-1]), flush=True)
    if not arguments.subjects:
        machine = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, one core. {arguments.rounds} runs."
        page.write(PAGE, "\n".join([machine, "", *page.table(HEADINGS, rows)]))


if __name__ == "__main__":
    main()
