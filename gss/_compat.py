"""Repairs of third-party imports, each with the condition under which it can go."""

import contextlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch


def _declare_torchvision_operators() -> torch.library.Library | None:
    """Declare the operators whose absence stops `import torchvision`, and with it `import timm`.

    torchvision 0.28.0 from the default index is a CUDA build: next to a CPU-only torch its compiled part does not
    load, and its Python part then refuses to import because `nms` is unknown. timm needs only the Python part.
    Can go when `pip install torch torchvision` gives a pair that imports without a GPU.
    """
    found = importlib.util.find_spec("torchvision")
    folders = found.submodule_search_locations if found is not None else None
    for compiled in Path(folders[0]).glob("_C*.so") if folders else ():
        with contextlib.suppress(OSError):
            torch.ops.load_library(compiled)  # as torchvision does: an operator may be declared only once
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # its declarations live as long as the object


# Here, so that whoever has imported a part of this package that builds models can import timm, too.
_TORCHVISION = _declare_torchvision_operators() if torch.version.cuda is None else None


def import_timm() -> ModuleType:
    """timm, imported at the first call because it takes seconds."""
    import timm

    return timm
