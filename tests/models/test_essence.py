"""The core of the published numbers, in every run: what the tiny models compute with weights from a formula.

`essence.json` holds what this file measured when tests/parity agreed with the recordings of the published
implementation; it was written, and is written again, by

    PYTHONPATH=tests/train:tests/tokenizer python tests/models/test_essence.py

which needs those recordings, compares training and predictions with them first, and writes nothing unless all of it
agrees. All numbers are float64 results, compared to 1e-9.
"""

import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from procedural import procedural_values
from tiny_gss import CLASSES, Variant, all_scores, build, gradients, learner_of, load, published, watch
from torch import Tensor

from gss.evaluate.inference import Inference, lowest_best
from gss.recipes.gss.model import GSS
from gss.results.journal import Journal, read_journal
from gss.train.distributed import World
from gss.train.loop import train
from gss.train.settings import LoopSettings

HERE = Path(__file__).resolve().parent
ESSENCE = HERE / "essence.json"
SIZE = {"ff": (37, 46), "ftw": (36, 44)}  # pixels: one size that is no multiple of 4, one that is
SELECTED = (  # parameters whose gradients and changes are compared, by the ends of their published names
    "patch_embed.projection.weight",
    "stages.0.downsample.reduction.weight",
    "stages.1.downsample.norm.weight",
    "stages.2.blocks.1.attn.w_msa.relative_position_bias_table",
    "stages.2.blocks.1.attn.w_msa.qkv.bias",
    "stages.3.blocks.0.norm2.weight",
    "backbone.norm1.weight",
    "convs.0.conv.weight",
    "convs.1.bn.weight",
    "convs_pixel.3.conv.weight",
    "fusion_conv.bn.bias",
    "transformer_block.blocks.1.attn.w_msa.qkv.weight",
    "transformer_block.blocks.0.attn.w_msa.proj.bias",
    "transformer_block.blocks.0.norm1.weight",
    "swin_ln.weight",
    "conv_before_seg.bn.weight",
    "conv_seg.bias",
    "conv_seg_pixel.weight",
    "projection.conv.weight",
    "projection.bn.bias",
    "cls_segmap.conv.bias",
)
CLASSIFIERS = ("conv_seg.weight", "conv_seg_pixel.weight", "cls_segmap.conv.weight")
LARGER = {"decode_head.d_vae.decoder.blocks.output.conv.w": 20}  # for many colours
STATISTICS = ("fusion_conv.bn.running_mean", "conv_before_seg.bn.running_var", "convs.2.bn.running_mean")


def model_of(variant: Variant) -> GSS:
    """The tiny model in float64 with weights from the formula."""
    model = build(variant)
    state = published(model)
    for name, old in state.items():
        if old.is_floating_point():
            value = procedural_values(name.removeprefix("decode_head.d_vae."), tuple(old.shape))
            if old.ndim == 1 and "d_vae" not in name:  # uniform in +-sqrt(3) so far
                value = 1 + 0.2 * value if name.endswith(("weight", "running_var")) else 0.1 * value
            if name.endswith(CLASSIFIERS):
                value[:, 1::2] = -value[:, 0::2]  # as in the dVAE: what channels have in common decides nothing
            state[name] = value * LARGER.get(name, 1)
    load(model, state)
    return model.double()


def image_of(variant: Variant, samples: int = 2) -> Tensor:
    """Blocks and noise, each of variance 1, float64 [samples, 3, H, W]."""
    height, width = SIZE[variant]
    noise = procedural_values("image", (samples, 3, height, width)).double() * (3 * height * width) ** 0.5
    rows, columns = -(-height // 8), -(-width // 8)
    blocks = procedural_values("blocks", (samples, 3, rows, columns)).double() * (3 * rows * columns) ** 0.5
    return noise + blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :height, :width]


