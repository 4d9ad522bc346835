"""DALL-E's discrete VAE: a picture becomes a grid of tokens, and tokens become a picture again.

Letters: B batch, P x Q picture height and width, h x w token grid (P // 8, Q // 8), V vocabulary.
"""

from collections import OrderedDict
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 0.1
_LARGE = 2**24  # values of one picture's widest map in a group from which it is computed in strips
# Rows of that map in a strip; 9 more on either side are computed twice in the encoder's first group.
_STRIP, _STRIP_ON_GPU = 128, 512
_LOGITS_AT_ONCE = 2**24  # token logits that are compared at a time


def map_pixels(picture: Tensor) -> Tensor:
    """0..1 -> 0.1..0.9, the open interval on which the logit-Laplace likelihood lives."""
    return (1 - 2 * EPSILON) * picture + EPSILON


def unmap_pixels(mapped: Tensor) -> Tensor:
    """Inverse of `map_pixels`, clamped to 0..1."""
    return ((mapped - EPSILON) / (1 - 2 * EPSILON)).clamp(0, 1)


class Convolution(nn.Module):
    """Stride-1, size-keeping convolution with DALL-E's parameter names: w [out,in,k,k], b [out]."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(n_out, n_in, kernel, kernel).normal_(std=(n_in * kernel**2) ** -0.5))
        self.b = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """`gain` times the convolution, in the weights' precision; it scales the few weights, not the many outputs."""
        w, b = (self.w, self.b) if gain == 1 else (gain * self.w, gain * self.b)
        return F.conv2d(x.to(w.dtype), w, b, padding=self.w.shape[-1] // 2)


class Block(nn.Module):
    """Residual bottleneck, rectified before each convolution; the identity path is not rectified.

    Args:
        kernels: sizes of the four convolutions: 3 3 3 1 in the encoder, 1 3 3 3 in the decoder.
        gain: factor of the residual path.
        upsample: the block sees its input doubled in height and width (nearest).
    """

    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, ...], gain: float, *, upsample: bool = False) -> None:
        super().__init__()
        if n_out % 4:
            raise ValueError(f"block width {n_out} is no multiple of 4")
        widths = [n_in, *[n_out // 4] * 3, n_out]
        self.n_out, self.gain, self.upsample = n_out, gain, upsample
        self.id_path = Convolution(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.res_path = nn.Sequential(
            OrderedDict(
                (f"conv_{i}", Convolution(widths[i - 1], widths[i], kernel)) for i, kernel in enumerate(kernels, 1)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        conv_1, conv_2, conv_3, conv_4 = self.res_path
        identity, residual = self.id_path(x), F.relu_(conv_1(F.relu(x)))
        if self.upsample:  # 1x1 convolutions and ReLU commute with nearest up-sampling: a quarter of the work
            identity, residual = _double(identity), _double(residual)
        residual = F.relu_(conv_3(F.relu_(conv_2(residual))))
        return conv_4(residual, self.gain).add_(identity)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _in_strips(layers: nn.Module, x: Tensor) -> Tensor:
    """`layers(x)` of x [B,C,P,Q], in strips of rows of one picture where nothing is differentiated and maps are large.

    A strip sees as many rows beyond its own as the convolutions reach, so that zeros pad the true border only.

    Args:
        layers: a group of blocks with or without the convolution before or after it.
    """
    height, width = x.shape[2:]
    block = next(module for module in layers.modules() if isinstance(module, Block))
    up = 2 if block.upsample else 1  # the maps within have P * up rows
    down = 2 if any(isinstance(module, nn.MaxPool2d) for module in layers.modules()) else 1
    if torch.is_grad_enabled() or block.n_out * height * width * up**2 <= _LARGE:
        return layers(x)
    reach = sum(conv.w.shape[-1] // 2 for conv in layers.modules() if isinstance(conv, Convolution))
    halo = -(-reach // (up * down)) * down  # in rows of x, a multiple of the pooling window
    rows = (_STRIP_ON_GPU if x.is_cuda else _STRIP) // up
    result: Tensor | None = None
    for picture in range(len(x)):
        for start in range(0, height, rows):
            low = max(start - halo, 0)
            strip = layers(x[picture : picture + 1, :, low : start + rows + halo])
            if result is None:
                size = (len(x), strip.shape[1], height * up // down, strip.shape[3])
                result = torch.empty(size, dtype=strip.dtype, device=x.device, memory_format=torch.channels_last)
            target = result[picture, :, start * up // down : (start + rows) * up // down]
            first = (start - low) * up // down
            target.copy_(strip[0, :, first : first + target.shape[1]])
            del strip  # before the next one is made
    return cast(Tensor, result)


def _output(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Convolution(n_in, n_out, 1)))


class Encoder(nn.Module):
    """Mapped picture [B,3,P,Q] -> token logits [B,V,h,w]."""

    def __init__(self, vocab_size: int, n_hid: int, blocks_per_group: int, group_count: int) -> None:
        super().__init__()
        gain = 1 / (group_count * blocks_per_group) ** 2
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=Convolution(3, n_hid, 7))
        width = n_hid
        for group in range(1, group_count + 1):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(1, blocks_per_group + 1):
                n_out = n_hid * 2 ** (group - 1)
                blocks[f"block_{block}"] = Block(width, n_out, (3, 3, 3, 1), gain)
                width = n_out
            if group < group_count:
                blocks["pool"] = nn.MaxPool2d(2)
            layers[f"group_{group}"] = nn.Sequential(blocks)
        layers["output"] = _output(width, vocab_size)
        self.blocks = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[-1](self._features(x))

    def tokens(self, x: Tensor) -> Tensor:
        """The token with the highest logit, int64 [B,h,w], a few rows of logits at a time."""
        x = self._features(x)  # [B,8 n_hid,h,w]
        rows = max(1, _LOGITS_AT_ONCE // (len(self.output.b) * len(x) * x.shape[3]))
        return torch.cat([self.blocks[-1](part).argmax(1) for part in x.split(rows, 2)], 1)

    def _features(self, x: Tensor) -> Tensor:
        x = _in_strips(self.blocks[:2], x)  # the input convolution gives maps as large as the first group's
        for group in list(self.blocks)[2:-1]:
            x = _in_strips(group, x)
        return x

    @property
    def output(self) -> Convolution:
        """The convolution that gives the token logits."""
        return cast(Convolution, cast(nn.Sequential, self.blocks[-1])[-1])


class Decoder(nn.Module):
    """Tokens -> [B,6,8h,8w]: three logit means and three log scales of a logit-Laplace distribution."""

    def __init__(self, vocab_size: int, n_hid: int, n_init: int, blocks_per_group: int, group_count: int) -> None:
        super().__init__()
        gain = 1 / (group_count * blocks_per_group) ** 2
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=Convolution(vocab_size, n_init, 1))
        width = n_init
        for group in range(1, group_count + 1):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(1, blocks_per_group + 1):
                n_out = n_hid * 2 ** (group_count - group)
                blocks[f"block_{block}"] = Block(width, n_out, (1, 3, 3, 3), gain, upsample=group > 1 and block == 1)
                width = n_out
            layers[f"group_{group}"] = nn.Sequential(blocks)
        layers["output"] = _output(width, 6)
        self.blocks = nn.Sequential(layers)

    def forward(self, probabilities: Tensor) -> Tensor:
        """Decode a mixture of tokens, [B,V,h,w] summing to 1 over V (one-hot: exact tokens)."""
        return self._decode(self.input(probabilities))

    def lookup(self, code: Tensor) -> Tensor:
        """Decode tokens, int64 [B,h,w]: the one-hot convolution as a table lookup.

        Or means of the table's rows, float [B,h,w,n_init], which `forward` would make of mixtures at greater length.
        """
        rows = code if code.is_floating_point() else F.embedding(code, self.embeddings)
        x = rows + self.input.b  # [B,h,w,n_init]
        return self._decode(x.permute(0, 3, 1, 2))  # channels last in memory

    def _decode(self, x: Tensor) -> Tensor:
        for group in list(self.blocks)[1:-2]:
            x = _in_strips(group, x)
        return _in_strips(self.blocks[-2:], x)  # with the output convolution, so that six channels remain of the group

    @property
    def embeddings(self) -> Tensor:
        """The table of the tokens' embeddings, [V,n_init], without the bias that all have."""
        return self.input.w[:, :, 0, 0].t()

    @property
    def input(self) -> Convolution:
        """The convolution whose columns are the embeddings of the tokens."""
        return cast(Convolution, self.blocks[0])


class DVAE(nn.Module):
    """DALL-E's discrete VAE. The defaults are the size of the published weights.

    Args:
        vocab_size: number of tokens V.
        n_hid: width of the encoder at full resolution; it doubles with each group. A multiple of 4.
        n_init: width of a token's embedding in the decoder.
        blocks_per_group: residual blocks per group.
        group_count: resolutions; the stride of the tokens is 2 ** (group_count - 1).

    Source: Ramesh et al. 2021 (arXiv 2102.12092), appendix A.
    """

    def __init__(
        self,
        vocab_size: int = 8192,
        n_hid: int = 256,
        n_init: int = 128,
        blocks_per_group: int = 2,
        group_count: int = 4,
    ) -> None:
        super().__init__()
        self.vocab_size, self.n_hid, self.n_init = vocab_size, n_hid, n_init
        self.blocks_per_group, self.group_count = blocks_per_group, group_count
        self.sha256 = ""  # of the weights; filled in by the store
        self.encoder = Encoder(vocab_size, n_hid, blocks_per_group, group_count)
        self.decoder = Decoder(vocab_size, n_hid, n_init, blocks_per_group, group_count)

    @property
    def weight(self) -> Tensor:
        """A weight that `lower_precision` converts: tells device and dtype."""
        first = self.encoder.blocks[0] if hasattr(self, "encoder") else cast(nn.Sequential, self.decoder.blocks[-1])[-1]
        return cast(Convolution, first).w

    @property
    def precision(self) -> str:
        """Of most of its convolutions: `fp64`, `fp32`, `bf16` or `fp16`."""
        kind = "bf" if self.weight.dtype == torch.bfloat16 else "fp"
        return f"{kind}{8 * self.weight.element_size()}"

    def keep(self, half: Literal["encoder", "decoder"]) -> "DVAE":
        """Drop the weights of the other half, as a stage can that only encodes or only decodes; returns itself."""
        delattr(self, {"encoder": "decoder", "decoder": "encoder"}[half])
        return self

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Compute in float16 or bfloat16, except for the encoder's last and the decoder's first convolution.

        The weights are converted once, here; save the tokenizer before. Tokens near a tie change (bench/tokenizer.md).

        Source: the published dVAE on GPUs, in float16.
        """
        for name, module in self.named_modules():
            if isinstance(module, Convolution) and name not in ("encoder.blocks.output.conv", "decoder.blocks.input"):
                module.to(dtype)

    def mixture(self, temperature: float | None) -> tuple[Tensor, float] | None:
        """What a latent prior needs to give means of embeddings for tokens, see `LatentPrior.see`; of None, None."""
        return None if temperature is None else (self.decoder.embeddings, temperature)

    def encode_logits(self, mapped: Tensor) -> Tensor:
        """Token logits [B,V,P//8,Q//8] of a mapped picture [B,3,P,Q] in 0.1..0.9; float32 in lowered precision."""
        return self.encoder(mapped)

    def encode(self, rgb: Tensor) -> Tensor:
        """Tokens int64 [B,P//8,Q//8] of a picture [B,3,P,Q] in 0..1."""
        picture = map_pixels(rgb).contiguous(memory_format=torch.channels_last)
        return self.encoder.tokens(picture.to(self.weight.dtype))

    def decode_logits(self, code: Tensor) -> Tensor:
        """Decoder output [B,6,8h,8w] of what `decode` takes; float32 in lowered precision."""
        return self.decoder.lookup(code).to(self.decoder.input.w.dtype)

    def decode(self, code: Tensor) -> Tensor:
        """Picture [B,3,8h,8w] in 0..1; float32, or float64 of a float64 tokenizer.

        Args:
            code: tokens int64 [B,h,w], or means of their embeddings (`Decoder.embeddings`), float [B,h,w,n_init].
        """
        means = self.decode_logits(code)[:, :3]
        return unmap_pixels(torch.sigmoid(means.to(torch.promote_types(means.dtype, torch.float32))))
