"""What the published configurations cost: parameters, multiply-adds and GPU memory, counted without any device.

    python bench/cost.py            # prints the tables and writes them into docs/published.md; two minutes
    python bench/cost.py ade20k     # prints the tables of some experiments

Everything runs on the meta device: shapes are computed, numbers are not. All pixels count as labelled.
"""

import argparse
import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import page
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gss
from gss.benchmark.stopwatch import Counter
from gss.config import Experiment, load_experiment
from gss.data.classes import read_classes
from gss.nets import losses as losses_of
from gss.nets import window
from gss.recipes.gss.build import build_latent_prior, build_posterior
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.learners import ImageLearner, LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.posterior import WindowPosterior
from gss.recipes.gss.tokenizer import dvae
from gss.recipes.gss.tokenizer.dvae import DVAE, Block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "published.md"
BEGIN = "<!-- made by bench/cost.py -->\n"
EXPERIMENTS = ("ade20k", "cityscapes", "cityscapes_r101", "mseg", "mseg_hrnet")
GPUS = 8  # of the published runs
RATE = 40e12  # floating-point operations per second that the GPU-hours are meant for
GIB = 2**30


@dataclass(frozen=True)
class Subject:
    """An experiment and its modules on the meta device."""

    name: str
    experiment: Experiment
    prior: LatentPrior
    dvae: DVAE
    posterior: WindowPosterior
    num_classes: int

    @property
    def side(self) -> int:
        return self.experiment.augment.crop[0]


def build(name: str) -> Subject:
    """The modules of an experiment."""
    experiment = load_experiment(name)
    classes = Path(gss.__file__).parent / "resources" / "classes" / f"{experiment.data.classes}.csv"
    num_classes = len(read_classes(classes)[0])
    config, backbone = experiment.latent_prior, experiment.latent_prior.backbone
    with torch.device("meta"):
        prior = build_latent_prior(
            backbone.name,
            num_classes,
            backbone_options=backbone.options,
            drop_path=backbone.drop_path,
            output_stride=backbone.output_stride,
            kind=config.head,
            channels=config.channels,
            seg_channels=config.seg_channels,
            cls_channels=config.cls_channels,
            swin_depth=config.swin_depth,
            num_heads=config.num_heads,
            dropout=config.dropout,
        )
        config_post = experiment.posterior
        posterior = build_posterior(
            num_classes, channels=config_post.channels, depth=config_post.depth, num_heads=config_post.num_heads
        )
        assert isinstance(posterior, WindowPosterior)
        return Subject(name, experiment, prior, DVAE(), posterior, num_classes)


def parameters(subject: Subject) -> dict[str, int]:
    """Part -> number of parameters."""
    prior, head = subject.prior, subject.prior.head
    pixel = sum(count(part) for name, part in head.named_children() if name in ("convs_pixel", "fusion_conv_pixel"))
    return {
        "backbone": count(prior.backbone),
        "convs": count(head.convs),
        "fusion_conv": count(head.fusion_conv),
        "transformer_block": count(head.transformer_block),
        "swin_ln": count(head.swin_ln),
        "conv_before_seg": count(head.conv_before_seg),
        "conv_seg": count(head.conv_seg),
        "convs_pixel, fusion_conv_pixel": pixel,
        "conv_seg_pixel": count(head.conv_seg_pixel),
        "**stage 1, trained**": count(prior),
        "**X⁻¹** (stage 2, trained)": count(subject.posterior),
        "dVAE, frozen": count(subject.dvae),
    }


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


Pair = tuple[float, float]  # multiply-adds here, and in the published formulation


@torch.no_grad()
def multiply_adds(subject: Subject) -> dict[str, Pair]:
    """Part -> multiply-adds per image of a forward pass at the training crop."""
    side, posterior = subject.side, subject.posterior
    backbone, maps = counted(subject.prior.backbone.eval(), meta(1, 3, side, side))
    head = head_multiply_adds(subject.prior.head, maps)
    maskige = meta(1, 3, 2 * side, 2 * side)
    here, _ = counted(posterior.scores, maskige, (side, side))
    published, _ = counted(posterior, maskige)
    return {
        "backbone": (backbone, backbone),
        **head,
        "**head**": (sum(here for here, _ in head.values()), sum(published for _, published in head.values())),
        **tokenizer_multiply_adds(subject.dvae, side),
        "X⁻¹": (here, published),
    }