def label_of(variant: Variant) -> Tensor:
    """uint8 [2, H, W]: blocks of all classes, and ignored pixels of which some share a token with others."""
    height, width = SIZE[variant]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    label = torch.stack([(y // 6 * 3 + x // 5 * 7) % CLASSES, (y // 9 + x // 4 * 5) % CLASSES])
    label[0, 6:23, 10:33] = 255
    label[1, (y + x) % 5 == 0] = 255
    return label.to(torch.uint8)


def training(variant: Variant) -> dict[str, Any]:
    """One forward and backward: values inside, sums of losses and their divisors, gradients, running statistics."""
    model = model_of(variant)
    learner = learner_of(variant, model)
    seen = watch(model, learner)
    label = label_of(variant)
    sums, stats = learner.losses(image_of(variant), label)
    counts = learner.counts({"label": label})
    weights = torch.tensor(list(learner.terms.values()), dtype=torch.float64)
    (weights * sums / counts).sum().backward()
    inside = {name: figures(value) for name, value in sorted(seen.items()) if value.is_floating_point()}
    found = {f"gradient of {name}": figures(value) for name, value in gradients(model).items() if chosen(name)}
    found |= {name: figures(value) for name, value in published(model).items() if name.endswith(STATISTICS)}
    found |= {name: ids(seen[name]) for name in ("token_target", "label_resized", "dec_in") if name in seen}
    right = {name: [number.item() for number in pair] for name, pair in stats.items()}
    return inside | found | right | {"weights": learner.terms, "sums": sums.tolist(), "counts": counts.tolist()}


def steps(variant: Variant) -> dict[str, Any]:
    """Three optimiser steps of the real loop with the published rules: losses, rates, and what they changed."""
    model = model_of(variant)
    before, image, label = published(model), image_of(variant), label_of(variant)

    def batches(start: int) -> Iterator[list[dict[str, Tensor]]]:
        for step in range(start, 3):
            yield [{"image": image.roll(step, -1), "label": label.roll(step, -1)}]

    settings = LoopSettings(steps=20, lr=0.0015, warmup_steps=2, decay_rule="published", precision="fp64", log_every=1)
    world = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl", {}) as journal:
        train(learner_of(variant, model), batches, settings, work=Path(folder), journal=journal, world=world, until=3)
        rows = [event["m"] for event in read_journal(journal.path) if "m" in event]
    columns = [name for name in sorted(rows[0]) if name not in ("train/img_per_s", "train/data_wait")]
    after = published(model)
    changed = {f"change of {name}": figures(after[name] - before[name], 1e-6) for name in before if chosen(name)}
    return {column: [row[column] for row in rows] for column in columns} | changed


def prediction(variant: Variant) -> dict[str, Any]:
    """Tokens, scores and classes of one image: whole, in windows, and in windows for a file of another size.

    Votes of FF are float32, and once resized by other than a half they depend on the CPU in their last digit, and so
    do the classes where they are tied.
    """
    found: dict[str, Any] = {}
    for name, protocol, size in (
        ("whole", Inference(), SIZE[variant]),
        ("slide", Inference("slide", crop=(24, 24), stride=(16, 20)), SIZE[variant]),
        ("slide to another size", Inference("slide", crop=(28, 32), stride=(9, 24)), (50, 61)),
    ):
        model = model_of(variant).eval()
        seen = watch(model)
        with torch.inference_mode():
            scores = all_scores(model, image_of(variant, 1), protocol)
            classes = lowest_best([scores], size)
        found[f"{name}: tokens"] = ids(seen["dec_in"])
        found[f"{name}: scores"] = figures(scores, 1e-5 if variant == "ff" else 1e-9)
        if variant == "ftw" or name == "slide":
            found[f"{name}: classes"] = ids(classes)
    return found


SECTIONS: dict[str, Callable[[Variant], dict[str, Any]]] = {
    "training": training,
    "steps": steps,
    "prediction": prediction,
}


def chosen(name: str) -> bool:
    return name.endswith(SELECTED)


def figures(x: Tensor, rounding: float = 1e-9) -> dict[str, Any]:
    """Mean, mean of absolute values, eight values, the first and the last among them; how far they may be off."""
    flat = x.double().flatten()
    return {
        "rounding": rounding,
        "mean": flat.mean().item(),
        "size": flat.abs().mean().item(),
        "some": flat[torch.linspace(0, len(flat) - 1, min(8, len(flat))).long()].tolist(),
    }


def ids(x: Tensor) -> dict[str, Any]:
    """Checksum of all, and what it is easier to look at: the first row and how often the most frequent ones occur."""
    counts = x.flatten().long().bincount()
    most = counts.argsort(descending=True, stable=True)[:8]
    return {
        "crc32": zlib.crc32(x.to(torch.int32).numpy().tobytes()),
        "first row": x.flatten(0, -2)[0].tolist(),
        "most": {str(i): counts[i].item() for i in most.tolist() if counts[i]},
    }


def assert_same(ours: Any, theirs: Any, where: str, allowed: float = 0.0) -> None:
    """Floats to 1e-9 of themselves, or to the rounding of their tensor's size; all else exactly."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}: {key}", theirs.get("rounding", 0) * theirs.get("size", 0))
    elif isinstance(theirs, list):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, f"{where}[{index}]", allowed)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=allowed), where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("variant", ["ff", "ftw"])
@pytest.mark.parametrize("section", SECTIONS)
def test_the_essence_of_the_published_numbers(section: str, variant: Variant) -> None:
    theirs = json.loads(ESSENCE.read_text())[f"{variant} {section}"]
    assert_same(json.loads(json.dumps(SECTIONS[section](variant))), theirs, f"{variant} {section}")


def record() -> None:
    """Write `essence.json`, if the code agrees with the published implementation."""
    files = ["tests/parity/test_training.py", "tests/parity/test_prediction.py"]
    command = [sys.executable, "-m", "pytest", "-q", *files]
    parity = subprocess.run(command, cwd=HERE.parents[1], text=True, stdout=subprocess.PIPE)
    print(parity.stdout)
    if parity.returncode or "skipped" in parity.stdout.splitlines()[-1]:
        sys.exit("not recorded: the code must agree with all recordings of the published implementation")
    content = {f"{variant} {name}": measure(variant) for variant in ("ff", "ftw") for name, measure in SECTIONS.items()}
    ESSENCE.write_text(json.dumps(content, indent=0) + "\n")


if __name__ == "__main__":
    record()
