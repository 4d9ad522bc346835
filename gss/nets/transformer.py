"""Plain transformers as image encoders: four maps from four blocks, by the pyramid that BEiT and CAE are trained with.

Letters: B batch, C width of the transformer, P side of a patch, H W size of the image, h w = H / P, W / P.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss._compat import import_timm
from gss.errors import ConfigError
from gss.nets.attention import bias_without_map
from gss.nets.encoder import LEVELS, STRIDES, Backbone, cropped, level_sizes
from gss.nets.norm import BatchNorm2d
from gss.nets.positions import sine
from gss.nets.pretraining import encoder_tensors
from gss.nets.tensors import resize

_EMBEDDING = ("cls_token", "dist_token", "reg_token", "mask_token", "pos_embed", "patch_embed", "norm_pre")


class TransformerBackbone(Backbone):
    """A plain transformer of timm, whose blocks all have maps of one stride, and the pyramid behind it.

    Args:
        model: the transformer without norm and classifier behind its last block.
        blocks: the four blocks, from 0, whose tokens become the maps of stride 4, 8, 16 and 32, in this order; tokens
            beside those of the image are left out, and no norm is applied.
        patch: P.
        input_size: (height, width) of the only images it takes; None: any.
        frozen_levels: the blocks up to that of this level, and what lies before them, are not trained and stay in eval
            mode; 4: the whole transformer. The pyramid is always trained.
        norm_eval: see `Backbone`.

    Source: the segmentation networks of BEiT and CAE.
    """

    def __init__(
        self,
        model: Any,
        blocks: Sequence[int],
        *,
        patch: int,
        input_size: tuple[int, int] | None,
        frozen_levels: int = 0,
        norm_eval: bool = False,
    ) -> None:
        bias_without_map(model)
        _place(model)
        super().__init__(model, norm_eval=norm_eval)
        self._blocks, self.input_size = tuple(blocks), input_size
        self.num_layers = len(model.blocks) + 1
        self.channels = (model.embed_dim,) * LEVELS
        self.pyramid = _pyramid(model.embed_dim, patch)
        coarsest = max(patch, STRIDES[-1])  # of patches of 14 pixels an even number instead
        self._multiple = 1 if input_size else coarsest if coarsest % patch == 0 else 2 * patch
        self.freeze([model] if frozen_levels == LEVELS else _first_blocks(model, blocks, frozen_levels))
        for parameter in model.parameters(recurse=False) if frozen_levels else ():
            parameter.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Backbone`.

        Raises:
            ConfigError: an image of another size than `input_size`.
        """
        height, width = image.shape[-2:]
        if self.input_size and self.input_size != (height, width):
            raise self._wrong_size(height, width, *self.input_size)
        rows, columns = height + -height % self._multiple, width + -width % self._multiple
        image = F.pad(image, (0, columns - width, 0, rows - height))
        found = self.features.forward_intermediates(  # type: ignore[operator]
            image, indices=self._blocks, norm=False, intermediates_only=True
        )  # four [B, C, h, w]
        maps = [
            resize(level(x.contiguous(memory_format=torch.channels_last)), size)
            for level, x, size in zip(self.pyramid, found, level_sizes(rows, columns), strict=True)
        ]
        return cropped(maps, level_sizes(height, width))

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """See `Backbone`; which files and names, `encoder_tensors`."""
        features: Any = self.features
        grid = getattr(features.patch_embed, "grid_size", (0, 0))  # where there is none, there are no tables either
        tensors, self.pretrained = encoder_tensors(weights, features.state_dict(), grid)
        features.load_state_dict(tensors)

    def layer_of(self, name: str) -> int:
        """0: before the blocks; i + 1: block i; what follows them, as the pyramid does: as deep as the head."""
        _, _, own = name.partition("features.")
        if own.startswith(_EMBEDDING):
            return 0
        return int(own.split(".")[1]) + 1 if own.startswith("blocks.") else self.num_layers

    def fit(self, image: Tensor) -> Tensor:
        """See `Backbone`."""
        if self.input_size is None:
            return image
        (height, width), (rows, columns) = image.shape[-2:], self.input_size
        if height > rows or width > columns:
            raise self._wrong_size(height, width, rows, columns)
        return F.pad(image, (0, columns - width, 0, rows - height))

    def _wrong_size(self, height: int, width: int, rows: int, columns: int) -> ConfigError:
        return ConfigError(
            f"{self.architecture} is built for images of {rows} x {columns} (height x width), this one has "
            f"{height} x {width}",
            todo=f"train with `augment.crop: [{rows}, {columns}]` and evaluate in windows, `evaluation: {{mode: slide, "
            f"crop: [{rows}, {columns}], stride: ...}}`, or set `options.img_size` of the backbone",
        )


