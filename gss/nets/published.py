"""timm models with the arithmetic of the published GSS, under timm's parameter names, and the published names of these.

Source: the Swin, ResNet and HRNet backbones of the published configurations, compared with timm 1.0.31; MSeg's HRNet.
"""

import re
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gss.nets.tensors import resize
from gss.nets.window import WindowAttention


def publish_swin(features: nn.Module) -> bool:
    """Replace the blocks of a timm Swin Transformer in place; returns whether it is one.

    timm rolls a map before it pads it and shrinks windows on small maps; the published model pads first and keeps
    its windows, which changes values near the lower and right border.
    """
    from timm.models.swin_transformer import SwinTransformerBlock

    found = False
    for parent in list(features.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SwinTransformerBlock):
                setattr(parent, name, _SwinBlock(child))
                found = True
    return found


def publish_hrnet(features: nn.Module) -> None:
    """Replace the fusions of a timm HRNet in place: bilinear instead of nearest, and any image size."""
    from timm.models.hrnet import HighResolutionModule

    for parent in list(features.modules()):
        for name, child in parent.named_children():
            if isinstance(child, HighResolutionModule):
                setattr(parent, name, _HighResolutionModule(child))


def publish_hrnet_of_mseg(network: nn.Module) -> None:
    """Change a network with a timm HRNet in place to what MSeg trained: the fusions resize a map once, where mmseg
    doubles it first, which differs for odd sizes; and BatchNorm has momentum 0.01.
    """
    for parent in list(network.modules()):
        if isinstance(parent, _BatchNorm):
            parent.momentum = 0.01
        for name, child in parent.named_children():
            if isinstance(child, nn.Upsample):
                setattr(parent, name, nn.Identity())


class _SwinBlock(nn.Module):
    """A timm Swin block on [B, H, W, C] with this project's window attention; its bias table starts at zero."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        window, shift = block.window_size[0], block.shift_size[0]
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.attn = WindowAttention(block.dim, block.attn.num_heads, window=window, shift=shift)
        self.attn.qkv, self.attn.proj = block.attn.qkv, block.attn.proj
        nn.init.zeros_(self.attn.relative_position_bias_table)
        self.drop_path1, self.drop_path2 = block.drop_path1, block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class _HighResolutionModule(nn.Module):
    """A timm HRNet module: parallel branches, then every output is the sum of all branches at its size."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.branches, self.fuse_layers, self.fuse_act = module.branches, module.fuse_layers, module.fuse_act
        for layer in self.fuse_layers.modules():
            if isinstance(layer, nn.Upsample):
                layer.mode, layer.align_corners = "bilinear", False

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, layers in zip(maps, self.fuse_layers, strict=False):
            size = (target.shape[2], target.shape[3])
            parts = [resize(layer(x), size) for layer, x in zip(layers, maps, strict=True)]
            fused.append(self.fuse_act(sum(parts[1:], parts[0])))
        return fused


def published_name(architecture: str, name: str) -> str:
    """Name in an mmseg backbone of a tensor of a timm feature extractor.

    Args:
        architecture: timm's name of the model. Swin, ResNet and HRNet have counterparts in mmseg with names of their
            own; any other model is found there inside `TIMMBackbone`.
        name: as in the feature extractor's state dict, e.g. `layers_1.downsample.norm.weight`.
    """
    if architecture.startswith("swin_"):
        name = re.sub(r"^layers_(\d)\.downsample", lambda level: f"stages.{int(level[1]) - 1}.downsample", name)
        name = re.sub(r"^layers_(\d)", r"stages.\1", name).replace("patch_embed.proj.", "patch_embed.projection.")
        name = name.replace(".attn.", ".attn.w_msa.")
        return name.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")
    if re.fullmatch(r"resnet(50|101|152)[cd]", architecture):  # a stem of three convolutions
        return re.sub(r"^bn1\.", "stem.7.", re.sub(r"^conv1\.", "stem.", name))
    if re.fullmatch(r"resnet(18|34|50|101|152)|hrnet_\w+", architecture):
        return name
    return f"timm_model.{name}"


def is_reordered(architecture: str, name: str) -> bool:
    """Whether the published tensor has its last dimension in another order: the patch merging of Swin."""
    return architecture.startswith("swin_") and ".downsample." in name


def from_published_order(value: Tensor) -> Tensor:
    """Last dimension of a patch merging, 4C channels, from c * 4 + ky * 2 + kx to timm's (kx * 2 + ky) * C + c."""
    return value.unflatten(-1, (-1, 2, 2)).movedim((-1, -2), (-3, -2)).flatten(-3).contiguous()


def to_published_order(value: Tensor) -> Tensor:
    """Inverse of `from_published_order`."""
    return value.unflatten(-1, (2, 2, -1)).movedim((-3, -2), (-1, -2)).flatten(-3).contiguous()
