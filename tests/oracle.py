"""The published computation written out plainly, on the modules of this project and their weights.

One-hot labels, whole maps of scores, one-hot decoding, a distance per class and colour channel, attention as matrix
products: slow and large, but short enough to be compared with the formulas line by line. The oracle of the equality
tests (tests/test_oracle.py), and the unit of the benchmark (bench/step.py).

Letters: B batch, H W size of the image, h w token grid, P Q = 8h 8w size of the maskige, N classes, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gss.nets.window import SwinBlocks, WindowAttention
from gss.recipes.gss.latent_prior import LatentPrior, LatentPriorHead
from gss.recipes.gss.model import GSS
from gss.recipes.gss.posterior import NearestPosterior, WindowPosterior
from gss.recipes.gss.tokenizer.dvae import DVAE, Block, map_pixels, unmap_pixels

IGNORED = 255
ORDER = (1, 0, 2, 3)  # in which the published heads list strides 4, 8, 16, 32


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


# ---- training


def latent_prior_losses(prior: LatentPrior, dvae: DVAE, colours: Tensor, image: Tensor, label: Tensor) -> Tensor:
    """Sums over the valid tokens and over the valid pixels, float [2]; see `LatentPriorLearner.losses`."""
    maps = prior.backbone(image)
    token_logits, pixel_logits = head_logits(prior.head, maps)  # [B, V, h, w], [B, N, h, w]
    doubled = double_label(label, (maps[0].shape[2], maps[0].shape[3]), pixel_logits.shape[1])  # [B, P, Q], N = ignored
    at_label = bilinear(pixel_logits, (doubled.shape[1], doubled.shape[2]))  # [B, N, P, Q]
    ignored = doubled == pixel_logits.shape[1]
    with torch.no_grad():
        filled = torch.where(ignored, at_label.argmax(1), doubled)
        tokens = encode_logits(dvae, paint(filled, colours)).argmax(1)  # [B, h, w]
        tokens[F.max_pool2d((~ignored).float().unsqueeze(1), 8).squeeze(1) == 0] = dvae.vocab_size
    of_tokens = F.cross_entropy(token_logits, tokens, ignore_index=dvae.vocab_size, reduction="sum")
    of_pixels = F.cross_entropy(at_label, doubled, ignore_index=pixel_logits.shape[1], reduction="sum")
    return torch.stack([of_tokens, of_pixels])


def posterior_loss(prior: LatentPrior, dvae: DVAE, posterior: WindowPosterior, image: Tensor, label: Tensor) -> Tensor:
    """Sum over the valid pixels; see `PosteriorLearner.losses`."""
    with torch.no_grad():
        rgb = decode(dvae, head_logits(prior.head, prior.backbone(image))[0].argmax(1))
    scores = bilinear(window_scores(posterior, rgb), (label.shape[1], label.shape[2]))  # [B, N, H, W]
    return F.cross_entropy(scores, label.long(), ignore_index=IGNORED, reduction="sum")


# ---- prediction


@torch.inference_mode()
def predict(model: GSS, image: Tensor) -> Tensor:
    """Classes int64 [B, H, W] of a normalised image [B, 3, H, W], in one pass."""
    rgb = decode(model.tokenizer, head_logits(model.prior.head, model.prior.backbone(image))[0].argmax(1))
    posterior = model.posterior
    if isinstance(posterior, NearestPosterior):
        ids = nearest(255 * rgb, posterior.colours)
        scores = F.one_hot(ids, posterior.num_classes).permute(0, 3, 1, 2).float()  # [B, N, P, Q]
    else:
        scores = window_scores(posterior, rgb)
    return bilinear(scores, (image.shape[2], image.shape[3])).softmax(1).argmax(1)


# ---- labels and colours


def double_label(label: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """Label [B, H, W] -> int64 [B, 8h, 8w] with N for ignored pixels, by one-hot scores resized bilinearly."""
    ids = torch.where(label == IGNORED, num_classes, label.long())
    one_hot = F.one_hot(ids, num_classes + 1).permute(0, 3, 1, 2)  # int64 [B, N + 1, H, W]
    return bilinear(one_hot.float(), (8 * grid[0], 8 * grid[1])).argmax(1)


def paint(ids: Tensor, colours: Tensor) -> Tensor:
    """Classes [B, P, Q] -> maskige [B, 3, P, Q] in 0..1."""
    one_hot = F.one_hot(ids, len(colours)).float()  # [B, P, Q, N + 1]
    return (one_hot @ colours.float()).permute(0, 3, 1, 2) / 255


def nearest(rgb: Tensor, colours: Tensor) -> Tensor:
    """Maskige [B, 3, P, Q] in 0..255 -> classes [B, P, Q]; the distances of all classes at once."""
    difference = rgb.unsqueeze(1) - colours[:-1].float()[None, :, :, None, None]  # [B, N, 3, P, Q]
    red, green, blue = difference.pow(2).unbind(2)
    return (red + green + blue).argmin(1)


# ---- dVAE


def encode_logits(dvae: DVAE, rgb: Tensor) -> Tensor:
    """Maskige [B, 3, P, Q] in 0..1 -> token logits [B, V, h, w]."""
    x = map_pixels(rgb)
    first, *groups, output = dvae.encoder.blocks
    x = first(x)
    for group in groups:
        for layer in group:
            x = block(layer, x) if isinstance(layer, Block) else layer(x)
    return output(x)


def decode(dvae: DVAE, tokens: Tensor) -> Tensor:
    """Tokens [B, h, w] -> maskige [B, 3, 8h, 8w] in 0..1, through their one-hot map."""
    one_hot = F.one_hot(tokens, dvae.vocab_size).permute(0, 3, 1, 2).float()  # [B, V, h, w]
    first, *groups, output = dvae.decoder.blocks
    x = first(one_hot)
    for group in groups:
        for layer in group:
            x = block(layer, F.interpolate(x, scale_factor=2.0, mode="nearest") if layer.upsample else x)
    return unmap_pixels(torch.sigmoid(output(x)[:, :3]))


def block(layer: Block, x: Tensor) -> Tensor:
    residual = x
    for convolution in layer.res_path:
        residual = convolution(F.relu(residual))
    return layer.id_path(x) + layer.gain * residual


# ---- heads


def head_logits(head: LatentPriorHead, maps: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Token scores [B, V, h, w] and, where the head has them, pixel scores [B, N, h, w]."""
    fused = fuse(maps, head.convs, head.fusion_conv)
    x = swin_blocks(head.transformer_block, fused.permute(0, 2, 3, 1))
    x = head.conv_before_seg(head.swin_ln(x).permute(0, 3, 1, 2))
    tokens = head.conv_seg(head.dropout(x))
    if head.kind == "tokens":
        return tokens, None
    pixels = fuse(maps, head.convs_pixel, head.fusion_conv_pixel) if head.kind == "ff" else fused
    return tokens, head.conv_seg_pixel(pixels)


