"""Image encoders: any timm model with feature maps at strides 4, 8, 16 and 32, and plain transformers.

Letters: B batch, H W size of the image, C_i channels of level i (0..3).
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gss._compat import import_timm
from gss.errors import CheckpointError, ConfigError
from gss.nets.encoder import IMAGENET, LEVELS, STRIDES, Backbone, cropped, level_sizes
from gss.nets.published import (
    from_published_order,
    is_reordered,
    publish_hrnet,
    publish_swin,
    published_name,
)
from gss.nets.transformer import build_transformer

_FAMILY_OPTIONS: dict[str, dict[str, Any]] = {  # prefix of the timm name -> what else the model must be built with
    "swin_": {"strict_img_size": False, "always_partition": True, "drop_path_rate": 0.0},  # its own default is 0.1
    "hrnet_": {"feature_location": ""},
}


def build_backbone(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    normalisation: Literal["timm", "imagenet"] = "timm",
    drop_path: float = 0.0,
    frozen_levels: int = 0,
    norm_eval: bool = False,
    output_stride: int = 32,
) -> Backbone:
    """A timm model as a backbone.

    Args:
        name: timm's name of a model with levels at strides 4, 8, 16, 32, or of a plain transformer.
        options: keywords for timm's constructor, e.g. `window_size`; of a transformer also `out_indices`.
        weights: pretrained tensors under timm's names or under those of the mmseg backbone, in any floating type;
            of a transformer also a file of its pre-training (`gss.nets.pretraining`). Tables of positions for another
            size are resized, what the features do not need is left out.
            None: random.
        normalisation: of images: what timm says the model was made for, or ImageNet's mean and deviation.
        drop_path: probability of skipping a residual branch (stochastic depth).
        frozen_levels, norm_eval: see `LevelBackbone` and `gss.nets.transformer.TransformerBackbone`.
        output_stride: 8 or 16 dilates the last levels instead of shrinking them further (ResNets).

    Raises:
        ConfigError: unknown name, unknown options, or no such levels.
        CheckpointError: the weights lack a tensor, or have another shape.
    """
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise ConfigError(f"timm has no model {name!r}", todo=f"choose another name, e.g. {', '.join(near)}")
    keywords = dict(next((extra for prefix, extra in _FAMILY_OPTIONS.items() if name.startswith(prefix)), {}))
    if drop_path:
        keywords["drop_path_rate"] = drop_path
    if output_stride != 32:
        keywords["output_stride"] = output_stride
    keywords |= options or {}
    strides, settings = _strides_of(name), {"frozen_levels": frozen_levels, "norm_eval": norm_eval}
    backbone: Backbone
    try:
        if len(set(strides)) == 1:
            backbone = build_transformer(name, keywords, **settings)
        else:
            backbone = _build_levels(name, strides, keywords, **settings)
    except (TypeError, NotImplementedError, KeyError, AssertionError) as error:
        raise ConfigError(f"timm cannot build {name} with {keywords}: {error}") from error
    if normalisation == "imagenet":
        backbone.mean, backbone.std = IMAGENET
    if weights is not None:
        backbone.load_pretrained(weights)
    return backbone


def _build_levels(name: str, strides: list[int], keywords: dict[str, Any], **settings: Any) -> "LevelBackbone":
    if not {*STRIDES} <= {*strides}:
        raise ConfigError(
            f"{name} has no feature maps at strides 4, 8, 16 and 32, but at {strides or 'none'}",
            todo="choose a backbone with a pyramid, e.g. a ResNet, an EfficientNet, a ConvNeXt or a Swin, or a plain "
            "transformer",
        )
    levels = tuple(strides.index(stride) for stride in STRIDES)
    features = import_timm().create_model(name, features_only=True, out_indices=levels, **keywords)
    if features.feature_info.reduction()[0] != 4:
        raise ConfigError(
            f"with {keywords} the levels of {name} have strides {features.feature_info.reduction()}",
            todo="choose options that keep the finest level at stride 4",
        )
    return LevelBackbone(features, **settings)


class LevelBackbone(Backbone):
    """A timm feature extractor with four levels.

    Args:
        features: what `timm.create_model(..., features_only=True)` returned for four levels.
        frozen_levels: leading levels that are not trained and stay in eval mode; 4: everything.
        norm_eval: see `Backbone`.

    Note:
        Swin and HRNet models are changed to the arithmetic of the published GSS (`gss.nets.published`).
    """

    num_layers = LEVELS

    def __init__(self, features: Any, *, frozen_levels: int = 0, norm_eval: bool = False) -> None:
        publish_hrnet(features)
        super().__init__(features, norm_eval=norm_eval)
        info = features.feature_info
        self._level_modules: list[str] = info.module_name()
        self.channels: tuple[int, ...] = tuple(info.channels())
        self._strides: tuple[int, ...] = tuple(info.reduction())
        # timm's Swin gives channels-last maps without the norms that the published one has.
        norms = [nn.LayerNorm(channels) for channels in self.channels] if publish_swin(features) else []
        self.norms = nn.ModuleList(norms)
        self.size_multiple = 4 if norms else _size_multiple(features, self._strides)
        self.freeze([*_leading_modules(features, self._level_modules, frozen_levels), *norms[:frozen_levels]])

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Backbone`."""
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % self.size_multiple, 0, -height % self.size_multiple))
        maps = self.features(image.contiguous(memory_format=torch.channels_last))
        if self.norms:
            return [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.norms, maps, strict=True)]
        return cropped(maps, level_sizes(height, width, self._strides))

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """See `Backbone`."""
        _load(self.features, weights, self.architecture)

    def layer_of(self, name: str) -> int:
        """Level 0..3 of a parameter; the stem's are of level 0, new norms of the outputs of none: 4."""
        if not name.startswith("features."):
            return self.num_layers
        modules = dict(self.features.named_modules())
        levels = [_own_name(level, modules) for level in self._level_modules]
        if None in levels:
            raise ConfigError(
                f"`layer_decay`: the levels of {self.architecture} cannot be told apart", todo="train without it"
            )
        order = [own for own, _ in self.features.named_parameters()]
        ends = [max(i for i, own in enumerate(order) if own.startswith(f"{level}.")) for level in levels]
        return sum(end < order.index(name.removeprefix("features.")) for end in ends)