def head_multiply_adds(head: LatentPriorHead, maps: list[Tensor]) -> dict[str, Pair]:
    """The same of a head's parts, given the maps of the backbone."""
    fuse, fused = counted(head.fuse, maps)
    levels = [counted(conv, maps[level]) for conv, level in zip(head.convs, (1, 0, 2, 3), strict=True)]
    convs = sum(number for number, _ in levels)
    together = meta(1, sum(level.shape[1] for _, level in levels), *fused.shape[2:])
    pixel, _ = counted(head.pixel_logits, maps, fused)
    pixel_published = pixel
    if head.kind == "ff":
        fusion, thin = counted(head.fusion_conv_pixel, together)
        pixel_published = convs + fusion + counted(head.conv_seg_pixel, thin)[0]
    blocks, _ = counted(head.transformer_block, fused.permute(0, 2, 3, 1))
    widen, hidden = counted(head.conv_before_seg, fused)
    classify, _ = counted(head.conv_seg, hidden)
    return {
        "convs": (convs, convs),
        "fusion_conv": (fuse - convs, counted(head.fusion_conv, together)[0]),
        "transformer_block": (blocks, blocks),
        "conv_before_seg": (widen, widen),
        "conv_seg": (classify, classify),
        "pixel branch": (pixel, pixel_published),
    }