def fuse(maps, convs, fusion) -> Tensor:
    size = (maps[0].shape[2], maps[0].shape[3])
    return fusion(torch.cat([bilinear(conv(maps[level]), size) for level, conv in zip(ORDER, convs, strict=True)], 1))


def window_scores(posterior: WindowPosterior, rgb: Tensor) -> Tensor:
    """Maskige [B, 3, P, Q] -> scores [B, N, P, Q]."""
    x = swin_blocks(posterior.post_transformer_block, posterior.projection(rgb).permute(0, 2, 3, 1))
    return posterior.cls_segmap["conv"](posterior.post_swin_ln(x).permute(0, 3, 1, 2))


def swin_blocks(blocks: SwinBlocks, x: Tensor) -> Tensor:
    for layer in blocks.blocks:
        x = x + window_attention(layer.attn["w_msa"], layer.norm1(x))
        x = x + layer.ffn(layer.norm2(x))
    return x


def window_attention(layer: WindowAttention, x: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, H, W, C]: pad, shift, cut into windows of M x M, attend, and all the way back."""
    height, width = x.shape[1:3]
    m, shift, heads = layer.window, layer.shift, layer.heads
    x = F.pad(x, (0, 0, 0, -width % m, 0, -height % m)).roll((-shift, -shift), (1, 2))
    batch, rows, columns, dim = x.shape
    x = windows(x, m)  # [B * n, L, C]
    query, key, value = layer.qkv(x).view(len(x), m * m, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    logits = (query * (dim // heads) ** -0.5) @ key.transpose(2, 3)  # [B * n, a, L, L]
    index = layer.relative_position_index.flatten()
    logits = logits + layer.relative_position_bias_table[index].view(m * m, m * m, heads).permute(2, 0, 1)
    if shift:
        region = torch.zeros(1, rows, columns, 1)
        slices = (slice(0, -m), slice(-m, -shift), slice(-shift, None))
        for number, (of_rows, of_columns) in enumerate((r, c) for r in slices for c in slices):
            region[:, of_rows, of_columns] = number
        region = windows(region, m)[:, :, 0]  # [n, L]
        apart = (region[:, None] != region[:, :, None]).float() * -100.0  # [n, L, L]
        logits = (logits.view(batch, -1, heads, m * m, m * m) + apart[:, None].to(logits)).view_as(logits)
    x = layer.proj((logits.softmax(-1) @ value).transpose(1, 2).reshape(len(x), m * m, dim))
    x = x.view(batch, rows // m, columns // m, m, m, dim).transpose(2, 3).reshape(batch, rows, columns, dim)
    return x.roll((shift, shift), (1, 2))[:, :height, :width]


def windows(x: Tensor, m: int) -> Tensor:
    """[B, H, W, C] -> [B * n, M * M, C]."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // m, m, width // m, m, dim).transpose(2, 3)
    return x.reshape(-1, m * m, dim)