def build_transformer(name: str, keywords: dict[str, Any], **settings: Any) -> TransformerBackbone:
    """A plain transformer of timm as an encoder.

    Args:
        keywords: of timm's constructor, and `out_indices`: the four blocks that give the maps; by default those at a
            third, a half, two thirds and the end, as published with BEiT and CAE.
        settings: `frozen_levels` and `norm_eval` of `TransformerBackbone`.

    Raises:
        ConfigError: there are no such blocks, or the size of images is no multiple of the patch.
        TypeError, RuntimeError, AssertionError: timm's, of keywords that it does not take.
    """
    timm = import_timm()
    chosen = keywords.get("out_indices")
    given = {key: value for key, value in keywords.items() if key != "out_indices"}
    try:
        model = timm.create_model(name, num_classes=0, **{"dynamic_img_size": True, **given})
    except TypeError:  # tables of positions that are for one size of images, as in BEiT, or a keyword nobody knows
        model = timm.create_model(name, num_classes=0, **given)
    parts = ("blocks", "patch_embed", "embed_dim", "forward_intermediates", "prune_intermediate_layers")
    if not all(hasattr(model, part) for part in parts):
        raise ConfigError(
            f"{name} is not built like the transformers that can be encoders",
            todo="choose a ViT, DeiT, BEiT, DINO or EVA of timm, or a backbone with maps at strides 4, 8, 16 and 32",
        )
    patch, size = model.feature_info[0]["reduction"], model.patch_embed.img_size
    blocks = _four_blocks(name, len(model.blocks), chosen)
    if size and any(side % patch for side in size):
        raise ConfigError(f"`img_size` {list(size)} of {name} is no multiple of its patch of {patch} pixels")
    model.prune_intermediate_layers(blocks, prune_norm=True, prune_head=True)
    fixed = None if getattr(model, "dynamic_img_size", False) else tuple(size)
    return TransformerBackbone(model, blocks, patch=patch, input_size=fixed, **settings)


def _four_blocks(name: str, depth: int, chosen: Any) -> list[int]:
    if chosen is None:
        chosen = [round(depth * share) - 1 for share in (1 / 3, 1 / 2, 2 / 3, 1)]
    blocks = list(chosen) if isinstance(chosen, Sequence) else [chosen]
    if len(blocks) != LEVELS or blocks != sorted({*blocks} & {*range(depth)}):
        raise ConfigError(
            f"the maps of {name} come from four ascending blocks of 0 to {depth - 1}, not from {blocks}",
            todo="choose them with `options.out_indices`",
        )
    return blocks


def _pyramid(width: int, patch: int) -> nn.ModuleList:
    """What makes a map of stride 4, 8, 16 or 32 of one of stride P; for patches of 14 pixels those of 16."""
    octave = round(math.log2(patch))
    return nn.ModuleList(_scaled(width, octave - round(math.log2(stride))) for stride in STRIDES)


def _scaled(width: int, octaves: int) -> nn.Module:
    """[B, C, h, w] -> [B, C, 2^octaves h, 2^octaves w]."""
    if octaves < 0:
        return nn.MaxPool2d(2**-octaves)
    layers: list[nn.Module] = []
    for _ in range(octaves):
        layers += [*([BatchNorm2d(width), nn.GELU()] if layers else []), nn.ConvTranspose2d(width, width, 2, 2)]
    return nn.Sequential(*layers)


def _place(model: Any) -> None:
    """Absolute positions of a BEiT are CAE's: the fixed sine and cosine of rows and columns."""
    from timm.models.beit import Beit

    if isinstance(model, Beit) and model.pos_embed is not None:
        with torch.no_grad():
            model.pos_embed.copy_(sine(model.patch_embed.grid_size, model.embed_dim))
        model.pos_embed.requires_grad_(False)


def _first_blocks(model: Any, blocks: Sequence[int], frozen_levels: int) -> list[nn.Module]:
    """The blocks up to that of the last frozen level, and all that is no block."""
    if frozen_levels == 0:
        return []
    beside = [module for name, module in model.named_children() if name != "blocks"]
    return [*beside, *model.blocks[: blocks[frozen_levels - 1] + 1]]
