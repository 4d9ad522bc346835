"""UPerNet as it is defined, with every map resized and concatenated: what the thrifty formulation is compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gss.nets.tensors import resize
from gss.recipes.pixel.heads import UPerNetHead


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
