"""A tiny Swin with the GSS-FF and GSS-FT-W heads against numbers recorded from the published implementation."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gss._compat import import_timm
from gss.models.backbone import Backbone
from gss.models.latent_prior import LatentPrior, LatentPriorHead
from gss.models.losses import pixel_loss_sum, token_loss_sum
from gss.models.posterior import WindowPosterior
from gss.tokenizer.dvae import DVAE, unmap_pixels

EPS = 2**-23
TIMM_NAMES = [  # published name -> timm's
    (r"^patch_embed\.projection", "patch_embed.proj"),
    (r"^norm(\d)", r"norms.\1"),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
]


@pytest.fixture(scope="module", params=["swin_ff", "swin_ftw"])
def recorded(request: pytest.FixtureRequest, gss_data: Path) -> tuple[str, dict[str, torch.Tensor]]:
    path = gss_data.parent / "parity" / f"{request.param}.safetensors"
    if not path.is_file():
        pytest.skip(f"no recorded numbers at {path}")
    return request.param, load_file(path)


def timm_name(key: str) -> str:
    for pattern, name in TIMM_NAMES:
        key = re.sub(pattern, name, key)
    key = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"layers_{int(m[1]) + 1}.downsample", key)
    key = re.sub(r"^stages\.(\d)", r"layers_\1", key)
    return key if key.startswith("norms") else f"features.{key}"


def merge_order(value: torch.Tensor) -> torch.Tensor:
    """Patch merging channels from c * 4 + ky * 2 + kx to timm's (kx * 2 + ky) * C + c."""
    return value.unflatten(-1, (-1, 2, 2)).movedim((-1, -2), (-3, -2)).flatten(-3)


def weights_of(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items()
            if k.startswith(prefix) and not k.endswith("relative_position_index")}


def build(name: str, tensors: dict[str, torch.Tensor]) -> tuple[LatentPrior, DVAE]:
    features = import_timm().create_model(
        "swin_tiny_patch4_window7_224", features_only=True, strict_img_size=False, always_partition=True,
        drop_path_rate=0.0, embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4), window_size=4)
    backbone = Backbone(features)
    mapped = {timm_name(k): merge_order(v) if "downsample" in k else v
              for k, v in weights_of(tensors, "sd.backbone.").items()}
    backbone.load_state_dict(mapped, strict=True)
    head = LatentPriorHead(backbone.channels, 19, 64, channels=24, seg_channels=32, cls_channels=48, num_heads=4,
                           dropout=0.0)
    state = weights_of(tensors, "sd.decode_head.")
    own = {k: v for k, v in state.items() if not k.startswith(("d_vae", "projection", "post_", "cls_segmap"))}
    if name == "swin_ff":
        head.load_state_dict(own, strict=True)
    else:
        missing, unexpected = head.load_state_dict(own, strict=False)
        assert not unexpected
        assert all("pixel" in key for key in missing)
    dvae = DVAE(64, 16, 8, 1 if name == "swin_ff" else 2)
    dvae.load_state_dict(weights_of(tensors, "sd.decode_head.d_vae."), strict=True)
    return LatentPrior(backbone, head).double(), dvae.double()


def close(ours: torch.Tensor, theirs: torch.Tensor, relative: float = 1e-6) -> None:
    assert ours.shape == theirs.shape
    error = (ours.detach() - theirs).abs().max().item()
    assert error <= relative * theirs.abs().max().item() + 1e-9


