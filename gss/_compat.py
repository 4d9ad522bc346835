"""Repairs of third-party imports, each with the condition under which it can go."""

import functools
from types import ModuleType

import torch


@functools.cache
def _declare_torchvision_operators() -> torch.library.Library | None:
    """Declare the operators whose absence stops `import torchvision` beside a CPU-only torch.

    torchvision 0.28.0 from the default index is a CUDA build: next to a CPU-only torch its compiled part does not
    load, and its Python part then refuses to import because `nms` is unknown. timm needs only the Python part.
    Can go when `pip install torch torchvision` gives a pair that imports without a GPU.
    """
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # its declarations live as long as the object


def import_timm() -> ModuleType:
    """timm, importable also beside a CPU-only torch; imported at the first call because it takes seconds."""
    _declare_torchvision_operators()
    import timm

    return timm