def tokenizer_multiply_adds(dvae: DVAE, side: int) -> dict[str, Pair]:
    """The same of the tokenizer for an image of a side; the published one sees whole maps, no strips of them."""
    doubled, label = meta(1, 3, 2 * side, 2 * side), meta(1, 3, side, side)
    encoder, encoder_published = (counted(call, doubled)[0] for call in (dvae.encode, dvae.encoder.blocks))
    check, check_published = (counted(call, label)[0] for call in (dvae.encode, dvae.encoder.blocks))
    decoder, _ = counted(dvae.decode_logits, meta(1, side // 4, side // 4, dtype=torch.int64))
    with mock.patch.object(Block, "forward", doubling_first):
        published, _ = counted(dvae.decoder.blocks, meta(1, dvae.vocab_size, side // 4, side // 4))
    return {
        "dVAE encoder, doubled label": (encoder, encoder_published),
        "dVAE encoder, label as it is": (check, check_published),
        "dVAE decoder": (decoder, published),
    }


def doubling_first(block: Block, x: Tensor) -> Tensor:
    """A block of the published decoder: up-sampled before its first convolution, not after it."""
    if block.upsample:
        x = F.interpolate(x, scale_factor=2.0)
    return block.id_path(x) + block.res_path(x)


def counted(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Multiply-adds of a call, and what it returns."""
    with Counter() as counter:
        result = function(*arguments)
    return counter.take() / 2, result


def meta(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Costs of one training; bytes are of float32.

    Args:
        images: per process and step, with 8 processes.
        static: bytes of weights, gradients (twice: the processes exchange a copy), AdamW's states, frozen modules.
        kept: bytes that wait for the backward pass, per image.
        further: bytes that one more image per step takes.
        peak: bytes at the fullest moment of a step of `images`, everything included.
        hours: of GPUs, for the whole training, at `RATE`.
    """

    images: int
    static: int
    kept: int
    further: int
    peak: int
    hours: float


def training(subject: Subject, part: str) -> Training:
    """Count one training of an experiment: `latent_prior` or `posterior`."""
    settings = getattr(subject.experiment, part)
    steps = settings.steps if part == "posterior" else settings.milestones[-1]
    learner = make_learner(subject, part)
    trained = 4 * sum(parameter.numel() for parameter in learner.saved.parameters())
    everything = 4 * sum(parameter.numel() for parameter in learner.parameters())
    images = settings.training.batch_size // GPUS
    operations = 2 * counted(lambda: losses(learner, subject.side, 1).backward())[0]
    learner.zero_grad(set_to_none=True)
    (kept_one, peak_one), (kept_two, peak_two) = (live_bytes(learner, subject.side, number) for number in (1, 2))
    # Gradients belong to what a step makes; their copy for the exchange and AdamW's states are there beforehand.
    peak = everything + 3 * trained + peak_one + (images - 1) * (peak_two - peak_one)
    hours = operations * settings.training.batch_size * steps / RATE / 3600
    return Training(images, everything + 4 * trained, kept_two - kept_one, peak_two - peak_one, peak, hours)


def make_learner(subject: Subject, part: str) -> ImageLearner:
    if part == "posterior":
        return PosteriorLearner(subject.prior, subject.dvae, subject.posterior).train()
    colours = meta(subject.num_classes + 1, 3, dtype=torch.int64)
    return LatentPriorLearner(subject.prior, subject.dvae, colours).train()


def losses(learner: ImageLearner, side: int, images: int) -> Tensor:
    """The losses of a batch whose pixels are all labelled."""
    image, label = meta(images, 3, side, side), meta(images, side, side, dtype=torch.uint8)
    return learner.losses(image, label)[0].sum()


def live_bytes(learner: ImageLearner, side: int, images: int) -> tuple[int, int]:
    """Bytes that a step has made and that live between its forward and its backward pass, and at its fullest moment.

    The former is what autograd keeps; the latter has temporary results and gradients, too.
    """
    with attention_of_gpus(), _LiveBytes(storages(learner)) as live:
        loss = losses(learner, side, images)
        kept = live.now
        loss.backward()
    learner.zero_grad(set_to_none=True)
    return kept, live.peak


def storages(module: nn.Module) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages made under it while they live."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known, self.now, self.peak = set(known), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.note(tensor.untyped_storage())
        return result

    def note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """What the meta device must be told: maps are divided as GPUs do, there is no autocast, nothing is ignored."""
    with (
        mock.patch.object(dvae, "_STRIP", dvae._STRIP_ON_GPU),
        mock.patch.object(window, "_PIECE", window._PIECE_ON_GPU),
        mock.patch.object(losses_of, "_SCORES", losses_of._SCORES_ON_GPU),
        mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext()),
        mock.patch("torch.get_autocast_dtype", lambda *_: torch.float32),
        mock.patch("torch.is_autocast_enabled", lambda *_: False),
        mock.patch("gss.recipes.gss.tokenizer.targets.fill_ignored", lambda label, logits: label),
        mock.patch.object(fx_config, "meta_nonzero_assume_all_nonzero", True),
    ):
        yield


class _FusedAttention(torch.autograd.Function):
    """What the fused attention kernel of GPUs keeps: its inputs, its output and a sum per row."""

    @staticmethod
    def forward(ctx, query, key, value, mask):  # type: ignore[no-untyped-def]
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, mask, result, query.new_empty(query.shape[:-1]))
        return result

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:4])


@contextlib.contextmanager
def attention_of_gpus() -> Iterator[None]:
    """The meta device would keep the attention weights, as no GPU does."""

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return _FusedAttention.apply(query, key, value, attn_mask)

    with mock.patch.object(F, "scaled_dot_product_attention", attend):
        yield


# ---- tables ----------------------------------------------------------------------------------------------------------


def tables(names: list[str]) -> str:
    """The three tables as Markdown."""
    subjects = [build(name) for name in names]
    header = "| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names) + "\n"
    sizes = [parameters(subject) for subject in subjects]
    work = [multiply_adds(subject) for subject in subjects]
    return "\n".join(
        [
            "Parameters:\n",
            header + rows([{k: f"{v:,}" if v else "-" for k, v in size.items()} for size in sizes]),
            "Multiply-adds of a forward pass, 10⁹ per image at the training crop; in brackets the published formulation"
            " where it differs:\n",
            header + rows([{k: giga(*v) for k, v in part.items()} for part in work]),
            f"Training, counted, not measured; GiB of float32; {GPUS} processes, one GPU each; GPU-hours at"
            f" {RATE / 1e12:.0f} TFLOP/s:\n",
            "| target | images per GPU | static | kept per image | one more image | peak of a step | GPU-hours |\n"
            "|---|---|---|---|---|---|---|\n" + "".join(training_rows(subject) for subject in subjects),
        ]
    )


def rows(columns: list[dict[str, str]]) -> str:
    return "".join(f"| {name} | " + " | ".join(column[name] for column in columns) + " |\n" for name in columns[0])


def giga(here: float, published: float) -> str:
    ours, theirs = f"{here / 1e9:.1f}", f"{published / 1e9:.1f}"
    return ours if ours == theirs else f"{ours} ({theirs})"


def training_rows(subject: Subject) -> str:
    lines = []
    for part, file in (("latent_prior", "gss_ff.pth"), ("posterior", "posterior.pth")):
        cost = training(subject, part)
        numbers = " | ".join(f"{size / GIB:.2f}" for size in (cost.static, cost.kept, cost.further, cost.peak))
        lines.append(f"| `results/{subject.name}/{file}` | {cost.images} | {numbers} | {cost.hours:.0f} |\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="NAME", help="print these; default: all, written as well")
    names = parser.parse_args().experiments
    with as_on_a_gpu():
        text = tables(names or list(EXPERIMENTS))
    print(text)
    if not names:
        page.write(PAGE, f"\n{text}", BEGIN)


if __name__ == "__main__":
    main()