@pytest.mark.parametrize("case", ["train", "train_odd"])
def test_prior_reproduces_features_losses_and_gradients(recorded, case):  # type: ignore[no-untyped-def]
    name, tensors = recorded
    prior, _ = build(name, tensors)
    head = prior.head
    case_of = weights_of(tensors, f"{case}.")
    if name == "swin_ftw":
        prior.backbone.eval()
    maps = prior.backbone(case_of["img"].double())
    fused = head.fuse(maps)
    hidden = head.hidden(fused)
    ours = {"fusion_conv": fused, "conv_before_seg": hidden, "conv_seg": head.conv_seg(hidden)}
    ours |= {f"feat.{level}": x for level, x in enumerate(maps)}
    for key in ours.keys() & case_of.keys():
        close(ours[key], case_of[key])
    if name == "swin_ftw":
        return
    pixel = head.pixel_logits(maps, fused)
    tokens, labels = case_of["token_target"][:, 0].long(), case_of["label_resized"][:, 0]
    token_sum, _ = token_loss_sum(hidden, head.conv_seg.weight, head.conv_seg.bias, tokens, ignore_index=64)
    pixel_sum, right = pixel_loss_sum(pixel, labels, ignore_index=255)
    num_tokens, num_pixels = (tokens != 64).sum().item(), (labels != 255).sum().item()
    loss = 0.8 * token_sum / (num_tokens + EPS) + 0.2 * pixel_sum / (num_pixels + EPS)
    assert abs(loss.item() - case_of["f64.total"].item()) < 1e-9
    assert abs(100 * right.item() / num_pixels - case_of["f64.decode.acc_seg_aux"].item()) < 1e-4
    loss.backward()
    parameters = dict(prior.named_parameters())
    checked = 0
    for key, gradient in weights_of(tensors, f"{case}.grad.").items():
        if "downsample" in key or key.endswith("swin_ln.bias") or re.match(r"backbone\.norm\d\.bias", key):
            continue  # another order of channels; mathematically zero
        part, _, rest = key.partition(".")
        our_key = f"head.{rest}" if part == "decode_head" else f"backbone.{timm_name(rest)}"
        close(parameters[our_key].grad, gradient, 1e-7)
        checked += 1
    assert checked > 10 or case != "train"


@pytest.mark.parametrize("case", ["train", "train_odd", "train_d1"])
def test_posterior_reproduces_scores_and_loss(recorded, case):  # type: ignore[no-untyped-def]
    name, tensors = recorded
    if name == "swin_ff":
        pytest.skip("no X^-1 in this file")
    depth = 1 if case == "train_d1" else 2
    posterior = WindowPosterior(19, 16, depth=depth)
    parts = ("projection", "post_transformer_block", "post_swin_ln", "cls_segmap")
    state = {k: v for k, v in weights_of(tensors, "sd.decode_head.").items() if k.startswith(parts)}
    posterior.load_state_dict({k: v for k, v in state.items() if depth == 2 or ".blocks.1." not in k}, strict=True)
    case_of = weights_of(tensors, f"{case}.")
    labels = tensors[f"{'train' if case == 'train_d1' else case}.label"][:, 0]
    tokens = tensors[f"{'train' if case == 'train_d1' else case}.dec_in"][:, 0].long()
    _, dvae = build(name, tensors)
    rgb = unmap_pixels(torch.sigmoid(dvae.decode_logits(tokens)[:, :3]))
    scores = posterior.double()(rgb)
    close(scores[..., ::4, ::4], case_of["cls_segmap"])
    loss, _ = pixel_loss_sum(scores, labels, ignore_index=255)
    loss = loss / ((labels != 255).sum().item() + EPS)
    assert abs(loss.item() - case_of["f64.total"].item()) < 1e-9
    loss.backward()
    ours = dict(posterior.named_parameters())
    for key, gradient in weights_of(tensors, f"{case}.grad.decode_head.").items():
        close(ours[key].grad, gradient, 1e-7)


def test_tokens_at_prediction(recorded):  # type: ignore[no-untyped-def]
    name, tensors = recorded
    prior, _ = build(name, tensors)
    prior.eval()
    for case in ("eval_even", "eval_odd"):
        with torch.no_grad():
            tokens = prior.tokens(tensors[f"{case}.img"].double())
        assert torch.equal(tokens, tensors[f"{case}.tokens"][:, 0].long())
