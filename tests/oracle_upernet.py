"""CAE's UPerNet as it is published, written out plainly on our modules: whole maps, resized and concatenated."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gss.data.device import finish
from gss.evaluate.inference import Inference, windows
from gss.nets.tensors import resize
from gss.recipes.pixel.heads import UPerNetHead
from gss.recipes.pixel.learner import PixelLearner
from gss.recipes.pixel.network import PixelNetwork


class PlainUPerNetHead(UPerNetHead):
    """The same parameters, and the published forward pass."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, coarsest = maps
        laterals = [layer(x) for layer, x in zip(self.lateral_convs, finer, strict=True)]
        pooled = [resize(pool(coarsest), size_of(coarsest)) for pool in self.psp_modules]
        laterals.append(self.bottleneck(torch.cat([coarsest, *pooled], 1)))
        for level in (3, 2, 1):
            laterals[level - 1] = laterals[level - 1] + resize(laterals[level], size_of(laterals[level - 1]))
        outputs = [layer(x) for layer, x in zip(self.fpn_convs, laterals[:3], strict=True)]
        outputs.append(laterals[3])
        joined = torch.cat([resize(x, size_of(outputs[0])) for x in outputs], 1)
        return self.conv_seg(self.dropout(self.fpn_bottleneck(joined)))


def size_of(x: Tensor) -> tuple[int, int]:
    return (x.shape[2], x.shape[3])


def plain(network: PixelNetwork) -> PixelNetwork:
    """Give a network with UPerNet on a BEiT timm's own attention and the plain forward pass of the head, in place."""
    from timm.models.beit import Attention

    for module in network.backbone.modules():
        if isinstance(module, Attention):
            module.__class__ = Attention
            module.relative_position_index = module.relative_position_index.clone()
    network.head.__class__ = PlainUPerNetHead
    return network


def plain_losses(learner: PixelLearner, batch: dict[str, Tensor]) -> Tensor:
    """Sums of the cross-entropies of both heads [2], from scores of the label's size."""
    network, label = learner.saved, batch["label"].long()
    backbone = network.backbone
    image = finish(batch["image"], batch["valid"], batch["photometric"], backbone.mean, backbone.std)
    maps = backbone(image)
    assert network.auxiliary is not None
    sums = []
    for logits in (network.head(maps), network.auxiliary([maps[2]])):
        full = F.interpolate(logits, label.shape[1:], mode="bilinear", align_corners=False)
        sums.append(F.cross_entropy(full, label, ignore_index=255, reduction="sum"))
    return torch.stack(sums)


@torch.no_grad()
def plain_prediction(network: PixelNetwork, image: np.ndarray, protocol: Inference) -> Tensor:
    """Class ids [H, W] of an image uint8 [H, W, 3]: scores of windows added up in a map of the whole image."""
    pixels = network.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    height, width = pixels.shape[2:]
    total = counts = None
    for rows, columns in windows(height, width, protocol.crop, protocol.stride):
        part = pixels[:, :, rows, columns]
        logits = network.head(network.backbone(part))
        full = F.interpolate(logits, part.shape[2:], mode="bilinear", align_corners=False)
        if total is None or counts is None:
            total, counts = full.new_zeros(1, full.shape[1], height, width), full.new_zeros(1, 1, height, width)
        total[:, :, rows, columns] += full
        counts[:, :, rows, columns] += 1
    assert total is not None
    return (total / counts).softmax(1).argmax(1)[0]
