"""The tiny GSS-FF and GSS-FT-W models whose numbers were recorded, built and loaded as a user would."""

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gss.evaluate import inference
from gss.nets.keys import KeyReport
from gss.recipes.gss.build import build_latent_prior, build_posterior
from gss.recipes.gss.exchange import load_published, to_published
from gss.recipes.gss.learners import Batch, ImageLearner, LatentPriorLearner, PosteriorLearner
from gss.recipes.gss.model import GSS
from gss.recipes.gss.palette.strategies import published_palette
from gss.recipes.gss.posterior import NearestPosterior, WindowPosterior
from gss.recipes.gss.tokenizer.dvae import DVAE

CLASSES, VOCAB = 19, 64
Variant = Literal["ff", "ftw"]


@functools.cache
def colours() -> Tensor:
    """int64 [20, 3]: the published Cityscapes palette."""
    return torch.from_numpy(published_palette("cityscapes", tuple(map(str, range(CLASSES)))).colours)


def build(
    variant: Variant, *, drop_path: float = 0.0, token_stride: Literal[4, 8] = 4, posterior_depth: int = 2
) -> GSS:
    """A model without dropout, freshly initialised."""
    prior = build_latent_prior(
        "swin_tiny_patch4_window7_224",
        CLASSES,
        VOCAB,
        backbone_options={"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4), "window_size": 4},
        drop_path=drop_path,
        frozen_levels=0 if variant == "ff" else 4,
        kind="ff" if variant == "ff" else "tokens",
        channels=24,
        seg_channels=32,
        cls_channels=48,
        num_heads=4,
        token_stride=token_stride,
        dropout=0.0,
    )
    if variant == "ff":
        posterior = build_posterior(CLASSES, "nearest", colours=colours())
    else:
        posterior = build_posterior(CLASSES, channels=16, depth=posterior_depth)
    return GSS(prior, DVAE(VOCAB, 16, 8, blocks_per_group=1 if variant == "ff" else 2), posterior)


def load(model: GSS, state: dict[str, Tensor]) -> KeyReport:
    """Load tensors under their published names."""
    return load_published(state, model.prior, model.posterior, model.tokenizer)


def published(model: GSS) -> dict[str, Tensor]:
    """A copy of every tensor under its published name."""
    found = to_published(model.prior, model.posterior, model.tokenizer)
    return {name: value.detach().clone() for name, value in found.items()}


def gradients(model: GSS) -> dict[str, Tensor]:
    """The gradient of every parameter that has one, under the parameter's published name."""
    carrier = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in carrier.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                source = model.get_parameter(name).grad if isinstance(tensor, nn.Parameter) else None
                tensor.copy_(source if source is not None else torch.full_like(tensor, torch.nan))
    return {
        name: value
        for name, value in published(carrier).items()
        if value.is_floating_point() and not value.isnan().all()
    }


class GivenImages:
    """A learner whose batches hold normalised float images."""

    def finished_image(self, batch: Batch) -> Tensor:
        return batch["image"]


class GivenLatentPriorLearner(GivenImages, LatentPriorLearner):
    pass


class GivenPosteriorLearner(GivenImages, PosteriorLearner):
    pass


def learner_of(variant: Variant, model: GSS) -> ImageLearner:
    """The published training of a model, in train mode."""
    if variant == "ff":
        return GivenLatentPriorLearner(model.prior, model.tokenizer, colours()).train()
    return GivenPosteriorLearner(model.prior, model.tokenizer, model.posterior, reference=True).train()


def watch(model: GSS, learner: ImageLearner | None = None) -> dict[str, Tensor]:
    """A dict that is filled, under the recorded names, with what the model and its learner compute from now on."""
    seen: dict[str, Tensor] = {}

    def note(**values: Tensor) -> None:
        seen.update({name: value.detach().clone() for name, value in values.items()})

    def on(module: nn.Module, take: Callable[[Any, Any], None]) -> None:
        module.register_forward_hook(lambda _, given, made: take(given[0], made))

    head, tokenizer, posterior = model.prior.head, model.tokenizer, model.posterior
    on(model.prior.backbone, lambda _, maps: note(**{f"feat.{level}": x for level, x in enumerate(maps)}))
    on(head.transformer_block, lambda x, y: note(fusion_conv=x.permute(0, 3, 1, 2), transformer_block=y.flatten(1, 2)))
    on(head.swin_ln, lambda _, y: note(swin_ln=y.flatten(1, 2)))
    on(head.conv_before_seg, lambda _, y: note(conv_before_seg=y))
    on(head.dropout, lambda _, y: note(conv_seg=head.conv_seg(y)))  # its scores never exist as a whole
    if head.kind == "ff":
        on(head.conv_seg_pixel, lambda x, y: note(fusion_conv_pixel=x, conv_seg_pixel=y))
    if isinstance(posterior, WindowPosterior):  # recorded: every 4th row and column of big maps, every 16th token
        on(posterior.projection, lambda _, y: note(projection=y[..., ::4, ::4]))
        on(posterior.post_transformer_block, lambda _, y: note(post_transformer_block=y.flatten(1, 2)[:, ::16]))
        on(
            posterior.post_swin_ln,
            lambda _, y: note(
                post_swin_ln=y.flatten(1, 2)[:, ::16],
                cls_segmap=posterior.cls_segmap["conv"](y.permute(0, 3, 1, 2))[..., ::4, ::4],
            ),
        )
    if isinstance(posterior, NearestPosterior):
        wrap(posterior, "ids", lambda _, made: note(decoded_ids=made))
    wrap(tokenizer, "encode", lambda given, made: note(painted=given[0], token_raw=made))
    wrap(tokenizer, "decode_logits", lambda given, made: note(dec_in=given[0].unsqueeze(1), dec_out=made))
    if isinstance(learner, LatentPriorLearner):
        wrap(learner, "_targets", lambda _, made: note(token_target=made[0].unsqueeze(1), label_resized=made[1]))
    return seen


def all_scores(model: Any, image: Tensor, protocol: inference.Inference) -> Tensor:
    """[N, R, S] of a normalised image [1, 3, R, S], unmirrored, as `predict` has them before a resize."""
    one_view, other_size = replace(protocol, flip=False), (0, 0)
    [(_, [scores])] = inference._strips(lambda part: model.scores(part)[0], image, one_view, other_size)
    return scores


def wrap(owner: nn.Module, method: str, take: Callable[[Any, Any], None]) -> None:
    """Let `take` see the arguments and the result of every call of a method."""
    original = getattr(owner, method)

    def call(*given: Any) -> Any:
        made = original(*given)
        take(given, made)
        return made

    setattr(owner, method, call)