def _strides_of(name: str) -> list[int]:
    """Strides of the maps that timm's extractor of features of a model gives; none, where it has none."""
    timm = import_timm()
    try:
        with torch.device("meta"):
            return list(timm.create_model(name, features_only=True).feature_info.reduction())
    except (ValueError, RuntimeError, TypeError, AttributeError, NotImplementedError):
        return []


@torch.no_grad()
def _size_multiple(features: nn.Module, strides: Sequence[int]) -> int:
    """1 where the levels of any image have its size divided by the stride, rounded up; 32 where it must be padded."""
    side = 37
    device = next(features.parameters()).device
    try:
        maps = features.eval()(torch.zeros(1, 3, side, side, device=device))
    except (RuntimeError, AssertionError):
        return 32
    return 1 if [tuple(x.shape[2:]) for x in maps] == level_sizes(side, side, strides) else 32


def _leading_modules(features: nn.Module, level_modules: Sequence[str], frozen_levels: int) -> list[nn.Module]:
    """Every module that runs before the end of the last frozen level, from timm's order of registration."""
    if frozen_levels == 0:
        return []
    if frozen_levels == LEVELS:
        return [features]
    end = _own_name(level_modules[frozen_levels - 1], dict(features.named_modules()))
    if end is None:
        raise ConfigError(
            f"frozen_levels {frozen_levels}: this backbone's levels cannot be told apart", todo=f"use 0 or {LEVELS}"
        )
    names = [name for name, _ in features.named_modules()]
    last = max(i for i, name in enumerate(names) if f"{name}.".startswith(f"{end}."))
    rest = names[last + 1 :]
    complete = [name for name in names[1 : last + 1] if not any(other.startswith(f"{name}.") for other in rest)]
    return [features.get_submodule(name) for name in complete]


def _own_name(name: str, own: Mapping[str, object]) -> str | None:
    """Name within a feature extractor, which may have flattened `layers.0` to `layers_0`."""
    flattened = re.sub(r"^(\w+?)\.(\d+)", r"\1_\2", name)
    return next((candidate for candidate in (name, flattened) if candidate in own), None)


def _load(features: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    own = features.state_dict()
    found = _under_own_names(weights, own, name)
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}  # old files lack them
    found = counters | found
    missing = sorted(set(own) - set(found))
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(own)} tensors of {name} are missing in the pretrained weights: "
            f"{', '.join(missing[:5])}",
            todo=f"use a file with timm's or mmseg's parameter names for {name}",
        )
    for key, value in found.items():
        if key.endswith("relative_position_bias_table"):
            found[key] = _resized_table(value, own[key].shape)
    wrong = [key for key in own if own[key].shape != found[key].shape]
    if wrong:
        raise CheckpointError(
            f"pretrained weights of another shape than {name} has: {wrong[0]} is {list(found[wrong[0]].shape)}, "
            f"not {list(own[wrong[0]].shape)}",
            todo="compare `name` and `options` of the backbone with what the file was made for",
        )
    features.load_state_dict(found)


def _under_own_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The pretrained tensors a feature extractor has, whether they carry timm's names or mmseg's.

    Classifiers, attention masks and position indices of the file have no place in it and are left out.
    """
    published = {published_name(name, key): key for key in own}
    given = {key.removeprefix("module.").removeprefix("backbone."): value for key, value in weights.items()}
    # The Swin authors' files, like mmseg's, merge patches at the end of a stage; timm does at the start of the next.
    is_original = "layers.0.downsample.reduction.weight" in given
    found = {}
    for key, value in given.items():
        if is_original:
            key = re.sub(r"^layers\.(\d)\.downsample", lambda level: f"layers.{int(level[1]) + 1}.downsample", key)
        timm_key = _own_name(key, own)
        if timm_key is not None:
            found[timm_key] = value
        elif key in published:
            key = published[key]
            found[key] = from_published_order(value) if is_reordered(name, key) else value
    return found


def _resized_table(table: Tensor, shape: torch.Size) -> Tensor:
    """A relative position bias table [(2M - 1)^2, heads] for windows of another side, as mmseg resizes it."""
    if table.shape == shape or table.shape[1] != shape[1]:
        return table
    old, new = (math.isqrt(rows) for rows in (len(table), shape[0]))
    grid = table.float().t().reshape(1, -1, old, old)  # [1, heads, 2M - 1, 2M - 1]
    return F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False).reshape(-1, new * new).t()
