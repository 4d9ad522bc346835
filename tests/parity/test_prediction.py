"""Predictions of the tiny models against the published implementation: whole image, windows, other sizes, mirrored."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import pytest
import torch
from tiny_gss import Variant, all_scores, watch
from torch import Tensor

from gss.evaluate import maps
from gss.evaluate.inference import Inference, lowest_best

from .conftest import Recorded
from .test_training import CASES as TRAINING_CASES
from .test_training import SCHEDULES, assert_close, both_precisions, recorded_model, recorded_of

Size = tuple[int, int]
Precision = Literal["double", "single"]
WHOLE = Inference()
SLIDE = Inference("slide", crop=(48, 48), stride=(32, 32))
WIDE = Inference("slide", crop=(48, 64), stride=(20, 37))
PROTOCOLS: dict[str, tuple[str, Inference, Size | None]] = {  # case -> case of its image, protocol, original size
    "eval_even": ("eval_even", WHOLE, None),
    "eval_odd": ("eval_odd", WHOLE, None),
    "eval_d1": ("eval_d1", WHOLE, None),
    "eval_rescale": ("eval_odd", WHOLE, (50, 70)),
    "eval_flip": ("eval_odd", WHOLE, (101, 141)),
    "eval_slide": ("eval_odd", SLIDE, None),
    "eval_slide_rescale": ("eval_odd", WIDE, (90, 121)),
    "eval_slide_small": ("eval_slide_small", SLIDE, None),
}
CASES = [("ff", case) for case in PROTOCOLS if case != "eval_d1"]
CASES += [("ftw", case) for case in PROTOCOLS if case not in ("eval_flip", "eval_slide_small")]
every_case = pytest.mark.parametrize(("variant", "case"), CASES)

pytestmark = pytest.mark.usefixtures("parity")


@dataclass
class Prediction:
    """seen: what the model computed, of the last window; scores: [N, H, W] at the original size; ids: uint8 [H, W]."""

    expected: dict[str, Tensor]
    seen: dict[str, Tensor]
    scores: Tensor
    ids: Tensor


@cache
def prediction(precision: Precision, variant: Variant, case: str, threads: int = 1) -> Prediction:
    torch.set_num_threads(threads)
    recorded: Recorded = recorded_of(variant)
    source, protocol, size = PROTOCOLS[case]
    model = recorded_model(variant, posterior_depth=1 if case == "eval_d1" else 2).eval()
    model = model.double() if precision == "double" else model
    seen = watch(model)
    image = recorded.tensors[f"{source}.img"].to(next(model.parameters()).dtype)
    size = size or (image.shape[2], image.shape[3])
    with torch.inference_mode():
        view = all_scores(model, image, protocol)
        scores = torch.cat(list(maps.resized(view, size)))
        ids = lowest_best([view.flip(-1) if case == "eval_flip" else view], size)
    return Prediction(recorded.below(case), seen, scores, ids)


@both_precisions
@pytest.mark.parametrize(("variant", "case"), [row for row in CASES if row[1] in ("eval_even", "eval_odd", "eval_d1")])
def test_tokens_and_what_they_decode_to(precision: Precision, threads: int, variant: Variant, case: str) -> None:
    done = prediction(precision, variant, case, threads)
    assert torch.equal(done.seen["dec_in"], done.expected["tokens"].long())
    assert_close("dec_out", done.seen["dec_out"][..., ::3, ::3], done.expected["dec_out_sample"], precision)
    if variant == "ff":
        sure = done.expected["decoded_ambiguous"][0] == 0
        assert torch.equal(done.seen["decoded_ids"][0][sure], done.expected["decoded_ids"][0, 0][sure].long())


@both_precisions
@every_case
def test_scores_at_the_original_size(precision: Precision, threads: int, variant: Variant, case: str) -> None:
    """Votes of FF are float32 also in a double model, and resized as such unless windows are averaged."""
    done = prediction(precision, variant, case, threads)
    if "logits" in done.expected:
        assert_close("logits", done.scores, done.expected["logits"][0], precision)
        return
    assert_close("top1", done.scores.amax(0), done.expected["top1"][0], precision)
    sums, theirs = done.scores.double().sum((1, 2)), done.expected["logit_sum"]
    rounding = 1e-5 if precision == "single" else 1e-9
    assert (sums - theirs).abs().max() <= 1e-9 + rounding * theirs.abs().max()


@both_precisions
@every_case
def test_classes_at_the_original_size(precision: Precision, threads: int, variant: Variant, case: str) -> None:
    """Exact ties, frequent in votes, are not excused: the lowest class wins."""
    done = prediction(precision, variant, case, threads)
    sure = done.expected["ambiguous"][0] == 0
    assert sure.double().mean() > 0.999
    assert torch.equal(done.ids[sure], done.expected["pred"][0][sure])


def test_votes_are_often_tied() -> None:
    """The comparison above has something to decide."""
    best = prediction("double", "ff", "eval_slide").scores.topk(2, 0).values
    assert (best[0] == best[1]).double().mean() > 0.1


@pytest.mark.parametrize("variant", ["ff", "ftw"])
def test_no_recorded_case_is_left_out(variant: Variant) -> None:
    recorded = {name.split(".")[0] for name in recorded_of(variant).tensors}
    compared = {case for model, case in [*CASES, *TRAINING_CASES] if model == variant}
    assert recorded == {"sd", *SCHEDULES, *compared}
